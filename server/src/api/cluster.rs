//! The `Cluster` service: the map, how this node is, and digests for comparing replicas.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tonic::{Request, Response, Status};
use trefoil_placement::{KeyspaceId, Mode, NodeId, PartitionId, PlacementRow, Stage};
use trefoil_proto::v1::{self, cluster_server::Cluster};

use crate::api::{MaybeServing, convert, deadline, member, serving};
use crate::cluster::map::ClusterMap;
use crate::error::Error;
use crate::raft::group::RaftReplica;
use crate::router::Router;
use crate::verify::{Haste, digest};

/// A digest walks everything: its deadline when the request brings none.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// See the file's head.
pub struct ClusterService {
    pub serving: MaybeServing,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn map(&self, _: Request<v1::MapRequest>) -> Result<Response<v1::MapResponse>, Status> {
        let serving = serving(&self.serving)?;
        let map = serving.router.map.load();
        Ok(Response::new(map_response(&map)))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let serving = member(&self.serving)?;
        let replicas = serving.router.replicas.load();
        let identity = serving.identity;
        let acquaintances = &serving.router.peers.acquaintances;
        Ok(Response::new(v1::StatusResponse {
            cluster_id: Bytes::copy_from_slice(&identity.cluster.0.to_be_bytes()),
            node_id: identity.node.0,
            name: serving.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            map_version: serving.router.map.load().version.0,
            start_count: identity.start_count,
            ready: serving.health.ready(),
            waiting_for: serving.health.waiting_for(),
            replicas: replicas.values().map(|replica| replica_status(replica.raft())).collect(),
            forwards: serving.router.forwards.load(Ordering::Relaxed),
            alarms: serving.health.alarms(),
            synced_position: acquaintances.position(),
            peers: acquaintances.positions().into_iter().map(|known| peer(&serving.router, known)).collect(),
        }))
    }

    async fn digest(&self, request: Request<v1::DigestRequest>) -> Result<Response<v1::DigestResponse>, Status> {
        let serving = serving(&self.serving)?;
        let deadline = deadline(&request, DIGEST_TIMEOUT);
        let ask = request.into_inner();
        let partition = PartitionId { keyspace: KeyspaceId(ask.keyspace_id), index: ask.partition };
        let _walk = serving.router.walk_place()?;
        let replica = serving
            .router
            .local(partition)
            .ok_or_else(|| Error::Unavailable { why: format!("this node holds no replica of {partition}") })?;
        let (at, content) = digest(&replica, convert::revision(ask.revision), Haste::Asked, deadline).await?;
        Ok(Response::new(v1::DigestResponse {
            node_id: serving.identity.node.0,
            replica_id: replica.raft().replica.0,
            revision: at.0,
            keys: content.keys,
            sum: content.sum,
            map_version: serving.router.map.load().version.0,
        }))
    }
}

fn peer(router: &Router, (node, synced_position): (NodeId, u64)) -> v1::PeerStatus {
    v1::PeerStatus { node_id: node.0, connected: router.peers.connected(node), synced_position }
}

fn replica_status(raft: &RaftReplica) -> v1::ReplicaStatus {
    let state = raft.state();
    let published = raft.published();
    let view = published.view();
    let (committed, applied) = (state.committed.unwrap_or(0), state.applied.unwrap_or(0));
    v1::ReplicaStatus {
        keyspace_id: raft.partition.keyspace.0,
        partition: raft.partition.index,
        replica_id: raft.replica.0,
        leader_replica_id: state.leader.map_or(0, |(replica, _)| replica.0),
        leader_node_id: state.leader.map_or(0, |(_, node)| node.0),
        term: state.term,
        last_log_index: state.last_log.unwrap_or(0),
        committed_index: committed,
        applied_index: applied,
        first_log_index: raft.first_log_index(),
        revision: view.head.revision.0,
        compacted_revision: view.head.floor.map_or(0, |floor| floor.0),
        keys: view.head.keys,
        content_sum: view.head.sum,
        lag_entries: committed.saturating_sub(applied),
        leader_silent_ms: raft.leader_silent().map(|silent| silent.as_millis() as u64),
        leader_changes: state.leader_changes,
        snapshots_built: published.snapshots_built.load(Ordering::Relaxed),
        snapshots_installed: published.snapshots_installed.load(Ordering::Relaxed),
        compactions: published.compactions.load(Ordering::Relaxed),
    }
}

fn map_response(map: &ClusterMap) -> v1::MapResponse {
    v1::MapResponse {
        cluster_id: Bytes::copy_from_slice(&map.cluster.0.to_be_bytes()),
        version: map.version.0,
        nodes: map
            .nodes
            .iter()
            .map(|(id, node)| v1::Node {
                id: id.0,
                name: node.name.clone(),
                client_address: node.client_address.clone(),
                peer_address: node.peer_address.clone(),
                zone: node.zone.clone(),
                weight: node.weight,
            })
            .collect(),
        keyspaces: map
            .keyspaces
            .iter()
            .map(|(id, keyspace)| v1::Keyspace {
                id: id.0,
                name: keyspace.name.clone(),
                mode: mode(keyspace.mode).into(),
                partitions: keyspace.partitions,
                replication_factor: keyspace.factor,
            })
            .collect(),
        rows: map.rows.values().map(row).collect(),
    }
}

fn mode(mode: Mode) -> v1::Mode {
    match mode {
        Mode::Leader => v1::Mode::Leader,
        Mode::MultiLeader => v1::Mode::MultiLeader,
        Mode::Leaderless => v1::Mode::Leaderless,
    }
}

fn row(row: &PlacementRow) -> v1::PlacementRow {
    v1::PlacementRow {
        keyspace_id: row.partition.keyspace.0,
        partition: row.partition.index,
        epoch: row.epoch.0,
        replicas: row
            .replicas
            .iter()
            .map(|placed| v1::Replica {
                id: placed.replica.0,
                node_id: placed.node.0,
                live: placed.stage == Stage::Live,
            })
            .collect(),
    }
}
