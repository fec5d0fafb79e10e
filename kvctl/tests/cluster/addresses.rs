//! A node that comes back with other addresses: it is found by the map, also by nodes whose flags know only the old
//! ones.

use std::time::Duration;

use serde_json::Value;
use trefoil_client::{Client, NodeStatus, PartitionId};

use crate::cluster::{Cluster, free_address};
use crate::process::finish;
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const SEEN_MAX: Duration = Duration::from_secs(20);
const RUN_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_other_ports_is_found() {
    let scenario = Scenario::begin("addresses::a_node_with_other_ports_is_found");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let moved = scenario.dice().below(3) as usize;
    let others = [(moved + 1) % 3, (moved + 2) % 3];
    put(&cluster.client().await, "before").await;
    let status = cluster.terminate(moved).await;
    assert!(status.success(), "expected a clean stop, got {status}");
    let old_peer = cluster.nodes[moved].peer.clone();
    cluster.nodes[moved].client = free_address().await;
    cluster.nodes[moved].peer = free_address().await;
    cluster.start(moved).await;
    expect_shown(&cluster, moved).await;
    let client = client_of(&cluster, others).await;
    expect_reached(&client, &cluster, moved, "after its move").await;

    for node in others {
        cluster.terminate(node).await;
    }
    // The flags of the others name the old peer address.
    let new_peer = std::mem::replace(&mut cluster.nodes[moved].peer, old_peer);
    for node in others {
        cluster.launch(node);
    }
    cluster.nodes[moved].peer = new_peer;
    for node in others {
        cluster.ready(node).await;
    }
    let client = client_of(&cluster, others).await;
    for node in others {
        expect_connected(&client, &cluster, node, moved).await;
    }
    expect_shown(&cluster, moved).await;
    expect_reached(&client, &cluster, moved, "after the others' restart").await;
    cluster.expect_equal_replicas().await;
}

/// A client that is told only of these nodes.
async fn client_of(cluster: &Cluster, nodes: [usize; 2]) -> Client {
    let connected = Client::connect(nodes.map(|node| cluster.nodes[node].client.clone())).await;
    connected.unwrap_or_else(|error| panic!("expected to connect: {error}"))
}

async fn put(client: &Client, value: &'static str) -> u64 {
    let put = client.put("where", value).await;
    put.unwrap_or_else(|error| panic!("expected a put to be taken: {error}")).header.revision.0
}

/// How a node is, asked by its name through the client's map.
async fn status_of(client: &Client, name: &str) -> Option<NodeStatus> {
    let map = client.map().await.ok()?;
    let node = map.nodes.iter().find(|node| node.name == name)?.id;
    client.status(node).await.ok()
}

/// A put through the client arrives at the node, which the client finds by the map alone.
async fn expect_reached(client: &Client, cluster: &Cluster, node: usize, when: &'static str) {
    let revision = put(client, when).await;
    let name = &cluster.nodes[node].name;
    until("the moved node, found by the map, to have applied a put", SEEN_MAX, async || {
        let status = status_of(client, name).await?;
        assert_eq!(&status.name, name, "expected the map to lead to the node itself");
        let replica = status.replicas.iter().find(|replica| replica.partition == PartitionId::DEFAULT)?;
        (status.ready && replica.revision.0 >= revision).then_some(())
    })
    .await;
    println!("{when}: {name} is found and has applied revision {revision}");
}

/// A node has a connection of its own to another one.
async fn expect_connected(client: &Client, cluster: &Cluster, node: usize, to: usize) {
    let (name, to) = (&cluster.nodes[node].name, &cluster.nodes[to].name);
    until("a connection to the node that moved", SEEN_MAX, async || {
        let peer = status_of(client, to).await?.node;
        let status = status_of(client, name).await?;
        status.peers.iter().any(|known| known.node == peer && known.connected).then_some(())
    })
    .await;
}

/// `kvctl cluster nodes` shows where each node really is.
async fn expect_shown(cluster: &Cluster, moved: usize) {
    let expected: Vec<(String, String, String)> =
        cluster.nodes.iter().map(|node| (node.name.clone(), node.client.clone(), node.peer.clone())).collect();
    let what = format!("kvctl cluster nodes to show {:?}", expected[moved]);
    until(&what, SEEN_MAX, async || {
        let done = finish(cluster.kvctl(&["cluster", "nodes", "-o", "json"]), RUN_MAX).await;
        done.expect_code("kvctl cluster nodes -o json", &[0]);
        let text = String::from_utf8_lossy(&done.stdout);
        let shown: Vec<(String, String, String)> = text.lines().map(row).collect();
        (shown == expected).then_some(())
    })
    .await;
}

/// Name, client address and peer address of one line.
fn row(line: &str) -> (String, String, String) {
    let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("expected JSON: {error}: {line}"));
    let text = |key: &str| {
        let text = row.get(key).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("expected a text '{key}' in {line}")).to_owned()
    };
    (text("name"), text("client_address"), text("peer_address"))
}
