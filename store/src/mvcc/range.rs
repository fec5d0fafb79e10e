//! Reading keys, now or at any revision from the floor on.
//!
//! A read of the newest revision walks the `current` rows and nothing else. A read in the past walks the `index` rows
//! to find, for each key, its newest change at or below the revision, and then fetches the changes that are answered.
//! Either way a limit, in keys or in bytes, ends the walk after one key more, unless the keys are to be counted.

use bytes::Bytes;
use trefoil_causality::Revision;

use super::Head;
use super::walk::Walk;
use crate::codec::Malformed;
use crate::command::{KeyRange, Pair, RangeEnd, RangeOp, RangeReply, Refusal};
use crate::engine::{EngineError, Family, Order, Read, Span, Visit, try_scan};
use crate::key::{self, ChangeId, StoreNumber};
use crate::record::{ChangeRecord, Version, index_alive};

/// What a pair costs beside key and value.
const PAIR_BYTES: usize = 32;

/// The keys `op` asks for, or why they cannot be read. Ends with `more` once the pairs have `bytes_max` bytes; the last
/// one may exceed them.
pub fn range(
    read: &dyn Read,
    store: StoreNumber,
    head: &Head,
    op: &RangeOp,
    bytes_max: usize,
) -> Result<Result<RangeReply, Refusal>, EngineError> {
    match head.readable(op.revision) {
        Ok(revision) => read_at(read, store, head, revision, op, bytes_max, &mut Walk::unbounded()).map(Ok),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Reads at a revision that is known to be readable. When `walk` ends it, the reply says nothing.
pub(super) fn read_at(
    read: &dyn Read,
    store: StoreNumber,
    head: &Head,
    revision: Revision,
    op: &RangeOp,
    bytes_max: usize,
    walk: &mut Walk,
) -> Result<RangeReply, EngineError> {
    if revision == head.revision {
        read_current(read, store, op, bytes_max, walk)
    } else {
        read_history(read, store, revision, op, bytes_max, walk)
    }
}

/// Whether a reply ends with `more` because of its bytes, and not at the limit that was asked for.
pub(super) fn cut_by_bytes(op: &RangeOp, reply: &RangeReply) -> bool {
    reply.more && op.limit.is_none_or(|limit| (reply.pairs.len() as u64) < limit)
}

/// The pair of an answer, and what it costs.
fn answered(op: &RangeOp, key: Bytes, mut version: Version) -> (Pair, usize) {
    if op.keys_only {
        version.value = Bytes::new();
    }
    let pair = version.into_pair(key);
    let bytes = pair_bytes(&pair);
    (pair, bytes)
}

/// What a pair of an answer costs.
pub(super) fn pair_bytes(pair: &Pair) -> usize {
    pair.key.len() + pair.value.len() + PAIR_BYTES
}

fn read_current(
    read: &dyn Read,
    store: StoreNumber,
    op: &RangeOp,
    bytes_max: usize,
    walk: &mut Walk,
) -> Result<RangeReply, EngineError> {
    let mut cut = Cut::new(op, bytes_max);
    let mut pairs = Vec::new();
    current_rows(read, store, &op.range, order(op), |key, row| {
        if walk.key() == Visit::Stop {
            return Ok(Visit::Stop);
        }
        if cut.takes_next() {
            let version = Version::decode(Bytes::copy_from_slice(row))?;
            let (pair, bytes) = answered(op, Bytes::copy_from_slice(key), version);
            cut.spend(bytes);
            pairs.push(pair);
        }
        Ok(cut.goes_on())
    })?;
    Ok(cut.reply(op, pairs))
}

fn read_history(
    read: &dyn Read,
    store: StoreNumber,
    revision: Revision,
    op: &RangeOp,
    bytes_max: usize,
    walk: &mut Walk,
) -> Result<RangeReply, EngineError> {
    let mut cut = Cut::new(op, bytes_max);
    let mut found = Vec::new();
    living_at(read, store, &op.range, revision, order(op), walk, &mut |key, id| {
        if cut.takes_next() {
            cut.spend(key.len() + PAIR_BYTES);
            found.push((Bytes::copy_from_slice(key), id));
        }
        cut.goes_on()
    })?;
    let (mut pairs, mut spent, all) = (Vec::new(), 0, found.len());
    for (key, id) in found {
        if spent >= bytes_max {
            break;
        }
        let (pair, bytes) = answered(op, key, version_of(read, store, id)?);
        spent += bytes;
        pairs.push(pair);
    }
    let cut_short = pairs.len() < all;
    let reply = cut.reply(op, pairs);
    Ok(RangeReply { more: reply.more || cut_short, ..reply })
}

fn order(op: &RangeOp) -> Order {
    if op.descending { Order::Descending } else { Order::Ascending }
}

/// Where a range is cut: counts the living keys the walk meets.
struct Cut {
    /// How many keys are answered.
    most: u64,
    /// How many bytes they may still have; at 0 nothing more is answered.
    bytes_left: usize,
    /// Whether the walk goes on to the end of the range.
    counting: bool,
    met: u64,
}

impl Cut {
    fn new(op: &RangeOp, bytes_max: usize) -> Cut {
        let most = if op.count_only { 0 } else { op.limit.unwrap_or(u64::MAX) };
        Cut { most, bytes_left: bytes_max, counting: op.count || op.count_only, met: 0 }
    }

    /// Meets the next key; whether it is part of the answer.
    fn takes_next(&mut self) -> bool {
        if self.bytes_left == 0 {
            self.most = self.most.min(self.met);
        }
        self.met += 1;
        self.met <= self.most
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    fn goes_on(&self) -> Visit {
        if self.counting || self.met <= self.most { Visit::Next } else { Visit::Stop }
    }

    fn reply(self, op: &RangeOp, pairs: Vec<Pair>) -> RangeReply {
        let more = !op.count_only && self.met > self.most;
        RangeReply { pairs, more, count: self.counting.then_some(self.met) }
    }
}

/// Shows the user key and the `current` row of each living key of `range`.
pub(super) fn current_rows(
    read: &dyn Read,
    store: StoreNumber,
    range: &KeyRange,
    order: Order,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, EngineError>,
) -> Result<(), EngineError> {
    if range.end == RangeEnd::Single {
        if let Some(row) = read.get(Family::Current, &key::current(store, &range.key))? {
            visit(&range.key, &row)?;
        }
        return Ok(());
    }
    let span = key::current_span(store, &range.key, range.upper().as_deref());
    if span.is_empty() {
        return Ok(());
    }
    try_scan(read, Family::Current, &span, order, |key, row| {
        visit(key::decode_current(key).ok_or(Malformed { what: "current key" })?, row)
    })
}

/// Shows each key of `range` that lives at `revision`, with the change that made it what it was then, until `walk` ends
/// it or `visit` does.
pub(super) fn living_at(
    read: &dyn Read,
    store: StoreNumber,
    range: &KeyRange,
    revision: Revision,
    order: Order,
    walk: &mut Walk,
    visit: &mut dyn FnMut(&[u8], ChangeId) -> Visit,
) -> Result<(), EngineError> {
    if range.end == RangeEnd::Single {
        let up_to = ChangeId { revision, sub: u32::MAX };
        if let Some((id, true)) = newest_change(read, store, &range.key, up_to)?
            && walk.key() == Visit::Next
        {
            visit(&range.key, id);
        }
        return Ok(());
    }
    let span = key::index_span(store, &range.key, range.upper().as_deref());
    if span.is_empty() {
        return Ok(());
    }
    match order {
        Order::Ascending => living_ascending(read, &span, revision, walk, visit),
        Order::Descending => living_descending(read, &span, revision, walk, visit),
    }
}

/// Within a key the newest change comes first: the first one not above `revision` decides.
fn living_ascending(
    read: &dyn Read,
    span: &Span,
    revision: Revision,
    walk: &mut Walk,
    visit: &mut dyn FnMut(&[u8], ChangeId) -> Visit,
) -> Result<(), EngineError> {
    let mut decided: Option<Vec<u8>> = None;
    try_scan(read, Family::Index, span, Order::Ascending, |row, value| {
        let (key, id, alive) = index_row(row, value)?;
        if walk.change(id) == Visit::Stop {
            return Ok(Visit::Stop);
        }
        if id.revision > revision || decided.as_ref() == Some(&key) {
            return Ok(Visit::Next);
        }
        let next = if alive { show(&key, id, walk, visit) } else { Visit::Next };
        decided = Some(key);
        Ok(next)
    })
}

/// Within a key the oldest change comes first: the last one not above `revision` decides, and that it was the last is
/// known only when another key comes.
fn living_descending(
    read: &dyn Read,
    span: &Span,
    revision: Revision,
    walk: &mut Walk,
    visit: &mut dyn FnMut(&[u8], ChangeId) -> Visit,
) -> Result<(), EngineError> {
    let mut show_last = |candidate: Option<(Vec<u8>, ChangeId, bool)>, walk: &mut Walk| match candidate {
        Some((key, id, true)) => show(&key, id, walk, visit),
        Some((_, _, false)) | None => Visit::Next,
    };
    let mut candidate: Option<(Vec<u8>, ChangeId, bool)> = None;
    try_scan(read, Family::Index, span, Order::Descending, |row, value| {
        let (key, id, alive) = index_row(row, value)?;
        let left = candidate.take_if(|(of, ..)| *of != key);
        if show_last(left, walk) == Visit::Stop {
            return Ok(Visit::Stop);
        }
        if walk.change(id) == Visit::Stop {
            candidate = None;
            return Ok(Visit::Stop);
        }
        if id.revision <= revision {
            candidate = Some((key, id, alive));
        }
        Ok(Visit::Next)
    })?;
    // After a stop there is no candidate: it was taken to be shown, or given up with the walk.
    show_last(candidate, walk);
    Ok(())
}

fn show(key: &[u8], id: ChangeId, walk: &mut Walk, visit: &mut dyn FnMut(&[u8], ChangeId) -> Visit) -> Visit {
    match walk.alive(id) {
        Visit::Next => visit(key, id),
        Visit::Stop => Visit::Stop,
    }
}

/// The newest change of `key` not above `up_to`, and whether it left the key alive.
pub(super) fn newest_change(
    read: &dyn Read,
    store: StoreNumber,
    key: &[u8],
    up_to: ChangeId,
) -> Result<Option<(ChangeId, bool)>, EngineError> {
    let end = key::index_span(store, key, KeyRange::single(key.to_vec()).upper().as_deref()).to;
    let span = Span { from: key::index(store, key, up_to), to: end };
    let mut newest = None;
    try_scan(read, Family::Index, &span, Order::Ascending, |row, value| {
        let (_, id, alive) = index_row(row, value)?;
        newest = Some((id, alive));
        Ok(Visit::Stop)
    })?;
    Ok(newest)
}

/// What the put `id` made of its key.
pub(super) fn version_of(read: &dyn Read, store: StoreNumber, id: ChangeId) -> Result<Version, EngineError> {
    let row = read.get(Family::Changes, &key::change(store, id))?;
    let row = row.ok_or_else(|| EngineError::Corrupt(format!("index row without its change row: {id:?}")))?;
    match ChangeRecord::decode(row)? {
        ChangeRecord::Put { key: _, create_revision, version, lease, value } => {
            Ok(Version { create_revision, modified: id, version, lease, value })
        }
        ChangeRecord::Delete { key: _ } => {
            Err(EngineError::Corrupt(format!("index row of a put names a delete: {id:?}")))
        }
    }
}

fn index_row(row: &[u8], value: &[u8]) -> Result<(Vec<u8>, ChangeId, bool), EngineError> {
    let (key, id) = key::decode_index(row).ok_or(Malformed { what: "index key" })?;
    Ok((key, id, index_alive(value)?))
}
