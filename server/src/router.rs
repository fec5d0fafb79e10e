//! From a keyspace's name to the replica that answers: here, or on the node that leads.
//!
//! A request that arrived from a client is handed on to the leader. On a node without a replica it goes to a holder, and
//! if that one names a leader, to the leader. One that was handed on is answered or refused. A refusal that brings a
//! newer placement row is tried once more by that row. The map is a snapshot: only a request that goes by a newer row
//! than it has waits for `_meta`, for a bounded time.
//!
//! What has another node answer is boxed: few requests go that way, and the future of each, which is made and moved from
//! callee to caller, would be as large as that.
//!
//! Invariant: a write is sent a second time only when the first one was refused with nothing done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use trefoil_causality::Revision;
use trefoil_placement::{Epoch, KeyspaceId, Mode, NodeId, PartitionId, PlacementRow};
use trefoil_store::command::{Command, KeyRange, Op, Outcome, RangeEnd, RangeOp, Reply, RequestId};
use trefoil_store::mvcc::Content;
use trefoil_world::clock::{self, Instant};
use trefoil_world::planted::{self, Bug};

use crate::cluster::map::ClusterMap;
use crate::error::{self, Error};
use crate::peer::Peers;
use crate::remote::Remotes;
use crate::replication::leader::Scan;
use crate::replication::{Answer, Consistency, Effective, Replica};
use crate::rounds::Rounds;
use crate::verify::WALK_PATIENCE;

/// Patience with `_meta`, and the pause after it did not answer.
const REFRESH_PATIENCE: Duration = Duration::from_secs(1);
const REFRESH_PAUSE: Duration = Duration::from_secs(5);
/// Patience with a leader's answer to a round of reads: longer than it takes to find a connection broken.
const ROUND_PATIENCE: Duration = Duration::from_secs(5);
/// Walks over whole replicas at a time.
const WALKS_MAX: usize = 4;

/// The replicas of this node.
pub type LocalReplicas = BTreeMap<PartitionId, Arc<Replica>>;

/// See the file's head.
pub struct Router {
    pub me: NodeId,
    pub map: Arc<ArcSwap<ClusterMap>>,
    pub replicas: Arc<ArcSwap<LocalReplicas>>,
    pub peers: Arc<Peers>,
    pub remotes: Arc<Remotes>,
    /// Requests that another node was asked about.
    pub forwards: AtomicU64,
    /// Walks over a replica's whole content that may run at a time.
    pub walks: Semaphore,
    // Started by the first read that needs them, from any task.
    rounds: Mutex<BTreeMap<(PartitionId, NodeId), Arc<Rounds>>>,
    /// Held while `_meta` is asked for a newer map; since when it does not answer.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
}

/// Where a request goes.
struct Target {
    row: PlacementRow,
    local: Option<Arc<Replica>>,
}

impl Router {
    pub fn new(me: NodeId, replicas: Arc<ArcSwap<LocalReplicas>>, peers: Arc<Peers>) -> Router {
        let map = peers.map().clone();
        Router {
            me,
            remotes: Arc::new(Remotes::new(peers.clone(), map.clone())),
            map,
            replicas,
            peers,
            forwards: AtomicU64::new(0),
            walks: Semaphore::new(WALKS_MAX),
            rounds: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// Carries out a command in a keyspace; on another node if that one leads. Says where it was carried out.
    pub async fn write(
        &self,
        keyspace: &str,
        command: Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        let target = self.target(keyspace)?;
        self.write_to(target, &command, request, deadline).await
    }

    /// As [`Router::write`], in `_meta`.
    pub async fn write_meta(&self, command: Command, deadline: Instant) -> Result<Outcome, Error> {
        let target = self.target_of(PartitionId::META)?;
        let (outcome, _) = self.write_to(target, &command, None, deadline).await?;
        Ok(outcome)
    }

    /// A refusal that brought a newer row is tried once more by that row.
    async fn write_to(
        &self,
        target: Target,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        match self.write_once(&target, command, request, deadline).await {
            Err(error) => self.write_once(&self.newer_target(&target, error)?, command, request, deadline).await,
            done => done,
        }
    }

    async fn write_once(
        &self,
        target: &Target,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        let Some(local) = &target.local else {
            return Box::pin(self.write_elsewhere(&target.row, command, request, deadline)).await;
        };
        match local.write(command, request, deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => {
                let forwarded = Box::pin(self.forward(&target.row, leader, command, request, deadline));
                Ok((forwarded.await?, leader))
            }
            result => Ok((result?, self.me)),
        }
    }

    /// On a node without a replica: some holder is asked, and if that one names the leader, the leader.
    async fn write_elsewhere(
        &self,
        row: &PlacementRow,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        let holder = self.any_holder(row)?;
        match self.forward(row, holder, command, request, deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) if leader != holder => {
                Ok((self.forward(row, leader, command, request, deadline).await?, leader))
            }
            result => Ok((result?, holder)),
        }
    }

    /// Reads keys. Says which node should be asked next time.
    pub async fn read(
        &self,
        keyspace: &str,
        op: RangeOp,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<(Answer, NodeId), Error> {
        self.read_at(self.target(keyspace)?, op, consistency, deadline).await
    }

    async fn read_at(
        &self,
        target: Target,
        op: RangeOp,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<(Answer, NodeId), Error> {
        match self.read_once(&target, &op, consistency, deadline).await {
            Err(error) => self.read_once(&self.newer_target(&target, error)?, &op, consistency, deadline).await,
            found => found,
        }
    }

    async fn read_once(
        &self,
        target: &Target,
        op: &RangeOp,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<(Answer, NodeId), Error> {
        let Some(local) = &target.local else {
            let read = async {
                let command = Command::Op(Op::Range(op.clone()));
                self.write_elsewhere(&target.row, &command, None, deadline).await
            };
            let (outcome, node) = Box::pin(read).await.map_err(read_only)?;
            return Ok((range_answer(outcome)?, node));
        };
        match local.read(op, consistency, deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => {
                self.catch_up(&target.row, local, leader, deadline).await?;
                let answer = local.read(op, Consistency::Stale { context: None }, deadline).await?;
                Ok((Answer { effective: Effective::Linearizable, ..answer }, leader))
            }
            result => Ok((result?, self.me)),
        }
    }

    /// Pins a state for a read in pieces.
    pub async fn scan(&self, keyspace: &str, consistency: Consistency, deadline: Instant) -> Result<Scan, Error> {
        let target = self.target(keyspace)?;
        match self.scan_once(&target, consistency, deadline).await {
            Err(error) => self.scan_once(&self.newer_target(&target, error)?, consistency, deadline).await,
            pinned => pinned,
        }
    }

    async fn scan_once(&self, target: &Target, consistency: Consistency, deadline: Instant) -> Result<Scan, Error> {
        let Some(local) = &target.local else {
            return Err(Error::NotLeader { leader: self.any_holder(&target.row).ok() });
        };
        match local.scan(consistency, deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => {
                self.catch_up(&target.row, local, leader, deadline).await?;
                let mut scan = local.scan(Consistency::Stale { context: None }, deadline).await?;
                scan.effective = Effective::Linearizable;
                Ok(scan)
            }
            result => result,
        }
    }

    /// Where to go once more after a refusal: by a newer row, when one has come since.
    ///
    /// # Errors
    /// The refusal itself: no newer row has come, or something may have been done.
    fn newer_target(&self, refused: &Target, error: Error) -> Result<Target, Error> {
        let not_done = error.outcome() == error::Outcome::NotDone;
        match self.target_of(refused.row.partition) {
            Ok(newest) if not_done && newest.row.epoch > refused.row.epoch => Ok(newest),
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// A client that knows a newer placement than this node makes it look at the newest map before it answers.
    pub async fn reach_epoch(&self, keyspace: &str, epoch: Epoch, deadline: Instant) -> Result<(), Error> {
        self.reach_epoch_of(self.partition_of(keyspace)?, epoch, deadline).await
    }

    /// The same for a partition, on behalf of a peer. When `_meta` does not answer, the last known map goes on being
    /// used, and for a moment nobody asks again: data never waits for metadata.
    pub async fn reach_epoch_of(&self, partition: PartitionId, epoch: Epoch, deadline: Instant) -> Result<(), Error> {
        let epoch_here = || self.map.load().rows.get(&partition).map_or(Epoch(0), |row| row.epoch);
        if epoch_here() >= epoch {
            return Ok(());
        }
        let refreshing = clock::timeout_at(deadline, self.refreshing.lock()).await;
        let mut refreshing = refreshing.map_err(|_| Error::DeadlinePassed)?;
        if epoch_here() >= epoch || refreshing.is_some_and(|silent| silent.elapsed() < REFRESH_PAUSE) {
            return Ok(());
        }
        let patience = deadline.min(clock::now() + REFRESH_PATIENCE);
        let refreshed = Box::pin(self.refresh_map(Consistency::Linearizable, patience)).await;
        *refreshing = refreshed.is_err().then(clock::now);
        if refreshed.is_err() {
            return Ok(());
        }
        match epoch_here() {
            newest if newest >= epoch => Ok(()),
            newest => Err(Error::Malformed {
                field: "epoch",
                why: format!("{} is newer than the newest placement's, {}", epoch.0, newest.0),
            }),
        }
    }

    /// Reads `_meta` and publishes the map it describes, if that is newer.
    pub async fn refresh_map(&self, consistency: Consistency, deadline: Instant) -> Result<(), Error> {
        let all = KeyRange { key: Bytes::from_static(&[0]), end: RangeEnd::Last };
        let target = self.target_of(PartitionId::META)?;
        let (answer, _) = self.read_at(target, RangeOp::all(all), consistency, deadline).await?;
        let cluster = self.peers.acquaintances.me().cluster;
        let map = ClusterMap::read(cluster, answer.revision, &answer.reply.pairs)
            .map_err(|malformed| Error::Broken { why: malformed.to_string() })?;
        self.map.rcu(|known| match known.succeeded_by(map.clone()) {
            Some(next) => Arc::new(next),
            None => known.clone(),
        });
        Ok(())
    }

    /// The local replica of a partition.
    pub fn local(&self, partition: PartitionId) -> Option<Arc<Replica>> {
        self.replicas.load().get(&partition).cloned()
    }

    fn target(&self, keyspace: &str) -> Result<Target, Error> {
        self.target_of(self.partition_of(keyspace)?)
    }

    fn partition_of(&self, keyspace: &str) -> Result<PartitionId, Error> {
        let name = if keyspace.is_empty() { "default" } else { keyspace };
        let map = self.map.load();
        if map.version == Revision(0) {
            return Err(Error::Unavailable { why: "the map is not known yet".into() });
        }
        let (id, record) = map.keyspace(name).ok_or_else(|| Error::NoSuchKeyspace { name: name.into() })?;
        if id == KeyspaceId::META {
            return Err(Error::NoSuchKeyspace { name: name.into() });
        }
        match record.mode {
            Mode::Leader => Ok(PartitionId { keyspace: id, index: 0 }),
            mode @ (Mode::MultiLeader | Mode::Leaderless) => Err(Error::Unsupported { op: "a request", mode }),
        }
    }

    fn target_of(&self, partition: PartitionId) -> Result<Target, Error> {
        let local = self.local(partition);
        let row = self.map.load().rows.get(&partition).cloned();
        match (row, local) {
            (Some(row), local) => Ok(Target { row, local }),
            (None, Some(local)) => Ok(Target { row: row_of(&self.map.load(), partition), local: Some(local) }),
            (None, None) => Err(Error::Unavailable { why: format!("partition {partition} is not placed yet") }),
        }
    }

    /// Keys and content sum of a partition's replica on another node.
    pub async fn digest_at(&self, partition: PartitionId, to: NodeId, revision: Revision) -> Result<Content, Error> {
        self.remotes.digest(&row_of(&self.map.load(), partition), to, revision, WALK_PATIENCE).await
    }

    /// A place among the walks over whole replicas.
    ///
    /// # Errors
    /// All places are taken.
    pub fn walk_place(&self) -> Result<SemaphorePermit<'_>, Error> {
        let exhausted = |_| Error::Exhausted { what: "room for digests".into(), limit: WALKS_MAX as u64 };
        self.walks.try_acquire().map_err(exhausted)
    }

    fn any_holder(&self, row: &PlacementRow) -> Result<NodeId, Error> {
        let mut nodes = row.replicas.iter().map(|placed| placed.node);
        let first = nodes.clone().next();
        nodes
            .find(|node| self.peers.connected(*node))
            .or(first)
            .ok_or_else(|| Error::Unavailable { why: "nobody holds the partition".into() })
    }

    async fn forward(
        &self,
        row: &PlacementRow,
        to: NodeId,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        self.forwards.fetch_add(1, Ordering::Relaxed);
        self.remotes.propose(row, to, command, request, deadline).await
    }

    /// Asks the leader how far a linearizable read must see, and waits until this replica does.
    async fn catch_up(&self, row: &PlacementRow, local: &Replica, to: NodeId, deadline: Instant) -> Result<(), Error> {
        self.forwards.fetch_add(1, Ordering::Relaxed);
        let index = self.rounds_at(row.partition, to).join(deadline).await?;
        if planted::is(Bug::ReadBeforeApplied) {
            return Ok(());
        }
        match local {
            Replica::Leader(replica) => replica.wait_applied(index, deadline).await,
        }
    }

    /// The rounds that ask the leader `to`. There are as many as partitions have had leaders.
    fn rounds_at(&self, partition: PartitionId, to: NodeId) -> Arc<Rounds> {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let started = rounds.entry((partition, to)).or_insert_with(|| {
            let (remotes, map) = (self.remotes.clone(), self.map.clone());
            Arc::new(Rounds::start(move || {
                let (remotes, row) = (remotes.clone(), row_of(&map.load(), partition));
                async move { remotes.read_index(&row, to, ROUND_PATIENCE).await }
            }))
        });
        started.clone()
    }
}

/// The row of a partition this node holds; before the first map there is only `_meta` itself.
fn row_of(map: &ClusterMap, partition: PartitionId) -> PlacementRow {
    let unknown = || PlacementRow { partition, epoch: Epoch(0), replicas: Vec::new() };
    map.rows.get(&partition).cloned().unwrap_or_else(unknown)
}

/// A read that has no answer has done nothing.
fn read_only(error: Error) -> Error {
    match error {
        Error::Unknown { why } => Error::Unavailable { why },
        other => other,
    }
}

/// What the leader read for a node without a replica: linearizable, whatever was asked.
fn range_answer(outcome: Outcome) -> Result<Answer, Error> {
    match outcome.result? {
        Reply::Range(reply) => Ok(Answer { reply, revision: outcome.revision, effective: Effective::Linearizable }),
        Reply::Put { .. }
        | Reply::Delete { .. }
        | Reply::Txn { .. }
        | Reply::Compacted
        | Reply::SessionOpened { .. }
        | Reply::SessionClosed => Err(Error::Broken { why: "the leader answered another question".into() }),
    }
}
