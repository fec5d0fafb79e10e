//! Errors as gRPC statuses: one exhaustive match. The metadata says what the caller may assume.

use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};
use trefoil_store::command::{Refusal, UnknownReason};
use trefoil_store::mvcc::Invalid;

use crate::error::{Error, Outcome};

/// Metadata entries of an error, see `kv.proto`.
pub const OUTCOME: &str = "trefoil-outcome";
pub const REASON: &str = "trefoil-reason";
pub const LEADER: &str = "trefoil-leader";

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let (code, reason) = code(&error);
        // A peer's word that is no header value is left out.
        let reason = AsciiMetadataValue::try_from(reason).ok();
        let mut status = Status::new(code, error.to_string());
        let outcome = match error.outcome() {
            Outcome::NotDone => "not-done",
            Outcome::Unknown => "unknown",
            Outcome::Refused => "refused",
        };
        let metadata = status.metadata_mut();
        metadata.insert(OUTCOME, AsciiMetadataValue::from_static(outcome));
        if let Some(reason) = reason {
            metadata.insert(REASON, reason);
        }
        if let Error::NotLeader { leader: Some(leader) } = error {
            metadata.insert(LEADER, AsciiMetadataValue::from(leader.0));
        }
        status
    }
}

/// The gRPC code of an error, and its stable word.
pub fn code(error: &Error) -> (Code, &str) {
    match error {
        Error::NotLeader { .. } => (Code::Unavailable, "NOT_LEADER"),
        Error::Unavailable { .. } => (Code::Unavailable, "UNAVAILABLE"),
        Error::DeadlinePassed | Error::NotWhole { .. } => (Code::DeadlineExceeded, "DEADLINE"),
        Error::Unknown { .. } => (Code::Unknown, "UNKNOWN_OUTCOME"),
        Error::Refused(refusal) => refusal_code(refusal),
        Error::Invalid(invalid) => (Code::InvalidArgument, invalid_reason(invalid)),
        Error::Malformed { .. } => (Code::InvalidArgument, "MALFORMED"),
        Error::TooLarge { .. } => (Code::InvalidArgument, "MESSAGE_TOO_LARGE"),
        Error::Unsupported { .. } => (Code::Unimplemented, "UNSUPPORTED"),
        Error::NoSuchKeyspace { .. } => (Code::NotFound, "NO_SUCH_KEYSPACE"),
        Error::RefusedThere { code, reason, .. } => (Code::from(*code), reason),
        Error::Exhausted { .. } => (Code::ResourceExhausted, "EXHAUSTED"),
        Error::Broken { .. } => (Code::Internal, "BROKEN"),
    }
}

fn refusal_code(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::Compacted { .. } => (Code::OutOfRange, "COMPACTED"),
        Refusal::FutureRevision { .. } => (Code::OutOfRange, "FUTURE_REVISION"),
        Refusal::KeyNotFound => (Code::FailedPrecondition, "KEY_NOT_FOUND"),
        Refusal::LeaseNotFound { .. } => (Code::NotFound, "LEASE_NOT_FOUND"),
        Refusal::OutcomeUnknown { reason: UnknownReason::SessionEnded } => (Code::Unknown, "SESSION_ENDED"),
        Refusal::OutcomeUnknown { reason: UnknownReason::BelowWindow } => (Code::Unknown, "BELOW_WINDOW"),
        Refusal::OutcomeUnknown { reason: UnknownReason::ReplyForgotten } => (Code::Unknown, "REPLY_FORGOTTEN"),
        Refusal::TooManySessions { .. } => (Code::ResourceExhausted, "TOO_MANY_SESSIONS"),
        Refusal::TooManyKeys { .. } => (Code::ResourceExhausted, "TOO_MANY_KEYS"),
        Refusal::AnswerTooLarge { .. } => (Code::ResourceExhausted, "ANSWER_TOO_LARGE"),
        Refusal::TooManyKeysRead { .. } => (Code::ResourceExhausted, "TOO_MANY_KEYS_READ"),
    }
}

fn invalid_reason(invalid: &Invalid) -> &'static str {
    match invalid {
        Invalid::EmptyKey => "EMPTY_KEY",
        Invalid::KeyTooLong { .. } => "KEY_TOO_LONG",
        Invalid::TooManyOps { .. } => "TOO_MANY_OPS",
        Invalid::DuplicateKey { .. } => "DUPLICATE_KEY",
        Invalid::NestedTooDeep { .. } => "NESTED_TOO_DEEP",
    }
}
