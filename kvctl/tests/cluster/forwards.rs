//! A warmed client causes no forwards: it knows who leads, also after another node has taken over.

use std::time::Duration;

use trefoil_client::{Client, Compare, KeyRange, NodeId, Op, Txn};

use crate::cluster::Cluster;
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// Of each kind.
const CALLS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warmed_client_causes_no_forwards() {
    Scenario::begin("forwards::a_warmed_client_causes_no_forwards");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let client = cluster.client().await;
    expect_no_forwards(&cluster, &client, "at first").await;
    let leader = cluster.leader().await;
    cluster.terminate(leader).await;
    cluster.start(leader).await;
    expect_no_forwards(&cluster, &client, "after another node has taken over").await;
}

async fn expect_no_forwards(cluster: &Cluster, client: &Client, when: &str) {
    let leader = one_leader(cluster).await;
    // One call of each kind, wherever it goes.
    call(client, &format!("warm/{when}")).await;
    let before = forwards(cluster).await;
    for number in 0..CALLS {
        call(client, &format!("{when}/{number}")).await;
    }
    let after = forwards(cluster).await;
    assert_eq!(one_leader(cluster).await, leader, "expected no change of leader meanwhile");
    println!("{when}: {before:?} requests handed on before {} calls, {after:?} behind them", 4 * CALLS);
    assert_eq!(after, before, "{when}: expected the nodes to hand on nothing of a client that was warmed");
}

/// The leader of the default partition, once every node says it is the same one.
async fn one_leader(cluster: &Cluster) -> NodeId {
    until("one leader of the default partition in every node's eyes", PATIENCE, async || {
        let mut leaders = Vec::new();
        for node in 0..cluster.nodes.len() {
            leaders.push(cluster.replica(node).await?.leader?);
        }
        leaders.iter().all(|leader| *leader == leaders[0]).then_some(leaders[0].1)
    })
    .await
}

/// What each node has handed on.
async fn forwards(cluster: &Cluster) -> Vec<u64> {
    let mut forwards = Vec::new();
    for node in 0..cluster.nodes.len() {
        forwards.push(cluster.status(node).await.expect("the status of a node that runs").forwards);
    }
    forwards
}

/// A put, a get, a scan and a transaction.
async fn call(client: &Client, key: &str) {
    let key = key.to_owned();
    client.put(key.clone(), "1").await.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    let found = client.get(key.clone()).await.unwrap_or_else(|error| panic!("expected a get to work: {error}"));
    assert_eq!(found.value().map(|value| &value[..]), Some(&b"1"[..]), "expected to read what was put");
    let scan = client.scan(KeyRange::key(key.clone())).limit(1).await;
    assert_eq!(scan.map_or(0, |scan| scan.pairs.len()), 1, "expected a scan to find {key}");
    let txn = Txn::new().when(Compare::exists(key.clone())).then(Op::put(key.clone(), "2")).then(Op::get(key));
    let done = client.txn(txn).await.unwrap_or_else(|error| panic!("expected a transaction to work: {error}"));
    assert!(done.succeeded, "expected the compare to hold");
}
