//! A warmed client causes no forwards: it knows who leads, also after another node has taken over. One that the leader
//! has no place for writes through the node it was given.

use std::time::Duration;

use tonic::transport::Channel;
use trefoil_client::{Client, Compare, KeyRange, NodeId, Op, Txn};
use trefoil_proto::v1::kv_client::KvClient;

use crate::cluster::Cluster;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// Of each kind.
const CALLS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(20);
/// Enough for those who ask for status, and one more.
const CONNECTIONS_MAX: usize = 4;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_round_a_leader_without_a_place() {
    Scenario::begin("forwards::writes_go_round_a_leader_without_a_place");
    let _turn = beside_others().await;
    let cluster = Cluster::form(3, &["--connections-max", &CONNECTIONS_MAX.to_string()]).await;
    let leads = one_leader(&cluster).await;
    let leader = cluster.leader().await;
    let given = (leader + 1) % 3;
    let before = forwards(&cluster).await[given];
    let held = take_all_places(&cluster.nodes[leader].client).await;
    let client = Client::connect([cluster.nodes[given].client.as_str()]).await;
    let client = client.unwrap_or_else(|error| panic!("expected to connect to a node that has a place: {error}"));
    for number in 0..CALLS {
        let put = client.put(format!("round/{number}"), "1").await;
        put.unwrap_or_else(|error| panic!("expected put {number} to be done: {:?}: {error}", error.outcome()));
    }
    assert_eq!(one_leader(&cluster).await, leads, "expected no change of leader meanwhile");
    let after = forwards(&cluster).await[given];
    println!("{} connections held at the leader; {} of {CALLS} puts handed on to it", held.len(), after - before);
    assert!(after >= before + CALLS, "expected all puts to go through the given node: {before} forwards, then {after}");
}

/// Connections to a node until it takes no more.
async fn take_all_places(address: &str) -> Vec<KvClient<Channel>> {
    let mut held = Vec::new();
    for _ in 0..=CONNECTIONS_MAX {
        let Some(mut kv) = raw::kv(address).await else { return held };
        if kv.get(bounded(raw::stale_get("k"), PATIENCE)).await.is_err() {
            return held;
        }
        held.push(kv);
    }
    panic!("expected at most {CONNECTIONS_MAX} connections to be taken");
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
