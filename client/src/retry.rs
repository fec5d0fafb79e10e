//! Which failed attempts are repeated, and when: the whole policy.
//!
//! An attempt is repeated only when that is harmless: a request that was surely not done always is, a read or a write
//! within a session also when its fate is unknown, anything refused never. Repeating goes on until the deadline, at
//! once the first time (to the next node), then with pauses that double and are jittered. An attempt that waits for a
//! connection is given up early, whatever the request is: nothing of it was sent. So is, while others are left to be
//! asked, an attempt that was sent and may be repeated freely: half-way at the latest. A write that may not be repeated
//! is never cut short once it was sent.
//!
//! Invariant: once an attempt's fate was unknown, no later failure makes the call's outcome better than unknown. The one
//! exception is a refusal that is the reply to the request itself: in a session it says what became of every attempt.

use std::time::Duration;

use trefoil_world::clock::Instant;
use trefoil_world::planted::{self, Bug};
use trefoil_world::random;

use crate::address::Address;
use crate::error::{Error, Kind, Outcome};
use crate::wire::CONNECT_MAX;

/// The second pause; the first is none.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// When an attempt may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// One attempt.
    Never,
    /// After failures that surely did nothing.
    WhenNotDone,
    /// Also when it is not known what became of the attempt.
    Freely,
}

impl Repeat {
    fn allows(self, outcome: Outcome) -> bool {
        if planted::is(Bug::UnknownWriteRepeated) && outcome == Outcome::Unknown {
            return true;
        }
        match (self, outcome) {
            (Repeat::Never, _) | (_, Outcome::Refused) | (Repeat::WhenNotDone, Outcome::Unknown) => false,
            (Repeat::WhenNotDone | Repeat::Freely, Outcome::NotDone) | (Repeat::Freely, Outcome::Unknown) => true,
        }
    }
}

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Tries {
    repeat: Repeat,
    deadline: Instant,
    /// How long the first attempt that may be cut short is given; later ones get more. Absent: none is cut short.
    patience: Option<Duration>,
    failed: u32,
    maybe_done: bool,
    /// What came of the newest attempt that reached somebody: it says more than that another node was not reached.
    reached: Option<Error>,
    /// Who was not reached, and the newest reason: no more than there are addresses.
    unreached: Vec<(Address, String)>,
}

impl Tries {
    pub(crate) fn new(repeat: Repeat, deadline: Instant, patience: Option<Duration>) -> Tries {
        Tries { repeat, deadline, patience, failed: 0, maybe_done: false, reached: None, unreached: Vec::new() }
    }

    /// When the attempt that begins now is given up, so that another node can be asked. Only what may be repeated
    /// freely is cut short, and half-way at the latest when there are `others` left to ask in this round.
    pub(crate) fn attempt_deadline(&self, now: Instant, others: bool) -> Instant {
        match (self.repeat, self.patience) {
            (Repeat::Freely, Some(patience)) => {
                let left = self.left(now);
                let share = if others { left / 2 } else { left };
                now + share.min(patience * 2_u32.pow(self.failed.min(10)))
            }
            (Repeat::Freely, None) | (Repeat::Never | Repeat::WhenNotDone, _) => self.deadline,
        }
    }

    /// When the attempt that begins now is given up if there is no connection for it by then: half-way at the latest,
    /// so that there is time for another node.
    pub(crate) fn connect_deadline(&self, now: Instant, others: bool) -> Instant {
        match self.repeat {
            Repeat::Never => self.deadline,
            Repeat::WhenNotDone | Repeat::Freely => {
                self.attempt_deadline(now, others).min(now + CONNECT_MAX.min(self.left(now) / 2))
            }
        }
    }

    /// What is left of the call's time.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    /// How long to wait before the next attempt, when the one at `asked` has failed.
    ///
    /// # Errors
    /// The call's error when there will be none.
    pub(crate) fn after(&mut self, asked: &Address, error: Error, now: Instant) -> Result<Duration, Error> {
        self.maybe_done |= error.outcome() == Outcome::Unknown;
        if error.kind() == Kind::Unreachable {
            self.unreached.retain(|(address, _)| address != asked);
            self.unreached.push((asked.clone(), error.to_string()));
        } else {
            self.reached = Some(error.clone());
        }
        let pause = self.pause();
        self.failed += 1;
        // A session that forgot the request answers the same for ever.
        let hopeless = error.kind() == Kind::SessionEnded;
        if hopeless || !self.repeat.allows(error.outcome()) || now + pause >= self.deadline {
            return Err(self.conclude(error));
        }
        Ok(pause)
    }

    fn conclude(&mut self, error: Error) -> Error {
        let error = self.reached.take().unwrap_or_else(|| self.nobody(error));
        let error = match self.failed {
            0 | 1 => error,
            attempts => error.adding(format_args!("{attempts} attempts")),
        };
        let outcome = match (self.maybe_done, error.outcome()) {
            (true, Outcome::NotDone | Outcome::Unknown) => Outcome::Unknown,
            (true, Outcome::Refused) if error.kind().is_of_execution() => Outcome::Refused,
            (true, Outcome::Refused) => Outcome::Unknown,
            (false, outcome @ (Outcome::NotDone | Outcome::Unknown | Outcome::Refused)) => outcome,
        };
        error.with_outcome(outcome)
    }

    /// Nobody was reached: of several each is named, and why.
    fn nobody(&self, error: Error) -> Error {
        let each: Vec<&str> = self.unreached.iter().map(|(_, why)| why.as_str()).collect();
        match each.len() {
            0 | 1 => error,
            _ => Error::new(Kind::Unreachable, Outcome::NotDone, format!("nobody answered: {}", each.join("; "))),
        }
    }

    fn pause(&self) -> Duration {
        if self.failed == 0 {
            return Duration::ZERO;
        }
        let full = (PAUSE_MIN * 2_u32.pow(self.failed.min(10) - 1)).min(PAUSE_MAX);
        // Between half and the whole of it, so that many clients do not come back at once.
        full / 2 + Duration::from_nanos(random::next_u64() % (full.as_nanos() as u64 / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_world::clock;

    fn failed(outcome: Outcome) -> Error {
        Error::new(Kind::Other, outcome, "failed")
    }

    fn at(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn tries(repeat: Repeat, seconds: u64) -> (Tries, Instant) {
        let now = clock::now();
        (Tries::new(repeat, now + Duration::from_secs(seconds), Some(Duration::from_secs(2))), now)
    }

    #[tokio::test]
    async fn a_write_that_may_be_done_is_never_repeated() {
        let (mut writes, now) = tries(Repeat::WhenNotDone, 5);
        assert_eq!(writes.after(&at("n1:1"), failed(Outcome::NotDone), now).ok(), Some(Duration::ZERO));
        assert!(writes.after(&at("n1:1"), failed(Outcome::NotDone), now).is_ok_and(|pause| !pause.is_zero()));
        let error = writes.after(&at("n1:1"), failed(Outcome::Unknown), now).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    #[tokio::test]
    async fn an_unknown_attempt_stays_unknown() {
        let (mut session, now) = tries(Repeat::Freely, 5);
        assert!(session.after(&at("n1:1"), failed(Outcome::Unknown), now).is_ok());
        let error = session.after(&at("n1:1"), failed(Outcome::NotDone), now + Duration::from_secs(6)).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    #[tokio::test]
    async fn only_the_reply_itself_refuses_what_may_be_done() {
        for (kind, expected) in [
            (Kind::KeyNotFound, Outcome::Refused),
            (Kind::LeaseNotFound, Outcome::Refused),
            (Kind::Compacted, Outcome::Refused),
            (Kind::FutureRevision, Outcome::Refused),
            (Kind::TooMuch, Outcome::Refused),
            (Kind::EmptyKey, Outcome::Unknown),
            (Kind::MessageTooLarge, Outcome::Unknown),
            (Kind::Malformed, Outcome::Unknown),
            (Kind::Unsupported, Outcome::Unknown),
            (Kind::NoSuchKeyspace, Outcome::Unknown),
            (Kind::Exhausted, Outcome::Unknown),
            (Kind::Other, Outcome::Unknown),
        ] {
            let refused = || Error::new(kind, Outcome::Refused, "refused");
            let (mut session, now) = tries(Repeat::Freely, 5);
            assert!(session.after(&at("n1:1"), failed(Outcome::Unknown), now).is_ok());
            let error = session.after(&at("n1:1"), refused(), now).unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (kind, expected));
            let error = tries(Repeat::Freely, 5).0.after(&at("n1:1"), refused(), now).unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (kind, Outcome::Refused), "alone");
        }
    }

    #[tokio::test]
    async fn what_a_session_has_forgotten_is_not_asked_again() {
        for word in ["SESSION_ENDED", "BELOW_WINDOW", "REPLY_FORGOTTEN"] {
            let (mut session, now) = tries(Repeat::Freely, 5);
            let error = session.after(&at("n1:1"), Error::new(Kind::of_word(word), Outcome::Unknown, "forgotten"), now);
            assert_eq!(error.map_err(|error| error.outcome()), Err(Outcome::Unknown), "{word}");
        }
    }

    #[tokio::test]
    async fn somebody_who_was_reached_counts_more_than_nobody() {
        let (mut reads, now) = tries(Repeat::Freely, 5);
        let unreachable = || Error::new(Kind::Unreachable, Outcome::NotDone, "no connection");
        assert!(reads.after(&at("n1:1"), unreachable(), now).is_ok());
        assert!(reads.after(&at("n1:1"), failed(Outcome::NotDone), now).is_ok());
        let error = reads.after(&at("n1:1"), unreachable(), now + Duration::from_secs(6)).unwrap_err();
        assert_eq!(error.kind(), Kind::Other);
        let error = tries(Repeat::Never, 5).0.after(&at("n1:1"), unreachable(), now).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
    }

    #[tokio::test]
    async fn when_nobody_was_reached_each_is_named() {
        let unreachable = |why: &str| Error::new(Kind::Unreachable, Outcome::NotDone, why);
        let (mut reads, now) = tries(Repeat::Freely, 5);
        assert!(reads.after(&at("n1:1"), unreachable("refused (n1:1)"), now).is_ok());
        assert!(reads.after(&at("n2:1"), unreachable("silent (n2:1)"), now).is_ok());
        let late = now + Duration::from_secs(6);
        let error = reads.after(&at("n1:1"), unreachable("gone (n1:1)"), late).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Unreachable, Outcome::NotDone));
        assert_eq!(error.to_string(), "nobody answered: silent (n2:1); gone (n1:1) (3 attempts)");
        let alone = tries(Repeat::Never, 5).0.after(&at("n1:1"), unreachable("refused (n1:1)"), now).unwrap_err();
        assert_eq!(alone.to_string(), "refused (n1:1)");
    }

    #[tokio::test]
    async fn a_connection_is_waited_for_half_the_time_and_a_second_at_most() {
        let (writes, now) = tries(Repeat::WhenNotDone, 5);
        assert_eq!(writes.connect_deadline(now, true), now + Duration::from_secs(1));
        let late = now + Duration::from_secs(4);
        assert_eq!(writes.connect_deadline(late, true), now + Duration::from_millis(4500));
        let (once, now) = tries(Repeat::Never, 5);
        assert_eq!(once.connect_deadline(now, true), now + Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_silent_node_leaves_time_for_another_one() {
        let (second, two) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
        for (repeat, patience, others, timeout, given) in [
            (Repeat::Freely, second, true, 800, 400),
            (Repeat::Freely, second, false, 800, 800),
            (Repeat::Freely, second, true, 5000, 1000),
            (Repeat::Freely, two, true, 5000, 2000),
            (Repeat::Freely, two, true, 3000, 1500),
            (Repeat::Freely, two, false, 3000, 2000),
            (Repeat::Freely, None, true, 800, 800),
            (Repeat::WhenNotDone, second, true, 800, 800),
            (Repeat::Never, second, true, 800, 800),
        ] {
            let now = clock::now();
            let tries = Tries::new(repeat, now + Duration::from_millis(timeout), patience);
            let waited = tries.attempt_deadline(now, others) - now;
            assert_eq!(waited, Duration::from_millis(given), "{repeat:?} {patience:?} {others} {timeout}");
        }
    }

    #[tokio::test]
    async fn the_last_one_of_a_round_has_what_is_left() {
        let now = clock::now();
        let mut reads = Tries::new(Repeat::Freely, now + Duration::from_millis(800), Some(Duration::from_secs(1)));
        let mut later = now;
        for (others, given) in [(true, 400), (true, 200), (false, 200)] {
            let until = reads.attempt_deadline(later, others);
            assert_eq!(until - later, Duration::from_millis(given));
            // The pause behind it is not waited for here.
            let _ = reads.after(&at("n1:1"), failed(Outcome::NotDone), until);
            later = until;
        }
        assert_eq!(later, now + Duration::from_millis(800));
    }

    #[tokio::test]
    async fn refused_and_switched_off_end_at_once() {
        assert!(tries(Repeat::Freely, 5).0.after(&at("n1:1"), failed(Outcome::Refused), clock::now()).is_err());
        assert!(tries(Repeat::Never, 5).0.after(&at("n1:1"), failed(Outcome::NotDone), clock::now()).is_err());
    }
}
