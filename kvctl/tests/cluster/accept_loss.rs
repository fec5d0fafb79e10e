//! A directory that lost its tail and is taken as it is: only by a cluster of one, only when told so, and under a new
//! cluster id, so that it is never taken for the cluster it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use trefoil_client::KeyRange;

use crate::cluster::Cluster;
use crate::files::{Damage, below, live_log, replace_with_copy};
use crate::refusal::{NOT_STARTED, Refusal};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const FLAG: &str = "--accept-loss-of-acknowledged-writes";
const PATIENCE: Duration = Duration::from_secs(10);
const KEYS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_goes_on_with_what_is_left() {
    Scenario::begin("accept_loss::a_cluster_of_one_goes_on_with_what_is_left");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(1, &[]).await;
    put_keys(&cluster).await;
    let before = cluster_id(&cluster).await;
    cluster.kill(0).await;
    cut_tail(&cluster.nodes[0].dir);
    expect_lost_tail(&cluster, 0).await;
    start_with_flag(&mut cluster).await;
    let left = count_left(&cluster).await;
    let after = cluster_id(&cluster).await;
    assert_ne!(after, before, "expected what is left to be a cluster of its own");
    cluster.kill(0).await;
    cluster.start(0).await;
    expect_same(&cluster, left, &after, "without the flag").await;
    cluster.kill(0).await;
    start_with_flag(&mut cluster).await;
    expect_same(&cluster, left, &after, "with the flag, and nothing lost").await;
    println!("{left} of {KEYS} keys are left in a cluster of its own");
}

/// Puts keys one after the other, so that what is left of them are the first ones.
async fn put_keys(cluster: &Cluster) {
    let client = cluster.client().await;
    for number in 0..KEYS {
        let put = client.put(key(number), key(number)).await;
        put.unwrap_or_else(|error| panic!("expected a put to be taken: {error}"));
    }
}

fn key(number: usize) -> String {
    format!("acked/{number:08}")
}

/// The end of what the node wrote before it was killed is gone.
fn cut_tail(directory: &Path) {
    Damage::Cut.inflict(&below(directory, &live_log(directory)));
}

/// Without the flag the node refuses, counts what is missing, and says what can be done.
async fn expect_lost_tail(cluster: &Cluster, node: usize) {
    let says = format!("{}: ", database(cluster, node).display());
    let refusal = Refusal { what: "a lost tail", code: NOT_STARTED, says: &says };
    let line = refusal.expect_unchanged(cluster, &cluster.args(node)).await;
    let lost = " acknowledged batches are missing at the end of the write-ahead log (found ";
    for part in [lost, "Restore a backup", "kvctl node replace", FLAG] {
        assert!(line.contains(part), "expected the refusal to say '{part}': {line}");
    }
}

fn database(cluster: &Cluster, node: usize) -> PathBuf {
    cluster.nodes[node].dir.join("db")
}

async fn start_with_flag(cluster: &mut Cluster) {
    cluster.launch_with(0, &[FLAG]);
    cluster.ready(0).await;
}

/// How many of the keys there are: the first ones, each with its value.
async fn count_left(cluster: &Cluster) -> usize {
    let found = cluster.client().await.scan(KeyRange::prefix("acked/")).await;
    let found = found.unwrap_or_else(|error| panic!("expected the node to serve what is left: {error}"));
    let left = found.pairs.len();
    assert!(left > 0 && left < KEYS, "expected a part of the {KEYS} keys, got {left}");
    for (pair, number) in found.pairs.iter().zip(0..) {
        let expected = Bytes::from(key(number));
        assert_eq!((&pair.key, &pair.value), (&expected, &expected), "expected the keys that were put first");
    }
    left
}

async fn cluster_id(cluster: &Cluster) -> Bytes {
    let status = until("the node's status", PATIENCE, async || cluster.status(0).await).await;
    status.cluster_id
}

async fn expect_same(cluster: &Cluster, left: usize, id: &Bytes, how: &str) {
    assert_eq!(count_left(cluster).await, left, "expected the same keys after a start {how}");
    assert_eq!(cluster_id(cluster).await, *id, "expected the same cluster after a start {how}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_a_larger_cluster_is_refused() {
    Scenario::begin("accept_loss::a_member_of_a_larger_cluster_is_refused");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    put_keys(&cluster).await;
    let node = cluster.follower().await;
    cluster.kill(node).await;
    let (directory, whole) = (cluster.nodes[node].dir.clone(), cluster.folder("whole"));
    replace_with_copy(&directory, &whole);
    cut_tail(&directory);
    expect_lost_tail(&cluster, node).await;
    let mut args = cluster.args(node);
    args.push(FLAG.to_owned());
    let says = format!("{}: {FLAG} is only for a cluster of one", database(&cluster, node).display());
    Refusal { what: FLAG, code: NOT_STARTED, says: &says }.expect_unchanged(&cluster, &args).await;
    replace_with_copy(&whole, &directory);
    cluster.start(node).await;
    cluster.expect_equal_replicas().await;
}
