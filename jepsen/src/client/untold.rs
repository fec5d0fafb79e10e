//! What a node says of itself when it tells nothing but who it is, to be filled with what it does tell: numbers are 0, and it
//! is not ready.

use bytes::Bytes;
use trefoil_client::{NodeId, NodeStatus, PartitionId, ReplicaId, ReplicaStatus, Revision};

/// A replica of the default partition.
pub(crate) fn replica(id: u64) -> ReplicaStatus {
    ReplicaStatus {
        partition: PartitionId::DEFAULT,
        replica: ReplicaId(id),
        leader: None,
        term: 0,
        first_log_index: 0,
        last_log_index: 0,
        committed_index: 0,
        applied_index: 0,
        revision: Revision(0),
        compacted_revision: Revision(0),
        keys: 0,
        content_sum: 0,
        lag_entries: 0,
        leader_silent_ms: None,
        leader_changes: 0,
        snapshots_built: 0,
        snapshots_installed: 0,
        compactions: 0,
    }
}

/// A node without replicas.
pub(crate) fn node(id: u64) -> NodeStatus {
    NodeStatus {
        cluster_id: Bytes::new(),
        node: NodeId(id),
        name: String::new(),
        version: String::new(),
        map_version: 0,
        start_count: 0,
        ready: false,
        waiting_for: String::new(),
        replicas: Vec::new(),
        forwards: 0,
        alarms: Vec::new(),
        synced_position: 0,
        peers: Vec::new(),
    }
}
