//! The cluster as its nodes describe it: the map, a node's status, a replica's digest.

use bytes::Bytes;
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{Epoch, KeyspaceId, Mode, NodeId, PartitionId, PlacementRow};

/// Who is in the cluster, and which node holds which partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    /// 16 bytes; empty as long as the cluster has not formed.
    pub cluster_id: Bytes,
    pub version: u64,
    pub nodes: Vec<Node>,
    pub keyspaces: Vec<Keyspace>,
    pub rows: Vec<PlacementRow>,
}

impl ClusterMap {
    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The keyspace with this id.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.keyspaces.iter().find(|keyspace| keyspace.id == id)
    }

    /// The placement of a partition.
    pub fn row(&self, partition: PartitionId) -> Option<&PlacementRow> {
        self.rows.iter().find(|row| row.partition == partition)
    }

    /// The partition that holds a keyspace's keys. Today each keyspace has one.
    pub(crate) fn partition(&self, keyspace: &str) -> Option<PartitionId> {
        let found = self.keyspaces.iter().find(|known| known.name == keyspace)?;
        Some(PartitionId { keyspace: found.id, index: 0 })
    }

    /// The epoch of the partition that holds a keyspace's keys.
    pub(crate) fn epoch(&self, keyspace: &str) -> Option<Epoch> {
        self.partition(keyspace).and_then(|partition| self.row(partition)).map(|row| row.epoch)
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
    /// Where clients reach it (`host:port`).
    pub client_address: String,
    /// Where other nodes reach it.
    pub peer_address: String,
    pub zone: String,
    pub weight: u32,
}

/// A named key range with its own mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    pub id: KeyspaceId,
    pub name: String,
    /// Absent: a mode newer than this client.
    pub mode: Option<Mode>,
    pub partitions: u32,
    pub replication_factor: u32,
}

/// How a node and its replicas are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    pub cluster_id: Bytes,
    pub node: NodeId,
    pub name: String,
    pub version: String,
    pub map_version: u64,
    pub start_count: u64,
    /// Whether it answers requests; if not, `waiting_for` says why.
    pub ready: bool,
    pub waiting_for: String,
    pub replicas: Vec<ReplicaStatus>,
    /// Requests the node handed on to another one since it started.
    pub forwards: u64,
    /// What an admin should look at, one line each.
    pub alarms: Vec<String>,
    /// Batches its writer has synced.
    pub synced_position: u64,
    /// The nodes it has met.
    pub peers: Vec<PeerStatus>,
}

/// What a node knows of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    pub node: NodeId,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// The highest position it has said to have synced.
    pub synced_position: u64,
}

/// How a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub partition: PartitionId,
    pub replica: ReplicaId,
    /// The replica that leads and its node, as this one knows it.
    pub leader: Option<(ReplicaId, NodeId)>,
    pub term: u64,
    pub first_log_index: u64,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub revision: Revision,
    pub compacted_revision: Revision,
    pub keys: u64,
    /// Over all living keys; equal replicas at an equal applied index have equal sums.
    pub content_sum: u64,
    /// Log entries behind what this replica knows to be committed.
    pub lag_entries: u64,
    /// Absent: never heard since the node started.
    pub leader_silent_ms: Option<u64>,
    pub leader_changes: u64,
    pub snapshots_built: u64,
    pub snapshots_installed: u64,
    pub compactions: u64,
}

/// The sum over a replica's whole content at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub node: NodeId,
    pub replica: ReplicaId,
    pub revision: Revision,
    pub keys: u64,
    pub sum: u64,
}
