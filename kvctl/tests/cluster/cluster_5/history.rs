//! What a node goes through before its files are damaged.
//!
//! What RocksDB does in the background is seen by its files: a flush begins a new write-ahead log and leaves a new
//! table, a compaction removes tables.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use trefoil_client::{Client, Compare, Op, Txn};
use trefoil_world::clock;

use super::Past;
use crate::cluster::Cluster;
use crate::files::{live_log, regular_files};
use crate::load::{Load, fill};
use crate::scenario::Scenario;
use crate::wait::{until, within};

const PATIENCE: Duration = Duration::from_secs(20);
/// A log so short that a node that was away needs a snapshot.
const SHORT_LOG: [&str; 4] = ["--log-entries-kept", "64", "--log-bytes-kept", "65536"];
/// Each restart leaves a table per family, and RocksDB merges four of them.
const RESTARTS_MAX: usize = 12;
/// How long merging a few small tables may take before another one is added.
const MERGED_MAX: Duration = Duration::from_millis(200);
/// A command about as large as one may be, and how many of them surely fill a memtable of 16 MiB.
const LARGE: usize = 1_000_000;
const LARGE_MAX: usize = 60;

/// A cluster that stands still, and in which `victim` has this past.
pub(super) async fn live_through(past: Past, scenario: Scenario, victim: usize) -> Cluster {
    let mut cluster = Cluster::form(3, if past == Past::Rewritten { &SHORT_LOG } else { &[] }).await;
    let client = cluster.client().await;
    let from = clock::now();
    fill(&client, "filled/", 300, 1000, 10).await;
    // A clean stop in between leaves table files beside the live log.
    cluster.terminate(victim).await;
    cluster.start(victim).await;
    let load = Load::start(&client, "loaded");
    if past == Past::Rewritten {
        merge_tables(&mut cluster, victim, &load).await;
        take_snapshot(&mut cluster, victim, &client).await;
        for _ in 0..scenario.pick(4, 1) {
            flush_log(&cluster, victim, &client).await;
        }
    }
    load.more(300, PATIENCE).await;
    catch_up(&cluster, victim).await;
    match past {
        Past::Stopped => {
            cluster.terminate(victim).await;
        }
        Past::Killed | Past::Rewritten => cluster.kill(victim).await,
    }
    drop(load);
    cluster.terminate_all().await;
    println!("{past:?}: lived through in {:?}", from.elapsed());
    cluster
}

/// Waits until a node has applied what is acknowledged now, so that it has synced it too: others may have acknowledged it
/// without this one, and then nothing is lost that this one has answered for.
async fn catch_up(cluster: &Cluster, node: usize) {
    let leader = cluster.leader().await;
    let what = "the leader to say how far it has applied";
    let acknowledged = until(what, PATIENCE, async || Some(cluster.replica(leader).await?.applied_index)).await;
    let what = "the node to have applied what is acknowledged";
    until(what, PATIENCE, async || cluster.replica(node).await.filter(|replica| replica.applied_index >= acknowledged))
        .await;
}

/// Restarts a node, which adds a table per family each time, until a compaction has removed some.
async fn merge_tables(cluster: &mut Cluster, node: usize, load: &Load) {
    let directory = cluster.nodes[node].dir.clone();
    for restarts in 1..=RESTARTS_MAX {
        let before = tables(&directory);
        cluster.kill(node).await;
        cluster.start(node).await;
        load.more(20, PATIENCE).await;
        let merged = async || (!before.is_subset(&tables(&directory))).then_some(());
        if within(MERGED_MAX, merged).await.is_some() {
            println!("tables were merged after {restarts} restarts, beside the live log");
            return;
        }
    }
    panic!("expected a compaction after at most {RESTARTS_MAX} restarts");
}

/// Keeps a node away for longer than the log is kept.
async fn take_snapshot(cluster: &mut Cluster, node: usize, client: &Client) {
    cluster.kill(node).await;
    let leader = cluster.leader().await;
    let what = "the leader to say how far its log goes";
    let last = until(what, PATIENCE, async || Some(cluster.replica(leader).await?.last_log_index)).await;
    fill(client, "away/", 1500, 1000, 10).await;
    let what = "the leader to have forgotten what the node that is away would need";
    until(what, PATIENCE, async || cluster.replica(leader).await.filter(|replica| replica.first_log_index > last))
        .await;
    cluster.start(node).await;
    let what = "the node that was away to have installed a snapshot";
    until(what, PATIENCE, async || cluster.replica(node).await.filter(|replica| replica.snapshots_installed > 0)).await;
    println!("a snapshot was received while puts went on");
}

/// Fills the log family's memtable until it is flushed: a transaction that does not hold leaves its puts in the log
/// only.
async fn flush_log(cluster: &Cluster, node: usize, client: &Client) {
    let directory = &cluster.nodes[node].dir;
    let (log, before) = (live_log(directory), tables(directory));
    let value = Bytes::from(vec![b'v'; LARGE]);
    for count in 1..=LARGE_MAX {
        let txn = Txn::new().when(Compare::exists("never")).then(Op::put("never", value.clone()));
        let reply = client.txn(txn).timeout(PATIENCE).await;
        let reply = reply.unwrap_or_else(|error| panic!("expected a large transaction to be taken: {error}"));
        assert!(!reply.succeeded, "expected a transaction that compares with a missing key not to hold");
        if live_log(directory) != log && !tables(directory).is_subset(&before) {
            println!("the log family was flushed after {count} large commands, and another live log begun");
            return;
        }
    }
    panic!("expected a flush after {LARGE_MAX} commands of {LARGE} bytes");
}

/// The table files of a node's database.
fn tables(directory: &Path) -> BTreeSet<Vec<u8>> {
    regular_files(directory).into_keys().filter(|name| name.ends_with(b".sst")).collect()
}
