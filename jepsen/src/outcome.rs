//! What an error leaves open: the one table from errors to `Fail` and `Info`, for each target.
//!
//! A call that only reads never changes anything: whatever went wrong, it is `Fail`. A write is `Fail` when it was
//! surely not done, and `Info` otherwise. Which it is the harness decides by itself, from the code and the words of the
//! answer: of Trefoil in `outcome/trefoil.rs`, of etcd here. A write that is so said not to be done and is seen all the
//! same is an anomaly.
//!
//! Invariant: what is not known to be a refusal leaves a write open.

mod trefoil;

use std::error::Error as _;

use tonic::{Code, ConnectError, Status};

pub use trefoil::of_trefoil;

use crate::history::Outcome;

/// What all errors of etcd itself begin with. Others come from below it, and say nothing of what was done.
const ETCD: &str = "etcdserver: ";
/// Said before a write is proposed. Others with this code are not: of a full store, a write may be applied first.
const TOO_MANY: &str = "etcdserver: too many requests";

/// Whether a call may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// What is known of a request that was not answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing was done, and nothing will be.
    NotDone,
    /// It may have been done, and may be still.
    Unknown,
}

/// A request that was not answered as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    pub certainty: Certainty,
    pub why: String,
}

/// What an error of etcd, or of the connection to it, leaves open.
pub fn of_etcd(status: &Status, access: Access) -> Failure {
    let certainty = match access {
        Access::Read => Certainty::NotDone,
        Access::Write if was_never_connected(status) => Certainty::NotDone,
        Access::Write => etcd_says(status.code(), status.message()),
    };
    Failure { certainty, why: format!("{:?}: {}", status.code(), status.message()) }
}

/// What it leaves open that there was no answer in time.
pub fn of_silence(access: Access) -> Failure {
    let certainty = match access {
        Access::Read => Certainty::NotDone,
        Access::Write => Certainty::Unknown,
    };
    Failure { certainty, why: "no answer in time".into() }
}

/// Whether there was no connection to send it on.
fn was_never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What etcd's answer to a write leaves open.
fn etcd_says(code: Code, message: &str) -> Certainty {
    if !message.starts_with(ETCD) {
        return Certainty::Unknown;
    }
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated => Certainty::NotDone,
        Code::ResourceExhausted if message == TOO_MANY => Certainty::NotDone,
        // Its time passed, its leader changed, or it is stopping: the proposal may be under way.
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DataLoss
        | Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal => Certainty::Unknown,
    }
}

/// What came of a call. No reply: a guard did not hold, and nothing was done.
pub fn of<R>(result: Result<Option<R>, Failure>, access: Access) -> Outcome<R> {
    match result {
        Ok(Some(reply)) => Outcome::Ok(reply),
        Ok(None) => Outcome::Fail("what was read has changed".into()),
        Err(Failure { certainty, why }) => match (access, certainty) {
            (Access::Read, Certainty::NotDone | Certainty::Unknown) => Outcome::Fail(why),
            (Access::Write, Certainty::NotDone) => Outcome::Fail(why),
            (Access::Write, Certainty::Unknown) => Outcome::Info(why),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_may_be_done_is_open() {
        let why = || "why".to_owned();
        let of = |certainty, access| of::<()>(Err(Failure { certainty, why: why() }), access);
        assert_eq!(of(Certainty::NotDone, Access::Read), Outcome::Fail(why()));
        assert_eq!(of(Certainty::Unknown, Access::Read), Outcome::Fail(why()));
        assert_eq!(of(Certainty::NotDone, Access::Write), Outcome::Fail(why()));
        assert_eq!(of(Certainty::Unknown, Access::Write), Outcome::Info(why()));
    }

    #[test]
    fn a_guard_that_did_not_hold_is_a_failure() {
        assert_eq!(of(Ok(Some(7)), Access::Write), Outcome::Ok(7));
        assert_eq!(of::<()>(Ok(None), Access::Write), Outcome::Fail("what was read has changed".into()));
    }

    #[test]
    fn what_etcd_says_of_a_write() {
        let not_done = [
            (Code::InvalidArgument, "key is not provided"),
            (Code::InvalidArgument, "too many operations in txn request"),
            (Code::InvalidArgument, "duplicate key given in txn request"),
            (Code::InvalidArgument, "request is too large"),
            (Code::OutOfRange, "mvcc: required revision is a future revision"),
            (Code::NotFound, "requested lease not found"),
            (Code::FailedPrecondition, "not leader"),
            (Code::PermissionDenied, "permission denied"),
            (Code::Unauthenticated, "invalid auth token"),
            (Code::ResourceExhausted, "too many requests"),
        ];
        let unknown = [
            (Code::Unavailable, "request timed out"),
            (Code::Unavailable, "request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "request timed out, possibly due to connection lost"),
            (Code::Unavailable, "leader changed"),
            (Code::Unavailable, "no leader"),
            (Code::Unavailable, "server stopped"),
            (Code::ResourceExhausted, "mvcc: database space exceeded"),
            (Code::DataLoss, "corrupt cluster"),
            (Code::Cancelled, "request canceled"),
        ];
        for (said, certainty) in [(&not_done[..], Certainty::NotDone), (&unknown[..], Certainty::Unknown)] {
            for (code, words) in said {
                let status = Status::new(*code, format!("{ETCD}{words}"));
                assert_eq!(of_etcd(&status, Access::Write).certainty, certainty, "{words}");
                assert_eq!(of_etcd(&status, Access::Read).certainty, Certainty::NotDone, "{words}");
            }
        }
    }

    /// gRPC's own layers use etcd's codes, too: here and on both sides of a write that was done.
    #[test]
    fn what_comes_from_below_etcd_leaves_a_write_open() {
        let codes = [
            Code::Ok,
            Code::Cancelled,
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        for code in codes {
            let status = Status::new(code, "the connection was reset");
            assert_eq!(of_etcd(&status, Access::Write).certainty, Certainty::Unknown, "{code:?}");
            assert_eq!(of_etcd(&status, Access::Read).certainty, Certainty::NotDone, "{code:?}");
        }
        assert_eq!(of_silence(Access::Write).certainty, Certainty::Unknown);
        assert_eq!(of_silence(Access::Read).certainty, Certainty::NotDone);
    }

    #[test]
    fn what_was_never_sent_is_not_done() {
        let refused = Status::from_error(Box::new(ConnectError("connection refused".into())));
        assert_eq!(of_etcd(&refused, Access::Write).certainty, Certainty::NotDone, "{refused:?}");
        let said = Status::unavailable("connection refused");
        assert_eq!(of_etcd(&said, Access::Write).certainty, Certainty::Unknown, "somebody else's words");
    }
}
