//! One replica's log and vote in the engine, as the Raft library's log storage.
//!
//! Entries go through the node's writer and are called back after its sync; until then, and for a while after, they
//! are read from a tail kept in memory. Older entries are read from the engine: more than a few leave the async threads.
//!
//! Invariants:
//!
//! * Indexes are contiguous: from the one after `purged` to `last`.
//! * An entry leaves the tail only after the writer has written it.
//! * Votes, entries and truncations reach the history in the order the library asked for.

#[cfg(test)]
pub(super) mod tests;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use trefoil_causality::ReplicaId;
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Order, Read, Visit};
use trefoil_store::key;
use trefoil_world::planted::{self, Bug};

use crate::raft::types::{
    Group, LogEntry, LogId, Vote, decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
use crate::writer::Writer;

/// Entries and bytes of the tail that stay in memory once written.
const TAIL_ENTRIES_MAX: usize = 8192;
const TAIL_BYTES_MAX: usize = 16 << 20;
/// Bytes handed out by one read: bounds what one message to a follower holds.
const READ_BYTES_MAX: usize = 1 << 20;
/// A read of more entries than this from the engine leaves the async threads.
const INLINE_ENTRIES_MAX: u64 = 8;

/// One replica's log. Clones read and write the same log.
#[derive(Clone)]
pub struct LogStore {
    replica: ReplicaId,
    engine: Arc<dyn Engine>,
    writer: Writer,
    // A lock, because the library reads from replication tasks while its core appends; held for memory work only.
    cache: Arc<Mutex<Cache>>,
}

struct Cache {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Whether `committed` is newer than what the next append's batch must carry.
    committed_dirty: bool,
    purged: Option<LogId>,
    /// The first index that is kept, or would be.
    first: u64,
    last: Option<LogId>,
    tail: VecDeque<(LogEntry, usize)>,
    tail_bytes: usize,
    /// Entries up to this index have been written.
    written: Option<u64>,
    /// Counts truncations: the callback of an append from before one says nothing about the entries after it.
    truncations: u64,
    /// Bytes of the entries that are kept; after a purge, of those in the tail.
    bytes: usize,
}

/// How much log a replica keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// The first index that is not purged.
    pub first: u64,
    /// Bytes of the entries, or after a purge a lower bound of them.
    pub bytes: usize,
}

impl LogStore {
    /// The log of `replica` as the engine holds it.
    ///
    /// # Errors
    /// A row is malformed, or cannot be read.
    pub fn open(replica: ReplicaId, engine: Arc<dyn Engine>, writer: Writer) -> Result<LogStore, EngineError> {
        let read = |key: [u8; 9]| engine.get(Family::Log, &key);
        let vote = read(key::log::vote(replica))?.map(decode_vote).transpose()?;
        let committed = read(key::log::committed(replica))?.map(decode_log_id).transpose()?;
        let purged = read(key::log::purged(replica))?.map(decode_log_id).transpose()?;
        let last = end_entry(engine.as_ref(), replica, Order::Descending)?.map(|entry| entry.log_id).max(purged);
        let first = match purged {
            Some(purged) => purged.index() + 1,
            None => end_entry(engine.as_ref(), replica, Order::Ascending)?.map_or(0, |entry| entry.log_id.index()),
        };
        let cache = Cache {
            vote,
            committed: committed.filter(|committed| Some(*committed) <= last),
            committed_dirty: false,
            purged,
            first,
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            written: last.map(|id| id.index()),
            truncations: 0,
            bytes: stored_bytes(engine.as_ref(), replica)?,
        };
        Ok(LogStore { replica, engine, writer, cache: Arc::new(Mutex::new(cache)) })
    }

    /// How much log is kept.
    pub fn size(&self) -> LogSize {
        let cache = self.lock();
        LogSize { first: cache.first, bytes: cache.bytes }
    }

    /// Puts the committed position into the history, so that the next start applies everything up to it at once.
    pub async fn store_committed(&self) -> io::Result<()> {
        let Some(committed) = self.lock().committed else { return Ok(()) };
        let mut batch = Batch::new();
        batch.put(Family::Log, &key::log::committed(self.replica), &encode_log_id(&committed));
        Ok(self.writer.write(batch, Durability::Sync).await?)
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // Nothing panics while holding it; a poisoned cache would mean a bug elsewhere and the node ends anyway.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`LogStore::read`], on another thread when that may take long.
    async fn read_aside(&self, from: u64, to: u64, bounded: bool) -> io::Result<Vec<LogEntry>> {
        if self.lock().below_tail(from, to) <= INLINE_ENTRIES_MAX {
            return self.read(from, to, bounded);
        }
        let log = self.clone();
        trefoil_world::task::blocking(move || log.read(from, to, bounded)).await?
    }

    /// The entries `from..to` that exist, stopping after [`READ_BYTES_MAX`] when `bounded`.
    fn read(&self, from: u64, to: u64, bounded: bool) -> io::Result<Vec<LogEntry>> {
        let (from, to) = {
            let cache = self.lock();
            (from.max(cache.first), to.min(cache.last.map_or(0, |id| id.index() + 1)))
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        // The tail may shrink between two looks; what left it is in the engine.
        while from + (found.len() as u64) < to && !(bounded && bytes >= READ_BYTES_MAX) {
            let next = from + found.len() as u64;
            match self.read_tail(next, to, bounded, &mut found, &mut bytes) {
                Ok(()) => break,
                Err(tail_start) => {
                    self.read_engine(next, tail_start.min(to), bounded, &mut found, &mut bytes)?;
                    if found.len() as u64 + from == next {
                        return Err(io::Error::other(format!("{}: log entry {next} is missing", self.replica)));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Reads from the tail, or says where it starts when that is above `next`.
    fn read_tail(
        &self,
        next: u64,
        to: u64,
        bounded: bool,
        found: &mut Vec<LogEntry>,
        bytes: &mut usize,
    ) -> Result<(), u64> {
        let cache = self.lock();
        let tail_start = cache.tail_start();
        if tail_start > next {
            return Err(tail_start);
        }
        for (entry, size) in cache.tail_from(next) {
            if entry.log_id.index() >= to || (bounded && *bytes >= READ_BYTES_MAX) {
                break;
            }
            *bytes += size;
            found.push(entry.clone());
        }
        Ok(())
    }

    fn read_engine(
        &self,
        from: u64,
        to: u64,
        bounded: bool,
        found: &mut Vec<LogEntry>,
        bytes: &mut usize,
    ) -> io::Result<()> {
        let mut rows = Vec::new();
        let span = key::log::entries(self.replica, from, to);
        self.engine
            .scan(Family::Log, &span, Order::Ascending, &mut |key, value| {
                *bytes += value.len();
                rows.push((key.to_vec(), bytes::Bytes::copy_from_slice(value)));
                if bounded && *bytes >= READ_BYTES_MAX { Visit::Stop } else { Visit::Next }
            })
            .map_err(io::Error::other)?;
        for (key, value) in rows {
            let entry = decode_row(&key, value).map_err(io::Error::other)?;
            let expected = found.last().map_or(from, |entry: &LogEntry| entry.log_id.index() + 1);
            if entry.log_id.index() != expected {
                return Err(io::Error::other(format!("{}: log entry {expected} is missing", self.replica)));
            }
            found.push(entry);
        }
        Ok(())
    }
}

impl Cache {
    /// The index at which the tail starts, or would.
    fn tail_start(&self) -> u64 {
        let end = self.last.map_or(0, |id| id.index() + 1);
        self.tail.front().map_or(end, |(entry, _)| entry.log_id.index())
    }

    /// How many of the entries `from..to` are in the engine only.
    fn below_tail(&self, from: u64, to: u64) -> u64 {
        to.min(self.tail_start()).saturating_sub(from.max(self.first))
    }

    fn tail_from(&self, index: u64) -> impl Iterator<Item = &(LogEntry, usize)> {
        let start = self.tail.front().map_or(0, |(entry, _)| entry.log_id.index());
        self.tail.iter().skip(index.saturating_sub(start) as usize)
    }

    fn push(&mut self, entry: LogEntry, size: usize) {
        let id = entry.log_id;
        match self.last {
            Some(last) => assert_eq!(id.index(), last.index() + 1, "log entries are contiguous"),
            None => self.first = id.index(),
        }
        self.last = Some(id);
        self.tail.push_back((entry, size));
        self.tail_bytes += size;
        self.bytes += size;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.tail.len() > TAIL_ENTRIES_MAX || self.tail_bytes > TAIL_BYTES_MAX {
            match self.tail.front() {
                Some((entry, size)) if Some(entry.log_id.index()) <= self.written => {
                    self.tail_bytes -= size;
                    self.tail.pop_front();
                }
                Some(_) | None => return,
            }
        }
    }

    /// Forgets the entries above `keep`.
    fn truncate(&mut self, keep: Option<LogId>) {
        self.truncations += 1;
        while let Some((entry, size)) = self.tail.back() {
            if Some(entry.log_id.index()) <= keep.map(|id| id.index()) {
                break;
            }
            self.bytes = self.bytes.saturating_sub(*size);
            self.tail_bytes -= size;
            self.tail.pop_back();
        }
        self.last = self.last.min(keep);
        self.written = self.written.min(keep.map(|id| id.index()));
    }

    fn purge(&mut self, upto: LogId) {
        while let Some((entry, size)) = self.tail.front() {
            if entry.log_id.index() > upto.index() {
                break;
            }
            self.tail_bytes -= size;
            self.tail.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.first = self.first.max(upto.index() + 1);
        self.last = self.last.max(Some(upto));
        self.bytes = self.tail_bytes;
    }
}

impl RaftLogReader<Group> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        let (from, to) = bounds(&range);
        self.read_aside(from, to, false).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        self.read_aside(start, end, true).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<Group> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<Group>> {
        let cache = self.lock();
        Ok(LogState { last_purged_log_id: cache.purged, last_log_id: cache.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = Batch::new();
        if !planted::is(Bug::VoteNotPersisted) {
            batch.put(Family::Log, &key::log::vote(self.replica), &encode_vote(vote));
        }
        self.writer.write(batch, Durability::Sync).await?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut cache = self.lock();
        cache.committed = committed;
        cache.committed_dirty = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Group>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::new();
        let (last, truncations) = {
            let mut cache = self.lock();
            for entry in entries {
                let (head, body) = encode_entry(&entry);
                let key = key::log::entry(self.replica, entry.log_id.index());
                batch.put_parts(Family::Log, &key, &head, &body);
                cache.push(entry, head.len() + body.len());
            }
            if std::mem::take(&mut cache.committed_dirty)
                && let Some(committed) = cache.committed
            {
                batch.put(Family::Log, &key::log::committed(self.replica), &encode_log_id(&committed));
            }
            (cache.last, cache.truncations)
        };
        let cache = self.cache.clone();
        let done = move || {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.truncations == truncations {
                cache.written = cache.written.max(last.map(|id| id.index()));
                cache.shrink();
            }
            drop(cache);
            callback.io_completed(Ok(()));
        };
        Ok(self.writer.submit(batch, Durability::Sync, done).await?)
    }

    async fn truncate_after(&mut self, keep: Option<LogId>) -> io::Result<()> {
        let mut batch = Batch::new();
        {
            let mut cache = self.lock();
            let from = keep.map_or(0, |id| id.index() + 1);
            let to = cache.last.map_or(0, |id| id.index() + 1);
            for index in from..to {
                batch.delete(Family::Log, &key::log::entry(self.replica, index));
            }
            cache.truncate(keep);
        }
        Ok(self.writer.submit(batch, Durability::NoSync, || ()).await?)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.put(Family::Log, &key::log::purged(self.replica), &encode_log_id(&upto));
        let gone = key::log::entries(self.replica, 0, upto.index() + 1);
        batch.delete_range(Family::Log, &gone.from, &key::log::entry(self.replica, upto.index() + 1));
        self.lock().purge(upto);
        Ok(self.writer.submit(batch, Durability::NoSync, || ()).await?)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// Bytes of all stored entries.
fn stored_bytes(engine: &dyn Read, replica: ReplicaId) -> Result<usize, EngineError> {
    let mut bytes = 0;
    engine.scan(Family::Log, &key::log::all_entries(replica), Order::Ascending, &mut |_, value| {
        bytes += value.len();
        Visit::Next
    })?;
    Ok(bytes)
}

/// The first or the last entry.
fn end_entry(engine: &dyn Read, replica: ReplicaId, order: Order) -> Result<Option<LogEntry>, EngineError> {
    let mut row = None;
    engine.scan(Family::Log, &key::log::all_entries(replica), order, &mut |key, value| {
        row = Some((key.to_vec(), bytes::Bytes::copy_from_slice(value)));
        Visit::Stop
    })?;
    row.map(|(key, value)| decode_row(&key, value)).transpose()
}

fn decode_row(key: &[u8], value: bytes::Bytes) -> Result<LogEntry, EngineError> {
    let index = key::log::decode_entry(key).ok_or_else(|| EngineError::Corrupt("malformed log key".into()))?;
    decode_entry(index, value).map_err(|malformed| EngineError::Corrupt(format!("{malformed} at index {index}")))
}
