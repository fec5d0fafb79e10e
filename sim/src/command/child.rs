//! A seed in a process of its own, and what that has reported.

use std::io;
use std::process::Output;
use std::time::Duration;

use trefoil_jepsen::checker::Valid;
use trefoil_sim::Report;
use trefoil_sim::shrink::Narrowing;
use trefoil_world::clock;

use super::arguments::Args;
use super::{GREEN, RED, REPORT, UNKNOWN};

/// Real time after which a seed is given up: simulated time stands still in it.
pub const CHILD_MAX: Duration = Duration::from_secs(300);

/// What a seed's process ends with.
pub fn exit_code(valid: Valid) -> u8 {
    match valid {
        Valid::True => GREEN,
        Valid::False => RED,
        Valid::Unknown => UNKNOWN,
    }
}

/// For running children: in it nothing is simulated.
///
/// # Errors
/// The system gives it nothing to wait with.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs a seed; nothing comes of one that does not end.
///
/// # Errors
/// It could not be started.
pub async fn run(seed: u64, args: &Args, narrowing: &Narrowing) -> io::Result<Option<Output>> {
    let mut child = tokio::process::Command::new(std::env::current_exe()?);
    child.args(["--seed", &seed.to_string()]).args(args.passed_on()).args(narrowing.arguments()).kill_on_drop(true);
    match clock::timeout(CHILD_MAX, child.output()).await {
        Ok(output) => output.map(Some),
        Err(_) => Ok(None),
    }
}

/// What a child has reported, if it came so far and its exit code says the same.
pub fn report(output: &Output) -> Option<Report> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(text.lines().rev().find_map(|line| line.strip_prefix(REPORT))?).ok()?;
    (output.status.code() == Some(i32::from(exit_code(report.valid)))).then_some(report)
}
