//! More nodes than replicas: six in three zones. Everybody follows `_meta`, five vote in it, three hold `default`, and
//! the others pass on what they are asked.

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_client::{Client, ClusterMap, NodeId, NodeStatus, PartitionId};
use trefoil_proto::v1::kv_client::KvClient;

use crate::cluster::Cluster;
use crate::process::finish;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const ZONES: [&str; 6] = ["a", "a", "b", "b", "c", "c"];
const SEEN_MAX: Duration = Duration::from_secs(20);
const RUN_MAX: Duration = Duration::from_secs(20);
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_nodes_in_three_zones() {
    let scenario = Scenario::begin("six_nodes::six_nodes_in_three_zones");
    let _turn = beside_others().await;
    let mut cluster = Cluster::plan(ZONES.len(), &[]).await;
    for node in 0..ZONES.len() {
        launch(&mut cluster, node, &[]);
    }
    for node in 0..ZONES.len() {
        cluster.ready(node).await;
    }
    let client = cluster.client().await;
    for node in 0..ZONES.len() {
        until("a replica of _meta on each node", SEEN_MAX, async || {
            let status = status_at(&client, &cluster.nodes[node].client).await?;
            let meta = status.replicas.iter().find(|replica| replica.partition == PartitionId::META)?;
            (status.ready && meta.leader.is_some() && meta.keys > 0).then_some(())
        })
        .await;
    }
    let map = client.map().await.unwrap_or_else(|error| panic!("expected the map: {error}"));
    let meta = holders(&map, PartitionId::META);
    assert_eq!(meta.len(), ZONES.len(), "expected a replica of _meta on each node, got {meta:?}");
    let default = holders(&map, PartitionId::DEFAULT);
    let zones: BTreeSet<&str> = default.iter().map(|node| ZONES[*node]).collect();
    assert_eq!((default.len(), zones.len()), (3, 3), "expected default in three zones, got {default:?}");

    // Everybody without `default`, in random order of the first two.
    let mut without: Vec<usize> = (0..ZONES.len()).filter(|node| !default.contains(node)).collect();
    let last = without.len() - 1;
    without.swap(scenario.dice().below(2) as usize, last - 1);
    for node in &without {
        expect_passed_on(&client, &cluster, *node, "at first").await;
    }
    let killed = without[0];
    cluster.kill(killed).await;
    launch(&mut cluster, killed, &[]);
    cluster.ready(killed).await;
    expect_passed_on(&client, &cluster, killed, "after kill -9").await;
    cluster.expect_equal_replicas().await;

    // Three of five voters are a majority, three of six are none: with only those that hold `default` left, which are
    // voters of three zones, `_meta` goes on and takes a new weight.
    for node in without {
        cluster.kill(node).await;
    }
    let last = default[2];
    cluster.terminate(last).await;
    launch(&mut cluster, last, &["--weight", "7"]);
    cluster.ready(last).await;
    let endpoints = default.iter().map(|node| cluster.nodes[*node].client.clone());
    let client = Client::connect(endpoints).await.unwrap_or_else(|error| panic!("expected to connect: {error}"));
    until("a new weight in the map, with three voters of five", SEEN_MAX, async || {
        let map = client.map().await.ok()?;
        (map.node(id(last))?.weight == 7).then_some(())
    })
    .await;
}

fn launch(cluster: &mut Cluster, node: usize, flags: &[&str]) {
    cluster.launch_with(node, &[&["--zone", ZONES[node]], flags].concat());
}

/// Founders are numbered in the order of their names.
fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

async fn status_at(client: &Client, address: &str) -> Option<NodeStatus> {
    client.status_at(address).ok()?.timeout(ATTEMPT_MAX).await.ok()
}

/// The nodes with a replica of a partition, by their place in the cluster.
fn holders(map: &ClusterMap, partition: PartitionId) -> Vec<usize> {
    let row = map.row(partition).unwrap_or_else(|| panic!("expected a row of partition {partition}"));
    let mut nodes: Vec<usize> = row.replicas.iter().map(|placed| placed.node.0 as usize - 1).collect();
    nodes.sort_unstable();
    for node in &nodes {
        let known = map.node(id(*node)).map(|node| (node.name.clone(), node.zone.clone()));
        let expected = (format!("n{}", node + 1), ZONES[*node].to_owned());
        assert_eq!(known, Some(expected), "expected the map to know name and zone");
    }
    nodes
}

/// A node without a replica of `default` passes a put and a get on, and so do client and `kvctl` that know only it.
async fn expect_passed_on(client: &Client, cluster: &Cluster, node: usize, when: &str) {
    let address = &cluster.nodes[node].client;
    let before = status_at(client, address).await.expect("the status of a node that is ready");
    let holds = before.replicas.iter().any(|replica| replica.partition == PartitionId::DEFAULT);
    assert!(!holds, "expected {} to hold nothing of default", before.name);

    let (key, value) = (format!("through/{}/{when}", before.name), format!("value of {when}"));
    let mut kv = KvClient::new(raw::connected(address).await);
    let put = kv.put(bounded(raw::put(key.clone(), value.clone()), ATTEMPT_MAX)).await;
    put.unwrap_or_else(|status| panic!("{when}: expected a put to be passed on: {status:?}"));
    let got = kv.get(bounded(raw::get(&key), ATTEMPT_MAX)).await;
    let got = got.unwrap_or_else(|status| panic!("{when}: expected a get to be passed on: {status:?}")).into_inner();
    let found = got.values.first().map(|pair| &pair.value[..]);
    assert_eq!(found, Some(value.as_bytes()), "{when}: expected what was put");
    let after = status_at(client, address).await.expect("the status of a node that is ready");
    println!("{when}: {} has passed on {} requests, {} before", after.name, after.forwards, before.forwards);
    assert!(after.forwards > before.forwards, "{when}: expected the node to count what it passes on");

    let only = Client::connect([address.clone()]).await;
    let only = only.unwrap_or_else(|error| panic!("{when}: expected to connect to {address}: {error}"));
    let put = only.put(key.clone(), "by the client").await;
    put.unwrap_or_else(|error| panic!("{when}: expected a client that knows only this node to put: {error}"));
    let done = finish(cluster.kvctl(&["--endpoints", address, "get", &key]), RUN_MAX).await;
    done.expect_code("kvctl get", &[0]);
    assert_eq!(done.stdout, b"by the client\n", "{when}: expected kvctl to get what was put");
}
