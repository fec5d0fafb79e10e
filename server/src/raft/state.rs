//! One replica's state machine: applies log entries to its store number, and builds and installs snapshots.
//!
//! Applying reads the engine through an overlay of the batch's own writes; data, applied position and head go to the
//! history in one batch, un-synced, through the writer's queue and so behind the entries themselves. What has been
//! applied is then published as a [`View`], from which reads are served without asking this task.
//!
//! Invariants:
//!
//! * Applied position and data change in one batch.
//! * A published view never goes back, and never shows what is not in the history.
//! * A malformed entry or row stops the replica; it is never skipped and never becomes an answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;
use trefoil_causality::ReplicaId;
use trefoil_store::apply::{Position, apply};
use trefoil_store::command::{Outcome, decode_batch};
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Read};
use trefoil_store::key::{self, StoreNumber};
use trefoil_store::mvcc::Head;
use trefoil_store::overlay::Overlay;

use crate::raft::types::{
    Applied, Group, LogEntry, LogId, Membership, Proposal, decode_applied, encode_applied, term_of,
};
use crate::replica_record::ReplicaRecord;
use crate::stores::{ReceivedRows, StoreHandle, Stores};
use crate::writer::Writer;

/// Entries applied together at most.
const CHUNK_ENTRIES_MAX: usize = 256;
/// Bytes of a batch and of its answers after which it is written.
const BATCH_BYTES_MAX: usize = 4 << 20;

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
    replica: ReplicaId,
    record: ReplicaRecord,
    engine: Arc<dyn Engine>,
    writer: Writer,
    stores: Arc<Stores>,
    view: View,
    membership: Membership,
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
        Ok(StateMachine { replica, record, engine, writer, stores, view, membership, published })
    }

    pub fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    async fn apply_chunk(&mut self, entries: Vec<EntryResponder<Group>>) -> io::Result<()> {
        let engine = self.engine.clone();
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let (mut answers, mut answered) = (Vec::new(), 0);
            let batch = {
                let mut overlay = Overlay::new(engine.as_ref());
                for (entry, responder) in entries.by_ref() {
                    let outcomes = self.apply_entry(&mut overlay, entry)?;
                    answered += outcomes.iter().map(Outcome::bytes).sum::<usize>();
                    answers.push((responder, outcomes));
                    if overlay.bytes() + answered >= BATCH_BYTES_MAX {
                        break;
                    }
                }
                self.seal(overlay).map_err(io::Error::other)?
            };
            self.writer.write(batch, Durability::NoSync).await?;
            self.published.publish(self.view.clone());
            answer(answers);
        }
        Ok(())
    }

    fn apply_entry(&mut self, overlay: &mut Overlay<'_>, entry: LogEntry) -> io::Result<Vec<Outcome>> {
        let id = entry.log_id;
        assert!(self.view.applied < Some(id), "entries are applied once and in order");
        self.view.applied = Some(id);
        match entry.payload {
            EntryPayload::Blank => Ok(Vec::new()),
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(id), membership);
                Ok(Vec::new())
            }
            EntryPayload::Normal(proposal) => self.apply_commands(overlay, id, proposal).map_err(|error| {
                io::Error::other(format!("{} cannot apply log entry {}: {error}", self.replica, id.index()))
            }),
        }
    }

    fn apply_commands(
        &mut self,
        overlay: &mut Overlay<'_>,
        id: LogId,
        Proposal(bytes): Proposal,
    ) -> Result<Vec<Outcome>, EngineError> {
        let at = Position { term: term_of(&id), index: id.index() };
        let store = self.view.store.number();
        let envelopes = decode_batch(bytes)?;
        let floor = self.view.head.floor;
        let outcomes = envelopes
            .into_iter()
            .zip(0..)
            .map(|(envelope, place)| apply(overlay, store, &mut self.view.head, at, place, envelope))
            .collect();
        if self.view.head.floor != floor {
            self.published.compactions.fetch_add(1, Ordering::Relaxed);
        }
        outcomes
    }

    fn seal(&self, mut overlay: Overlay<'_>) -> Result<Batch, EngineError> {
        let store = self.view.store.number();
        self.view.head.store(&mut overlay, store);
        let applied = encode_applied(&self.view.applied, &self.membership);
        overlay.put(Family::State, key::state::applied(store), applied);
        Ok(overlay.into_batch())
    }

    fn image(&self) -> io::Result<SnapshotOf<Group, StateImage>> {
        let read: Arc<dyn Read> = Arc::from(self.engine.snapshot());
        let store = self.view.store.clone();
        let (applied, membership) = load_applied(read.as_ref(), store.number()).map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
        Ok(Snapshot { meta, snapshot: StateImage::Built { read, store } })
    }
}

fn answer(answers: Vec<(Option<ApplyResponder<Group>>, Vec<Outcome>)>) {
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
        Ok((self.view.applied, self.membership.clone()))
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
        let store = match image {
            StateImage::Received { rows } => rows,
            StateImage::Built { read, store } => {
                let rows = self.stores.receive().await?;
                copy_rows(read.as_ref(), store.number(), self.engine.as_ref(), rows.store())
                    .map_err(io::Error::other)?;
                rows
            }
        };
        // From here on the switch may be in the history, even if waiting for it fails.
        let store = store.keep();
        let record = ReplicaRecord { store, ..self.record };
        let mut batch = Batch::new();
        let applied = encode_applied(&meta.last_log_id, &meta.last_membership);
        batch.put(Family::State, &key::state::applied(store), &applied);
        batch.put(Family::Node, &key::node::replica(self.replica), &record.encode());
        self.writer.write(batch, Durability::Sync).await?;
        let head = Head::load(self.engine.as_ref(), store).map_err(io::Error::other)?;
        self.view.store.retire();
        self.record = record;
        self.membership = meta.last_membership.clone();
        self.view = View { store: self.stores.handle(store), head, applied: meta.last_log_id };
        self.published.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        self.published.publish(self.view.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Group, StateImage>>> {
        match self.view.applied {
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

/// Copies a snapshot made on this node under a fresh number.
fn copy_rows(read: &dyn Read, store: StoreNumber, engine: &dyn Engine, fresh: StoreNumber) -> Result<(), EngineError> {
    let mut cursor = Some((0, Vec::new()));
    while cursor.is_some() {
        if let Some((rows, _)) = snapshot_rows(read, store, &mut cursor, BATCH_BYTES_MAX)? {
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
