//! A leader whose followers are frozen, and which is asked for more and more writes of whole ranges: who reads what is there
//! is answered all the same, and what waits is bounded.
//!
//! Left out: scans and transactions that may be answered with much. They wait for the room that such writes hold.

use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::transport::Channel;
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::{clock, task};

use crate::cluster::Cluster;
use crate::load::fill;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, alone};
use crate::unread_answers::peak_rss_bytes;
use crate::wait::until;

/// Closed loops of writes, and connections they share.
const WRITERS: usize = 480;
const CONNECTIONS: usize = 8;
/// What ranges are deleted from.
const RANGE: &str = "range/";
const RANGE_KEYS: u64 = 1000;
const PUT_BYTES: usize = 64 << 10;
/// What is read: a few bytes, as much as a request may have, and nothing.
const READ: [(&str, usize); 3] = [("small", 1), ("large", 1 << 20), ("absent", 0)];
/// A write that waits goes on waiting, however long the test takes.
const LONG: Duration = Duration::from_secs(60);
/// Longer than an entry waits for its outcome.
const UNDER_LOAD: Duration = Duration::from_secs(15);
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
const STALE_GET_MAX: Duration = Duration::from_secs(1);
const RSS_MAX: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_go_on_beside_range_writes() {
    Scenario::begin("without_quorum::stale_reads_go_on_beside_range_writes");
    let _turn = alone().await;
    let mut cluster = Cluster::form(3, &[]).await;
    fill(&cluster.client().await, RANGE, RANGE_KEYS, 1, 100).await;
    let leader = cluster.leader().await;
    let address = cluster.nodes[leader].client.clone();
    let mut kv = KvClient::new(raw::connected(&address).await);
    for (key, bytes) in READ.into_iter().filter(|(_, bytes)| *bytes > 0) {
        let put = kv.put(bounded(raw::put(key, vec![b'v'; bytes]), ATTEMPT_MAX)).await;
        put.unwrap_or_else(|status| panic!("expected a put of {key} to be done: {status:?}"));
    }
    let followers: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != leader).collect();
    for &follower in &followers {
        cluster.freeze(follower).await;
    }
    let before = last_log_index(&cluster, leader).await;
    let writers = Writers::start(&address).await;
    until("an entry without a quorum", PATIENCE, async || {
        (last_log_index(&cluster, leader).await > before).then_some(())
    })
    .await;
    let (begun, mut gets, mut slowest) = (clock::now(), 0_u64, Duration::ZERO);
    while begun.elapsed() < UNDER_LOAD {
        for (key, bytes) in READ {
            slowest = slowest.max(expect_stale(&mut kv, key, bytes).await);
            gets += 1;
        }
    }
    drop(writers);
    let rss = peak_rss_bytes(cluster.nodes[leader].running().pid());
    println!("{gets} stale gets beside {WRITERS} writers, the slowest in {slowest:?}; peak RSS {rss} bytes");
    assert!(slowest < STALE_GET_MAX, "expected a stale get within {STALE_GET_MAX:?}, the slowest took {slowest:?}");
    assert!(rss < RSS_MAX, "expected the leader never to have had more than {RSS_MAX} bytes, got {rss}");
    for follower in followers {
        cluster.thaw(follower);
    }
    let client = cluster.client().await;
    until("a put once there is a quorum", PATIENCE, async || client.put("k", "v").await.ok()).await;
    cluster.expect_equal_replicas().await;
}

async fn last_log_index(cluster: &Cluster, node: usize) -> u64 {
    let index = async || cluster.replica(node).await.map(|replica| replica.last_log_index);
    until("a replica's log", PATIENCE, index).await
}

/// Reads what was put before the followers were frozen. How long it took.
async fn expect_stale(kv: &mut KvClient<Channel>, key: &str, bytes: usize) -> Duration {
    let asked = clock::now();
    let get = kv.get(bounded(raw::stale_get(key), ATTEMPT_MAX)).await;
    let found = get.unwrap_or_else(|status| panic!("expected a stale get of {key} without a quorum: {status:?}"));
    let found: usize = found.into_inner().values.iter().map(|pair| pair.value.len()).sum();
    assert_eq!(found, bytes, "expected what was put at {key}");
    asked.elapsed()
}

/// Closed loops of writes; dropping them ends them.
struct Writers(Vec<JoinHandle<()>>);

impl Writers {
    async fn start(address: &str) -> Writers {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(KvClient::new(raw::connected(address).await));
        }
        let writers =
            (0..WRITERS).map(|number| task::spawn(keep_writing(connections[number % CONNECTIONS].clone(), number)));
        Writers(writers.collect())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What becomes of the writes is for other tests.
async fn keep_writing(mut kv: KvClient<Channel>, number: usize) {
    loop {
        match number % 3 {
            0 => drop(kv.delete(bounded(delete_range(false), LONG)).await),
            // Holds room for the most it may be answered with.
            1 => drop(kv.delete(bounded(delete_range(true), LONG)).await),
            _ => drop(kv.put(bounded(raw::put(format!("put/{number}"), vec![b'v'; PUT_BYTES]), LONG)).await),
        }
    }
}

fn delete_range(previous: bool) -> v1::DeleteRequest {
    let range = v1::KeyRange { key: RANGE.into(), end: Some(v1::key_range::End::Prefix(true)) };
    v1::DeleteRequest { range: Some(range), previous, ..v1::DeleteRequest::default() }
}
