//! What an error of Trefoil leaves open: a table of the server's reasons, each with the code that it comes with.
//!
//! The client library says what an error leaves open, too, and follows the server's own word for it (`trefoil-outcome`).
//! Neither is asked here: only code and reason count, as `docs/errors.md` has them. Two things nobody but the library
//! can know, and they are taken from it: that nothing was sent, and that an attempt before the one that was answered may
//! have been done. Where its word is another one than the table's, a history has it beside the error.
//!
//! Invariants:
//!
//! * An error that is not in the table leaves a write open; so does a reason with another code than its own.
//! * The table has each reason of `docs/errors.md` and no other one, and the library's word is the same for each.

use tonic::Code;
use trefoil_client::{Error, Kind, Outcome as Said};

use super::{Access, Certainty, Failure};

/// What each reason leaves open for a write, and the code that it comes with.
const TABLE: [(&str, Code, Certainty); 26] = [
    ("NOT_LEADER", Code::Unavailable, Certainty::NotDone),
    ("UNAVAILABLE", Code::Unavailable, Certainty::NotDone),
    ("DEADLINE", Code::DeadlineExceeded, Certainty::NotDone),
    ("EXHAUSTED", Code::ResourceExhausted, Certainty::NotDone),
    ("BROKEN", Code::Internal, Certainty::NotDone),
    ("UNKNOWN_OUTCOME", Code::Unknown, Certainty::Unknown),
    ("BELOW_WINDOW", Code::Unknown, Certainty::Unknown),
    ("REPLY_FORGOTTEN", Code::Unknown, Certainty::Unknown),
    ("SESSION_ENDED", Code::Unknown, Certainty::Unknown),
    ("COMPACTED", Code::OutOfRange, Certainty::NotDone),
    ("FUTURE_REVISION", Code::OutOfRange, Certainty::NotDone),
    ("KEY_NOT_FOUND", Code::FailedPrecondition, Certainty::NotDone),
    ("LEASE_NOT_FOUND", Code::NotFound, Certainty::NotDone),
    ("NO_SUCH_KEYSPACE", Code::NotFound, Certainty::NotDone),
    ("TOO_MANY_KEYS", Code::ResourceExhausted, Certainty::NotDone),
    ("TOO_MANY_KEYS_READ", Code::ResourceExhausted, Certainty::NotDone),
    ("ANSWER_TOO_LARGE", Code::ResourceExhausted, Certainty::NotDone),
    ("TOO_MANY_SESSIONS", Code::ResourceExhausted, Certainty::NotDone),
    ("EMPTY_KEY", Code::InvalidArgument, Certainty::NotDone),
    ("KEY_TOO_LONG", Code::InvalidArgument, Certainty::NotDone),
    ("MESSAGE_TOO_LARGE", Code::InvalidArgument, Certainty::NotDone),
    ("TOO_MANY_OPS", Code::InvalidArgument, Certainty::NotDone),
    ("DUPLICATE_KEY", Code::InvalidArgument, Certainty::NotDone),
    ("NESTED_TOO_DEEP", Code::InvalidArgument, Certainty::NotDone),
    ("MALFORMED", Code::InvalidArgument, Certainty::NotDone),
    ("UNSUPPORTED", Code::Unimplemented, Certainty::NotDone),
];

/// What an error of Trefoil, or of the way to it, leaves open.
pub fn of_trefoil(error: &Error, access: Access) -> Failure {
    let own = match (access, error.code()) {
        (Access::Read, _) => Certainty::NotDone,
        (Access::Write, Some(code)) => answered(Code::from(code), error.reason()),
        (Access::Write, None) => unanswered(error.kind()),
    };
    let said = said(error.outcome());
    let certainty = match (access, own, said) {
        (Access::Read, _, _) | (Access::Write, Certainty::NotDone, Certainty::NotDone) => Certainty::NotDone,
        // An earlier attempt may have been done.
        (Access::Write, Certainty::NotDone, Certainty::Unknown) => Certainty::Unknown,
        (Access::Write, Certainty::Unknown, Certainty::NotDone | Certainty::Unknown) => Certainty::Unknown,
    };
    let why = match own == said {
        true => error.to_string(),
        false => format!("{error} (the client library says: {})", error.outcome().name()),
    };
    Failure { certainty, why }
}

/// What a node's answer to a write leaves open.
fn answered(code: Code, reason: &str) -> Certainty {
    let known = TABLE.iter().find(|(known, with, _)| *known == reason && *with == code);
    known.map_or(Certainty::Unknown, |(_, _, certainty)| *certainty)
}

/// What it leaves open that no node has said anything.
fn unanswered(kind: Kind) -> Certainty {
    match kind {
        // Nothing was sent.
        Kind::Unreachable | Kind::InvalidEndpoint => Certainty::NotDone,
        Kind::ConnectionLost
        | Kind::Deadline
        | Kind::NotLeader
        | Kind::Unavailable
        | Kind::Exhausted
        | Kind::EmptyKey
        | Kind::KeyTooLong
        | Kind::MessageTooLarge
        | Kind::TooManyOps
        | Kind::NestedTooDeep
        | Kind::TooMuch
        | Kind::DuplicateKey
        | Kind::KeyNotFound
        | Kind::LeaseNotFound
        | Kind::Compacted
        | Kind::FutureRevision
        | Kind::Unsupported
        | Kind::NoSuchKeyspace
        | Kind::SessionEnded
        | Kind::NoSuchNode
        | Kind::Malformed
        | Kind::Broken
        | Kind::Other => Certainty::Unknown,
    }
}

/// The client library's word.
fn said(outcome: Said) -> Certainty {
    match outcome {
        Said::NotDone | Said::Refused => Certainty::NotDone,
        Said::Unknown => Certainty::Unknown,
    }
}

#[cfg(test)]
mod tests;
