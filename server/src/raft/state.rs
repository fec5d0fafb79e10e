//! One replica's state machine: applies log entries to its store number, and builds and installs snapshots.
//!
//! Applying reads the engine through an overlay of the batch's own writes; data, applied position and head go to the
//! history in one batch, un-synced, through the writer's queue and so behind the entries themselves. What has been
//! applied is then published as a [`View`], from which reads are served without asking this task.
//!
//! Making a batch of entries (`state/batch.rs`) only reads and computes, and leaves the async threads where it may take
//! long; so does copying a state.
//!
//! Invariants:
//!
//! * Applied position and data change in one batch.
//! * One batch at a time: the next is made when the one before it is in the history and published.
//! * A published view never goes back, and never shows what is not in the history.
//! * Nobody else writes the current rows of the store this replica has now. Its cache of them goes along with each batch,
//!   which changes it, and comes back once the batch is in the history: whatever fails on the way leaves an empty one.
//! * A malformed entry or row stops the replica; it is never skipped and never becomes an answer.

mod batch;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;
use trefoil_causality::ReplicaId;
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Read};
use trefoil_store::key::{self, StoreNumber};
use trefoil_store::mvcc::Head;
use trefoil_store::row_cache::RowCache;
use trefoil_world::planted::{self, Bug};

use crate::raft::state::batch::{Answer, Applying, Portion, Progress};
use crate::raft::types::{Applied, Group, LogId, Membership, decode_applied, encode_applied};
use crate::replica_record::ReplicaRecord;
use crate::stores::{ReceivedRows, StoreHandle, Stores};
use crate::writer::Writer;

/// Entries taken together at most.
const CHUNK_ENTRIES_MAX: usize = 256;
/// Bytes of one step of copying a state.
const COPY_BYTES_MAX: usize = 4 << 20;

/// What a replica has applied: all a reader needs.
#[derive(Clone)]
pub struct View {
    pub store: Arc<StoreHandle>,
    pub head: Head,
    pub applied: Option<LogId>,
}

/// Where a replica publishes what it has applied.
pub struct Published {
    view: ArcSwap<View>,
    applied: watch::Sender<Option<u64>>,
    pub snapshots_built: AtomicU64,
    pub snapshots_installed: AtomicU64,
    pub compactions: AtomicU64,
}

impl Published {
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Returns once everything up to `index` is applied.
    pub async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        let _: Result<_, watch::error::RecvError> =
            applied.wait_for(|applied| *applied >= Some(index)).await.map(|_| ());
    }

    fn publish(&self, view: View) {
        let applied = view.applied.map(|id| id.index());
        self.view.store(Arc::new(view));
        self.applied.send_replace(applied);
    }
}

/// See the file's head.
pub struct StateMachine {
    record: ReplicaRecord,
    engine: Arc<dyn Engine>,
    writer: Writer,
    stores: Arc<Stores>,
    progress: Progress,
    /// Rows of the store that `progress` is about. Empty while a batch is on its way.
    cache: RowCache,
    published: Arc<Published>,
}

impl StateMachine {
    /// The state of `replica` as the engine holds it.
    ///
    /// # Errors
    /// A row is malformed, or cannot be read.
    pub fn open(
        replica: ReplicaId,
        record: ReplicaRecord,
        engine: Arc<dyn Engine>,
        writer: Writer,
        stores: Arc<Stores>,
    ) -> Result<StateMachine, EngineError> {
        let store = stores.handle(record.store);
        let (applied, membership) = load_applied(engine.as_ref(), record.store)?;
        let head = Head::load(engine.as_ref(), record.store)?;
        let view = View { store, head, applied };
        let published = Arc::new(Published {
            view: ArcSwap::from_pointee(view.clone()),
            applied: watch::channel(applied.map(|id| id.index())).0,
            snapshots_built: AtomicU64::new(0),
            snapshots_installed: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
        });
        let progress = Progress { replica, view, membership: Arc::new(membership) };
        Ok(StateMachine { record, engine, writer, stores, progress, cache: RowCache::default(), published })
    }

    pub fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    async fn apply_chunk(&mut self, entries: Vec<EntryResponder<Group>>) -> io::Result<()> {
        let mut entries = entries.into_iter();
        loop {
            let mut portion = Portion::decode(self.progress.replica, &mut entries)?;
            if portion.is_empty() {
                return Ok(());
            }
            while !portion.is_empty() {
                portion = self.apply_batch(portion).await?;
            }
        }
    }

    /// Applies what makes one batch. Returns the rest of the portion.
    async fn apply_batch(&mut self, portion: Portion) -> io::Result<Portion> {
        let (progress, engine, inline) = (self.progress.clone(), self.engine.clone(), portion.inline);
        let cache = std::mem::take(&mut self.cache);
        let work = move || progress.apply(engine.as_ref(), cache, portion);
        let Applying { progress, cache, batch, answers, compactions, rest } = match inline {
            true => work()?,
            false => trefoil_world::task::blocking(work).await??,
        };
        if planted::is(Bug::AppliedApart) {
            let mut apart = Batch::new();
            let applied = encode_applied(&progress.view.applied, &progress.membership);
            apart.put(Family::State, &key::state::applied(progress.view.store.number()), &applied);
            self.writer.write(apart, Durability::NoSync).await?;
        }
        match planted::is(Bug::ApplyBeforeEntry) {
            true => self.engine.write(&batch, Durability::NoSync).map_err(io::Error::other)?,
            false => self.writer.write(batch, Durability::NoSync).await?,
        }
        (self.progress, self.cache) = (progress, cache);
        self.published.compactions.fetch_add(compactions, Ordering::Relaxed);
        self.published.publish(self.progress.view.clone());
        answer(answers);
        Ok(rest)
    }

    fn image(&self) -> io::Result<SnapshotOf<Group, StateImage>> {
        let read: Arc<dyn Read> = Arc::from(self.engine.snapshot());
        let store = self.progress.view.store.clone();
        let (applied, membership) = load_applied(read.as_ref(), store.number()).map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
        Ok(Snapshot { meta, snapshot: StateImage::Built { read, store } })
    }
}

fn answer(answers: Vec<Answer>) {
    for (responder, outcomes) in answers {
        if let Some(responder) = responder {
            responder.send(Applied(outcomes));
        }
    }
}

fn load_applied(read: &dyn Read, store: StoreNumber) -> Result<(Option<LogId>, Membership), EngineError> {
    match read.get(Family::State, &key::state::applied(store))? {
        None => Ok((None, Membership::default())),
        Some(row) => Ok(decode_applied(row)?),
    }
}

/// The whole state of a replica at one position.
pub enum StateImage {
    /// As it stands here: an engine snapshot, made in constant time.
    Built { read: Arc<dyn Read>, store: Arc<StoreHandle> },
    /// As it arrived from another replica: whole, under a number nobody reads yet.
    Received { rows: ReceivedRows },
}

/// Builds snapshots; the library may run it beside the state machine.
pub struct SnapshotBuilder {
    image: Option<io::Result<SnapshotOf<Group, StateImage>>>,
}

impl RaftSnapshotBuilder<Group> for SnapshotBuilder {
    type SnapshotData = StateImage;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Group, StateImage>> {
        self.image.take().unwrap_or_else(|| Err(io::Error::other("a builder builds one snapshot")))
    }
}

impl RaftStateMachine<Group> for StateMachine {
    type SnapshotData = StateImage;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.progress.view.applied, Membership::clone(&self.progress.membership)))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<Group>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(CHUNK_ENTRIES_MAX);
        while let Some(chunk) = chunks.next().await {
            let entries = chunk.into_iter().collect::<io::Result<Vec<_>>>()?;
            self.apply_chunk(entries).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.published.snapshots_built.fetch_add(1, Ordering::Relaxed);
        SnapshotBuilder { image: Some(self.image()) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Group>, image: StateImage) -> io::Result<()> {
        self.cache = RowCache::default();
        let store = match image {
            StateImage::Received { rows } => rows,
            StateImage::Built { read, store } => {
                let (rows, engine) = (self.stores.receive().await?, self.engine.clone());
                // The rows go along: they must not be swept before the work that writes them has ended.
                let copy =
                    move || copy_rows(read.as_ref(), store.number(), engine.as_ref(), rows.store()).map(|()| rows);
                trefoil_world::task::blocking(copy).await?.map_err(io::Error::other)?
            }
        };
        // From here on the switch may be in the history, even if waiting for it fails.
        let store = store.keep();
        let record = ReplicaRecord { store, ..self.record };
        let mut batch = Batch::new();
        let applied = encode_applied(&meta.last_log_id, &meta.last_membership);
        batch.put(Family::State, &key::state::applied(store), &applied);
        batch.put(Family::Node, &key::node::replica(self.progress.replica), &record.encode());
        if planted::is(Bug::VoteLostWithSnapshot) {
            batch.delete(Family::Log, &key::log::vote(self.progress.replica));
        }
        self.writer.write(batch, Durability::Sync).await?;
        let head = Head::load(self.engine.as_ref(), store).map_err(io::Error::other)?;
        self.progress.view.store.retire();
        self.record = record;
        self.progress.membership = Arc::new(meta.last_membership.clone());
        self.progress.view = View { store: self.stores.handle(store), head, applied: meta.last_log_id };
        self.published.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        self.published.publish(self.progress.view.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Group, StateImage>>> {
        match self.progress.view.applied {
            None => Ok(None),
            Some(_) => self.image().map(Some),
        }
    }
}

/// The rows of a snapshot, in chunks of about `bytes_max`, from `cursor` on; `None` at the end.
///
/// # Errors
/// The engine cannot be read.
pub fn snapshot_rows(
    read: &dyn Read,
    store: StoreNumber,
    cursor: &mut Option<(usize, Vec<u8>)>,
    bytes_max: usize,
) -> Result<Option<(Bytes, u64)>, EngineError> {
    let mut rows = Vec::new();
    let mut count = 0;
    while let Some((place, from)) = cursor.take() {
        let family = Family::OF_STORE[place];
        let mut span = key::store(store);
        if !from.is_empty() {
            span.from = from;
        }
        let mut next = None;
        read.scan(family, &span, trefoil_store::engine::Order::Ascending, &mut |row, value| {
            if rows.len() >= bytes_max {
                next = Some(row.to_vec());
                return trefoil_store::engine::Visit::Stop;
            }
            let is_reply = || family == Family::State && key::state::decode_reply(row).is_some();
            if planted::is(Bug::RequestTableLost) && is_reply() {
                return trefoil_store::engine::Visit::Next;
            }
            put_row(&mut rows, place, row, value);
            count += 1;
            trefoil_store::engine::Visit::Next
        })?;
        *cursor = match next {
            Some(row) => Some((place, row)),
            None if place + 1 < Family::OF_STORE.len() => Some((place + 1, Vec::new())),
            None => None,
        };
        if rows.len() >= bytes_max {
            break;
        }
    }
    Ok((count > 0).then(|| (rows.into(), count)))
}

/// Copies a state of this node under a fresh number.
///
/// # Errors
/// The engine cannot be read or written.
pub fn copy_rows(
    read: &dyn Read,
    store: StoreNumber,
    engine: &dyn Engine,
    fresh: StoreNumber,
) -> Result<(), EngineError> {
    let mut cursor = Some((0, Vec::new()));
    while cursor.is_some() {
        if let Some((rows, _)) = snapshot_rows(read, store, &mut cursor, COPY_BYTES_MAX)? {
            engine.write(&receive_rows(rows, fresh)?.0, Durability::NoSync)?;
        }
    }
    Ok(())
}

fn put_row(out: &mut Vec<u8>, place: usize, row: &[u8], value: &[u8]) {
    out.push(place as u8);
    trefoil_store::codec::put_bytes(out, row);
    trefoil_store::codec::put_bytes(out, value);
}

/// Decodes the rows of one chunk into a batch under `store`, and counts them.
///
/// # Errors
/// The chunk is malformed.
pub fn receive_rows(chunk: Bytes, store: StoreNumber) -> Result<(Batch, u64), EngineError> {
    let mut from = trefoil_store::codec::Decoder::new(chunk, "snapshot chunk");
    let mut batch = Batch::new();
    let mut count = 0;
    while !from.is_empty() {
        let place = usize::from(from.u8()?);
        let (row, value) = (from.bytes()?, from.bytes()?);
        let family = Family::OF_STORE.get(place).ok_or(from.malformed())?;
        let row = key::with_store(store, &row).ok_or(from.malformed())?;
        batch.put(*family, &row, &value);
        count += 1;
    }
    Ok((batch, count))
}
