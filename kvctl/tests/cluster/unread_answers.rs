//! Answers that nobody takes: what they hold is bounded, others are served meanwhile, and who takes nothing loses its
//! connection once the server's patience is over.
//!
//! The node's room is full only until the first connection is given up. So several connections fill it at once, and that
//! none was given up before is checked. No two of them can fill it: each has answers that wait for it.

use std::fs;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::op::Op;
use trefoil_world::clock;

use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::load::fill;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, alone, beside_others};
use crate::wait::until;

const NODE: Case = Case::new(
    "384 MiB of answers",
    "EXHAUSTED",
    "room for answers is exhausted: the limit is 402653184; try again later",
);
const CONNECTION: Case = Case::new(
    "384 MiB of answers",
    "EXHAUSTED",
    "the connection's room for answers is exhausted: the limit is 201326592; try again later",
);
pub const PROVOKED: [Case; 2] = [NODE, CONNECTION];

/// What a large answer has: nearly as much as one may.
const LARGE: &str = "large/";
const VALUES: u64 = 15;
const VALUE_BYTES: usize = 1 << 20;
/// More than a client takes unless it is told to.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// All that a client that reads nothing takes, of all answers together.
const WINDOW: u32 = 65_535;
/// What such a client takes of each answer.
const SOME: u32 = WINDOW;
const NOTHING: u32 = 0;
/// Answers of 3 GB, of each connection.
const TXNS: usize = 200;
/// Of each the server has four or five chunks ready, of a value each: together less than a connection's share.
const SCANS: usize = 30;
/// Connections that take nothing while the node's room is full.
const UNREAD: usize = 3;
const RSS_MAX: u64 = 1 << 30;
/// What the log says of a connection that is given up.
const GIVEN_UP: &str = "its reader took nothing";
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// What is sure to be refused need not wait longer for it.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a transaction waits for room.
const UNDER_LOAD: Duration = Duration::from_secs(8);
/// The server's patience is 30 s.
const GIVEN_UP_MAX: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_is_bounded() {
    Scenario::begin("unread_answers::what_nobody_takes_is_bounded");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open(PROVOKED);
    let mut cluster = Cluster::form(1, &[]).await;
    fill(&cluster.client().await, LARGE, VALUES, VALUE_BYTES, 1).await;
    let address = cluster.nodes[0].client.clone();
    let reader = KvClient::new(raw::connected(&address).await).max_decoding_message_size(MESSAGE_BYTES_MAX);
    expect_large(&reader, "at first").await;

    let mut scans = Unread::connect(&address, SOME).await;
    let (mut txns, mut windowless) = (Unread::connect(&address, SOME).await, Unread::connect(&address, NOTHING).await);
    tokio::join!(scans.ask_scans(SCANS), txns.ask_txns(TXNS), windowless.ask_txns(TXNS));
    ledger.check(NODE, &refused(&reader, NODE).await);
    expect_gets(&reader).await;
    expect_given_up(&mut cluster, 0, "before the node's room was seen to be full");

    until("room for a large answer again", GIVEN_UP_MAX, async || read_large(&reader).await.ok()).await;
    until("all connections that take nothing to be closed", GIVEN_UP_MAX, async || {
        (given_up(&mut cluster) >= UNREAD).then_some(())
    })
    .await;
    txns.expect_cut().await;
    windowless.expect_cut().await;

    let mut alone = Unread::connect(&address, SOME).await;
    alone.ask_txns(TXNS).await;
    ledger.check(CONNECTION, &refused(&alone.kv, CONNECTION).await);
    expect_large(&reader, "beside a connection that takes nothing").await;
    expect_given_up(&mut cluster, UNREAD, "before a connection's share was seen to be full");
    let rss = peak_rss_bytes(cluster.nodes[0].running().pid());
    println!("{TXNS} answers of {VALUES} MiB twice and {SCANS} scans of as much were not taken; peak RSS {rss} bytes");
    assert!(rss < RSS_MAX, "expected the node never to have had more than {RSS_MAX} bytes, got {rss}");
    ledger.close();
}

/// Reading what nobody takes costs the leader CPU, and not its leadership.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_costs_no_leadership() {
    Scenario::begin("unread_answers::what_nobody_takes_costs_no_leadership");
    let _turn = alone().await;
    let cluster = Cluster::form(3, &[]).await;
    fill(&cluster.client().await, LARGE, VALUES, VALUE_BYTES, 1).await;
    let leader = cluster.leader().await;
    let before = term(&cluster, leader).await;
    let address = &cluster.nodes[leader].client;
    let mut reader = KvClient::new(raw::connected(address).await);
    let (mut first, mut second) = (Unread::connect(address, SOME).await, Unread::connect(address, NOTHING).await);
    tokio::join!(first.ask_txns(TXNS), second.ask_txns(TXNS));
    let (begun, mut gets, mut slowest) = (clock::now(), 0_u64, Duration::ZERO);
    while begun.elapsed() < UNDER_LOAD {
        let asked = clock::now();
        let get = reader.get(bounded(raw::get("k"), ATTEMPT_MAX)).await;
        get.unwrap_or_else(|status| panic!("expected a linearizable get beside large reads: {status:?}"));
        (gets, slowest) = (gets + 1, slowest.max(asked.elapsed()));
    }
    let after = term(&cluster, leader).await;
    println!("beside {TXNS} transactions of {VALUES} MiB twice: {gets} gets in a row, the slowest in {slowest:?}");
    assert_eq!(after, before, "expected the leader to stay so, in its term");
}

/// The term of a node's replica.
async fn term(cluster: &Cluster, node: usize) -> u64 {
    until("a replica's term", PATIENCE, async || cluster.replica(node).await.map(|replica| replica.term)).await
}

/// Connections that the node has given up for what their readers did not take.
fn given_up(cluster: &mut Cluster) -> usize {
    cluster.nodes[0].running().log().matches(GIVEN_UP).count()
}

fn expect_given_up(cluster: &mut Cluster, expected: usize, when: &str) {
    let end = cluster.nodes[0].running().log_end();
    assert_eq!(given_up(cluster), expected, "expected so many connections to be given up {when}; the log ends:\n{end}");
}

/// A connection whose client takes nothing beyond its first window.
struct Unread {
    kv: KvClient<Channel>,
    txns: Vec<BoxFuture<'static, Result<Response<v1::TxnResponse>, Status>>>,
    scans: Vec<Streaming<v1::ScanResponse>>,
}

impl Unread {
    /// Its client takes `window` bytes of each answer, and of all together what the connection lets through.
    async fn connect(address: &str, window: u32) -> Unread {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
        let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(WINDOW);
        let channel = endpoint.connect().await;
        let channel = channel.unwrap_or_else(|error| panic!("expected a connection to {address}: {error}"));
        Unread { kv: KvClient::new(channel), txns: Vec::new(), scans: Vec::new() }
    }

    async fn ask_txns(&mut self, count: usize) {
        for _ in 0..count {
            let mut kv = self.kv.clone();
            let mut call = async move { kv.txn(Request::new(large())).await }.boxed();
            // The first poll sends the request. Without another one the answer stays where it is.
            assert!(futures::poll!(&mut call).is_pending(), "expected the answer not to be there yet");
            self.txns.push(call);
            // One turn of a task has a budget of polls.
            tokio::task::yield_now().await;
        }
    }

    async fn ask_scans(&mut self, count: usize) {
        for _ in 0..count {
            let range = v1::KeyRange { key: LARGE.into(), end: Some(v1::key_range::End::Prefix(true)) };
            let scan = v1::ScanRequest { range: Some(range), ..v1::ScanRequest::default() };
            let chunks = self.kv.scan(Request::new(scan)).await;
            let chunks = chunks.unwrap_or_else(|status| panic!("expected a scan to begin: {status:?}"));
            self.scans.push(chunks.into_inner());
        }
    }

    /// All answers were refused or cut off, and some were cut off.
    async fn expect_cut(self) {
        let ends = join_all(self.txns).await;
        let (mut refused, mut cut) = (0, 0);
        for end in ends {
            match end {
                Ok(_) => panic!("expected a connection of {WINDOW} bytes not to take an answer"),
                Err(status) if raw::words(&status).2.is_empty() => cut += 1,
                Err(_) => refused += 1,
            }
        }
        println!("on one connection {refused} of {TXNS} transactions were refused, {cut} cut off");
        assert!(cut > 0, "expected answers that waited to have been cut off");
    }
}

fn large_key(number: u64) -> String {
    format!("{LARGE}{number:08}")
}

/// A transaction that only reads, all large values.
fn large() -> v1::TxnRequest {
    let read = |number| {
        let range = v1::KeyRange { key: large_key(number).into(), end: None };
        v1::Op { op: Some(Op::Range(v1::RangeOp { range: Some(range), ..v1::RangeOp::default() })) }
    };
    let txn = v1::Txn { success: (0..VALUES).map(read).collect(), ..v1::Txn::default() };
    v1::TxnRequest { txn: Some(txn), ..v1::TxnRequest::default() }
}

async fn read_large(kv: &KvClient<Channel>) -> Result<(), Status> {
    let replies = kv.clone().txn(bounded(large(), ATTEMPT_MAX)).await?.into_inner().replies;
    let bytes = |reply: v1::OpReply| match reply.reply {
        Some(v1::op_reply::Reply::Range(range)) => range.pairs.iter().map(|pair| pair.value.len()).sum::<usize>(),
        other => panic!("expected what a range is answered with, got {other:?}"),
    };
    let read: Vec<usize> = replies.into_iter().map(bytes).collect();
    assert_eq!(read, vec![VALUE_BYTES; VALUES as usize], "expected all values whole");
    Ok(())
}

async fn expect_large(kv: &KvClient<Channel>, when: &str) {
    let read = read_large(kv).await;
    read.unwrap_or_else(|status| panic!("expected a large answer {when}: {status:?}"));
}

/// A large answer is refused for want of this room.
async fn refused(kv: &KvClient<Channel>, case: Case) -> Status {
    until(case.message, PATIENCE, async || {
        let mut kv = kv.clone();
        let answer = clock::timeout(ATTEMPT_MAX, kv.txn(bounded(large(), REFUSED_AFTER))).await;
        answer.ok()?.err().filter(|status| case.is(status))
    })
    .await
}

/// Puts and gets go on, also gets of large values: they have room of their own.
async fn expect_gets(kv: &KvClient<Channel>) {
    let mut kv = kv.clone();
    let put = kv.put(bounded(raw::put("small", "v"), ATTEMPT_MAX)).await;
    put.unwrap_or_else(|status| panic!("expected a put without room for large answers: {status:?}"));
    for (key, bytes) in [("small".to_owned(), 1), (large_key(0), VALUE_BYTES)] {
        let get = kv.get(bounded(raw::get(&key), ATTEMPT_MAX)).await;
        let found = get.unwrap_or_else(|status| panic!("expected a get of {key} beside a full room: {status:?}"));
        let found: Vec<usize> = found.into_inner().values.iter().map(|pair| pair.value.len()).collect();
        assert_eq!(found, [bytes], "expected what was put at {key}");
    }
}

/// The most memory a process has had.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("expected to read {path}: {error}"));
    let peak: Option<u64> =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map_or_else(|| panic!("expected a line VmHWM in {path}:\n{status}"), |kib| kib << 10)
}
