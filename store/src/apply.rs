//! From a committed command to its outcome: the one place where replicated state changes.
//!
//! Every replica calls [`apply`] with the same envelopes at the same log positions and gets the same outcomes and the
//! same rows. The caller reads the [`Head`] once, applies all commands of a batch of entries to one [`Overlay`], stores
//! the head, and writes the overlay together with the applied position.
//!
//! Invariants:
//!
//! * **Log time** never goes back: it is the highest clock reading any command has brought.
//! * A refused command writes nothing but what its session notes.
//! * An [`EngineError`] is not an outcome: the overlay is to be dropped and the replica stopped.
//!
//! Left out: access rules (`principal` and `auth_revision` are carried for when there are users), and events:
//! the changes of a revision are rows of the `changes` family.

use crate::command::{Command, Envelope, Outcome, Refusal, Reply};
use crate::engine::EngineError;
use crate::key::StoreNumber;
use crate::mvcc::{self, Head, WALK_KEYS_MAX};
use crate::overlay::Overlay;
use crate::session::{self, Admission};

/// How many bits of a session's id are the place within the entry.
const PLACE_BITS: u32 = 12;

/// A position in a partition's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// Applies the command at `place` within the entry `at`.
pub fn apply(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    at: Position,
    place: u32,
    envelope: Envelope,
) -> Result<Outcome, EngineError> {
    head.clock_ms = head.clock_ms.max(envelope.at_ms);
    let id = session_id(at, place);
    let Some(request) = envelope.request else {
        return execute(view, store, head, id, &envelope.command);
    };
    match session::admit(view, store, head.clock_ms, request)? {
        Admission::Execute => {
            let outcome = execute(view, store, head, id, &envelope.command)?;
            session::keep(view, store, request, &outcome)?;
            Ok(outcome)
        }
        Admission::Answered(outcome) => Ok(outcome),
        Admission::Unknown(reason) => {
            Ok(Outcome { revision: head.revision, result: Err(Refusal::OutcomeUnknown { reason }) })
        }
    }
}

fn execute(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    id: u64,
    command: &Command,
) -> Result<Outcome, EngineError> {
    let result = match command {
        Command::Op(op) => mvcc::execute_within(view, store, head, op, WALK_KEYS_MAX)?,
        Command::Compact(revision) => mvcc::compact(head, *revision).map(|()| Reply::Compacted),
        Command::OpenSession => session::open(view, store, head, id)?.map(|()| Reply::SessionOpened { session: id }),
        Command::CloseSession(session) => {
            session::close(view, store, head, *session)?;
            Ok(Reply::SessionClosed)
        }
    };
    Ok(Outcome { revision: head.revision, result })
}

/// The id of a session opened here: unique, since no two commands share a position.
fn session_id(at: Position, place: u32) -> u64 {
    assert!(place < (1 << PLACE_BITS), "an entry with too many commands: place {place}");
    assert!(at.index < (1 << (u64::BITS - PLACE_BITS)), "a log index that leaves no room for a place");
    (at.index << PLACE_BITS) | u64::from(place)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trefoil_causality::Revision;

    use super::*;
    use crate::command::{KeyRange, Op, PutOp, RangeEnd, RangeOp, RequestId, Txn, UnknownReason};
    use crate::engine::memory::MemoryEngine;
    use crate::engine::{Durability, Engine};

    const STORE: StoreNumber = StoreNumber(1);

    /// One replica: applies each command as an entry of its own.
    struct Replica {
        engine: MemoryEngine,
        index: u64,
    }

    impl Replica {
        fn new() -> Replica {
            Replica { engine: MemoryEngine::new(), index: 0 }
        }

        fn apply(&mut self, at_ms: u64, request: Option<RequestId>, command: Command) -> Outcome {
            self.index += 1;
            let mut head = Head::load(&self.engine, STORE).expect("memory does not fail");
            let mut view = Overlay::new(&self.engine);
            let envelope = Envelope { at_ms, request, principal: "anonymous".into(), auth_revision: 0, command };
            let at = Position { term: 1, index: self.index };
            let outcome = apply(&mut view, STORE, &mut head, at, 0, envelope).expect("memory does not fail");
            head.store(&mut view, STORE);
            let batch = view.into_batch();
            self.engine.write(&batch, Durability::NoSync).expect("memory does not fail");
            outcome
        }

        fn open(&mut self) -> u64 {
            match self.apply(0, None, Command::OpenSession).result {
                Ok(Reply::SessionOpened { session }) => session,
                other => panic!("no session: {other:?}"),
            }
        }
    }

    fn put(value: &'static str) -> Command {
        Command::Op(Op::Put(PutOp { key: "key".into(), value: Some(value.into()), lease: Some(0), previous: false }))
    }

    fn keeping_put() -> Command {
        Command::Op(Op::Put(PutOp { key: "key".into(), value: None, lease: None, previous: false }))
    }

    #[test]
    fn a_repeated_request_is_answered_as_before() {
        let mut replica = Replica::new();
        let session = replica.open();
        assert_eq!(session, 1 << PLACE_BITS);
        let request = |sequence| Some(RequestId { session, sequence, acknowledged: 0 });
        let first = replica.apply(0, request(1), put("one"));
        assert_eq!(first, Outcome { revision: Revision(2), result: Ok(Reply::Put { previous: None }) });
        replica.apply(0, None, put("two"));
        assert_eq!(replica.apply(0, request(1), put("one")), first);
        let read = Command::Op(Op::Range(RangeOp::all(KeyRange::single("key"))));
        match replica.apply(0, None, read).result {
            Ok(Reply::Range(reply)) => assert_eq!(reply.pairs[0].value, "two"),
            other => panic!("not a range: {other:?}"),
        }
    }

    #[test]
    fn a_reply_too_large_to_keep_is_forgotten_and_its_command_not_repeated() {
        let mut replica = Replica::new();
        let session = replica.open();
        let request = |sequence| Some(RequestId { session, sequence, acknowledged: 0 });
        let large = Bytes::from(vec![0; session::KEPT_BYTES_MAX as usize]);
        let put = |value| {
            let put = PutOp { key: "key".into(), value: Some(value), lease: Some(0), previous: true };
            Command::Op(Op::Put(put))
        };
        replica.apply(0, None, put(large.clone()));
        let first = replica.apply(0, request(2), put("one".into()));
        match &first.result {
            Ok(Reply::Put { previous: Some(pair) }) => assert_eq!(pair.value, large),
            other => panic!("not the pair before: {other:?}"),
        }
        // It comes after a higher one, and lies within the window.
        let second = replica.apply(0, request(1), put("two".into()));
        assert_eq!((second.revision, second.result.is_ok()), (Revision(4), true));
        let reason = UnknownReason::ReplyForgotten;
        let forgotten = Outcome { revision: first.revision, result: Err(Refusal::OutcomeUnknown { reason }) };
        assert_eq!(replica.apply(0, request(2), put("one".into())), forgotten);
        assert_eq!(replica.apply(0, request(1), put("two".into())), second);
    }

    #[test]
    fn a_refusal_is_kept_too() {
        let mut replica = Replica::new();
        let session = replica.open();
        let request = Some(RequestId { session, sequence: 1, acknowledged: 0 });
        let refused = replica.apply(0, request, keeping_put());
        assert_eq!(refused, Outcome { revision: Revision(1), result: Err(Refusal::KeyNotFound) });
        replica.apply(0, None, put("one"));
        assert_eq!(replica.apply(0, request, keeping_put()), refused);
    }

    #[test]
    fn a_command_of_the_log_walks_over_a_bounded_number_of_keys() {
        const KEYS: u64 = 10_000;
        let mut replica = Replica::new();
        let txn = |success| Op::Txn(Txn { success, ..Txn::default() });
        let put = |number: u64| {
            let key = format!("{number:08}").into();
            Op::Put(PutOp { key, value: Some("v".into()), lease: Some(0), previous: false })
        };
        assert!(replica.apply(0, None, Command::Op(txn((0..KEYS).map(put).collect()))).result.is_ok());
        let all = KeyRange { key: "0".into(), end: RangeEnd::Last };
        let counts = |times| vec![Op::Range(RangeOp { count_only: true, ..RangeOp::all(all.clone()) }); times];
        let most = (WALK_KEYS_MAX / KEYS) as usize;
        assert!(replica.apply(0, None, Command::Op(txn(counts(most)))).result.is_ok());
        let too_far = txn(counts(most + 1));
        let refused = replica.apply(0, None, Command::Op(too_far.clone()));
        assert_eq!(refused.result, Err(Refusal::TooManyKeysRead { limit: WALK_KEYS_MAX }));
        let mut head = Head::load(&replica.engine, STORE).expect("memory does not fail");
        let past_the_log = mvcc::execute(&mut Overlay::new(&replica.engine), STORE, &mut head, &too_far);
        assert!(past_the_log.expect("memory does not fail").is_ok(), "what only reads is not bounded");
    }

    #[test]
    fn log_time_never_goes_back_and_ends_sessions() {
        let mut replica = Replica::new();
        let session = replica.open();
        let request = |sequence| Some(RequestId { session, sequence, acknowledged: 0 });
        replica.apply(session::IDLE_MS_MAX, None, put("one"));
        let reason = UnknownReason::SessionEnded;
        let unknown = Outcome { revision: Revision(2), result: Err(Refusal::OutcomeUnknown { reason }) };
        assert_eq!(replica.apply(5, request(1), put("two")), unknown);
    }

    #[test]
    fn a_request_may_close_its_own_session() {
        let mut replica = Replica::new();
        let session = replica.open();
        let request = Some(RequestId { session, sequence: 1, acknowledged: 0 });
        let closed = replica.apply(0, request, Command::CloseSession(session));
        assert_eq!(closed.result, Ok(Reply::SessionClosed));
        let reason = UnknownReason::SessionEnded;
        let again = replica.apply(0, request, Command::CloseSession(session));
        assert_eq!(again.result, Err(Refusal::OutcomeUnknown { reason }));
    }
}
