//! `kvd` with a bug planted in it (`world/src/planted.rs`), for the chaos harness's selftest.
//!
//! It is started as `kvd` is, and with `--bug NAME`; or with the name in the environment as `PLANTED_BUG`, which a
//! harness that starts `kvd` with arguments of its own hands on. It says on stderr which bug it has, and opens only
//! directories that a build like it has made.

#[allow(dead_code, reason = "its own `main` is not run")]
#[path = "../main.rs"]
mod kvd;

use std::ffi::OsString;
use std::process::ExitCode;

use trefoil_server::stderr;
use trefoil_world::planted::{self, Bug};

const EXIT_USAGE: u8 = 2;
const FLAG: &str = "--bug";
const VARIABLE: &str = "PLANTED_BUG";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    match chosen(&mut arguments) {
        Ok(bug) => {
            stderr::say(format_args!("{}", planted::plant(bug)));
            kvd::run_with(arguments.into_iter())
        }
        Err(why) => {
            stderr::say(format_args!("kvd-planted: {FLAG}: {why}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// The bug that is asked for; its flag is taken out of the arguments.
fn chosen(arguments: &mut Vec<OsString>) -> Result<Bug, String> {
    let name = match arguments.iter().position(|argument| argument == FLAG) {
        Some(place) => arguments.drain(place..arguments.len().min(place + 2)).nth(1),
        None => std::env::var_os(VARIABLE),
    };
    let name = name.ok_or_else(|| format!("is needed, or {VARIABLE}"))?;
    name.to_string_lossy().parse().map_err(|error: planted::NoSuchBug| error.to_string())
}
