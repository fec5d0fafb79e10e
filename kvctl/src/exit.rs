//! What went wrong with a command, and the code it exits with: the one place that maps the one to the other.

use std::io;
use std::process::ExitCode;

use trefoil_client::{Error, Kind, Outcome};

/// What a script may conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// Not found, or a compare or condition did not hold: an answer, not an error.
    Negative = 1,
    /// The command line or the input makes no sense; nothing was done.
    Usage = 2,
    /// Refused or failed: what the message names was not done.
    Failed = 3,
    /// No endpoint answered; nothing was done.
    NoEndpoint = 4,
    /// A write may have been carried out or not.
    Unknown = 5,
}

impl Exit {
    /// The code for a call that failed.
    pub fn of(error: &Error) -> Exit {
        match error.outcome() {
            Outcome::Unknown => Exit::Unknown,
            Outcome::NotDone if error.kind() == Kind::Unreachable => Exit::NoEndpoint,
            Outcome::Refused if error.kind() == Kind::InvalidEndpoint => Exit::Usage,
            Outcome::NotDone | Outcome::Refused => Exit::Failed,
        }
    }

    /// `Ok` when it holds.
    pub fn when(holds: bool) -> Exit {
        if holds { Exit::Ok } else { Exit::Negative }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A call failed; its outcome decides.
    #[error(transparent)]
    Call(#[from] Error),
    /// The command line or the input makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something on this machine failed, or was not agreed to.
    #[error("{0}")]
    Local(String),
    /// Stdout failed.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The code to exit with.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Call(error) => Exit::of(error),
            Failure::Usage(_) => Exit::Usage,
            Failure::Local(_) => Exit::Failed,
            // Whoever read our output has seen enough: `kvctl scan | head` is no failure.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Failure::Output(_) => Exit::Failed,
        }
    }
}
