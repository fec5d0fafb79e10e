//! What a member of a cluster answers its peers with, and whom it believes what.
//!
//! Left out: opening words, which are judged when they are met (`cluster/identity.rs`); which replicas a node may speak
//! for (`voice.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tonic::Status;
use trefoil_causality::ReplicaId;
use trefoil_placement::{Epoch, KeyspaceId, NodeId, PartitionId};
use trefoil_proto::peer::{Caller, Introduction};
use trefoil_store::mvcc::Limits;
use trefoil_world::clock::{self, Instant};

use crate::api::peer::asked::Asked;
use crate::api::peer::denied;
use crate::cluster::identity::{Acquaintances, StorageId};
use crate::health::Health;
use crate::raft::group::RaftReplica;
use crate::router::Router;

/// The Raft replicas of this node, by id.
pub type RaftReplicas = BTreeMap<ReplicaId, Arc<RaftReplica>>;

/// What a member of a cluster answers peers with.
pub struct Member {
    pub acquaintances: Arc<Acquaintances>,
    pub rafts: Arc<ArcSwap<RaftReplicas>>,
    pub router: Arc<Router>,
    pub health: Arc<Health>,
    pub limits: Limits,
    pub message_bytes_max: usize,
    /// Directories under a known node's name that are not its own, and when they last asked.
    pub strangers: Mutex<BTreeMap<String, (StorageId, Instant)>>,
}

impl Member {
    /// Nothing but Raft messages is taken from a node that is neither a founder nor in the map.
    pub(super) fn expect_of_cluster(&self, node: NodeId) -> Result<(), Status> {
        match self.acquaintances.is_of_cluster(node) {
            true => Ok(()),
            false => Err(denied(format!("{node} is not in the map: only Raft messages are taken from it"))),
        }
    }

    /// Believes a caller that is of the cluster and whose opening words were believed on its Raft connection, in its
    /// latest start.
    pub(super) fn asked(&self, caller: Option<&Caller>, keyspace: u32, partition: u32) -> Result<Asked, Status> {
        let caller = caller.ok_or_else(|| Status::invalid_argument("it does not say who asks"))?;
        let me = self.acquaintances.me();
        if caller.cluster_id.as_ref() != me.cluster.0.to_be_bytes() {
            return Err(denied(format!("this node is of cluster {}", me.cluster)));
        }
        let node = NodeId(caller.node_id);
        if !self.acquaintances.knows(node, caller.run) {
            return Err(denied(format!("this start of {node} was not met, or another one since")));
        }
        self.expect_of_cluster(node)?;
        let partition = PartitionId { keyspace: KeyspaceId(keyspace), index: partition };
        Ok(Asked { partition, epoch: Epoch(caller.epoch) })
    }

    /// Takes note of a new directory that comes under the name of a known node. A founder that has not adopted the
    /// founding record yet asks with the directory it is known by.
    pub(super) fn note_stranger(&self, asking: &Introduction) {
        let map = self.router.map.load();
        let known = map.nodes.iter().find(|(_, node)| node.name == asking.name).map(|(node, _)| *node);
        let (Some(node), Ok(storage)) = (known, asking.storage_id.as_ref().try_into()) else { return };
        let storage = StorageId(u128::from_be_bytes(storage));
        if self.acquaintances.storage_of(node) != Some(storage) {
            let seen = (storage, clock::now());
            self.strangers.lock().unwrap_or_else(PoisonError::into_inner).insert(asking.name.clone(), seen);
        }
    }

    /// The strangers by name; without a storage id those that have been silent for `patience`, for the last time.
    pub fn strangers(&self, patience: Duration) -> Vec<(String, Option<StorageId>)> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let named = strangers.iter().map(|(name, (storage, at))| {
            let asks = at.elapsed() < patience;
            (name.clone(), asks.then_some(*storage))
        });
        let named: Vec<_> = named.collect();
        strangers.retain(|_, (_, at)| at.elapsed() < patience);
        named
    }
}
