//! The writer: the one place that writes to the engine in the order that matters.
//!
//! One loop over one bounded first-in-first-out queue. It takes what has gathered, writes it as one batch with one
//! sync, then calls everybody back: group commit across all Raft groups of the node. Because a log entry is always
//! queued before anyone can apply it, the queue's order alone guarantees that no apply reaches the history before
//! its entry.
//!
//! Invariants:
//!
//! * The history grows in the order of the queue. A batch that holds any synced submission is synced as a whole.
//! * Every batch carries the writer position, +1 each; after a sync the mark notes it.
//! * After a failed write nothing is called back and nothing more is written: the node ends.
//!
//! Left out: bulk rows that nobody reads yet, which are written beside the queue.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family};
use trefoil_store::key;
use trefoil_store::mark::{FILE_BYTES, Mark, SLOT_BYTES};

/// Submissions that may wait.
const QUEUE_MAX: usize = 4096;
/// Bytes gathered into one batch; one submission may exceed it.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// A handle to the writer. Clones feed the same queue.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Submission>,
    synced: Arc<AtomicU64>,
}

/// Called once the submission is in the history and, when asked for, durable. Must not block.
type Done = Box<dyn FnOnce() + Send>;

struct Submission {
    batch: Batch,
    durability: Durability,
    done: Done,
}

/// The writer is gone: the node is ending, and what became of the submission is unknown.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the node is ending")]
pub struct Ending;

impl From<Ending> for io::Error {
    fn from(ending: Ending) -> io::Error {
        io::Error::other(ending)
    }
}

/// Ends the node: called with what failed, at most once.
pub type Fatal = Arc<dyn Fn(String) + Send + Sync>;

impl Writer {
    /// Starts the loop. `position` is what the engine recovered; `fatal` ends the node when a write fails.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(engine: Arc<dyn Engine>, mark: MarkSlots, position: u64, fatal: Fatal) -> io::Result<Writer> {
        let (queue, submissions) = mpsc::channel(QUEUE_MAX);
        // What a restart finds is synced before the engine is open.
        let synced = Arc::new(AtomicU64::new(position));
        let run = Loop { engine, mark, position, synced: synced.clone(), submissions };
        trefoil_world::task::dedicated("writer", async move {
            if let Err(error) = run.run().await {
                fatal(format!("write-ahead log: {error}"));
            }
        })?;
        Ok(Writer { queue, synced })
    }

    /// The synced position: no sync that was called back stands above it, and it never goes back.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Queues `batch`; `done` is called when it is as durable as asked. Waits only for room in the queue.
    pub async fn submit(
        &self,
        batch: Batch,
        durability: Durability,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), Ending> {
        let submission = Submission { batch, durability, done: Box::new(done) };
        self.queue.send(submission).await.map_err(|_| Ending)
    }

    /// Queues `batch` and waits until it is as durable as asked.
    pub async fn write(&self, batch: Batch, durability: Durability) -> Result<(), Ending> {
        let (done, finished) = oneshot::channel();
        // A receiver that is gone means the caller no longer waits; the write stands.
        self.submit(batch, durability, move || done.send(()).unwrap_or(())).await?;
        finished.await.map_err(|_| Ending)
    }
}

struct Loop {
    engine: Arc<dyn Engine>,
    mark: MarkSlots,
    position: u64,
    synced: Arc<AtomicU64>,
    submissions: mpsc::Receiver<Submission>,
}

impl Loop {
    async fn run(mut self) -> Result<(), EngineError> {
        while let Some(first) = self.submissions.recv().await {
            let mut gathered = Gathered::new(first);
            while gathered.batch.bytes() < BATCH_BYTES_MAX {
                match self.submissions.try_recv() {
                    Ok(next) => gathered.add(next),
                    Err(_) => break,
                }
            }
            self.write(gathered).await?;
        }
        Ok(())
    }

    async fn write(&mut self, mut gathered: Gathered) -> Result<(), EngineError> {
        self.position += 1;
        gathered.batch.put(Family::Node, key::node::POSITION, &self.position.to_be_bytes());
        match (gathered.durability, self.engine.sync_delay()) {
            (Durability::NoSync, _) => self.engine.write(&gathered.batch, Durability::NoSync)?,
            (Durability::Sync, None) => self.engine.write(&gathered.batch, Durability::Sync)?,
            (Durability::Sync, Some(delay)) => {
                self.engine.write(&gathered.batch, Durability::NoSync)?;
                #[cfg(test)]
                planted::call_back_early(&mut gathered);
                trefoil_world::clock::sleep(delay).await;
                self.engine.write(&Batch::new(), Durability::Sync)?;
            }
        }
        if gathered.durability == Durability::Sync {
            self.mark.note(self.position)?;
            self.synced.store(self.position, Ordering::Release);
        }
        for done in gathered.done {
            done();
        }
        Ok(())
    }
}

struct Gathered {
    batch: Batch,
    durability: Durability,
    done: Vec<Done>,
}

impl Gathered {
    fn new(first: Submission) -> Gathered {
        Gathered { batch: first.batch, durability: first.durability, done: vec![first.done] }
    }

    fn add(&mut self, next: Submission) {
        self.batch.append(&next.batch);
        if next.durability == Durability::Sync {
            self.durability = Durability::Sync;
        }
        self.done.push(next.done);
    }
}

/// Where the mark is kept.
pub enum MarkSlots {
    File {
        file: File,
        storage_id: u128,
    },
    /// A simulated disk's: what a power cut leaves of it is the simulation's business.
    Memory {
        slots: Arc<Mutex<[u8; FILE_BYTES]>>,
        storage_id: u128,
    },
}

impl MarkSlots {
    /// Notes that everything up to `position` is synced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&self, position: u64) -> Result<(), EngineError> {
        match self {
            MarkSlots::File { file, storage_id } => {
                let mark = Mark { position, storage_id: *storage_id };
                file.write_all_at(&mark.encode(), mark.offset())
                    .map_err(|error| EngineError::Io(format!("mark: {error}")))
            }
            MarkSlots::Memory { slots, storage_id } => {
                let mark = Mark { position, storage_id: *storage_id };
                let from = mark.offset() as usize;
                let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                slots[from..from + SLOT_BYTES].copy_from_slice(&mark.encode());
                Ok(())
            }
        }
    }
}

/// The writer position a database holds; 0 for a fresh one.
///
/// # Errors
/// The row is malformed, or cannot be read.
pub fn stored_position(engine: &dyn trefoil_store::engine::Read) -> Result<u64, EngineError> {
    match engine.get(Family::Node, key::node::POSITION)? {
        None => Ok(0),
        Some(row) => match row.as_ref().try_into() {
            Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
            Err(_) => Err(EngineError::Corrupt("the writer position is malformed".into())),
        },
    }
}

/// A writer that acknowledges before the sync, for showing that the power-cut test finds one.
#[cfg(test)]
pub mod planted {
    use std::cell::Cell;

    thread_local! {
        static EARLY: Cell<bool> = const { Cell::new(false) };
    }

    pub fn acknowledge_before_sync(early: bool) {
        EARLY.set(early);
    }

    pub(super) fn call_back_early(gathered: &mut super::Gathered) {
        if EARLY.get() {
            gathered.done.drain(..).for_each(|done| done());
        }
    }
}
