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
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Manifest};
use trefoil_store::key;
use trefoil_store::mark::{FILE_BYTES, Mark, SLOT_BYTES, Slot};
#[cfg(not(test))]
use trefoil_world::planted;
use trefoil_world::planted::Bug;

/// Submissions that may wait.
const QUEUE_MAX: usize = 4096;
/// Bytes gathered into one batch; one submission may exceed it.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Memory of a batch that is kept for the next one.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Where [`Bug::AckBeforeSync`] is planted, two of so many batches in a row are synced if they ask for it.
const PLANTED_LAG: u64 = 16;

/// A handle to the writer. Clones feed the same queue.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Request>,
    synced: Arc<AtomicU64>,
}

/// Called once the submission is in the history and, when asked for, durable. Must not block.
type Done = Box<dyn FnOnce() + Send>;

enum Request {
    Write(Submission),
    /// To be noted in the mark.
    Manifest(Manifest, Done),
}

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
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        // What a restart finds is synced before the engine is open.
        let synced = Arc::new(AtomicU64::new(position));
        let run = Loop { engine, mark, position, synced: synced.clone(), requests, fatal, merged: Batch::new() };
        trefoil_world::task::dedicated("writer", run.run())?;
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
        self.queue.send(Request::Write(submission)).await.map_err(|_| Ending)
    }

    /// Queues `batch` and waits until it is as durable as asked.
    pub async fn write(&self, batch: Batch, durability: Durability) -> Result<(), Ending> {
        let (done, finished) = oneshot::channel();
        // A receiver that is gone means the caller no longer waits; the write stands.
        self.submit(batch, durability, move || done.send(()).unwrap_or(())).await?;
        finished.await.map_err(|_| Ending)
    }

    /// Has the mark note the engine's manifest, which is durable.
    pub async fn note_manifest(&self, manifest: Manifest) -> Result<(), Ending> {
        let (done, finished) = oneshot::channel();
        let done = Box::new(move || done.send(()).unwrap_or(()));
        self.queue.send(Request::Manifest(manifest, done)).await.map_err(|_| Ending)?;
        finished.await.map_err(|_| Ending)
    }
}

struct Loop {
    engine: Arc<dyn Engine>,
    mark: MarkSlots,
    position: u64,
    synced: Arc<AtomicU64>,
    requests: mpsc::Receiver<Request>,
    fatal: Fatal,
    /// Memory for the next batch: fresh memory of its size would be zeroed by the system each time.
    merged: Batch,
}

impl Loop {
    async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut next = Some(first);
            while let Some(request) = next.take() {
                let carried_out = match request {
                    Request::Write(first) => self.write_all(first).await,
                    Request::Manifest(manifest, done) => self.note_manifest(manifest, done).map(|()| None),
                };
                match carried_out {
                    Ok(other) => next = other,
                    Err(Failed) => return,
                }
            }
        }
    }

    fn note_manifest(&mut self, manifest: Manifest, done: Done) -> Result<(), Failed> {
        let noted = self.mark.note_manifest(self.synced.load(Ordering::Acquire), manifest);
        noted.map_err(|error| self.fail(&error))?;
        done();
        Ok(())
    }

    /// Ends the node, before those who wait learn that it is ending: they would say that as the cause.
    fn fail(&self, error: &EngineError) -> Failed {
        (self.fatal)(format!("write-ahead log: {error}"));
        Failed
    }

    /// Writes what has gathered. Returns a request that was met and is no write.
    async fn write_all(&mut self, first: Submission) -> Result<Option<Request>, Failed> {
        let (mut gathered, mut other) = (Gathered::new(first), None);
        while gathered.bytes < BATCH_BYTES_MAX && other.is_none() {
            match self.requests.try_recv() {
                Ok(Request::Write(next)) => gathered.add(next),
                Ok(request @ Request::Manifest(..)) => other = Some(request),
                Err(_) => break,
            }
        }
        self.write(&mut gathered).await.map_err(|error| self.fail(&error))?;
        for done in gathered.done {
            done();
        }
        Ok(other)
    }

    async fn write(&mut self, gathered: &mut Gathered) -> Result<(), EngineError> {
        self.position += 1;
        let mut batch = std::mem::take(&mut self.merged);
        gathered.merge_into(&mut batch);
        batch.put(Family::Node, key::node::POSITION, &self.position.to_be_bytes());
        if planted::is(Bug::MarkBeforeSync) {
            self.mark.note(self.position)?;
        }
        match (gathered.durability, self.engine.sync_delay()) {
            (Durability::NoSync, _) => self.engine.write(&batch, Durability::NoSync)?,
            // Applies wait in this queue: an acknowledgement that did not overtake whole batches would overtake nothing.
            (Durability::Sync, None) if planted::is(Bug::AckBeforeSync) && self.position % PLANTED_LAG >= 2 => {
                self.engine.write(&batch, Durability::NoSync)?;
                gathered.done.drain(..).for_each(|done| done());
                return Ok(());
            }
            (Durability::Sync, None) => self.engine.write(&batch, Durability::Sync)?,
            (Durability::Sync, Some(delay)) => {
                self.engine.write(&batch, Durability::NoSync)?;
                if planted::is(Bug::AckBeforeSync) {
                    gathered.done.drain(..).for_each(|done| done());
                }
                trefoil_world::clock::sleep(delay).await;
                self.engine.write(&Batch::new(), Durability::Sync)?;
            }
        }
        if batch.bytes() <= KEPT_BYTES_MAX {
            self.merged = batch;
        }
        if gathered.durability == Durability::Sync {
            self.mark.note(self.position)?;
            self.synced.store(self.position, Ordering::Release);
        }
        Ok(())
    }
}

/// A write failed: the node is ending.
struct Failed;

struct Gathered {
    batches: Vec<Batch>,
    /// Of all of them.
    bytes: usize,
    durability: Durability,
    done: Vec<Done>,
}

impl Gathered {
    fn new(first: Submission) -> Gathered {
        let (bytes, durability, done) = (first.batch.bytes(), first.durability, vec![first.done]);
        Gathered { batches: vec![first.batch], bytes, durability, done }
    }

    fn add(&mut self, next: Submission) {
        self.bytes += next.batch.bytes();
        self.batches.push(next.batch);
        if next.durability == Durability::Sync {
            self.durability = Durability::Sync;
        }
        self.done.push(next.done);
    }

    /// All batches in their order, as one, in the memory of an earlier one.
    fn merge_into(&mut self, merged: &mut Batch) {
        merged.clear();
        self.batches.drain(..).for_each(|batch| merged.append(&batch));
    }
}

/// Has the mark follow the engine's manifest.
#[derive(Default)]
pub struct ManifestNotes {
    noted: Manifest,
}

impl ManifestNotes {
    /// Notes the manifest, if it has changed since the last time.
    ///
    /// # Errors
    /// The engine failed, or the node is ending.
    pub async fn note(&mut self, engine: Arc<dyn Engine>, writer: &Writer) -> io::Result<()> {
        let noted = self.noted;
        let changed = trefoil_world::task::blocking(move || engine.manifest_since(noted)).await?;
        if let Some(manifest) = changed.map_err(io::Error::other)? {
            writer.note_manifest(manifest).await?;
            self.noted = manifest;
        }
        Ok(())
    }
}

/// The mark's file, and which of its slots comes next.
pub struct MarkSlots {
    kept: MarkKept,
    storage_id: u128,
    manifest: Manifest,
    next: Slot,
}

/// Where the mark is kept.
pub enum MarkKept {
    File(File),
    /// A simulated disk's: what a power cut leaves of it is the simulation's business.
    Memory(Arc<Mutex<[u8; FILE_BYTES]>>),
}

impl MarkKept {
    fn read(&self) -> io::Result<[u8; FILE_BYTES]> {
        match self {
            MarkKept::File(file) => {
                let mut bytes = [0; FILE_BYTES];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            }
            MarkKept::Memory(bytes) => Ok(*bytes.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl MarkSlots {
    /// Goes on with the slot that is older or was torn: the other one may be all there is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(kept: MarkKept, storage_id: u128) -> io::Result<MarkSlots> {
        let next = Mark::next_slot(&kept.read()?);
        Ok(MarkSlots { kept, storage_id, manifest: Manifest::default(), next })
    }

    /// Notes that the engine's manifest is at least this one, and everything up to `position` synced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_manifest(&mut self, position: u64, manifest: Manifest) -> Result<(), EngineError> {
        self.manifest = manifest;
        self.note(position)
    }

    /// Notes that everything up to `position` is synced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&mut self, position: u64) -> Result<(), EngineError> {
        let slot = Mark { position, storage_id: self.storage_id, manifest: self.manifest }.encode();
        let from = self.next.offset();
        self.next = self.next.other();
        match &self.kept {
            MarkKept::File(file) => {
                file.write_all_at(&slot, from as u64).map_err(|error| EngineError::Io(format!("mark: {error}")))
            }
            MarkKept::Memory(slots) => {
                let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                slots[from..from + SLOT_BYTES].copy_from_slice(&slot);
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

/// What `trefoil_world::planted` is in a program, in the unit tests: they are built without its feature, and many run in
/// one process. So a test chooses a bug for its own thread.
#[cfg(test)]
pub mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this thread's writers have the bug.
    pub(super) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Gives this thread's writers a bug, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
