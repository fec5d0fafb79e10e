//! What is deleted, replaced and compacted is given back by nodes that go on running.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tonic::transport::Channel;
use trefoil_client::Client;
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;

use super::{
    ALWAYS_FULL, ATTEMPT_MAX, FLAG, FLOOR, Mounted, SMALL_FLOOR, VALUE_BYTES, expect_alarm, expect_values, fill_up,
    key, put, value,
};
use crate::cluster::Cluster;
use crate::errors_table::Ledger;
use crate::files::bytes_below;
use crate::raw::{self, bounded};
use crate::scenario::{Dice, Scenario, beside_others};
use crate::wait::until;

/// A log so short that nearly all room is taken by state.
const SHORT_LOG: [&str; 2] = ["--log-bytes-kept", "1048576"];
/// Directories settle at less than this many times the bytes of the living values.
const TIMES_LIVING_MAX: u64 = 4;
/// How long giving back may take.
const GIVEN_BACK_MAX: Duration = Duration::from_secs(90);
/// Puts at a time.
const PUTS: usize = 16;
const PUT_MAX: Duration = Duration::from_secs(30);
/// Keys to delete all but a quarter of, and keys to put over and over again, with larger values.
const KEYS: u64 = 8000;
const SAME_KEYS: u64 = 640;
const LARGE_BYTES: usize = 64 << 10;
const TIMES_PUT: u64 = 4;

/// Below the floor all of it is given back: there is no other way to come above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_below_the_floor() {
    let scenario = Scenario::begin("disk_space::given_back::what_was_deleted_below_the_floor");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(1, &SHORT_LOG).await;
    let pairs = (0..KEYS).map(|number| (format!("full/{number:08}"), value(scenario, number)));
    put_all(&cluster.client().await, pairs).await;
    cluster.terminate(0).await;
    cluster.launch_with(0, &[FLAG, ALWAYS_FULL]);
    cluster.ready(0).await;
    expect_alarm(&cluster, true).await;
    let directory = cluster.nodes[0].dir.clone();
    let before = bytes_below(&directory);
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[0].client).await);
    delete_and_compact(&mut kv, KEYS / 4, KEYS).await;
    expect_settled(&directory, before, KEYS / 4 * VALUE_BYTES as u64).await;
    expect_values(&mut kv, scenario, 0..KEYS / 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_over_and_over_again() {
    let scenario = Scenario::begin("disk_space::given_back::what_was_put_over_and_over_again");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &SHORT_LOG).await;
    let client = cluster.client().await;
    let mut dice = scenario.dice();
    for _ in 0..TIMES_PUT {
        let pairs: Vec<(String, Vec<u8>)> =
            (0..SAME_KEYS).map(|number| (format!("same/{number:08}"), large(&mut dice))).collect();
        put_all(&client, pairs.into_iter()).await;
    }
    let directory = &cluster.nodes[0].dir;
    let before = bytes_below(directory);
    let newest = client.get("same/00000000").await.unwrap_or_else(|error| panic!("expected a get to work: {error}"));
    let compacted = client.compact(newest.header.revision).await;
    compacted.unwrap_or_else(|error| panic!("expected history to be compacted: {error}"));
    expect_settled(directory, before, SAME_KEYS * LARGE_BYTES as u64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_puts_again() {
    let scenario = Scenario::begin("disk_space::given_back::a_full_disk_takes_puts_again");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open([FLOOR]);
    let mut cluster = Cluster::plan(1, &[[FLAG, SMALL_FLOOR], SHORT_LOG].concat()).await;
    // Declared behind the cluster, so that it is unmounted before the directory is removed.
    let mounted = match Mounted::at(&cluster.nodes[0].dir) {
        Ok(mounted) => mounted,
        Err(why) => {
            println!("skipped: a file system in memory cannot be mounted here: {why}");
            return;
        }
    };
    cluster.start_all().await;
    let directory = cluster.nodes[0].dir.clone();
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[0].client).await);
    let (acked, status) = fill_up(&cluster, &mounted, &mut kv, scenario).await;
    ledger.check(FLOOR, &status);
    let (before, free) = (bytes_below(&directory), mounted.free_bytes());
    println!("{acked} puts of {VALUE_BYTES} bytes were acknowledged, then {free} bytes were free");
    let living = acked / 8;
    delete_and_compact(&mut kv, living, acked).await;
    let taken = async || put(&mut kv, scenario, acked).await.ok();
    until("puts to be taken again once there is little left", GIVEN_BACK_MAX, taken).await;
    expect_values(&mut kv, scenario, 0..living).await;
    let a_third_less = async || Some(bytes_below(&directory)).filter(|after| *after * 3 <= before * 2);
    let after = until("at least a third to be given back", GIVEN_BACK_MAX, a_third_less).await;
    let what = "the alarm to end";
    until(what, GIVEN_BACK_MAX, async || cluster.status(0).await.filter(|status| status.alarms.is_empty())).await;
    println!("{before} bytes before, {after} after, {} bytes are free", mounted.free_bytes());
    let process = cluster.nodes[0].running();
    let (exited, end) = (process.exited(), process.log_end());
    assert_eq!(exited, None, "expected the node to be alive; its log ends:\n{end}");
    ledger.close();
}

async fn put_all(client: &Client, pairs: impl Iterator<Item = (String, Vec<u8>)>) {
    let puts = pairs.map(|(key, value)| async move {
        let done = client.put(key.clone(), value).timeout(PUT_MAX).await;
        done.unwrap_or_else(|error| panic!("expected to put {key}: {error}"));
    });
    futures::stream::iter(puts).buffer_unordered(PUTS).collect::<Vec<()>>().await;
}

/// Deletes the puts `from..to` and compacts history.
async fn delete_and_compact(kv: &mut KvClient<Channel>, from: u64, to: u64) {
    let range = v1::KeyRange { end: Some(v1::key_range::End::Before(key(to).key)), ..key(from) };
    let delete = v1::DeleteRequest { range: Some(range), ..v1::DeleteRequest::default() };
    let answer = kv.delete(bounded(delete, ATTEMPT_MAX)).await;
    let answer = answer.unwrap_or_else(|status| panic!("expected a delete to work: {status:?}")).into_inner();
    assert_eq!(answer.deleted, to - from, "expected the delete to be carried out");
    let revision = answer.header.map_or(0, |header| header.revision);
    let compact = v1::CompactRequest { header: None, revision };
    let compacted = kv.compact(bounded(compact, ATTEMPT_MAX)).await;
    compacted.unwrap_or_else(|status| panic!("expected history to be compacted: {status:?}"));
}

/// Waits until the directory has few bytes for what lives.
async fn expect_settled(directory: &Path, before: u64, living: u64) {
    let max = living * TIMES_LIVING_MAX;
    assert!(before > max, "expected more than {max} bytes while nothing is given back, not {before}");
    let settled = async || Some(bytes_below(directory)).filter(|after| *after < max);
    let what = format!("fewer than {max} bytes for {living} that live, where {before} were");
    let after = until(&what, GIVEN_BACK_MAX, settled).await;
    println!("{living} bytes of values live: {before} bytes before, {after} after");
}

/// A large value that does not compress.
fn large(dice: &mut Dice) -> Vec<u8> {
    std::iter::repeat_with(|| dice.roll().to_be_bytes()).take(LARGE_BYTES / 8).flatten().collect()
}
