//! Which reads of the log leave the async threads, and that they find the same. Here is also the engine that tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use bytes::Bytes;
use openraft::RaftLogReader;
use openraft::impls::{Entry, EntryPayload};
use openraft::storage::{IOFlushed, RaftLogStorage};
use trefoil_causality::ReplicaId;
use trefoil_store::engine::memory::MemoryEngine;
use trefoil_store::engine::{
    Batch, Durability, Engine, EngineError, Family, Manifest, Order, Read, Rewritten, Span, Usage, Visit,
};
use trefoil_store::key;
use trefoil_store::mark::FILE_BYTES;

use crate::raft::log::{INLINE_ENTRIES_MAX, LogStore};
use crate::raft::types::{LogEntry, encode_entry, log_id};
use crate::writer::{Fatal, MarkKept, MarkSlots, Writer};

const REPLICA: ReplicaId = ReplicaId(1);

/// A memory engine that knows which reads were made on another thread than the one it was made on, and whose disk can
/// break.
pub(in crate::raft) struct Watched {
    engine: MemoryEngine,
    home: ThreadId,
    elsewhere: AtomicU64,
    broken: AtomicBool,
}

impl Watched {
    pub(in crate::raft) fn new() -> Arc<Watched> {
        let home = std::thread::current().id();
        let (elsewhere, broken) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Watched { engine: MemoryEngine::new(), home, elsewhere, broken })
    }

    /// Nothing can be written from now on.
    pub(in crate::raft) fn break_disk(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether there were reads on other threads since the last call.
    pub(in crate::raft) fn was_read_elsewhere(&self) -> bool {
        self.elsewhere.swap(0, Ordering::Relaxed) > 0
    }

    fn note(&self) {
        if std::thread::current().id() != self.home {
            self.elsewhere.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Read for Watched {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.note();
        self.engine.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        self.note();
        self.engine.scan(family, span, order, visit)
    }
}

impl Engine for Watched {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(EngineError::Io("broken".into())),
            false => self.engine.write(batch, durability),
        }
    }

    fn snapshot(&self) -> Box<dyn Read> {
        self.engine.snapshot()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.engine.flush()
    }

    fn remove(&self, family: Family, span: &Span) -> Result<(), EngineError> {
        self.engine.remove(family, span)
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        self.engine.usage()
    }

    fn rewrite(&self, family: Family, from: &[u8], room: u64) -> Result<Rewritten, EngineError> {
        self.engine.rewrite(family, from, room)
    }

    fn sync_delay(&self) -> Option<Duration> {
        self.engine.sync_delay()
    }

    fn manifest_since(&self, known: Manifest) -> Result<Option<Manifest>, EngineError> {
        self.engine.manifest_since(known)
    }

    fn holds_back(&self) -> Result<bool, EngineError> {
        self.engine.holds_back()
    }

    fn check(&self) -> Result<(), EngineError> {
        self.engine.check()
    }
}

/// A writer whose failures fail the test.
pub(in crate::raft) fn writer(engine: Arc<Watched>) -> Writer {
    writer_that_ends(engine, Arc::new(|why| panic!("{why}")))
}

/// A writer that calls `fatal` when it fails.
pub(in crate::raft) fn writer_that_ends(engine: Arc<Watched>, fatal: Fatal) -> Writer {
    let mark = MarkSlots::open(MarkKept::Memory(Arc::new(Mutex::new([0; FILE_BYTES]))), 1);
    Writer::start(engine, mark.expect("memory is read"), 0, fatal).expect("a writer")
}

fn blank(index: u64) -> LogEntry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Blank }
}

/// The entries 0 to 99 are in the engine only, 100 to 149 in memory.
async fn log(engine: &Arc<Watched>) -> LogStore {
    let mut batch = Batch::new();
    for index in 0..100 {
        let (head, body) = encode_entry(&blank(index));
        batch.put_parts(Family::Log, &key::log::entry(REPLICA, index), &head, &body);
    }
    engine.write(&batch, Durability::Sync).expect("memory does not fail");
    let mut log = LogStore::open(REPLICA, engine.clone(), writer(engine.clone())).expect("a log");
    log.append((100..150).map(blank), IOFlushed::noop()).await.expect("the writer runs");
    log
}

fn indexes(entries: &[LogEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_of_the_engine_are_read_off_the_async_threads() {
    let engine = Watched::new();
    let mut log = log(&engine).await;
    let few = INLINE_ENTRIES_MAX;
    for (from, to, leaves) in [
        (0, few, false),
        (0, few + 1, true),
        (100 - few, 1000, false),
        (99 - few, 1000, true),
        (100, 150, false),
        (0, 1000, true),
        (150, 1000, false),
    ] {
        let expected: Vec<u64> = (from..to.min(150)).collect();
        let whole = log.try_get_log_entries(from..to).await.expect("memory does not fail");
        assert_eq!((indexes(&whole), engine.was_read_elsewhere()), (expected.clone(), leaves), "{from}..{to}");
        let limited = log.limited_get_log_entries(from, to).await.expect("memory does not fail");
        assert_eq!((indexes(&limited), engine.was_read_elsewhere()), (expected, leaves), "{from}..{to}, limited");
    }
}
