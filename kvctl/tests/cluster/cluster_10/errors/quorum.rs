//! What a leader answers whose followers are frozen: what it has begun has no outcome, what it has not is not begun.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tonic::transport::Channel;
use tonic::{Request, Status};
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::task;

use super::{ATTEMPT_MAX, PATIENCE, failed};
use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

pub const NO_QUORUM: Case =
    Case::new("the leader has no quorum", "UNAVAILABLE", "not available: the leader has no quorum now");
const READ_LATE: Case =
    Case::new("the deadline passed during a read", "DEADLINE", "the deadline passed before anything was done");
const WRITE_LATE: Case = Case::new(
    "the deadline passed while a write waited for the log",
    "UNKNOWN_OUTCOME",
    "outcome unknown: the deadline passed before the outcome was known",
);
const QUEUE_FULL: Case = Case::new(
    "16 384 commands",
    "EXHAUSTED",
    "the partition's command queue is exhausted: the limit is 16384; try again later",
);
const NO_OUTCOME: Case =
    Case::new("no outcome of the log entry", "UNKNOWN_OUTCOME", "outcome unknown: no outcome in 10s");
pub const PROVOKED: [Case; 5] = [NO_QUORUM, READ_LATE, WRITE_LATE, QUEUE_FULL, NO_OUTCOME];

/// Log entries that may be in flight.
const ENTRIES_IN_FLIGHT: usize = 4;
/// A value that fills a log entry on its own.
const ENTRY_BYTES: usize = 600 << 10;
/// More commands than may wait, and some, over connections that each may have some hundred requests when the others have.
const FLOOD: usize = 17_000;
const CONNECTIONS: usize = 32;
/// Longer than a leader waits for the outcome of an entry.
const LONG: Duration = Duration::from_secs(30);

/// Freezes all nodes but the leader.
async fn freeze_followers(cluster: &mut Cluster, leader: usize) {
    for node in (0..cluster.nodes.len()).filter(|node| *node != leader) {
        cluster.freeze(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum() {
    Scenario::begin("cluster_10::errors::quorum::a_leader_without_a_quorum");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open([NO_QUORUM, READ_LATE, WRITE_LATE]);
    let mut cluster = Cluster::form(3, &["--request-timeout-ms", "500"]).await;
    let leader = cluster.leader().await;
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[leader].client).await);
    let mut reader = kv.clone();
    freeze_followers(&mut cluster, leader).await;
    // With the server's deadline instead of their own, so that it is the server that says that it passed.
    let (put, get) = (Request::new(raw::put("k", "v")), Request::new(raw::get("k")));
    let (written, read) = tokio::join!(kv.put(put), reader.get(get));
    ledger.check(WRITE_LATE, &failed("a put without a quorum", written));
    ledger.check(READ_LATE, &failed("a get without a quorum", read));
    let status = until(NO_QUORUM.message, PATIENCE, async || {
        let answer = kv.put(bounded(raw::put("k", "v"), ATTEMPT_MAX)).await;
        answer.err().filter(|status| NO_QUORUM.is(status))
    })
    .await;
    ledger.check(NO_QUORUM, &status);
    ledger.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue() {
    let scenario = Scenario::begin("cluster_10::errors::quorum::a_full_queue");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open(scenario.pick(vec![QUEUE_FULL, NO_OUTCOME], vec![QUEUE_FULL]));
    let mut cluster = Cluster::form(3, &[]).await;
    let leader = cluster.leader().await;
    let address = cluster.nodes[leader].client.clone();
    let first = raw::connected(&address).await;
    let others = join_all((0..CONNECTIONS).map(|_| raw::connected(&address))).await;
    let last_log_index = async || cluster.replica(leader).await.map(|replica| replica.last_log_index);
    let before = until("the leader's log", PATIENCE, last_log_index).await;
    freeze_followers(&mut cluster, leader).await;
    let plugs = task::spawn(join_all((0..ENTRIES_IN_FLIGHT).map(|number| {
        let mut kv = KvClient::new(first.clone());
        let put = raw::put(format!("plug/{number}"), vec![b'v'; ENTRY_BYTES]);
        async move { kv.put(bounded(put, LONG)).await }
    })));
    until("an entry for each of a few large puts", PATIENCE, async || {
        let last = cluster.replica(leader).await?.last_log_index;
        (last >= before + ENTRIES_IN_FLIGHT as u64).then_some(())
    })
    .await;
    ledger.check(QUEUE_FULL, &first_answer(&others).await);
    if scenario.full {
        for answer in plugs.await.expect("puts that end") {
            ledger.check(NO_OUTCOME, &failed("a put without an outcome", answer));
        }
    }
    ledger.close();
}

/// The first answer to more puts at once than may wait; the others go on waiting, and are then given up.
async fn first_answer(connections: &[Channel]) -> Status {
    let puts = (0..FLOOD).map(|number| {
        let mut kv = KvClient::new(connections[number % connections.len()].clone());
        let put = raw::put(format!("flood/{number}"), "v");
        async move { kv.put(bounded(put, LONG)).await }
    });
    let mut waiting: FuturesUnordered<_> = puts.collect();
    failed("a put behind too many others", waiting.next().await.expect("an answer to one of many puts"))
}
