//! Nodes that come back with other addresses. One is found by the map, also by nodes whose flags know only the old ones.
//! Where there is no quorum that could change the map, they are found by what they say when they dial the others.

use std::time::Duration;

use serde_json::Value;
use trefoil_client::{Client, NodeStatus, PartitionId};
use trefoil_world::clock;

use crate::cluster::{Cluster, free_address};
use crate::process::finish;
use crate::raw;
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const SEEN_MAX: Duration = Duration::from_secs(20);
const RUN_MAX: Duration = Duration::from_secs(20);
/// How long a leader may be without the others after they were started at other addresses.
const FOUND_MAX: Duration = Duration::from_secs(30);
/// How long one put may take.
const PUT_MAX: Duration = Duration::from_secs(1);

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
    let before = peers(&cluster);
    cluster.nodes[moved].client = free_address().await;
    cluster.nodes[moved].peer = free_address().await;
    cluster.start(moved).await;
    expect_shown(&cluster, moved).await;
    let client = client_of(&cluster, others).await;
    expect_reached(&client, &cluster, moved, "after its move").await;

    for node in others {
        cluster.terminate(node).await;
    }
    for node in others {
        launch_knowing(&mut cluster, node, &before);
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_finds_two_that_moved() {
    Scenario::begin("addresses::a_leader_finds_two_that_moved");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    put(&cluster.client().await, "before").await;
    let leader = cluster.leader().await;
    let moved = [(leader + 1) % 3, (leader + 2) % 3];
    lose_quorum(&mut cluster, leader, moved).await;
    let before = peers(&cluster);
    for node in moved {
        cluster.nodes[node].peer = free_address().await;
    }
    for node in moved {
        launch_knowing(&mut cluster, node, &before);
    }
    let begun = clock::now();
    let stayed = &cluster.nodes[leader];
    until("a put through the leader that stayed", FOUND_MAX, async || put_at(&stayed.client, "found").await).await;
    println!("{} took a put {:?} after the others' start", stayed.name, begun.elapsed());
    for node in moved {
        cluster.ready(node).await;
    }
    expect_shown(&cluster, moved[0]).await;
    cluster.expect_equal_replicas().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_list_is_enough_when_all_move() {
    let scenario = Scenario::begin("addresses::one_list_is_enough_when_all_move");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    put(&cluster.client().await, "before").await;
    cluster.kill_all().await;
    let before = peers(&cluster);
    for node in &mut cluster.nodes {
        node.client = free_address().await;
        node.peer = free_address().await;
    }
    for node in 0..3 {
        launch_knowing(&mut cluster, node, &before);
    }
    for node in 0..3 {
        expect_lonely(&mut cluster, node).await;
    }
    let told = scenario.dice().below(3) as usize;
    cluster.kill(told).await;
    cluster.launch(told);
    for node in 0..3 {
        cluster.ready(node).await;
    }
    let found = cluster.client().await.get("where").await;
    let found = found.unwrap_or_else(|error| panic!("expected a get to be answered: {error}"));
    assert_eq!(found.value().map(|value| &value[..]), Some(&b"before"[..]), "expected the put of before the move");
    expect_shown(&cluster, told).await;
    cluster.expect_equal_replicas().await;
}

/// A node says that it finds no other.
async fn expect_lonely(cluster: &mut Cluster, node: usize) {
    let process = cluster.nodes[node].running();
    until("a line of a node that finds neither of the others", SEEN_MAX, async || {
        let log = process.log();
        let lonely = |line: &str| line.contains("not ready: ") && line.matches("not connected to n").count() == 2;
        log.lines().any(lonely).then_some(())
    })
    .await;
}

/// Freezes the others while somebody writes through the leader, then kills them. The last put is in its log alone, so
/// that it has more than they have and votes for neither of them.
async fn lose_quorum(cluster: &mut Cluster, leader: usize, others: [usize; 2]) {
    let address = cluster.nodes[leader].client.clone();
    let writing = async { while put_at(&address, "to the others or not").await.is_some() {} };
    let freezing = async {
        for node in others {
            cluster.freeze(node).await;
        }
    };
    tokio::join!(writing, freezing);
    for node in others {
        cluster.kill(node).await;
    }
    let left = until("the status of the node that is left", SEEN_MAX, async || cluster.replica(leader).await).await;
    println!("its log ends at {}, {} is committed", left.last_log_index, left.committed_index);
}

/// Where the nodes reach each other.
fn peers(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|node| node.peer.clone()).collect()
}

/// Starts a node whose flags say of the others that they are at these addresses.
fn launch_knowing(cluster: &mut Cluster, node: usize, others: &[String]) {
    let now = peers(cluster);
    for (place, address) in others.iter().enumerate().filter(|(place, _)| *place != node) {
        cluster.nodes[place].peer = address.clone();
    }
    cluster.launch(node);
    for (place, address) in now.into_iter().enumerate() {
        cluster.nodes[place].peer = address;
    }
}

/// A put through the node at this address and no other, if it is done in time.
async fn put_at(address: &str, value: &'static str) -> Option<()> {
    let mut kv = raw::kv(address).await?;
    kv.put(raw::bounded(raw::put("where", value), PUT_MAX)).await.ok().map(drop)
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
        let shown: Vec<(String, String, String)> = text.lines().map(row).collect::<Option<_>>()?;
        (shown == expected).then_some(())
    })
    .await;
}

/// Name, client address and peer address of one line; nothing when it is a note that a node does not answer, because the
/// map still has an address of before.
fn row(line: &str) -> Option<(String, String, String)> {
    let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("expected JSON: {error}: {line}"));
    let text = |key: &str| {
        let text = row.get(key).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("expected a text '{key}' in {line}")).to_owned()
    };
    row.get("note").is_none().then(|| (text("name"), text("client_address"), text("peer_address")))
}
