//! The only file that knows key bytes.
//!
//! Integers are big-endian, so that byte order is number order. Rows of replicated state begin with a
//! [`StoreNumber`]; votes and log entries begin with the `ReplicaId`, because they never move to another number.
//! `docs/data-file.md` lists every layout; a change here is a new data format.
//!
//! Invariants:
//!
//! * Within a family no encoded key is a prefix of a different kind of key's range: kinds are told apart by a tag.
//! * [`index`] keys sort by user key first, then newest revision first.

use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::NodeId;

use crate::engine::{Span, successor};

/// The prefix of one generation of one local replica's state. Never reused on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreNumber(pub u32);

/// Where a change stands within the store: its revision, and its place among the changes of that revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    pub revision: Revision,
    pub sub: u32,
}

/// Rows of the `node` family.
pub mod node {
    use super::*;

    /// The data format of the whole directory.
    pub const FORMAT: &[u8] = b"format";
    /// Cluster id, node id, storage id.
    pub const IDENTITY: &[u8] = b"identity";
    /// The storage id of a directory that has no cluster yet.
    pub const STORAGE_ID: &[u8] = b"storage-id";
    /// The founding record, as it was agreed on.
    pub const FOUNDING: &[u8] = b"founding";
    /// How often this directory was opened.
    pub const START_COUNT: &[u8] = b"start-count";
    /// The run ids of its last starts, oldest first, 8 bytes each.
    pub const RUNS: &[u8] = b"runs";
    /// The writer position: +1 with each batch of the writer.
    pub const POSITION: &[u8] = b"position";
    /// The next store number to hand out.
    pub const NEXT_STORE: &[u8] = b"next-store";

    /// A local replica: its partition and store number.
    pub fn replica(replica: ReplicaId) -> Vec<u8> {
        tagged(b"replica/", replica.0)
    }

    /// All local replicas.
    pub fn replicas() -> Span {
        Span::prefix(b"replica/")
    }

    /// The replica a [`replica`] key names.
    pub fn decode_replica(key: &[u8]) -> Option<ReplicaId> {
        Some(ReplicaId(u64::from_be_bytes(key.strip_prefix(b"replica/")?.try_into().ok()?)))
    }

    /// The highest start count and the storage id seen of a peer.
    pub fn peer(node: NodeId) -> Vec<u8> {
        tagged(b"peer/", node.0)
    }

    /// All peers ever seen.
    pub fn peers() -> Span {
        Span::prefix(b"peer/")
    }

    /// The node a [`peer`] key names.
    pub fn decode_peer(key: &[u8]) -> Option<NodeId> {
        Some(NodeId(u64::from_be_bytes(key.strip_prefix(b"peer/")?.try_into().ok()?)))
    }

    fn tagged(tag: &[u8], id: u64) -> Vec<u8> {
        [tag, &id.to_be_bytes()].concat()
    }
}

/// Rows of the `log` family.
pub mod log {
    use super::*;

    const VOTE: u8 = 1;
    const PURGED: u8 = 2;
    const COMMITTED: u8 = 3;
    const ENTRY: u8 = 4;

    /// The replica's vote.
    pub fn vote(replica: ReplicaId) -> [u8; 9] {
        tag(replica, VOTE)
    }

    /// The last log id that was purged.
    pub fn purged(replica: ReplicaId) -> [u8; 9] {
        tag(replica, PURGED)
    }

    /// A lower bound of what was committed.
    pub fn committed(replica: ReplicaId) -> [u8; 9] {
        tag(replica, COMMITTED)
    }

    /// The log entry at `index`.
    pub fn entry(replica: ReplicaId, index: u64) -> [u8; 17] {
        let mut key = [0; 17];
        key[..9].copy_from_slice(&tag(replica, ENTRY));
        key[9..].copy_from_slice(&index.to_be_bytes());
        key
    }

    /// The log entries `from..to`.
    pub fn entries(replica: ReplicaId, from: u64, to: u64) -> Span {
        Span::new(entry(replica, from).to_vec(), entry(replica, to).to_vec())
    }

    /// Every log entry of the replica.
    pub fn all_entries(replica: ReplicaId) -> Span {
        Span::prefix(&tag(replica, ENTRY))
    }

    /// Vote, log and bounds of the replica.
    pub fn all(replica: ReplicaId) -> Span {
        Span::prefix(&replica.0.to_be_bytes())
    }

    /// The index an [`entry`] key names.
    pub fn decode_entry(key: &[u8]) -> Option<u64> {
        (key.len() == 17 && key[8] == ENTRY).then(|| u64::from_be_bytes(key[9..].try_into().expect("8 bytes")))
    }

    fn tag(replica: ReplicaId, tag: u8) -> [u8; 9] {
        let mut key = [tag; 9];
        key[..8].copy_from_slice(&replica.0.to_be_bytes());
        key
    }
}

/// Rows of the `state` family.
pub mod state {
    use super::*;

    const APPLIED: u8 = 1;
    const HEAD: u8 = 2;
    const SESSION: u8 = 3;
    const REPLY: u8 = 4;

    /// Applied log position and membership.
    pub fn applied(store: StoreNumber) -> Vec<u8> {
        tagged(store, APPLIED)
    }

    /// Revision, compaction floor, log time, content sum.
    pub fn head(store: StoreNumber) -> Vec<u8> {
        tagged(store, HEAD)
    }

    /// One session.
    pub fn session(store: StoreNumber, session: u64) -> Vec<u8> {
        [tagged(store, SESSION).as_slice(), &session.to_be_bytes()].concat()
    }

    /// All sessions.
    pub fn sessions(store: StoreNumber) -> Span {
        Span::prefix(&tagged(store, SESSION))
    }

    /// The session a [`session`] key names.
    pub fn decode_session(key: &[u8]) -> Option<u64> {
        (key.len() == 13 && key[4] == SESSION).then(|| u64::from_be_bytes(key[5..].try_into().expect("8 bytes")))
    }

    /// The kept reply to one request of a session.
    pub fn reply(store: StoreNumber, session: u64, sequence: u64) -> Vec<u8> {
        [tagged(store, REPLY).as_slice(), &session.to_be_bytes(), &sequence.to_be_bytes()].concat()
    }

    /// The sequence of a kept reply's row.
    pub fn decode_reply(key: &[u8]) -> Option<u64> {
        (key.len() == 21 && key[4] == REPLY).then(|| u64::from_be_bytes(key[13..].try_into().expect("8 bytes")))
    }

    /// The kept replies to the requests of a session above `from`, up to and including `to`.
    pub fn replies(store: StoreNumber, session: u64, from: u64, to: u64) -> Span {
        let behind = |sequence| [reply(store, session, sequence).as_slice(), &[0]].concat();
        Span::new(behind(from), behind(to))
    }

    /// Every kept reply of a session.
    pub fn all_replies(store: StoreNumber, session: u64) -> Span {
        Span::prefix(&[tagged(store, REPLY).as_slice(), &session.to_be_bytes()].concat())
    }

    fn tagged(store: StoreNumber, tag: u8) -> Vec<u8> {
        [store.0.to_be_bytes().as_slice(), &[tag]].concat()
    }
}

/// Everything under one store number, in any family of stores.
pub fn store(store: StoreNumber) -> Span {
    Span::prefix(&store.0.to_be_bytes())
}

/// The store number a row of a family of stores begins with.
pub fn decode_store(key: &[u8]) -> Option<StoreNumber> {
    Some(StoreNumber(u32::from_be_bytes(key.get(..4)?.try_into().ok()?)))
}

/// The same row under another store number: what installing a snapshot does to each key.
pub fn with_store(store: StoreNumber, key: &[u8]) -> Option<Vec<u8>> {
    Some([store.0.to_be_bytes().as_slice(), key.get(4..)?].concat())
}

/// A living key's newest version.
pub fn current(store: StoreNumber, key: &[u8]) -> Vec<u8> {
    [store.0.to_be_bytes().as_slice(), key].concat()
}

/// The living keys `from..to`; no `to` means to the last.
pub fn current_span(store: StoreNumber, from: &[u8], to: Option<&[u8]>) -> Span {
    Span {
        from: current(store, from),
        to: match to {
            Some(to) => Some(current(store, to)),
            None => successor(&store.0.to_be_bytes()),
        },
    }
}

/// The user key of a [`current`] row.
pub fn decode_current(key: &[u8]) -> Option<&[u8]> {
    key.get(4..)
}

/// A retained change.
pub fn change(store: StoreNumber, id: ChangeId) -> Vec<u8> {
    [store.0.to_be_bytes().as_slice(), &id.revision.0.to_be_bytes(), &id.sub.to_be_bytes()].concat()
}

/// The retained changes of the revisions `from..to`.
pub fn changes(store: StoreNumber, from: Revision, to: Revision) -> Span {
    Span::new(change(store, ChangeId { revision: from, sub: 0 }), change(store, ChangeId { revision: to, sub: 0 }))
}

/// The id a [`change`] key names.
pub fn decode_change(key: &[u8]) -> Option<ChangeId> {
    (key.len() == 16).then(|| ChangeId {
        revision: Revision(u64::from_be_bytes(key[4..12].try_into().expect("8 bytes"))),
        sub: u32::from_be_bytes(key[12..].try_into().expect("4 bytes")),
    })
}

/// The index row of one change of `key`: key escaped, then revision and sub inverted, so that a key's newest change
/// comes first.
pub fn index(store: StoreNumber, key: &[u8], id: ChangeId) -> Vec<u8> {
    let mut row = index_prefix(store, key);
    row.extend_from_slice(&(!id.revision.0).to_be_bytes());
    row.extend_from_slice(&(!id.sub).to_be_bytes());
    row
}

/// The index rows of the user keys `from..to`; no `to` means to the last.
pub fn index_span(store: StoreNumber, from: &[u8], to: Option<&[u8]>) -> Span {
    Span {
        from: index_prefix(store, from),
        to: match to {
            Some(to) => Some(index_prefix(store, to)),
            None => successor(&store.0.to_be_bytes()),
        },
    }
}

/// The user key and change an [`index`] row names.
pub fn decode_index(row: &[u8]) -> Option<(Vec<u8>, ChangeId)> {
    let (escaped, id) = row.get(4..)?.split_at_checked(row.len().checked_sub(16)?)?;
    let id = ChangeId {
        revision: Revision(!u64::from_be_bytes(id[..8].try_into().ok()?)),
        sub: !u32::from_be_bytes(id[8..].try_into().ok()?),
    };
    Some((unescape(escaped)?, id))
}

/// Order-preserving and prefix-free: a zero byte becomes `00 ff`, the end is `00 00`.
fn index_prefix(store: StoreNumber, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(4 + key.len() + 2 + 12);
    row.extend_from_slice(&store.0.to_be_bytes());
    for &byte in key {
        row.push(byte);
        if byte == 0 {
            row.push(0xff);
        }
    }
    row.extend_from_slice(&[0, 0]);
    row
}

fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let body = escaped.strip_suffix(&[0, 0])?;
    let mut key = Vec::with_capacity(body.len());
    let mut bytes = body.iter();
    while let Some(&byte) = bytes.next() {
        key.push(byte);
        if byte == 0 && bytes.next() != Some(&0xff) {
            return None;
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(revision: u64, sub: u32) -> ChangeId {
        ChangeId { revision: Revision(revision), sub }
    }

    proptest! {
        #[test]
        fn index_rows_sort_by_key_then_newest_first(
            a in prop::collection::vec(prop::sample::select(vec![0u8, 1, 97, 255]), 0..6),
            b in prop::collection::vec(prop::sample::select(vec![0u8, 1, 97, 255]), 0..6),
            x in 0u64..4, y in 0u64..4,
        ) {
            let store = StoreNumber(7);
            let (row_a, row_b) = (index(store, &a, id(x, 0)), index(store, &b, id(y, 1)));
            let expected = a.cmp(&b).then(y.cmp(&x)).then(std::cmp::Ordering::Greater);
            prop_assert_eq!(row_a.cmp(&row_b), expected);
            prop_assert_eq!(decode_index(&row_a), Some((a.clone(), id(x, 0))));
            let span = index_span(store, &a, Some(&b));
            prop_assert_eq!(span.from <= row_a && row_a < span.to.unwrap(), a < b);
        }

        #[test]
        fn decoding_garbage_never_panics(row in prop::collection::vec(any::<u8>(), 0..40)) {
            let _: (Option<_>, Option<_>, Option<_>) = (decode_index(&row), decode_change(&row), decode_store(&row));
            let _: (Option<_>, Option<_>) = (log::decode_entry(&row), state::decode_session(&row));
        }
    }
}
