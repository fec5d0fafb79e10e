//! What can go wrong with a request, and what the caller may then assume.
//!
//! Every variant answers [`Error::outcome`]: a timeout of a write is never "failed". `docs/errors.md` lists each with
//! its code and message; `api/status.rs` turns them into gRPC statuses.

use std::borrow::Cow;
use std::time::Duration;

use trefoil_placement::{Mode, NodeId};
use trefoil_store::command::Refusal;
use trefoil_store::mvcc::Invalid;

/// How an unknown outcome is told, here and by a node that a request was handed on to.
const UNKNOWN: &str = "outcome unknown: ";

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done; repeating is safe and may succeed.
    NotDone,
    /// It may have been done, or may still be.
    Unknown,
    /// Nothing was done, and repeating it unchanged will not help.
    Refused,
}

/// See the file's head.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("this node does not lead the partition{}", hint(.leader))]
    NotLeader { leader: Option<NodeId> },
    #[error("not available: {why}")]
    Unavailable { why: String },
    #[error("the deadline passed before anything was done")]
    DeadlinePassed,
    #[error("not all of the request came within {within:?}")]
    NotWhole { within: Duration },
    #[error("{}{why}", UNKNOWN)]
    Unknown { why: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{field}: {why}")]
    Malformed { field: &'static str, why: String },
    #[error("{what} of {actual} bytes is over the limit of {limit}")]
    TooLarge { what: &'static str, actual: usize, limit: usize },
    #[error("{op} is not supported in mode {}", .mode.name())]
    Unsupported { op: &'static str, mode: Mode },
    #[error("no keyspace '{name}'")]
    NoSuchKeyspace { name: String },
    /// In the words of the node it was handed on to: a gRPC code, a reason as `api/status.rs` has them, a message.
    #[error("{why}")]
    RefusedThere { code: i32, reason: String, why: String },
    #[error("{what} is exhausted: the limit is {limit}; try again later")]
    Exhausted { what: Cow<'static, str>, limit: u64 },
    #[error("a local read failed: {why}")]
    Broken { why: String },
}

fn hint(leader: &Option<NodeId>) -> String {
    leader.map_or(String::new(), |leader| format!("; {leader} does"))
}

impl Error {
    /// An unknown outcome in the words of the node that the request was handed on to, which tells it as this error does.
    pub fn unknown_there(said: &str) -> Error {
        Error::Unknown { why: said.strip_prefix(UNKNOWN).unwrap_or(said).to_owned() }
    }

    /// What the caller may assume.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::NotLeader { .. }
            | Error::Unavailable { .. }
            | Error::DeadlinePassed
            | Error::NotWhole { .. }
            | Error::Exhausted { .. }
            | Error::Broken { .. } => Outcome::NotDone,
            Error::Unknown { .. } | Error::Refused(Refusal::OutcomeUnknown { .. }) => Outcome::Unknown,
            Error::Refused(_)
            | Error::Invalid(_)
            | Error::Malformed { .. }
            | Error::TooLarge { .. }
            | Error::Unsupported { .. }
            | Error::NoSuchKeyspace { .. }
            | Error::RefusedThere { .. } => Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_told_once() {
        let here = Error::Unknown { why: "no outcome in 10s".into() };
        assert_eq!(here.to_string(), "outcome unknown: no outcome in 10s");
        assert_eq!(Error::unknown_there(&here.to_string()), here, "said as a whole error");
        assert_eq!(Error::unknown_there("no outcome in 10s"), here, "said as what is behind it");
    }
}
