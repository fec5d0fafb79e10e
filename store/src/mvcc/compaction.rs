//! Forgetting: the floor at once, the rows behind it later.
//!
//! [`compact`] is the command: it raises the floor, the same on every replica. [`scrub`] is housekeeping: each replica
//! removes, at its own pace, the changes no read at or above the floor can reach. What stays of a key is its newest
//! change at or below the floor, unless that is a tombstone older than the floor. A tombstone exactly at the floor
//! stays: a watch that starts there must see it.
//!
//! The scrub walks the changes in revision order. Each change it meets supersedes the one before it of the same key,
//! and an old tombstone supersedes itself. So a later scrub need only begin where the last one ended, at its floor.

use bytes::Bytes;
use trefoil_causality::Revision;

use super::Head;
use super::range::newest_change;
use crate::codec::Malformed;
use crate::command::Refusal;
use crate::engine::{Batch, EngineError, Family, Order, Read, Visit, try_scan};
use crate::key::{self, ChangeId, StoreNumber};
use crate::record::ChangeRecord;

/// Raises the floor to `revision`.
pub fn compact(head: &mut Head, revision: Revision) -> Result<(), Refusal> {
    if let Some(floor) = head.floor
        && revision <= floor
    {
        return Err(Refusal::Compacted { asked: revision.0, floor: floor.0 });
    }
    head.readable(Some(revision))?;
    head.floor = Some(revision);
    Ok(())
}

/// One step of removing what lies behind `floor`: looks at about `max_rows` changes from revision `from` on.
///
/// Returns what to remove, and the revision to go on from; `None` when done. Begin at the floor of the last scrub
/// that was done, or at revision 0; a step whose batch was lost may be repeated.
pub fn scrub(
    read: &dyn Read,
    store: StoreNumber,
    floor: Revision,
    from: Revision,
    max_rows: usize,
) -> Result<(Batch, Option<Revision>), EngineError> {
    let (changes, next) = changes_from(read, store, floor, from, max_rows)?;
    let mut batch = Batch::new();
    for change in changes {
        if let Some(older) = before(change.id)
            && let Some((superseded, _)) = newest_change(read, store, &change.key, older)?
        {
            remove(&mut batch, store, &change.key, superseded);
        }
        if change.tombstone && change.id.revision < floor {
            remove(&mut batch, store, &change.key, change.id);
        }
    }
    Ok((batch, next))
}

/// What the scrub needs of a change.
struct Change {
    id: ChangeId,
    key: Vec<u8>,
    tombstone: bool,
}

impl Change {
    fn decode(row: &[u8], value: &[u8]) -> Result<Change, Malformed> {
        let id = key::decode_change(row).ok_or(Malformed { what: "change key" })?;
        Ok(match ChangeRecord::decode(Bytes::copy_from_slice(value))? {
            ChangeRecord::Put { key, .. } => Change { id, key: key.to_vec(), tombstone: false },
            ChangeRecord::Delete { key } => Change { id, key: key.to_vec(), tombstone: true },
        })
    }
}

/// The changes of the revisions `from..=floor`, cut after `max_rows`, but never within a revision; and the revision
/// after the cut.
fn changes_from(
    read: &dyn Read,
    store: StoreNumber,
    floor: Revision,
    from: Revision,
    max_rows: usize,
) -> Result<(Vec<Change>, Option<Revision>), EngineError> {
    let mut found: Vec<Change> = Vec::new();
    let mut next = None;
    let span = key::changes(store, from, floor.next());
    if span.is_empty() {
        return Ok((found, next));
    }
    try_scan(read, Family::Changes, &span, Order::Ascending, |row, value| {
        let change = Change::decode(row, value)?;
        let revision_begins = found.last().is_some_and(|last| last.id.revision != change.id.revision);
        if revision_begins && found.len() >= max_rows {
            next = Some(change.id.revision);
            return Ok(Visit::Stop);
        }
        found.push(change);
        Ok(Visit::Next)
    })?;
    Ok((found, next))
}

/// The highest id below `id`.
fn before(id: ChangeId) -> Option<ChangeId> {
    match id.sub.checked_sub(1) {
        Some(sub) => Some(ChangeId { sub, ..id }),
        None => Some(ChangeId { revision: Revision(id.revision.0.checked_sub(1)?), sub: u32::MAX }),
    }
}

fn remove(batch: &mut Batch, store: StoreNumber, key: &[u8], id: ChangeId) {
    batch.delete(Family::Changes, &key::change(store, id));
    batch.delete(Family::Index, &key::index(store, key, id));
}
