//! Sessions: what makes it safe to repeat a request whose answer was lost.
//!
//! A client opens a session, numbers its requests 1, 2, 3, … and repeats a number only for the same request. The
//! session remembers the outcome of each number it has executed, in replicated state, so that every replica and every
//! snapshot knows it. Numbers are forgotten when the client acknowledges them, or when they fall out of the **window**
//! of the [`WINDOW`] highest ones. Large replies are forgotten earlier, but not their numbers: of a reply that has more
//! than [`KEPT_BYTES_MAX`] on its own, and, oldest first, of those that have more together, only that there was one is
//! kept.
//!
//! Invariants:
//!
//! * A number is executed at most once. One that is forgotten, or whose session has ended, is never executed: its
//!   outcome is unknown.
//! * A number the client has given up is never executed behind a request that acknowledged it, seen before or not.
//! * A number within the window that was neither executed nor acknowledged is executed, whatever else was forgotten.
//! * A session that was not used for [`IDLE_MS_MAX`] of log time has ended, whether or not its rows are still there.
//! * [`Head::sessions`] is the number of session rows; it never exceeds [`OPEN_MAX`].
//! * No command costs more than a fixed number of rows: opening a session looks at a few others and removes the ended
//!   ones, going round.
//!
//! Left out: that a repeated number carries the same request is the client's duty; it is not checked.

use bytes::Bytes;
use trefoil_causality::Revision;

use crate::codec::{Decoder, Malformed, put_u64};
use crate::command::{Outcome, Refusal, RequestId, UnknownReason, decode_outcome, encode_outcome};
use crate::engine::{EngineError, Family, Order, Read, Span, Visit, try_scan};
use crate::key::{self, StoreNumber};
use crate::mvcc::Head;
use crate::overlay::Overlay;

/// How many numbers up to the highest one a request may still come with.
pub const WINDOW: u64 = 1_000;
/// A session unused for this long, in log time, has ended.
pub const IDLE_MS_MAX: u64 = 10 * 60 * 1_000;
/// How many sessions a partition holds.
pub const OPEN_MAX: u64 = 10_000;

/// Bytes of the outcomes a session keeps; a reply that is larger on its own is forgotten at once.
pub const KEPT_BYTES_MAX: u64 = 1 << 20;

/// Outcomes up to this many bytes are never crowded out: what would be kept in their place is hardly smaller.
const SMALL_BYTES_MAX: usize = 64;

// So there is always room once all outcomes that are not small have been crowded out.
const _: () = assert!(WINDOW * SMALL_BYTES_MAX as u64 <= KEPT_BYTES_MAX);

/// How many sessions are looked at when one is opened, and how many ended ones are then removed.
const SWEEP_LOOKS: usize = 64;
const SWEEP_REMOVALS: usize = 16;

const FORMAT: u8 = 1;

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Execute it and [`keep`] the outcome.
    Execute,
    /// It was executed before, with this outcome; with [`UnknownReason::ReplyForgotten`] when the reply was too large.
    Answered(Outcome),
    /// It may have been executed before, and is not executed now.
    Unknown(UnknownReason),
}

/// One session's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    last_used_ms: u64,
    /// The client waits for none of the numbers up to this one, whether they were seen or not.
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
    // A client may give up a number that was never seen: if that comes late, it must not be executed over this one.
    // But it has sent none that lies above both this one and all that were seen.
    let sent = session.highest.max(request.sequence.saturating_sub(1));
    session.acknowledged = session.acknowledged.max(request.acknowledged.min(sent));
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
    let mut reply = encode_outcome(outcome);
    if reply.len() as u64 > KEPT_BYTES_MAX {
        reply = forgotten_reply(outcome.revision);
    }
    session.kept_bytes += reply.len() as u64;
    view.put(Family::State, key::state::reply(store, request.session, request.sequence), reply);
    if session.kept_bytes > KEPT_BYTES_MAX {
        crowd_out(view, store, request.session, &mut session)?;
    }
    view.put(Family::State, key::state::session(store, request.session), session.encode());
    Ok(())
}

/// Forgets the oldest replies that are not small until the others have room. Looks at [`WINDOW`] rows at most.
fn crowd_out(view: &mut Overlay<'_>, store: StoreNumber, id: u64, session: &mut Session) -> Result<(), EngineError> {
    let span = key::state::replies(store, id, session.forgotten(), u64::MAX);
    let (mut kept_bytes, mut crowded_out) = (session.kept_bytes, Vec::new());
    try_scan(&*view, Family::State, &span, Order::Ascending, |row, reply| {
        if kept_bytes <= KEPT_BYTES_MAX {
            return Ok(Visit::Stop);
        }
        if reply.len() > SMALL_BYTES_MAX {
            let sequence = key::state::decode_reply(row).ok_or(Malformed { what: "reply key" })?;
            let left = forgotten_reply(decode_outcome(Bytes::copy_from_slice(reply))?.revision);
            kept_bytes -= (reply.len() - left.len()) as u64;
            crowded_out.push((sequence, left));
        }
        Ok(Visit::Next)
    })?;
    for (sequence, left) in crowded_out {
        view.put(Family::State, key::state::reply(store, id, sequence), left);
    }
    session.kept_bytes = kept_bytes;
    Ok(())
}

/// What is kept in the place of a reply that is too large: that its number was executed.
fn forgotten_reply(revision: Revision) -> Vec<u8> {
    let reason = UnknownReason::ReplyForgotten;
    encode_outcome(&Outcome { revision, result: Err(Refusal::OutcomeUnknown { reason }) })
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

    /// Requests of a new session: sequence, acknowledged, and what must be done with it. Answers how many replies are
    /// kept at the end.
    fn play(steps: impl IntoIterator<Item = (u64, u64, Admission)>) -> usize {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        assert_eq!(opened(&mut view, &mut Head::empty(), 7), Ok(()));
        for (place, (sequence, acknowledged, expected)) in steps.into_iter().enumerate() {
            assert_eq!(request(&mut view, 0, sequence, acknowledged), expected, "step {place}: {sequence}");
        }
        rows(&view, &key::state::all_replies(STORE, 7))
    }

    #[test]
    fn each_number_is_executed_once() {
        let below = Admission::Unknown(UnknownReason::BelowWindow);
        let again = |sequence| Admission::Answered(outcome(sequence));
        let kept = play([
            (0, 0, below.clone()),
            (1, 0, Admission::Execute),
            (1, 0, again(1)),
            (3, 0, Admission::Execute),
            (2, 0, Admission::Execute),
            (2, 1, again(2)),
            (1, 0, below.clone()),
            // An acknowledgement of what cannot have been sent counts up to what was.
            (3, 900, again(3)),
            (3, 0, below.clone()),
            (4, 0, Admission::Execute),
            (4 + WINDOW, 0, Admission::Execute),
            (4, 0, below.clone()),
            (5, 0, Admission::Execute),
            (u64::MAX, 0, Admission::Execute),
            (u64::MAX, 0, again(u64::MAX)),
            (4 + WINDOW, 0, below),
        ]);
        assert_eq!(kept, 1);
    }

    /// A client that goes too far ahead loses what it left behind, but nothing is executed twice.
    #[test]
    fn a_number_far_ahead_is_executed_once_and_ends_those_below() {
        let below = Admission::Unknown(UnknownReason::BelowWindow);
        for far in [2 * WINDOW, u64::MAX] {
            let kept = play([
                (1, 0, Admission::Execute),
                (far, 0, Admission::Execute),
                (far, 0, Admission::Answered(outcome(far))),
                (1, 0, below.clone()),
                (2, 0, below.clone()),
                (far - WINDOW, 0, below.clone()),
                (far - WINDOW + 1, 0, Admission::Execute),
                (far - WINDOW + 1, 0, Admission::Answered(outcome(far - WINDOW + 1))),
            ]);
            assert_eq!(kept, 2);
        }
        // The oldest unanswered one can still be repeated behind one that is as far ahead as it may be.
        play([
            (1, 0, Admission::Execute),
            (WINDOW, 0, Admission::Execute),
            (1, 0, Admission::Answered(outcome(1))),
            (WINDOW + 1, 0, Admission::Execute),
            (1, 0, below),
        ]);
    }

    #[test]
    fn a_number_that_was_given_up_is_never_executed() {
        let below = Admission::Unknown(UnknownReason::BelowWindow);
        let kept = play([
            (1, 0, Admission::Execute),
            // It gives up 2, which was never seen and then comes late.
            (3, 2, Admission::Execute),
            (2, 0, below.clone()),
            (9, 3, Admission::Execute),
            // What lies below those seen may acknowledge all of them, and no more.
            (5, 900, below.clone()),
            (8, 0, below),
            (10, 3, Admission::Execute),
        ]);
        assert_eq!(kept, 1);
    }

    /// A reply of a little more than `bytes`.
    fn large(bytes: usize) -> Outcome {
        let pair = Pair {
            key: "k".into(),
            value: vec![0; bytes].into(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: 0,
        };
        Outcome { revision: Revision(1), result: Ok(Reply::Put { previous: Some(pair) }) }
    }

    /// Which of the sequences still have their reply, after a look at what their session counts as kept.
    fn with_replies(view: &Overlay<'_>, sequences: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let reply = |sequence: &u64| {
            let row = view.get(Family::State, &key::state::reply(STORE, 7, *sequence)).expect("memory does not fail");
            row.expect("each executed sequence has a row")
        };
        let sequences: Vec<u64> = sequences.into_iter().collect();
        let bytes: usize = sequences.iter().map(|sequence| reply(sequence).len()).sum();
        let session = load(view, STORE, 7).expect("memory does not fail").expect("it is open");
        assert_eq!(session.kept_bytes, bytes as u64, "the kept bytes of {sequences:?}");
        assert!(session.kept_bytes <= KEPT_BYTES_MAX, "{sequences:?} have {bytes} bytes");
        let has_reply = |sequence: &u64| decode_outcome(reply(sequence)).expect("a readable row").result.is_ok();
        sequences.into_iter().filter(has_reply).collect()
    }

    #[test]
    fn large_replies_are_forgotten_but_not_their_numbers() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        assert_eq!(opened(&mut view, &mut Head::empty(), 7), Ok(()));
        let whole = KEPT_BYTES_MAX as usize;
        let third = whole / 3;
        // Sequence, bytes, and which sequences then have their reply.
        let steps: [(u64, usize, &[u64]); 8] = [
            (2, whole, &[]),
            // It lies below one whose reply is forgotten.
            (1, third, &[1]),
            (3, 10, &[1, 3]),
            (6, third, &[1, 3, 6]),
            (5, third, &[3, 5, 6]),
            (7, whole, &[3, 5, 6]),
            (8, 2 * third, &[3, 8]),
            (4, 10, &[3, 4, 8]),
        ];
        for (place, (sequence, bytes, expected)) in steps.into_iter().enumerate() {
            let request = RequestId { session: 7, sequence, acknowledged: 0 };
            let admission = admit(&mut view, STORE, 0, request).expect("memory does not fail");
            assert_eq!(admission, Admission::Execute, "{sequence}");
            keep(&mut view, STORE, request, &large(bytes)).expect("memory does not fail");
            let mut executed: Vec<u64> = steps[..=place].iter().map(|(sequence, ..)| *sequence).collect();
            executed.sort_unstable();
            assert_eq!(with_replies(&view, executed), expected, "after {sequence}");
        }
        let reason = UnknownReason::ReplyForgotten;
        let forgotten = Outcome { revision: Revision(1), result: Err(Refusal::OutcomeUnknown { reason }) };
        for (sequence, bytes, _) in steps {
            let kept = [3, 4, 8].contains(&sequence);
            let expected = if kept { large(bytes) } else { forgotten.clone() };
            assert_eq!(request(&mut view, 0, sequence, 0), Admission::Answered(expected), "{sequence}");
        }
        assert_eq!(request(&mut view, 0, 9, 8), Admission::Execute);
        assert_eq!(with_replies(&view, [9]), [9], "acknowledged rows are gone");
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
