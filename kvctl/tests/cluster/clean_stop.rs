//! A clean stop leaves nothing to replay: every write-ahead log is empty, and what was applied is applied at once when
//! the node starts again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use trefoil_client::ReplicaStatus;

use crate::cluster::Cluster;
use crate::files::{live_log, regular_files};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const KEYS: u64 = 200;
const VALUE_BYTES_MAX: u64 = 2 << 10;
const SEEN_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_replay() {
    let scenario = Scenario::begin("clean_stop::nothing_to_replay");
    let _turn = beside_others().await;
    let mut dice = scenario.dice();
    let mut cluster = Cluster::form(3, &[]).await;
    let client = cluster.client().await;
    let mut newest = 0;
    for number in 0..KEYS {
        let put = client.put(format!("key/{number}"), dice.bytes(VALUE_BYTES_MAX)).await;
        newest = put.unwrap_or_else(|error| panic!("expected a put to be taken: {error}")).header.revision.0;
    }

    // A node that is killed has something to replay: the files looked at are the right ones.
    let node = cluster.follower().await;
    caught_up(&cluster, node, newest).await;
    cluster.kill(node).await;
    let log = live_log(&cluster.nodes[node].dir);
    println!("killed: {} has records", String::from_utf8_lossy(&log));
    cluster.start(node).await;

    // Nothing is written meanwhile and no leader changes: the node stands where it stood.
    let before = caught_up(&cluster, node, newest).await;
    stop(&mut cluster, node).await;
    cluster.start(node).await;
    let after = caught_up(&cluster, node, newest).await;
    println!("stopped at applied index {}, started at {}", before.applied_index, after.applied_index);
    assert!(after.applied_index >= before.applied_index, "expected nothing applied to be taken back");
    if after.term == before.term {
        assert_eq!(after.applied_index, before.applied_index, "expected it to start where it stopped");
    }
    expect_same_content(&before, &after);

    // Alone it learns nothing from anybody: what it shows comes from its disk.
    let before = caught_up(&cluster, node, newest).await;
    for node in 0..cluster.nodes.len() {
        stop(&mut cluster, node).await;
    }
    cluster.launch(node);
    let alone = until("what was applied before the stop to be applied, without anybody else", SEEN_MAX, async || {
        cluster.replica(node).await.filter(|replica| replica.applied_index >= before.applied_index)
    })
    .await;
    expect_same_content(&before, &alone);
    for other in (0..cluster.nodes.len()).filter(|other| *other != node) {
        cluster.launch(other);
    }
    for node in 0..cluster.nodes.len() {
        cluster.ready(node).await;
    }
    cluster.expect_equal_replicas().await;
}

/// A node's replica once it has applied everything.
async fn caught_up(cluster: &Cluster, node: usize, newest: u64) -> ReplicaStatus {
    until("a replica to have caught up", SEEN_MAX, async || {
        let replica = cluster.replica(node).await?;
        (replica.revision.0 == newest && replica.lag_entries == 0 && replica.leader.is_some()).then_some(replica)
    })
    .await
}

fn expect_same_content(before: &ReplicaStatus, after: &ReplicaStatus) {
    let content = |replica: &ReplicaStatus| (replica.revision, replica.keys, replica.content_sum);
    assert_eq!(content(before), content(after), "expected the content it had before the stop");
}

/// Stops a node cleanly and looks at what it leaves.
async fn stop(cluster: &mut Cluster, node: usize) {
    let status = cluster.terminate(node).await;
    let Some(0) = status.code() else { panic!("expected exit code 0 of a stop on request, got {status}") };
    expect_empty_logs(&cluster.nodes[node].dir);
}

/// There are write-ahead logs, and none of them has a byte.
fn expect_empty_logs(directory: &Path) {
    let logs: Vec<(String, u64)> = regular_files(directory)
        .into_iter()
        .filter(|(name, _)| name.starts_with(b"db/") && name.ends_with(b".log"))
        .map(|(name, path)| {
            let bytes = fs::metadata(&path).unwrap_or_else(|error| panic!("expected to look at {path:?}: {error}"));
            (String::from_utf8_lossy(&name).into_owned(), bytes.len())
        })
        .collect();
    assert!(!logs.is_empty(), "expected a write-ahead log below {directory:?}");
    assert!(logs.iter().all(|(_, bytes)| *bytes == 0), "expected a clean stop to leave empty logs, got {logs:?}");
}
