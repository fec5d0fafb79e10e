//! Reads a failed attempt: what does this gRPC status, or this silence, mean for the caller?
//!
//! The server's own words (`trefoil-outcome`, `trefoil-reason`) count first. Without them the status came from
//! something below the API — the transport here, or the HTTP/2 layer there — and the question is whether the request
//! was sent: `wire.rs` knows. Codes by which a server refuses a request before it looks at it are refusals. One that does
//! not have the service at all, such as a node's peer port, has not answered: others are asked.

use std::error::Error as _;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use trefoil_placement::NodeId;

use crate::address::Address;
use crate::error::{Error, Kind, Outcome};
use crate::retry::Access;

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the asked node was heard at all; if not, others are asked first for a while.
    pub(crate) answered: bool,
}

/// What a status means. `sent`: the request, or a part of it, may have left this process.
pub(crate) fn read(status: &Status, sent: bool, access: Access, asked: &Address) -> Failure {
    let sent = sent && !was_left(status);
    let answered = status.source().is_none() && sent;
    match outcome_word(status.metadata()) {
        Some(outcome) => Failure { error: worded(status, weigh(outcome, access)), answered: true },
        None if is_foreign(status) => Failure { error: foreign().adding(asked), answered: false },
        None => Failure { error: unworded(status, sent, access).adding(asked), answered },
    }
}

/// Whether somebody else than a node's client port has answered, or a node that does not have the method yet: gRPC's code
/// does not say which. Nothing was done in either case. Our own gRPC layer uses the code, too, for an answer whose
/// compression it does not know, and names those it knows.
fn is_foreign(status: &Status) -> bool {
    let of_an_answer = status.metadata().contains_key("grpc-accept-encoding");
    status.code() == Code::Unimplemented && status.source().is_none() && !of_an_answer
}

fn foreign() -> Error {
    Error::new(Kind::Unreachable, Outcome::NotDone, "what answers there does not have this part of trefoil.v1")
}

/// Whether the server, ending in order, has said that it did not look at this request: it came after the last one it
/// took (RFC 9113, section 6.8).
fn was_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = error.source();
    }
    false
}

/// What it means that the attempt's time passed.
pub(crate) fn timed_out(sent: bool, access: Access, asked: &Address) -> Failure {
    let error = if sent {
        Error::new(Kind::Deadline, weigh(Outcome::Unknown, access), "the deadline passed without an answer")
    } else {
        Error::new(Kind::Unreachable, Outcome::NotDone, "no connection in time")
    };
    Failure { error: error.adding(asked), answered: false }
}

/// Whatever became of a read, it changed nothing.
fn weigh(outcome: Outcome, access: Access) -> Outcome {
    match (outcome, access) {
        (Outcome::Unknown, Access::Read) => Outcome::NotDone,
        (Outcome::Unknown, Access::Write) | (Outcome::NotDone | Outcome::Refused, _) => outcome,
    }
}

fn outcome_word(metadata: &MetadataMap) -> Option<Outcome> {
    let word = text(metadata, "trefoil-outcome")?;
    [Outcome::NotDone, Outcome::Unknown, Outcome::Refused].into_iter().find(|outcome| outcome.name() == word)
}

fn worded(status: &Status, outcome: Outcome) -> Error {
    let reason = text(status.metadata(), "trefoil-reason").unwrap_or_default();
    let leader = text(status.metadata(), "trefoil-leader").and_then(|id| id.parse().ok()).map(NodeId);
    let error = Error::new(Kind::of_word(reason), outcome, status.message());
    error.with_reason(status.code() as i32, reason).with_leader(leader)
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).and_then(|value| value.to_str().ok())
}

fn unworded(status: &Status, sent: bool, access: Access) -> Error {
    let local = status.source().is_some();
    match refusal(status.code()) {
        Some(kind) if !local => Error::new(kind, Outcome::Refused, refusal_message(status)),
        Some(_) | None if !sent => {
            Error::new(Kind::Unreachable, Outcome::NotDone, format!("no connection: {}", root_cause(status)))
        }
        Some(_) | None => Error::new(lost(status), weigh(Outcome::Unknown, access), lost_message(status)),
    }
}

/// The kind of a code with which servers refuse what they have not begun.
fn refusal(code: Code) -> Option<Kind> {
    match code {
        // The gRPC layer's answer to a message over its limit.
        Code::OutOfRange => Some(Kind::MessageTooLarge),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unauthenticated => Some(Kind::Other),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        // Of a server it was dealt with before: nobody has answered.
        | Code::Unimplemented => None,
    }
}

fn refusal_message(status: &Status) -> String {
    match (too_large(status.message()), status.message()) {
        (Some((found, limit)), _) => {
            format!("the request is larger than the server takes ({found} bytes; it reads at most {limit})")
        }
        (None, "") => format!("refused: {}", status.code().description()),
        (None, said) => said.to_owned(),
    }
}

/// A message's bytes and the most that are read, from tonic's words for it: they speak of decoding.
fn too_large(message: &str) -> Option<(u64, u64)> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = rest.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some((found.parse().ok()?, limit.parse().ok()?))
}

fn lost(status: &Status) -> Kind {
    if is_timeout(status) { Kind::Deadline } else { Kind::ConnectionLost }
}

fn lost_message(status: &Status) -> String {
    if is_timeout(status) {
        "the deadline passed without an answer".to_owned()
    } else {
        format!("the connection was lost: {}", root_cause(status))
    }
}

/// Whether the deadline passed: the gRPC layer of a server says so with a code of its own, ours with a cause.
fn is_timeout(status: &Status) -> bool {
    let theirs = || status.code() == Code::Cancelled && status.message() == tonic::TimeoutExpired(()).to_string();
    let ours = || {
        let mut cause = status.source();
        std::iter::from_fn(move || {
            let this = cause?;
            cause = this.source();
            Some(this)
        })
        .any(|cause| cause.is::<tonic::TimeoutExpired>())
    };
    status.code() == Code::DeadlineExceeded || theirs() || ours()
}

/// The innermost error says what happened; the outer ones only where.
fn root_cause(status: &Status) -> String {
    let mut cause = status.source();
    let mut said = status.message().to_owned();
    while let Some(this) = cause {
        said = this.to_string();
        cause = this.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Address {
        Address::parse("n1:2379").expect("an address")
    }

    fn outcome(status: &Status, sent: bool, access: Access) -> Outcome {
        read(status, sent, access, &asked()).error.outcome()
    }

    #[test]
    fn the_servers_words_count_first() {
        let mut status = Status::unavailable("not the leader");
        for (name, word) in [("trefoil-outcome", "not-done"), ("trefoil-reason", "NOT_LEADER"), ("trefoil-leader", "3")]
        {
            status.metadata_mut().insert(name, word.parse().expect("ASCII"));
        }
        let failure = read(&status, true, Access::Write, &asked());
        assert_eq!(failure.error.outcome(), Outcome::NotDone);
        assert_eq!(failure.error.kind(), Kind::NotLeader);
        assert_eq!(failure.error.leader(), Some(NodeId(3)));
        assert_eq!((failure.error.code(), failure.error.reason()), (Some(Code::Unavailable as i32), "NOT_LEADER"));
        assert!(failure.answered);
    }

    #[test]
    fn without_words_it_matters_whether_it_was_sent() {
        let wordless = read(&Status::unavailable("x"), true, Access::Write, &asked()).error;
        assert_eq!((wordless.code(), wordless.reason(), wordless.outcome()), (None, "", Outcome::Unknown));
        assert_eq!(outcome(&Status::unavailable("x"), false, Access::Write), Outcome::NotDone);
        assert_eq!(outcome(&Status::unavailable("x"), true, Access::Read), Outcome::NotDone);
        assert_eq!(outcome(&Status::out_of_range("x"), true, Access::Write), Outcome::Refused);
        assert_eq!(timed_out(true, Access::Write, &asked()).error.outcome(), Outcome::Unknown);
        assert_eq!(timed_out(false, Access::Write, &asked()).error.kind(), Kind::Unreachable);
    }

    #[test]
    fn a_deadline_is_called_that_whoever_found_it_passed() {
        for (status, kind) in [
            (Status::cancelled("Timeout expired"), Kind::Deadline),
            (Status::deadline_exceeded("x"), Kind::Deadline),
            (Status::cancelled("x"), Kind::ConnectionLost),
        ] {
            for (access, outcome) in [(Access::Write, Outcome::Unknown), (Access::Read, Outcome::NotDone)] {
                let failure = read(&status, true, access, &asked());
                let error = failure.error;
                assert_eq!((error.kind(), error.outcome(), failure.answered), (kind, outcome, true), "{status:?}");
            }
        }
    }

    #[test]
    fn who_does_not_speak_the_api_has_not_answered() {
        for (access, sent) in [(Access::Write, true), (Access::Write, false), (Access::Read, true)] {
            let failure = read(&Status::unimplemented(""), sent, access, &asked());
            let error = failure.error;
            let expected = (Kind::Unreachable, Outcome::NotDone, false);
            assert_eq!((error.kind(), error.outcome(), failure.answered), expected, "{access:?}, sent: {sent}");
        }
        let mut answered = Status::unimplemented("Content is compressed with `x` which isn't supported");
        answered.metadata_mut().insert("grpc-accept-encoding", "identity".parse().expect("ASCII"));
        assert_eq!(outcome(&answered, true, Access::Write), Outcome::Unknown, "whoever answers has done it");
        let mut of_a_node = Status::unimplemented("not supported in mode leaderless");
        for (name, word) in [("trefoil-outcome", "refused"), ("trefoil-reason", "UNSUPPORTED")] {
            of_a_node.metadata_mut().insert(name, word.parse().expect("ASCII"));
        }
        let failure = read(&of_a_node, true, Access::Write, &asked());
        assert_eq!((failure.error.kind(), failure.answered), (Kind::Unsupported, true), "a node said so");
    }

    #[test]
    fn a_request_over_the_limit_is_called_that() {
        for (said, message) in [
            (
                "Error, decoded message length too large: found 4194322 bytes, the limit is: 3145728 bytes",
                "the request is larger than the server takes (4194322 bytes; it reads at most 3145728) (n1:2379)",
            ),
            ("something else", "something else (n1:2379)"),
            ("", "refused: Operation was attempted past the valid range (n1:2379)"),
        ] {
            let error = read(&Status::out_of_range(said), true, Access::Write, &asked()).error;
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::MessageTooLarge, message));
        }
    }
}
