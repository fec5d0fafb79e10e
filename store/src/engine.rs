//! The contract between replication and the disk: ordered byte maps, atomic batches, one history.
//!
//! An engine holds one ordered map per [`Family`]. Writers hand it a [`Batch`], which becomes visible as a whole or
//! not at all. All batches, synced or not, form **one history** (the write-ahead log), and after a crash an engine
//! holds some prefix of it that includes every batch up to the last synced one.
//!
//! Invariants:
//!
//! * When `write(.., Sync)` returns, that batch and every earlier one survive a power cut.
//! * A read never sees half a batch.
//! * After an error of `write` nothing may be written again: what the disk holds is unknown until reopened.
//!
//! Left out: key layouts ([`crate::key`]), and who may write when (the server's writer).

pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;
#[cfg(feature = "rocksdb")]
mod tables;

#[cfg(all(test, feature = "rocksdb"))]
mod differential;
#[cfg(all(test, feature = "rocksdb"))]
mod rewriting;

use std::time::Duration;

use bytes::Bytes;

/// One ordered map of the engine. Every family is listed in `docs/data-file.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// What belongs to the node as a whole: format, identity, writer position, its replicas, store numbers.
    Node,
    /// Raft votes and log entries, under the `ReplicaId`.
    Log,
    /// Per store number: applied position, membership, revision, sessions.
    State,
    /// Per store number: each living key's newest version.
    Current,
    /// Per store number: every retained change in revision order.
    Changes,
    /// Per store number: key and revision of every retained change, newest first within a key.
    Index,
}

impl Family {
    /// Every family, in the order of their discriminants.
    pub const ALL: [Family; 6] =
        [Family::Node, Family::Log, Family::State, Family::Current, Family::Changes, Family::Index];

    /// The families whose rows begin with a store number.
    pub const OF_STORE: [Family; 4] = [Family::State, Family::Current, Family::Changes, Family::Index];

    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::Node => "node",
            Family::Log => "log",
            Family::State => "state",
            Family::Current => "current",
            Family::Changes => "changes",
            Family::Index => "index",
        }
    }
}

/// What the engine could not do. The caller may assume nothing about a write that failed; a read that failed read
/// nothing.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum EngineError {
    /// Bytes on disk are not what was written there.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The device or the file system refused.
    #[error("i/o: {0}")]
    Io(String),
}

/// A half-open range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Vec<u8>,
    /// `None`: to the end of the family.
    pub to: Option<Vec<u8>>,
}

impl Span {
    pub fn new(from: Vec<u8>, to: Vec<u8>) -> Span {
        Span { from, to: Some(to) }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Span {
        Span { from: prefix.to_vec(), to: successor(prefix) }
    }

    /// Nothing lies in a span whose end is not above its start.
    pub fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// The first key after all keys that begin with `prefix`; `None` when there is none (all bytes 0xff).
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xff)? + 1;
    let mut next = prefix[..kept].to_vec();
    next[kept - 1] += 1;
    Some(next)
}

/// The direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// What a scan does after the row it has just shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    Next,
    Stop,
}

/// Reading one consistent state.
pub trait Read: Send + Sync {
    /// The value under `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Shows each row of `span` in `order` until `visit` says stop.
    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError>;
}

/// Whether a write must survive a power cut before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Durable on return, with every batch before it.
    Sync,
    /// Ordered after all earlier batches, durable with the next synced one.
    NoSync,
}

/// A scan whose visit may fail; the first failure ends it.
pub fn try_scan(
    read: &dyn Read,
    family: Family,
    span: &Span,
    order: Order,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, EngineError>,
) -> Result<(), EngineError> {
    let mut failure = None;
    read.scan(family, span, order, &mut |key, value| match visit(key, value) {
        Ok(next) => next,
        Err(error) => {
            failure = Some(error);
            Visit::Stop
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// The file in which an engine notes which files belong to its database. It only grows, or a new one with a higher number
/// takes its place: one that is smaller than it was has lost its end, and with it whole tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manifest {
    pub number: u64,
    pub bytes: u64,
}

/// What an engine takes on disk. One without files takes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the write-ahead log. A [`flush`](Engine::flush) gives them back.
    pub log_bytes: u64,
    /// Bytes in memory that a [`flush`](Engine::flush) writes to tables, at most.
    pub memory_bytes: u64,
    pub families: Vec<FamilyUsage>,
}

/// What one family takes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyUsage {
    pub family: Family,
    /// Bytes of its tables.
    pub table_bytes: u64,
    /// An estimate of how many of them are of rows that were removed or replaced: a [`rewrite`](Engine::rewrite) gives
    /// them back, unless a snapshot or an iterator still sees these rows.
    pub dead_bytes: u64,
    /// An estimate of the bytes of tables whose rows were removed as ranges, which are not counted in `dead_bytes`
    /// before a [`flush`](Engine::flush). What is removed twice is counted twice.
    pub unflushed_range_bytes: u64,
}

/// A portion of a family's tables that was rewritten, or left as it is for want of room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// About as many bytes were written; 0 when it was left.
    pub bytes: u64,
    /// Bytes of room it takes, if it was left.
    pub wants: Option<u64>,
    /// The key at which the next portion begins; `None`: this was the last.
    pub next: Option<Vec<u8>>,
}

/// A store that holds one history of batches. See the file's head for what it promises.
pub trait Engine: Read + 'static {
    /// Appends `batch` to the history and makes it visible.
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError>;

    /// The state as of now; costs nothing that grows with the data.
    fn snapshot(&self) -> Box<dyn Read>;

    /// Moves everything out of the write-ahead log, so that the next open replays nothing.
    fn flush(&self) -> Result<(), EngineError>;

    /// Removes rows nobody reads any more. May happen later, and after a crash again.
    fn remove(&self, family: Family, span: &Span) -> Result<(), EngineError>;

    /// How much room the engine takes on disk. May read directories: not for async threads.
    fn usage(&self) -> Result<Usage, EngineError>;

    /// Rewrites the next portion of the tables of `family`, from the key `from` on, without the rows that were removed
    /// or replaced before the last [`flush`](Engine::flush). Changes nothing anybody can read. May take seconds, and
    /// room on the disk meanwhile: a portion that takes more than `room` bytes of it is left as it is. What is read
    /// meanwhile keeps the room it takes until it has been read.
    fn rewrite(&self, family: Family, from: &[u8], room: u64) -> Result<Rewritten, EngineError>;

    /// `None`: a synced [`write`](Engine::write) waits for the disk itself. `Some`: the disk is simulated, and its
    /// owner writes un-synced, waits this long, and then makes it durable with an empty synced batch.
    fn sync_delay(&self) -> Option<Duration>;

    /// The manifest, durable as it is now, when it is another than `known`. An engine without files has none.
    fn manifest_since(&self, known: Manifest) -> Result<Option<Manifest>, EngineError>;

    /// Whether the engine slows writes down now, because its background work has fallen behind.
    ///
    /// # Errors
    /// The engine has failed.
    fn holds_back(&self) -> Result<bool, EngineError>;

    /// Whether the engine has failed at something nobody waits for.
    ///
    /// # Errors
    /// It has; nothing may be written any more.
    fn check(&self) -> Result<(), EngineError>;
}

/// Changes that become visible together, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    buffer: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    family: Family,
    kind: Kind,
    /// Where the first part ends; it starts where the previous entry ended.
    first_end: usize,
    second_end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

/// One change of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Put {
        family: Family,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        family: Family,
        key: &'a [u8],
    },
    /// Removes `from..to`.
    DeleteRange {
        family: Family,
        from: &'a [u8],
        to: &'a [u8],
    },
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    /// With room for so many changes, and bytes of keys and values.
    pub fn with_capacity(changes: usize, bytes: usize) -> Batch {
        Batch { buffer: Vec::with_capacity(bytes), entries: Vec::with_capacity(changes) }
    }

    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.push(family, Kind::Put, key, value);
    }

    /// A put of a value that lies in two parts.
    pub fn put_parts(&mut self, family: Family, key: &[u8], head: &[u8], body: &[u8]) {
        self.put(family, key, head);
        self.buffer.extend_from_slice(body);
        let entry = self.entries.last_mut().expect("it was put");
        entry.second_end = self.buffer.len();
    }

    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.push(family, Kind::Delete, key, &[]);
    }

    /// Removes `from..to`. Costs readers until compacted: for rare, large removals.
    pub fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.push(family, Kind::DeleteRange, from, to);
    }

    /// Adds the changes of `other` after those of this batch.
    pub fn append(&mut self, other: &Batch) {
        let base = self.buffer.len();
        self.buffer.extend_from_slice(&other.buffer);
        self.entries.extend(other.entries.iter().map(|entry| Entry {
            first_end: entry.first_end + base,
            second_end: entry.second_end + base,
            ..*entry
        }));
    }

    /// Takes all changes out of it, and keeps its memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.entries.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The changes in the order they were added.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let first = &self.buffer[start..entry.first_end];
            let second = &self.buffer[entry.first_end..entry.second_end];
            start = entry.second_end;
            let family = entry.family;
            match entry.kind {
                Kind::Put => Change::Put { family, key: first, value: second },
                Kind::Delete => Change::Delete { family, key: first },
                Kind::DeleteRange => Change::DeleteRange { family, from: first, to: second },
            }
        })
    }

    fn push(&mut self, family: Family, kind: Kind, first: &[u8], second: &[u8]) {
        self.buffer.extend_from_slice(first);
        let first_end = self.buffer.len();
        self.buffer.extend_from_slice(second);
        self.entries.push(Entry { family, kind, first_end, second_end: self.buffer.len() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_carries_over_full_bytes() {
        assert_eq!(successor(b"a"), Some(b"b".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn a_batch_gives_back_what_was_added() {
        let mut first = Batch::new();
        first.put(Family::Node, b"k", b"v");
        let mut second = Batch::new();
        second.delete(Family::Log, b"gone");
        second.delete_range(Family::State, b"a", b"b");
        second.put_parts(Family::State, b"two", b"he", b"ad");
        first.append(&second);
        let seen: Vec<Change<'_>> = first.changes().collect();
        assert_eq!(
            seen,
            [
                Change::Put { family: Family::Node, key: b"k", value: b"v" },
                Change::Delete { family: Family::Log, key: b"gone" },
                Change::DeleteRange { family: Family::State, from: b"a", to: b"b" },
                Change::Put { family: Family::State, key: b"two", value: b"head" },
            ]
        );
    }
}
