//! From a keyspace's name to the replica that answers: here, or after exactly one forward.
//!
//! A request that arrived from a client may be handed on once, to the node that leads; one that was handed on is
//! answered or refused. The map is a snapshot: a request never waits for metadata.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use trefoil_causality::Revision;
use trefoil_placement::{Epoch, KeyspaceId, Mode, NodeId, PartitionId, PlacementRow};
use trefoil_proto::peer::{ProposeRequest, ReadIndexRequest, Refused, propose_reply, read_index_reply, refused};
use trefoil_store::command::{
    Command, KeyRange, Op, Outcome, RangeEnd, RangeOp, Reply, RequestId, decode_outcome, encode_command,
};
use trefoil_world::clock::{self, Instant};

use crate::cluster::map::ClusterMap;
use crate::error::Error;
use crate::peer::Peers;
use crate::replication::leader::Scan;
use crate::replication::{Answer, Consistency, Effective, Replica};

const REFRESH_PATIENCE: Duration = Duration::from_secs(1);
/// Walks over whole replicas at a time.
pub const WALKS_MAX: usize = 4;

/// The replicas of this node.
pub type LocalReplicas = BTreeMap<PartitionId, Arc<Replica>>;

/// See the file's head.
pub struct Router {
    pub me: NodeId,
    pub map: Arc<ArcSwap<ClusterMap>>,
    pub replicas: Arc<ArcSwap<LocalReplicas>>,
    pub peers: Arc<Peers>,
    pub forwards: AtomicU64,
    /// Walks over a replica's whole content that may run at a time.
    pub walks: Semaphore,
}

/// Where a request goes.
struct Target {
    row: PlacementRow,
    local: Option<Arc<Replica>>,
}

impl Router {
    /// Carries out a command in a keyspace; on another node if that one leads. Says where it was carried out.
    pub async fn write(
        &self,
        keyspace: &str,
        command: Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        let target = self.target(keyspace)?;
        self.write_to(target, command, request, deadline).await
    }

    /// As [`Router::write`], in `_meta`.
    pub async fn write_meta(&self, command: Command, deadline: Instant) -> Result<Outcome, Error> {
        let target = self.target_of(PartitionId::META)?;
        let (outcome, _) = self.write_to(target, command, None, deadline).await?;
        Ok(outcome)
    }

    async fn write_to(
        &self,
        target: Target,
        command: Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        let Some(local) = &target.local else {
            return self.write_elsewhere(&target.row, command, request, deadline).await;
        };
        match local.write(command.clone(), request, deadline).await {
            Err(Error::NotLeader { leader: Some(leader) }) => {
                Ok((self.forward(&target.row, leader, command, request, deadline).await?, leader))
            }
            result => Ok((result?, self.me)),
        }
    }

    /// On a node without a replica: some holder is asked, and if that one names the leader, the leader.
    async fn write_elsewhere(
        &self,
        row: &PlacementRow,
        command: Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<(Outcome, NodeId), Error> {
        let holder = self.any_holder(row)?;
        match self.forward(row, holder, command.clone(), request, deadline).await {
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
        let Some(local) = &target.local else {
            let (outcome, node) = self
                .write_elsewhere(&target.row, Command::Op(Op::Range(op)), None, deadline)
                .await
                .map_err(read_only)?;
            return Ok((range_answer(outcome)?, node));
        };
        match local.read(op.clone(), consistency, deadline).await {
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

    /// A client that knows a newer placement than this node makes it look at the newest map before it answers. When
    /// `_meta` does not answer, the last known map goes on being used: data never waits for metadata.
    pub async fn reach_epoch(&self, keyspace: &str, epoch: Epoch, deadline: Instant) -> Result<(), Error> {
        if self.target(keyspace)?.row.epoch >= epoch {
            return Ok(());
        }
        let patience = deadline.min(clock::now() + REFRESH_PATIENCE);
        if self.refresh_map(Consistency::Linearizable, patience).await.is_err() {
            return Ok(());
        }
        match self.target(keyspace)?.row.epoch {
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
        let map = Arc::new(map);
        self.map.rcu(|known| if known.version < map.version { map.clone() } else { known.clone() });
        Ok(())
    }

    /// The local replica of a partition.
    pub fn local(&self, partition: PartitionId) -> Option<Arc<Replica>> {
        self.replicas.load().get(&partition).cloned()
    }

    fn target(&self, keyspace: &str) -> Result<Target, Error> {
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
            Mode::Leader => self.target_of(PartitionId { keyspace: id, index: 0 }),
            mode @ (Mode::MultiLeader | Mode::Leaderless) => Err(Error::Unsupported { op: "a request", mode }),
        }
    }

    fn target_of(&self, partition: PartitionId) -> Result<Target, Error> {
        let local = self.local(partition);
        let row = self.map.load().rows.get(&partition).cloned();
        match (row, local) {
            (Some(row), local) => Ok(Target { row, local }),
            // Before the first map there is only `_meta` itself, which this node holds.
            (None, Some(local)) => {
                let epoch = Epoch(0);
                Ok(Target { row: PlacementRow { partition, epoch, replicas: Vec::new() }, local: Some(local) })
            }
            (None, None) => Err(Error::Unavailable { why: format!("partition {partition} is not placed yet") }),
        }
    }

    /// A place among the walks over whole replicas.
    ///
    /// # Errors
    /// All places are taken.
    pub fn walk_place(&self) -> Result<SemaphorePermit<'_>, Error> {
        let exhausted = |_| Error::Exhausted { what: "room for digests".into(), limit: WALKS_MAX as u64 };
        self.walks.try_acquire().map_err(exhausted)
    }

    /// As requests to peers carry it.
    pub fn cluster_id(&self) -> Bytes {
        Bytes::copy_from_slice(&self.peers.acquaintances.me().cluster.0.to_be_bytes())
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
        command: Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        self.forwards.fetch_add(1, Ordering::Relaxed);
        let mut client = self.peers.client(to).await.map_err(not_sent)?;
        let request = ProposeRequest {
            cluster_id: self.cluster_id(),
            keyspace_id: row.partition.keyspace.0,
            partition: row.partition.index,
            command: encode_command(&command),
            deadline_ms: millis_left(deadline)?,
            session: request.map_or(0, |id| id.session),
            sequence: request.map_or(0, |id| id.sequence),
            acknowledged: request.map_or(0, |id| id.acknowledged),
        };
        let unknown = |why: String| Error::Unknown { why };
        let reply = match clock::timeout_at(deadline, client.propose(request)).await {
            Err(_) => return Err(unknown("the deadline passed before the leader answered".into())),
            Ok(Err(status)) => return Err(unknown(format!("the leader's connection: {}", status.message()))),
            Ok(Ok(reply)) => reply.into_inner().reply,
        };
        match reply {
            Some(propose_reply::Reply::Outcome(bytes)) => {
                decode_outcome(bytes).map_err(|malformed| unknown(malformed.to_string()))
            }
            Some(propose_reply::Reply::NotLeader(hint)) => {
                Err(Error::NotLeader { leader: leader(hint.leader_node_id) })
            }
            Some(propose_reply::Reply::Unknown(why)) => Err(unknown(why)),
            Some(propose_reply::Reply::Refused(refused)) => Err(refusal(refused)),
            None => Err(unknown("the leader's answer is empty".into())),
        }
    }

    /// Asks the leader how far a linearizable read must see, and waits until this replica does.
    async fn catch_up(&self, row: &PlacementRow, local: &Replica, to: NodeId, deadline: Instant) -> Result<(), Error> {
        self.forwards.fetch_add(1, Ordering::Relaxed);
        let mut client = self.peers.client(to).await.map_err(not_sent)?;
        let request = ReadIndexRequest {
            cluster_id: self.cluster_id(),
            keyspace_id: row.partition.keyspace.0,
            partition: row.partition.index,
            deadline_ms: millis_left(deadline)?,
        };
        let unavailable = |why: String| Error::Unavailable { why };
        let reply = match clock::timeout_at(deadline, client.read_index(request)).await {
            Err(_) => return Err(Error::DeadlinePassed),
            Ok(Err(status)) => return Err(unavailable(format!("the leader's connection: {}", status.message()))),
            Ok(Ok(reply)) => reply.into_inner().reply,
        };
        match reply {
            Some(read_index_reply::Reply::Index(index)) => match local {
                Replica::Leader(replica) => replica.wait_applied(index, deadline).await,
            },
            Some(read_index_reply::Reply::NotLeader(hint)) => {
                Err(Error::NotLeader { leader: leader(hint.leader_node_id) })
            }
            Some(read_index_reply::Reply::Refused(refused)) => Err(refusal(refused)),
            None => Err(unavailable("the leader's answer is empty".into())),
        }
    }
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

/// What a peer has refused, as if it had been refused here.
fn refusal(Refused { kind, why, limit }: Refused) -> Error {
    match refused::Kind::try_from(kind) {
        Ok(refused::Kind::Deadline) => Error::DeadlinePassed,
        Ok(refused::Kind::Exhausted) => Error::Exhausted { what: why.into(), limit },
        Ok(refused::Kind::Broken) => Error::Broken { why },
        // A kind this version does not know is none that did anything either.
        Ok(refused::Kind::Unavailable) | Err(_) => Error::Unavailable { why },
    }
}

fn leader(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

fn not_sent(error: crate::peer::CallError) -> Error {
    Error::Unavailable { why: error.to_string() }
}

fn millis_left(deadline: Instant) -> Result<u64, Error> {
    let left = deadline.saturating_duration_since(clock::now());
    match left >= Duration::from_millis(1) {
        true => Ok(left.as_millis() as u64),
        false => Err(Error::DeadlinePassed),
    }
}
