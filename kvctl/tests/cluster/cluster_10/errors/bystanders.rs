//! Nodes that cannot answer by themselves: one without a replica, which hands requests on, and one that stays out.

use trefoil_client::PartitionId;
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;

use super::quorum::NO_QUORUM;
use super::{ATTEMPT_MAX, PATIENCE, answered, failed};
use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::files::replace_with_copy;
use crate::load::fill;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const NOT_LEADER: Case =
    Case::new("the asked replica does not lead", "NOT_LEADER", "this node does not lead the partition; node 2 does");
const STAYS_OUT: Case = Case::new(
    "the node stays out",
    "UNAVAILABLE",
    "not available: this directory is not the newest of n3, so it stays out; …",
);
pub const PROVOKED: [Case; 2] = [NOT_LEADER, STAYS_OUT];

/// Writes after which an old copy is surely behind.
const WRITES: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_replica() {
    Scenario::begin("cluster_10::errors::bystanders::a_node_without_a_replica");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open([NOT_LEADER, NO_QUORUM]);
    let mut cluster = Cluster::form(4, &[]).await;
    let without = node_without_a_replica(&cluster).await;
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[without].client).await);
    let range = Some(v1::KeyRange { key: "k".into(), end: None });
    let scan = v1::ScanRequest { range, ..v1::ScanRequest::default() };
    let status = failed("a scan on a node without a replica", kv.scan(bounded(scan, ATTEMPT_MAX)).await);
    ledger.check(NOT_LEADER, &status);
    let leader = status.metadata().get("trefoil-leader").and_then(|leader| leader.to_str().ok());
    let leader: Option<u64> = leader.and_then(|leader| leader.parse().ok());
    assert!(leader.is_some(), "expected the id of a node in trefoil-leader: {status:?}");
    // What the leader refuses comes back as it refused it.
    let leader = cluster.leader().await;
    for node in (0..4).filter(|node| ![leader, without].contains(node)) {
        cluster.kill(node).await;
    }
    let status = until("the refusal of a leader without a quorum, handed on", PATIENCE, async || {
        let answer = kv.put(bounded(raw::put("k", "v"), ATTEMPT_MAX)).await;
        answer.err().filter(|status| NO_QUORUM.is(status))
    })
    .await;
    ledger.check(NO_QUORUM, &status);
    ledger.close();
}

/// Three of four nodes hold the default partition.
async fn node_without_a_replica(cluster: &Cluster) -> usize {
    let mut without = Vec::new();
    for node in 0..4 {
        let status = cluster.status(node).await.expect("the status of a node that runs");
        if !status.replicas.iter().any(|replica| replica.partition == PartitionId::DEFAULT) {
            without.push(node);
        }
    }
    assert_eq!(without.len(), 1, "expected one node of four without a replica of the default partition");
    without[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stays_out() {
    Scenario::begin("cluster_10::errors::bystanders::a_node_that_stays_out");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open([STAYS_OUT]);
    let mut cluster = Cluster::form(3, &[]).await;
    let node = cluster.follower().await;
    let copy = cluster.folder("copy");
    cluster.freeze(node).await;
    replace_with_copy(&cluster.nodes[node].dir, &copy);
    cluster.thaw(node);
    fill(&cluster.client().await, "since/", WRITES, 100, 1).await;
    cluster.kill(node).await;
    replace_with_copy(&copy, &cluster.nodes[node].dir);
    cluster.launch(node);
    ledger.check(STAYS_OUT, &answered(&cluster.nodes[node].client, STAYS_OUT).await);
    ledger.close();
}
