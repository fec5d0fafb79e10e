//! `sim`: runs one seed, or many in a process each, makes a red one smaller, or asks whether a ledger shows enough.
//!
//! Exit codes: 0 green, 1 red, 2 a seed that proves too little, 254 bad arguments, 255 the program itself failed. Of
//! many seeds: 1 when one is red, else 2 when more than one in twenty is unknown, else 0. Of shrinking: 1 when the seed is
//! red, else 0. Of a ledger: 1 when something is missed, else 2 when more than one in twenty seeds is unknown, else 0.

mod command;

use std::process::ExitCode;

use clap::Parser;

use command::arguments::Args;
use command::{BAD_ARGUMENTS, GREEN, PROGRAM_FAILED, check, many, one, smaller};

// Every simulated message is a few dozen small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole program: `bin/sim-planted.rs` is the same, built with another feature.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a terminal that takes no help.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { BAD_ARGUMENTS } else { GREEN });
        }
    };
    let ended = match (args.seed, args.seeds, &args.check_ledger) {
        (Some(seed), _, _) if args.shrink => smaller::run(seed, &args),
        (Some(seed), _, _) => Ok(one::run(seed, &args)),
        (None, Some(seeds), _) => many::run(seeds, &args),
        (None, None, Some(ledger)) => check::run(ledger, &args),
        (None, None, None) => Ok(BAD_ARGUMENTS),
    };
    ExitCode::from(ended.unwrap_or_else(|error| {
        eprintln!("sim: {error}");
        PROGRAM_FAILED
    }))
}
