//! What an error leaves open: the one table from the client's errors to `Fail` and `Info`.
//!
//! A call that only reads never changes anything: whatever went wrong, it is `Fail`. A write is `Fail` when the client
//! library says that it was surely not done, and `Info` otherwise. The library's word is itself under test: a write that
//! was said not to be done and is seen all the same is an anomaly.

use trefoil_client::{Error, Outcome as Said};

use crate::history::Outcome;

/// Whether a call may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// What came of a call. No reply: a guard did not hold, and nothing was done.
pub fn of<R>(result: Result<Option<R>, Error>, access: Access) -> Outcome<R> {
    match result {
        Ok(Some(reply)) => Outcome::Ok(reply),
        Ok(None) => Outcome::Fail("what was read has changed".into()),
        Err(error) => failed(error.outcome(), access, error.to_string()),
    }
}

fn failed<R>(said: Said, access: Access, why: String) -> Outcome<R> {
    match (access, said) {
        (Access::Read, Said::NotDone | Said::Refused | Said::Unknown) => Outcome::Fail(why),
        (Access::Write, Said::NotDone | Said::Refused) => Outcome::Fail(why),
        (Access::Write, Said::Unknown) => Outcome::Info(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_may_be_done_is_open() {
        let why = || "why".to_owned();
        for said in [Said::NotDone, Said::Refused, Said::Unknown] {
            assert_eq!(failed::<()>(said, Access::Read, why()), Outcome::Fail(why()));
        }
        assert_eq!(failed::<()>(Said::NotDone, Access::Write, why()), Outcome::Fail(why()));
        assert_eq!(failed::<()>(Said::Refused, Access::Write, why()), Outcome::Fail(why()));
        assert_eq!(failed::<()>(Said::Unknown, Access::Write, why()), Outcome::Info(why()));
    }
}
