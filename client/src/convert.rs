//! The wire's messages into this crate's types, and back: the one file that knows both.

use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{Epoch, KeyspaceId, Mode, NodeId, PartitionId, Placed, PlacementRow, Stage};
use trefoil_proto::v1;

use crate::cluster::{ClusterMap, Digest, Keyspace, Node, NodeStatus, PeerStatus, ReplicaStatus};
use crate::error::{Error, Kind, Outcome};
use crate::pair::{Consistency, EffectiveConsistency, Header, KeyValue};
use crate::range::KeyRange;
use crate::txn::{Compare, DeleteOp, Op, OpReply, PutOp, RangeOp, Relation, Target, Txn};

/// Pairs as they came.
pub(crate) fn pairs(pairs: Vec<v1::KeyValue>) -> Vec<KeyValue> {
    pairs.into_iter().map(KeyValue::from).collect()
}

/// A reply's header; a server always sends one.
pub(crate) fn header(header: Option<v1::ResponseHeader>) -> Header {
    let header = header.unwrap_or_default();
    Header {
        cluster_id: header.cluster_id,
        node: NodeId(header.node_id),
        revision: Revision(header.revision),
        map_version: header.map_version,
    }
}

impl From<v1::KeyValue> for KeyValue {
    fn from(pair: v1::KeyValue) -> KeyValue {
        KeyValue {
            key: pair.key,
            value: pair.value,
            create_revision: Revision(pair.create_revision),
            mod_revision: Revision(pair.mod_revision),
            version: pair.version,
            lease: pair.lease,
        }
    }
}

impl From<Consistency> for v1::Consistency {
    fn from(consistency: Consistency) -> v1::Consistency {
        use v1::consistency::Level;
        let level = match consistency {
            Consistency::Linearizable => Level::Linearizable(v1::Linearizable {}),
            Consistency::Stale => Level::Stale(v1::Stale {}),
        };
        v1::Consistency { level: Some(level) }
    }
}

/// What a read really was; absent means linearizable, as it does in requests.
pub(crate) fn effective(consistency: Option<v1::EffectiveConsistency>) -> EffectiveConsistency {
    use v1::effective_consistency::Level;
    match consistency.and_then(|consistency| consistency.level) {
        Some(Level::Stale(staleness)) => EffectiveConsistency::Stale {
            entries_behind: staleness.entries_behind,
            leader_silent_ms: staleness.leader_silent_ms,
        },
        Some(Level::Linearizable(v1::Linearizable {})) | None => EffectiveConsistency::Linearizable,
    }
}

impl From<KeyRange> for v1::KeyRange {
    fn from(range: KeyRange) -> v1::KeyRange {
        use v1::key_range::End;
        let (key, end) = match range {
            KeyRange::Key(key) => (key, None),
            KeyRange::Prefix(prefix) => (prefix, Some(End::Prefix(true))),
            KeyRange::Between(from, before) => (from, Some(End::Before(before))),
            KeyRange::From(from) => (from, Some(End::ToLast(true))),
        };
        v1::KeyRange { key, end }
    }
}

/// The key does not exist.
pub(crate) fn absent() -> v1::Condition {
    v1::Condition { when: Some(v1::condition::When::Absent(true)) }
}

/// The key's newest put is the one at `revision`.
pub(crate) fn unchanged_since(revision: Revision) -> v1::Condition {
    v1::Condition { when: Some(v1::condition::When::ModRevision(revision.0)) }
}

impl From<Txn> for v1::Txn {
    fn from(txn: Txn) -> v1::Txn {
        v1::Txn {
            compares: txn.compares.into_iter().map(v1::Compare::from).collect(),
            success: txn.success.into_iter().map(v1::Op::from).collect(),
            failure: txn.failure.into_iter().map(v1::Op::from).collect(),
        }
    }
}

impl From<Compare> for v1::Compare {
    fn from(compare: Compare) -> v1::Compare {
        let relation = match compare.relation {
            Relation::Equal => v1::Relation::Equal,
            Relation::NotEqual => v1::Relation::NotEqual,
            Relation::Greater => v1::Relation::Greater,
            Relation::Less => v1::Relation::Less,
        };
        v1::Compare {
            range: Some(compare.range.into()),
            relation: relation as i32,
            target: Some(compare.target.into()),
        }
    }
}

impl From<Target> for v1::compare::Target {
    fn from(target: Target) -> v1::compare::Target {
        match target {
            Target::Version(version) => v1::compare::Target::Version(version),
            Target::CreateRevision(revision) => v1::compare::Target::CreateRevision(revision.0),
            Target::ModRevision(revision) => v1::compare::Target::ModRevision(revision.0),
            Target::Value(value) => v1::compare::Target::Value(value),
            Target::Lease(lease) => v1::compare::Target::Lease(lease),
        }
    }
}

impl From<Op> for v1::Op {
    fn from(op: Op) -> v1::Op {
        let op = match op {
            Op::Range(op) => v1::op::Op::Range(op.into()),
            Op::Put(op) => v1::op::Op::Put(op.into()),
            Op::Delete(op) => v1::op::Op::Delete(op.into()),
            Op::Txn(txn) => v1::op::Op::Txn(txn.into()),
        };
        v1::Op { op: Some(op) }
    }
}

impl From<RangeOp> for v1::RangeOp {
    fn from(op: RangeOp) -> v1::RangeOp {
        v1::RangeOp {
            range: Some(op.range.into()),
            limit: op.limit,
            revision: op.revision.map_or(0, |revision| revision.0),
            reverse: op.reverse,
            keys_only: op.keys_only,
            count_only: op.count_only,
            count: op.count,
        }
    }
}

impl From<PutOp> for v1::PutOp {
    fn from(op: PutOp) -> v1::PutOp {
        v1::PutOp {
            key: op.key,
            keep_value: op.value.is_none(),
            value: op.value.unwrap_or_default(),
            keep_lease: op.lease.is_none(),
            lease: op.lease.unwrap_or_default(),
            previous: op.previous,
        }
    }
}

impl From<DeleteOp> for v1::DeleteOp {
    fn from(op: DeleteOp) -> v1::DeleteOp {
        v1::DeleteOp { range: Some(op.range.into()), previous: op.previous }
    }
}

/// The replies of a transaction's branch.
///
/// # Errors
/// When a reply has no content. The transaction **was** carried out: the outcome is unknown only to us.
pub(crate) fn op_replies(replies: Vec<v1::OpReply>) -> Result<Vec<OpReply>, Error> {
    replies.into_iter().map(op_reply).collect()
}

fn op_reply(reply: v1::OpReply) -> Result<OpReply, Error> {
    use v1::op_reply::Reply;
    let reply = reply
        .reply
        .ok_or_else(|| Error::new(Kind::Malformed, Outcome::Unknown, "the server sent an operation's reply empty"))?;
    Ok(match reply {
        Reply::Range(range) => OpReply::Range { pairs: pairs(range.pairs), more: range.more, count: range.count },
        Reply::Put(put) => OpReply::Put { previous: put.previous.map(KeyValue::from) },
        Reply::Delete(delete) => OpReply::Delete { deleted: delete.deleted, previous: pairs(delete.previous) },
        Reply::Txn(txn) => OpReply::Txn { succeeded: txn.succeeded, replies: op_replies(txn.replies)? },
    })
}

impl From<v1::MapResponse> for ClusterMap {
    fn from(map: v1::MapResponse) -> ClusterMap {
        ClusterMap {
            cluster_id: map.cluster_id,
            version: map.version,
            nodes: map.nodes.into_iter().map(Node::from).collect(),
            keyspaces: map.keyspaces.into_iter().map(Keyspace::from).collect(),
            rows: map.rows.into_iter().map(row).collect(),
        }
    }
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Node {
        Node {
            id: NodeId(node.id),
            name: node.name,
            client_address: node.client_address,
            peer_address: node.peer_address,
            zone: node.zone,
            weight: node.weight,
        }
    }
}

impl From<v1::Keyspace> for Keyspace {
    fn from(keyspace: v1::Keyspace) -> Keyspace {
        Keyspace {
            mode: mode(keyspace.mode()),
            id: KeyspaceId(keyspace.id),
            name: keyspace.name,
            partitions: keyspace.partitions,
            replication_factor: keyspace.replication_factor,
        }
    }
}

fn mode(mode: v1::Mode) -> Option<Mode> {
    match mode {
        v1::Mode::Unspecified => None,
        v1::Mode::Leader => Some(Mode::Leader),
        v1::Mode::MultiLeader => Some(Mode::MultiLeader),
        v1::Mode::Leaderless => Some(Mode::Leaderless),
    }
}

fn row(row: v1::PlacementRow) -> PlacementRow {
    PlacementRow {
        partition: partition(row.keyspace_id, row.partition),
        epoch: Epoch(row.epoch),
        replicas: row.replicas.into_iter().map(placed).collect(),
    }
}

fn placed(replica: v1::Replica) -> Placed {
    Placed {
        replica: ReplicaId(replica.id),
        node: NodeId(replica.node_id),
        stage: if replica.live { Stage::Live } else { Stage::New },
    }
}

fn partition(keyspace: u32, index: u32) -> PartitionId {
    PartitionId { keyspace: KeyspaceId(keyspace), index }
}

impl From<v1::PeerStatus> for PeerStatus {
    fn from(peer: v1::PeerStatus) -> PeerStatus {
        PeerStatus { node: NodeId(peer.node_id), connected: peer.connected, synced_position: peer.synced_position }
    }
}

impl From<v1::StatusResponse> for NodeStatus {
    fn from(status: v1::StatusResponse) -> NodeStatus {
        NodeStatus {
            cluster_id: status.cluster_id,
            node: NodeId(status.node_id),
            name: status.name,
            version: status.version,
            map_version: status.map_version,
            start_count: status.start_count,
            ready: status.ready,
            waiting_for: status.waiting_for,
            replicas: status.replicas.into_iter().map(ReplicaStatus::from).collect(),
            forwards: status.forwards,
            alarms: status.alarms,
            synced_position: status.synced_position,
            peers: status.peers.into_iter().map(PeerStatus::from).collect(),
        }
    }
}

impl From<v1::ReplicaStatus> for ReplicaStatus {
    fn from(status: v1::ReplicaStatus) -> ReplicaStatus {
        let leader = (ReplicaId(status.leader_replica_id), NodeId(status.leader_node_id));
        ReplicaStatus {
            partition: partition(status.keyspace_id, status.partition),
            replica: ReplicaId(status.replica_id),
            leader: (status.leader_node_id != 0).then_some(leader),
            term: status.term,
            first_log_index: status.first_log_index,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            revision: Revision(status.revision),
            compacted_revision: Revision(status.compacted_revision),
            keys: status.keys,
            content_sum: status.content_sum,
            lag_entries: status.lag_entries,
            leader_silent_ms: status.leader_silent_ms,
            leader_changes: status.leader_changes,
            snapshots_built: status.snapshots_built,
            snapshots_installed: status.snapshots_installed,
            compactions: status.compactions,
        }
    }
}

impl From<v1::DigestResponse> for Digest {
    fn from(digest: v1::DigestResponse) -> Digest {
        Digest {
            node: NodeId(digest.node_id),
            replica: ReplicaId(digest.replica_id),
            revision: Revision(digest.revision),
            keys: digest.keys,
            sum: digest.sum,
        }
    }
}
