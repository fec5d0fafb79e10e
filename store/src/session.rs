//! Sessions: what makes it safe to repeat a request whose answer was lost.
//!
//! A client opens a session, numbers its requests 1, 2, 3, … and repeats a number only for the same request. The
//! session remembers the outcome of each number it has executed, in replicated state, so that every replica and every
//! snapshot knows it. Outcomes are forgotten when the client acknowledges them, or when they fall out of the
//! **window** of the [`WINDOW`] highest numbers, or, oldest first, when those kept have more than [`KEPT_BYTES_MAX`].
//!
//! Invariants:
//!
//! * A number is executed at most once. One that is forgotten, or whose session has ended, is never executed: its
//!   outcome is unknown.
//! * A session that was not used for [`IDLE_MS_MAX`] of log time has ended, whether or not its rows are still there.
//! * [`Head::sessions`] is the number of session rows; it never exceeds [`OPEN_MAX`].
//! * No command costs more than a fixed number of rows: opening a session looks at a few others and removes the ended
//!   ones, going round.
//!
//! Left out: that a repeated number carries the same request is the client's duty; it is not checked.

use bytes::Bytes;

use crate::codec::{Decoder, Malformed, put_u64};
use crate::command::{Outcome, Refusal, RequestId, UnknownReason, decode_outcome, encode_outcome};
use crate::engine::{EngineError, Family, Order, Read, Span, Visit, try_scan};
use crate::key::{self, StoreNumber};
use crate::mvcc::Head;
use crate::overlay::Overlay;

/// How many numbers below the highest one a request may still come with.
pub const WINDOW: u64 = 1_000;
/// A session unused for this long, in log time, has ended.
pub const IDLE_MS_MAX: u64 = 10 * 60 * 1_000;
/// How many sessions a partition holds.
pub const OPEN_MAX: u64 = 10_000;

/// Bytes of the outcomes a session keeps; one that is larger on its own is forgotten at once.
pub const KEPT_BYTES_MAX: u64 = 1 << 20;

/// How many sessions are looked at when one is opened, and how many ended ones are then removed.
const SWEEP_LOOKS: usize = 64;
const SWEEP_REMOVALS: usize = 16;

const FORMAT: u8 = 1;

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Execute it and [`keep`] the outcome.
    Execute,
    /// It was executed before, with this outcome.
    Answered(Outcome),
    /// It may have been executed before, and is not executed now.
    Unknown(UnknownReason),
}

/// One session's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    last_used_ms: u64,
    acknowledged: u64,
    /// The highest number seen.
    highest: u64,
    /// Bytes of the outcomes that are kept.
    kept_bytes: u64,
}

impl Session {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for number in [self.last_used_ms, self.acknowledged, self.highest, self.kept_bytes] {
            put_u64(&mut out, number);
        }
        out
    }

    fn decode(bytes: Bytes) -> Result<Session, Malformed> {
        let mut from = Decoder::new(bytes, "session row");
        if from.u8()? != FORMAT {
            return Err(Malformed { what: "session row: unknown format" });
        }
        let session = Session {
            last_used_ms: from.u64()?,
            acknowledged: from.u64()?,
            highest: from.u64()?,
            kept_bytes: from.u64()?,
        };
        from.end()?;
        Ok(session)
    }

    fn has_ended(&self, clock_ms: u64) -> bool {
        clock_ms.saturating_sub(self.last_used_ms) >= IDLE_MS_MAX
    }

    /// The numbers up to this one are forgotten.
    fn forgotten(&self) -> u64 {
        self.acknowledged.max(self.highest.saturating_sub(WINDOW))
    }
}

/// Decides about a request and notes that its session is in use.
pub fn admit(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    clock_ms: u64,
    request: RequestId,
) -> Result<Admission, EngineError> {
    let session = load(&*view, store, request.session)?.filter(|session| !session.has_ended(clock_ms));
    let Some(mut session) = session else {
        return Ok(Admission::Unknown(UnknownReason::SessionEnded));
    };
    let forgotten_before = session.forgotten();
    session.last_used_ms = clock_ms;
    // A client cannot have the reply to a number that was never seen.
    session.acknowledged = session.acknowledged.max(request.acknowledged.min(session.highest));
    let kept = view.get(Family::State, &key::state::reply(store, request.session, request.sequence))?;
    let admission = match kept {
        Some(reply) => Admission::Answered(decode_outcome(reply)?),
        None if request.sequence <= session.forgotten() => Admission::Unknown(UnknownReason::BelowWindow),
        None => Admission::Execute,
    };
    if admission == Admission::Execute {
        session.highest = session.highest.max(request.sequence);
    }
    session.kept_bytes -= forget(view, store, request.session, forgotten_before, session.forgotten())?;
    view.put(Family::State, key::state::session(store, request.session), session.encode());
    Ok(admission)
}

/// Keeps the outcome of a request that was admitted and executed. Does nothing when the request closed its session.
pub fn keep(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    request: RequestId,
    outcome: &Outcome,
) -> Result<(), EngineError> {
    let Some(mut session) = load(&*view, store, request.session)? else { return Ok(()) };
    let reply = encode_outcome(outcome);
    session.kept_bytes += reply.len() as u64;
    view.put(Family::State, key::state::reply(store, request.session, request.sequence), reply);
    if session.kept_bytes > KEPT_BYTES_MAX {
        crowd_out(view, store, request.session, &mut session)?;
    }
    view.put(Family::State, key::state::session(store, request.session), session.encode());
    Ok(())
}

/// Forgets the oldest outcomes until the others have room.
fn crowd_out(view: &mut Overlay<'_>, store: StoreNumber, id: u64, session: &mut Session) -> Result<(), EngineError> {
    let from = session.forgotten();
    let (mut kept_bytes, mut last) = (session.kept_bytes, from);
    try_scan(
        &*view,
        Family::State,
        &key::state::replies(store, id, from, u64::MAX),
        Order::Ascending,
        |row, reply| {
            if kept_bytes <= KEPT_BYTES_MAX {
                return Ok(Visit::Stop);
            }
            last = key::state::decode_reply(row).ok_or(Malformed { what: "reply key" })?;
            kept_bytes -= reply.len() as u64;
            Ok(Visit::Next)
        },
    )?;
    session.kept_bytes -= forget(view, store, id, from, last)?;
    session.acknowledged = session.acknowledged.max(last);
    Ok(())
}

/// Opens the session `id`, after removing a few that have ended.
pub fn open(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    id: u64,
) -> Result<Result<(), Refusal>, EngineError> {
    sweep(view, store, head)?;
    if head.sessions >= OPEN_MAX {
        return Ok(Err(Refusal::TooManySessions { limit: OPEN_MAX }));
    }
    let session = Session { last_used_ms: head.clock_ms, acknowledged: 0, highest: 0, kept_bytes: 0 };
    view.put(Family::State, key::state::session(store, id), session.encode());
    head.sessions += 1;
    Ok(Ok(()))
}

/// Removes the session `id` and all it remembers; nothing when there is none.
pub fn close(view: &mut Overlay<'_>, store: StoreNumber, head: &mut Head, id: u64) -> Result<(), EngineError> {
    if load(&*view, store, id)?.is_none() {
        return Ok(());
    }
    assert!(head.sessions > 0, "a session is not counted in the head");
    head.sessions -= 1;
    view.delete(Family::State, key::state::session(store, id));
    remove_rows(view, &key::state::all_replies(store, id))?;
    Ok(())
}

/// Looks at the next few sessions and removes those that have ended.
fn sweep(view: &mut Overlay<'_>, store: StoreNumber, head: &mut Head) -> Result<(), EngineError> {
    let span = Span { from: key::state::session(store, head.sweep), to: key::state::sessions(store).to };
    let (mut looks, mut ended, mut next) = (0, Vec::new(), 0);
    try_scan(&*view, Family::State, &span, Order::Ascending, |row, value| {
        let id = key::state::decode_session(row).ok_or(Malformed { what: "session key" })?;
        if looks == SWEEP_LOOKS || ended.len() == SWEEP_REMOVALS {
            next = id;
            return Ok(Visit::Stop);
        }
        looks += 1;
        if Session::decode(Bytes::copy_from_slice(value))?.has_ended(head.clock_ms) {
            ended.push(id);
        }
        Ok(Visit::Next)
    })?;
    head.sweep = next;
    for id in ended {
        close(view, store, head, id)?;
    }
    Ok(())
}

/// Removes the kept replies above `from` up to and including `to`. Returns their bytes.
fn forget(view: &mut Overlay<'_>, store: StoreNumber, session: u64, from: u64, to: u64) -> Result<u64, EngineError> {
    if from == to {
        return Ok(0);
    }
    remove_rows(view, &key::state::replies(store, session, from, to))
}

/// Removes the rows of `span`. Returns the bytes of their values.
fn remove_rows(view: &mut Overlay<'_>, span: &Span) -> Result<u64, EngineError> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    view.scan(Family::State, span, Order::Ascending, &mut |row, value| {
        rows.push(row.to_vec());
        bytes += value.len() as u64;
        Visit::Next
    })?;
    rows.into_iter().for_each(|row| view.delete(Family::State, row));
    Ok(bytes)
}

fn load(read: &dyn Read, store: StoreNumber, id: u64) -> Result<Option<Session>, EngineError> {
    let row = read.get(Family::State, &key::state::session(store, id))?;
    Ok(row.map(Session::decode).transpose()?)
}

#[cfg(test)]
mod tests {
    use trefoil_causality::Revision;

    use super::*;
    use crate::command::{Pair, Reply};
    use crate::engine::memory::MemoryEngine;

    const STORE: StoreNumber = StoreNumber(3);

    fn outcome(revision: u64) -> Outcome {
        Outcome { revision: Revision(revision), result: Ok(Reply::Compacted) }
    }

    /// Admits a request; one to be executed is kept with its number as revision.
    fn request(view: &mut Overlay<'_>, clock_ms: u64, sequence: u64, acknowledged: u64) -> Admission {
        let request = RequestId { session: 7, sequence, acknowledged };
        let admission = admit(view, STORE, clock_ms, request).expect("memory does not fail");
        if admission == Admission::Execute {
            keep(view, STORE, request, &outcome(sequence)).expect("memory does not fail");
        }
        admission
    }

    fn opened(view: &mut Overlay<'_>, head: &mut Head, id: u64) -> Result<(), Refusal> {
        open(view, STORE, head, id).expect("memory does not fail")
    }

    fn rows(view: &Overlay<'_>, span: &Span) -> usize {
        let mut rows = 0;
        view.scan(Family::State, span, Order::Ascending, &mut |_, _| {
            rows += 1;
            Visit::Next
        })
        .expect("memory does not fail");
        rows
    }

    #[test]
    fn each_number_is_executed_once() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        assert_eq!(opened(&mut view, &mut Head::empty(), 7), Ok(()));
        let below = Admission::Unknown(UnknownReason::BelowWindow);
        let again = |sequence| Admission::Answered(outcome(sequence));
        for (place, (sequence, acknowledged, expected)) in [
            (0, 0, below.clone()),
            (1, 0, Admission::Execute),
            (1, 0, again(1)),
            (3, 0, Admission::Execute),
            (2, 0, Admission::Execute),
            (2, 1, again(2)),
            (1, 0, below.clone()),
            // An acknowledgement of what was never seen counts up to what was.
            (3, 900, again(3)),
            (3, 0, below.clone()),
            (4, 0, Admission::Execute),
            (4 + WINDOW, 0, Admission::Execute),
            (4, 0, below.clone()),
            (5, 0, Admission::Execute),
            (u64::MAX, 0, Admission::Execute),
            (u64::MAX, 0, again(u64::MAX)),
            (4 + WINDOW, 0, below.clone()),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(request(&mut view, 0, sequence, acknowledged), expected, "step {place}: {sequence}");
        }
        assert_eq!(rows(&view, &key::state::all_replies(STORE, 7)), 1);
    }

    #[test]
    fn large_outcomes_crowd_out_the_oldest() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        assert_eq!(opened(&mut view, &mut Head::empty(), 7), Ok(()));
        let large = |bytes: usize| {
            let pair = Pair {
                key: "k".into(),
                value: vec![0; bytes].into(),
                create_revision: Revision(1),
                mod_revision: Revision(1),
                version: 1,
                lease: 0,
            };
            Outcome { revision: Revision(1), result: Ok(Reply::Put { previous: Some(pair) }) }
        };
        let third = KEPT_BYTES_MAX as usize / 3;
        let below = Admission::Unknown(UnknownReason::BelowWindow);
        for (sequence, bytes) in [(1, third), (2, third), (3, third), (4, KEPT_BYTES_MAX as usize), (5, 10)] {
            let request = RequestId { session: 7, sequence, acknowledged: 0 };
            assert_eq!(admit(&mut view, STORE, 0, request).expect("memory does not fail"), Admission::Execute);
            keep(&mut view, STORE, request, &large(bytes)).expect("memory does not fail");
            let kept = match sequence {
                1 | 2 => sequence as usize,
                3 => 2,
                4 => 0,
                _ => 1,
            };
            assert_eq!(rows(&view, &key::state::all_replies(STORE, 7)), kept, "after {sequence}");
        }
        for sequence in 1..5 {
            assert_eq!(request(&mut view, 0, sequence, 0), below, "{sequence}");
        }
        assert_eq!(request(&mut view, 0, 5, 0), Admission::Answered(large(10)));
    }

    #[test]
    fn an_unused_session_ends() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        let ended = Admission::Unknown(UnknownReason::SessionEnded);
        assert_eq!(request(&mut view, 0, 1, 0), ended);
        assert_eq!(opened(&mut view, &mut Head::empty(), 7), Ok(()));
        assert_eq!(request(&mut view, IDLE_MS_MAX - 1, 1, 0), Admission::Execute);
        assert_eq!(request(&mut view, 2 * IDLE_MS_MAX - 2, 2, 0), Admission::Execute);
        assert_eq!(request(&mut view, 3 * IDLE_MS_MAX - 2, 2, 0), ended);
    }

    #[test]
    fn closing_leaves_no_row() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        let mut head = Head::empty();
        assert_eq!(opened(&mut view, &mut head, 7), Ok(()));
        request(&mut view, 0, 1, 0);
        for _ in 0..2 {
            close(&mut view, STORE, &mut head, 7).expect("memory does not fail");
            assert_eq!(head.sessions, 0);
        }
        let request = RequestId { session: 7, sequence: 2, acknowledged: 0 };
        keep(&mut view, STORE, request, &outcome(1)).expect("memory does not fail");
        assert_eq!(rows(&view, &key::store(STORE)), 0);
    }

    #[test]
    fn ended_sessions_make_room_a_few_at_a_time() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        let mut head = Head::empty();
        for id in 0..OPEN_MAX {
            assert_eq!(opened(&mut view, &mut head, id), Ok(()));
        }
        assert_eq!(opened(&mut view, &mut head, OPEN_MAX), Err(Refusal::TooManySessions { limit: OPEN_MAX }));
        head.clock_ms = IDLE_MS_MAX;
        for id in OPEN_MAX..OPEN_MAX + 2_000 {
            assert_eq!(opened(&mut view, &mut head, id), Ok(()));
        }
        assert_eq!(head.sessions, 2_000);
        assert_eq!(rows(&view, &key::state::sessions(STORE)), 2_000);
    }
}
