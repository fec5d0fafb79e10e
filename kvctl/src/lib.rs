//! Trefoil's admin CLI as a library, so that tests can use its parts.
//!
//! `args.rs` turns words into checked types, `commands/` has a file per command, `output.rs` prints what they found,
//! `exit.rs` says what a script may conclude. Only data goes to stdout; all else goes to stderr. What a terminal would
//! obey is shown escaped (`visible.rs`).

pub mod args;
pub mod commands;
pub mod encoding;
pub mod exit;
pub mod output;
mod progress;
mod question;
pub mod txn;
mod visible;

use args::Args;
use exit::{Exit, Failure};

/// Runs one command, and says on stderr what went wrong if something did.
pub async fn run(args: Args) -> Exit {
    let writes = args.command.writes();
    match commands::run(args).await {
        Ok(exit) => exit,
        Err(failure) => {
            let exit = match (failure.exit(), &failure) {
                // What was to be printed is the answer to a write that was carried out: not "nothing done".
                (Exit::Failed, Failure::Output(_)) if writes => Exit::Unknown,
                (exit, _) => exit,
            };
            if exit != Exit::Ok {
                output::say(&failure);
            }
            exit
        }
    }
}
