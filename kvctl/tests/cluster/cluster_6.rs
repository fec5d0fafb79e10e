//! Line 6: directories that were wiped, and copies that were put back. Neither may make a cluster forget.

use std::fs;
use std::time::Duration;

use trefoil_client::{Client, KeyRange};

use crate::cluster::Cluster;
use crate::files::replace_with_copy;
use crate::load::fill;
use crate::process::{READY_LINE, Start, finish};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// How long a node is watched that must not become ready.
const WATCHED: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(20);
const KEYS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_wiped_directories_found_nothing() {
    let scenario = Scenario::begin("cluster_6::two_wiped_directories_found_nothing");
    let _turn = beside_others().await;
    let keys = scenario.pick(10_000, KEYS);
    let mut cluster = Cluster::form(3, &[]).await;
    fill(&cluster.client().await, "kept/", keys, 100, 50).await;
    cluster.terminate_all().await;
    for node in [1, 2] {
        let aside = cluster.folder(&format!("aside.{node}"));
        fs::rename(&cluster.nodes[node].dir, aside).expect("to put a directory aside");
    }
    for node in 0..3 {
        cluster.launch(node);
    }
    for node in [1, 2] {
        stays_out(&mut cluster, node).await;
    }
    nobody_is_ready(&mut cluster).await;
    cluster.terminate_all().await;
    for node in [1, 2] {
        let aside = cluster.folder(&format!("aside.{node}"));
        replace_with_copy(&aside, &cluster.nodes[node].dir);
    }
    cluster.start_all().await;
    assert_eq!(count(&cluster.client().await).await, keys, "expected all keys once the directories are back");
    cluster.expect_equal_replicas().await;
    println!("{keys} keys are all there after two of three directories were wiped and put back");
}

/// A wiped node says one clear line, and says it no more often than every few seconds.
async fn stays_out(cluster: &mut Cluster, node: usize) {
    let name = cluster.nodes[node].name.clone();
    let process = cluster.nodes[node].running();
    let what = format!("a line of {name} that it stays out and how to go on");
    until(&what, PATIENCE, async || {
        let log = process.log();
        let clear = log.lines().any(|line| line.contains("stays out") && line.contains("kvctl node replace"));
        clear.then_some(())
    })
    .await;
}

/// No node becomes ready, nobody leads, and all are up.
async fn nobody_is_ready(cluster: &mut Cluster) {
    let start = cluster.nodes[0].running().outcome(WATCHED).await;
    assert_eq!(start, Start::StaysOut, "expected the node with its directory to wait for a quorum");
    for node in 0..3 {
        if let Some(status) = cluster.status(node).await {
            assert!(!status.ready, "expected {} not to be ready", status.name);
            let leads =
                status.replicas.iter().any(|replica| replica.leader.is_some_and(|(_, node)| node == status.node));
            assert!(!leads, "expected {} to lead nothing: {status:?}", status.name);
        }
        let process = cluster.nodes[node].running();
        assert_eq!(process.exited(), None, "expected the node to stay up; its log:\n{}", process.log_end());
        assert!(!process.log().contains(READY_LINE), "expected no node to be ready:\n{}", process.log_end());
    }
}

async fn count(client: &Client) -> u64 {
    let counted = client.scan(KeyRange::prefix("kept/")).count_only().await;
    let counted = counted.unwrap_or_else(|error| panic!("expected to count the keys: {error}"));
    counted.count.expect("a count that was asked for")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_is_refused() {
    let scenario = Scenario::begin("cluster_6::an_old_copy_is_refused");
    let _turn = beside_others().await;
    let writes = scenario.pick(10_000, KEYS);
    let mut cluster = Cluster::form(3, &[]).await;
    fill(&cluster.client().await, "kept/", 100, 100, 1).await;
    // A copy that is one start old claims the same start count as the newest directory, an older one a lower count.
    put_copy_back(&mut cluster, writes, 1, &["an old copy was put back", "with the same directory"]).await;
    put_copy_back(&mut cluster, writes, 2, &["an old copy was put back"]).await;
    assert_eq!(count(&cluster.client().await).await, writes, "expected all writes to be there");
    cluster.expect_equal_replicas().await;
}

/// Puts a copy of a directory back that was made so many writes and starts ago. It must be refused, with one of these
/// lines; the newest directory is welcome afterwards.
async fn put_copy_back(cluster: &mut Cluster, writes: u64, starts: usize, lines: &[&str]) {
    let node = cluster.follower().await;
    let (copy, newest) = (cluster.folder("copy"), cluster.folder("newest"));
    cluster.terminate(node).await;
    replace_with_copy(&cluster.nodes[node].dir, &copy);
    for _ in 0..starts {
        cluster.start(node).await;
        fill(&cluster.client().await, "kept/", writes, 100, 1).await;
        cluster.terminate(node).await;
    }
    replace_with_copy(&cluster.nodes[node].dir, &newest);
    replace_with_copy(&copy, &cluster.nodes[node].dir);
    cluster.launch(node);
    says_any(cluster, lines).await;
    let start = cluster.nodes[node].running().outcome(WATCHED).await;
    let log = cluster.nodes[node].running().log_end();
    match start {
        Start::StaysOut => {}
        Start::Exited(status) => assert!(!status.success(), "expected a refusal to be a failure:\n{log}"),
        Start::Ready => panic!("expected a copy that is {writes} writes old never to be ready:\n{log}"),
    }
    println!("a copy made {writes} writes and {starts} starts ago was refused: {start:?}");
    // Dropping the handle ends it, if it has not ended by itself.
    cluster.nodes[node].process = None;
    replace_with_copy(&newest, &cluster.nodes[node].dir);
    cluster.start(node).await;
}

/// A copy of a running node's directory, put back after the node has gone on, has every start its peers know of and yet
/// lacks what it had acknowledged since: its peers find it by its writer's position, after their own restart too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_node_is_refused() {
    let scenario = Scenario::begin("cluster_6::a_copy_of_a_running_node_is_refused");
    let _turn = beside_others().await;
    let writes = scenario.pick(10_000, KEYS);
    let mut cluster = Cluster::form(3, &[]).await;
    fill(&cluster.client().await, "kept/", 100, 100, 1).await;
    let node = cluster.follower().await;
    let (copy, newest) = (cluster.folder("copy"), cluster.folder("newest"));
    cluster.nodes[node].running().signal(libc::SIGSTOP);
    replace_with_copy(&cluster.nodes[node].dir, &copy);
    cluster.nodes[node].running().signal(libc::SIGCONT);
    fill(&cluster.client().await, "kept/", writes, 100, 1).await;
    is_heard(&cluster, node).await;
    cluster.kill(node).await;
    replace_with_copy(&cluster.nodes[node].dir, &newest);
    replace_with_copy(&copy, &cluster.nodes[node].dir);
    cluster.launch(node);
    is_disowned(&mut cluster, node).await;
    fill(&cluster.client().await, "kept/", writes, 100, 1).await;
    cluster.terminate_all().await;
    replace_with_copy(&copy, &cluster.nodes[node].dir);
    for number in 0..3 {
        cluster.launch(number);
    }
    is_disowned(&mut cluster, node).await;
    cluster.terminate_all().await;
    replace_with_copy(&newest, &cluster.nodes[node].dir);
    cluster.start_all().await;
    assert_eq!(count(&cluster.client().await).await, writes, "expected all writes to be there");
    cluster.expect_equal_replicas().await;
    println!("a copy of a running node, {writes} writes old, was refused, also by restarted peers");
}

/// All other nodes know how far this one has synced by now.
async fn is_heard(cluster: &Cluster, node: usize) {
    let own = cluster.status(node).await.expect("a status of a running node");
    until("the others to hear how far a node has synced", PATIENCE, async || {
        for other in (0..cluster.nodes.len()).filter(|other| *other != node) {
            let known = cluster.status(other).await?.peers;
            known.iter().find(|peer| peer.node == own.node && peer.synced_position >= own.synced_position)?;
        }
        Some(())
    })
    .await;
}

/// The node stays up, says that it stays out, and serves nothing.
async fn is_disowned(cluster: &mut Cluster, node: usize) {
    let name = cluster.nodes[node].name.clone();
    let line = format!("this directory is not the newest of {name}, so it stays out");
    says_any(cluster, &["it has lost its tail"]).await;
    let process = cluster.nodes[node].running();
    until(&line, PATIENCE, async || process.log().contains(&line).then_some(())).await;
    let refused =
        cluster.kvctl(&["get", "kept/00000001", "--consistency", "stale", "--endpoints", &cluster.nodes[node].client]);
    let refused = finish(refused, PATIENCE).await;
    refused.expect_code("a stale read from a node that stays out", &[3]);
    assert!(refused.stderr.contains("stays out"), "expected the reason, not: {}", refused.stderr);
    let process = cluster.nodes[node].running();
    assert_eq!(process.exited(), None, "expected {name} to stay up:\n{}", process.log_end());
}

/// Some running node's log holds one of these.
async fn says_any(cluster: &Cluster, lines: &[&str]) {
    let what = format!("a log line with one of {lines:?}");
    until(&what, PATIENCE, async || {
        let mut logs = cluster.nodes.iter().filter_map(|node| node.process.as_ref()).map(|process| process.log());
        logs.any(|log| lines.iter().any(|line| log.contains(line))).then_some(())
    })
    .await;
}
