//! Trefoil's admin CLI as a library, so that tests can use its parts.
//!
//! `args.rs` turns words into checked types, `commands/` has a file per command, `output.rs` prints what they found,
//! `exit.rs` says what a script may conclude. Only data goes to stdout; all else goes to stderr. What a terminal would
//! obey is shown escaped (`visible.rs`).

pub mod args;
pub mod commands;
pub mod encoding;
pub mod exit;
mod input;
pub mod output;
mod progress;
mod question;
pub mod txn;
mod visible;

use std::io::{self, Write};

use args::Args;
use exit::{Exit, Failure};

/// Hands over what the parser of the command line says instead of a command: help and the version on stdout, all else on
/// stderr.
pub fn told(said: &clap::Error) -> Exit {
    let printed = said.print().and_then(|()| io::stdout().flush());
    if said.use_stderr() {
        // Whether or not it could be said, the command line makes no sense.
        return Exit::Usage;
    }
    match printed.map_err(Failure::Output) {
        Ok(()) => Exit::Ok,
        Err(failure) => ended(&failure, failure.exit()),
    }
}

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
            ended(&failure, exit)
        }
    }
}

/// Says why, unless there is nothing wrong with it.
fn ended(failure: &Failure, exit: Exit) -> Exit {
    if exit != Exit::Ok {
        output::say(failure);
    }
    exit
}
