//! Line 7: coming back. A node that was away for longer than the log is kept takes a snapshot while puts go on, even
//! when it is killed in mid-transfer; and a node with many keys answers soon after a kill.

use std::time::Duration;

use trefoil_world::clock::{self, Instant};

use crate::cluster::Cluster;
use crate::files::bytes_below;
use crate::load::{Load, fill};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, alone, beside_others};
use crate::wait::{until, within};

/// A killed node answers its first read within this, from exec on.
const FIRST_READ_MAX: Duration = Duration::from_secs(5);
/// How long a started node may take to begin a transfer.
const TRANSFER_MAX: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_killed_twice_in_mid_transfer() {
    let scenario = Scenario::begin("cluster_7::a_snapshot_killed_twice_in_mid_transfer");
    let _turn = beside_others().await;
    let short_log = ["--log-entries-kept", "64", "--log-bytes-kept", "65536"];
    let mut cluster = Cluster::form(3, if scenario.full { &[] } else { &short_log }).await;
    let (writes, value) = (scenario.pick(200_000, 3000), 1024);
    let client = cluster.client().await;
    let away = cluster.follower().await;
    cluster.terminate(away).await;
    let from = clock::now();
    fill(&client, "away/", writes, value, 1).await;
    println!("{writes} writes of {value} bytes while a node was away, in {:?}", from.elapsed());
    let load = Load::start(&client, "meanwhile");
    // A part of what is to be sent.
    let part = writes * value as u64 / 8;
    let mut in_transfer = 0;
    for _ in 0..2 {
        if kill_after_receiving(&mut cluster, away, part).await {
            in_transfer += 1;
        }
    }
    println!("{in_transfer} of 2 kills were in mid-transfer");
    assert!(!scenario.full || in_transfer == 2, "expected both kills in mid-transfer, {in_transfer} were");
    let from = clock::now();
    cluster.start(away).await;
    let what = "the node that was away to have installed a snapshot";
    let bound = Duration::from_secs(scenario.pick(300, 60));
    until(what, bound, async || cluster.replica(away).await.filter(|replica| replica.snapshots_installed > 0)).await;
    println!("back by snapshot after {:?}", from.elapsed());
    load.more(50, PATIENCE).await;
    let record = load.stop().await;
    record.expect_kept(&client).await;
    cluster.expect_equal_replicas().await;
}

/// Starts a node and kills it when its directory has grown by `bytes`. Whether the snapshot was not installed by then.
async fn kill_after_receiving(cluster: &mut Cluster, node: usize, bytes: u64) -> bool {
    let directory = cluster.nodes[node].dir.clone();
    let before = bytes_below(&directory);
    cluster.launch(node);
    let settled = within(TRANSFER_MAX, async || {
        let grown = bytes_below(&directory).saturating_sub(before);
        let installed = cluster.replica(node).await.is_some_and(|replica| replica.snapshots_installed > 0);
        (installed || grown >= bytes).then_some((installed, grown))
    })
    .await;
    let end = cluster.nodes[node].running().log_end();
    let Some((installed, grown)) = settled else {
        panic!("expected {bytes} bytes to arrive within {TRANSFER_MAX:?}; its log ends:\n{end}");
    };
    cluster.kill(node).await;
    println!("killed after {grown} bytes had arrived, installed: {installed}");
    !installed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_read_after_a_kill() {
    let scenario = Scenario::begin("cluster_7::the_first_read_after_a_kill");
    let _turn = alone().await;
    let keys = scenario.pick(1_000_000, 20_000);
    let mut cluster = Cluster::form(3, &[]).await;
    fill(&cluster.client().await, "many/", keys, 256, 100).await;
    let node = cluster.follower().await;
    cluster.kill(node).await;
    cluster.launch(node);
    let begun = cluster.nodes[node].running().begun;
    let took = first_read(&cluster.nodes[node].client, begun).await;
    println!("first linearizable read through the killed node's own port, with {keys} keys: {took:?} after exec");
    assert!(took <= FIRST_READ_MAX, "expected an answer within {FIRST_READ_MAX:?} of exec, got one after {took:?}");
    cluster.ready(node).await;
    cluster.expect_equal_replicas().await;
}

/// How long after its start the node answered a linearizable read.
async fn first_read(address: &str, begun: Instant) -> Duration {
    until("a linearizable read through the node's own port", FIRST_READ_MAX * 6, async || {
        let mut kv = raw::kv(address).await?;
        let request = bounded(raw::get("many/00000007"), Duration::from_secs(1));
        let reply = kv.get(request).await.ok()?.into_inner();
        assert_eq!(reply.values.len(), 1, "expected the key to be there");
        Some(begun.elapsed())
    })
    .await
}
