//! The replicas of this node: starting those of before, creating those the map asks for, having them made live.
//!
//! Invariants:
//!
//! * A replica whose row is `live` but of which there is no record here is never started.
//! * A replica's record is durable before the replica starts.
//!
//! Left out: stopping replicas, which is the node's, and what they do once they run (`raft/group.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use bytes::Bytes;
use trefoil_causality::ReplicaId;
use trefoil_placement::{KeyspaceId, PartitionId, PlacementRow, Stage};
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Order, Visit};
use trefoil_store::key;

use super::Membership;
use super::meta::write_meta;
use crate::cluster::map;
use crate::raft::group::{Parts, RaftReplica};
use crate::replica_record::ReplicaRecord;
use crate::replication::Replica;

impl Membership {
    pub(super) async fn start(&mut self, replica: ReplicaId, record: ReplicaRecord) -> anyhow::Result<()> {
        let parts = Parts {
            replica,
            record,
            engine: self.shared.engine.clone(),
            writer: self.shared.writer.clone(),
            stores: self.shared.stores.clone(),
            bulk: self.shared.bulk.clone(),
            peers: self.router.peers.clone(),
        };
        let raft = Arc::new(RaftReplica::start(parts).await.with_context(|| format!("replica {replica}"))?);
        if record.partition == PartitionId::META {
            let voters = self.record.meta_voters();
            if voters.iter().any(|voter| voter.node == self.identity.node) {
                raft.initialize(voters.iter().map(|voter| (voter.meta_replica(), voter.node)).collect()).await?;
            }
        }
        let started = Replica::start(record.mode, raft.clone(), self.long_reads.clone())?;
        insert(&self.rafts, replica, raft);
        insert(&self.router.replicas, record.partition, Arc::new(started));
        Ok(())
    }

    pub(super) async fn tend_row(&mut self, row: &PlacementRow) -> anyhow::Result<()> {
        let Some(mine) = row.on(self.identity.node) else { return Ok(()) };
        let started = self.rafts.load().get(&mine.replica).cloned();
        match (mine.stage, started) {
            (Stage::New, None) => self.create(row, mine.replica).await,
            (Stage::New, Some(raft)) => self.bring_up(row, &raft).await,
            (Stage::Live, Some(_)) => Ok(()),
            (Stage::Live, None) => {
                self.line.say(format!(
                    "replica {} of partition {} is live in the map, but its data is not here; run: kvctl node replace {}",
                    mine.replica, row.partition, self.shared.config.name
                ));
                Ok(())
            }
        }
    }

    async fn create(&mut self, row: &PlacementRow, replica: ReplicaId) -> anyhow::Result<()> {
        let keyspace = self.router.map.load().keyspaces.get(&row.partition.keyspace).map(|keyspace| keyspace.mode);
        let mode =
            keyspace.with_context(|| format!("{} is placed, but its keyspace is not in the map", row.partition))?;
        let record = ReplicaRecord { partition: row.partition, store: self.shared.stores.allocate().await?, mode };
        let mut batch = Batch::new();
        batch.put(Family::Node, &key::node::replica(replica), &record.encode());
        self.shared.writer.write(batch, Durability::Sync).await?;
        self.start(replica, record).await
    }

    /// A new partition's first replica names its voters; each replica becomes live once it has applied something.
    async fn bring_up(&mut self, row: &PlacementRow, raft: &RaftReplica) -> anyhow::Result<()> {
        let first = row.replicas.iter().map(|placed| placed.replica).min();
        let all_new = row.replicas.iter().all(|placed| placed.stage == Stage::New);
        let applied = raft.state().applied;
        if applied.is_none() && all_new && first == Some(raft.replica) && row.partition.keyspace != KeyspaceId::META {
            raft.initialize(row.replicas.iter().map(|placed| (placed.replica, placed.node)).collect()).await?;
        }
        if applied.is_some() {
            let (router, change) = (self.router.clone(), map::make_live(row, raft.replica));
            self.change_meta(async move { write_meta(&router, change).await });
        }
        Ok(())
    }
}

/// The records of the replicas of this node.
pub(crate) fn replica_records(engine: &dyn Engine) -> Result<BTreeMap<ReplicaId, ReplicaRecord>, EngineError> {
    let mut rows = Vec::new();
    engine.scan(Family::Node, &key::node::replicas(), Order::Ascending, &mut |key, value| {
        rows.push((key::node::decode_replica(key), Bytes::copy_from_slice(value)));
        Visit::Next
    })?;
    let malformed = || EngineError::Corrupt("malformed replica key".into());
    rows.into_iter().map(|(replica, row)| Ok((replica.ok_or_else(malformed)?, ReplicaRecord::decode(row)?))).collect()
}

fn insert<K: Ord + Clone, V>(map: &ArcSwap<BTreeMap<K, Arc<V>>>, key: K, value: Arc<V>) {
    map.rcu(|map| {
        let mut map = BTreeMap::clone(map);
        map.insert(key.clone(), value.clone());
        map
    });
}
