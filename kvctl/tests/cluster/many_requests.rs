//! More requests on a connection than a client should have: answers that nobody takes, and requests that are cancelled as
//! soon as they are sent.
//!
//! The frames are made by hand (RFC 9113): a client library takes answers in, and does not send what was cancelled before.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic::transport::Channel;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::{clock, net};

use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, alone, beside_others};
use crate::unread_answers::peak_rss_bytes;
use crate::wait::until;

const SHARE: Case = Case::new(
    "one connection has more requests",
    "EXHAUSTED",
    "the connection's room for requests is exhausted: the limit is 8; try again later",
);
pub const PROVOKED: [Case; 1] = [SHARE];

/// Connections whose client takes nothing, and what each asks for at once: together as much as a node has places for.
const CONNECTIONS: usize = 40;
const UNREAD: u32 = 512;
/// Beside them, connections that each ask for nearly as much as one may: most of it is refused.
const GREEDY: usize = 96;
const GREEDY_UNREAD: u32 = 1000;
/// With twice as many places, or streams that cost memory beside them, it is more.
const RSS_MAX: u64 = 512 << 20;
/// Too small to be a large answer.
const VALUE_BYTES: usize = 3900;
/// Gets at once, of a client that takes its answers.
const AT_ONCE: usize = 1000;
/// HTTP/2 takes 20 for an attack unless it is told otherwise.
const CANCELLED: u32 = 10_000;
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_answers_that_nobody_takes_are_bounded_and_keep_nobody_out() {
    Scenario::begin("many_requests::small_answers_that_nobody_takes_are_bounded_and_keep_nobody_out");
    let _turn = alone().await;
    let mut ledger = Ledger::open(PROVOKED);
    let mut cluster = Cluster::form(1, &[]).await;
    let address = cluster.nodes[0].client.clone();
    let kv = KvClient::new(raw::connected(&address).await);
    let put = kv.clone().put(bounded(raw::put("k", vec![b'v'; VALUE_BYTES]), ATTEMPT_MAX)).await;
    put.unwrap_or_else(|status| panic!("expected a put to be done: {status:?}"));

    let unread = join_all((0..CONNECTIONS).map(|_| dial_unread(&address, UNREAD))).await;
    expect_get(&kv).await;
    let refused = until(SHARE.message, PATIENCE, async || refused(&kv).await).await;
    ledger.check(SHARE, &refused);
    let greedy = join_all((0..GREEDY).map(|_| dial_unread(&address, GREEDY_UNREAD))).await;
    expect_get(&kv).await;
    expect_get(&KvClient::new(raw::connected(&address).await)).await;
    drop((unread, greedy));
    until("as many gets at once as before", PATIENCE, async || refused_of_many(&kv).await.is_empty().then_some(()))
        .await;
    let rss = peak_rss_bytes(cluster.nodes[0].running().pid());
    println!(
        "{CONNECTIONS} connections did not take {UNREAD} answers each, nor {GREEDY} others {GREEDY_UNREAD}; peak RSS \
         {rss} bytes"
    );
    assert!(rss < RSS_MAX, "expected the node never to have had more than {RSS_MAX} bytes, got {rss}");
    ledger.close();
}

/// A connection that has asked for `count` answers it does not take, or for as many as the node let it.
async fn dial_unread(address: &str, count: u32) -> net::Stream {
    let mut stream = dial(address).await;
    let mut asked = opening();
    for number in 0..count {
        asked.extend(request(stream_id(number), "Get", &field(2, b"k")));
    }
    // A node that closes the connection over this is in its right.
    drop(clock::timeout(PATIENCE, stream.write_all(&asked)).await);
    stream
}

async fn expect_get(kv: &KvClient<Channel>) {
    let get = kv.clone().get(bounded(raw::stale_get("k"), ATTEMPT_MAX)).await;
    let found = get.unwrap_or_else(|status| panic!("expected a get beside answers that nobody takes: {status:?}"));
    let found: Vec<usize> = found.into_inner().values.iter().map(|pair| pair.value.len()).collect();
    assert_eq!(found, [VALUE_BYTES], "expected what was put");
}

/// How one of many gets at once is refused for want of this room.
async fn refused(kv: &KvClient<Channel>) -> Option<Status> {
    refused_of_many(kv).await.into_iter().find(|status| SHARE.is(status))
}

async fn refused_of_many(kv: &KvClient<Channel>) -> Vec<Status> {
    let gets = (0..AT_ONCE).map(|_| {
        let mut kv = kv.clone();
        async move { kv.get(bounded(raw::stale_get("k"), ATTEMPT_MAX)).await.err() }
    });
    join_all(gets).await.into_iter().flatten().collect()
}

/// Who else uses the connection must not suffer for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cancelled_at_once_end_no_connection() {
    Scenario::begin("many_requests::many_cancelled_at_once_end_no_connection");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let address = cluster.nodes[0].client.clone();
    let mut sent = opening();
    for number in 0..CANCELLED {
        let id = stream_id(number);
        sent.extend(headers(id, "Get"));
        sent.extend(frame(RST_STREAM, 0, id, &CANCEL));
    }
    expect_put_behind(&address, sent, CANCELLED).await;
    println!("a put was answered behind {CANCELLED} cancelled requests");
}

/// A put on a connection that has `sent` so many requests before is done and answered.
async fn expect_put_behind(address: &str, mut sent: Vec<u8>, requests: u32) {
    let mut stream = dial(address).await;
    let id = stream_id(requests);
    sent.extend(request(id, "Put", &[field(2, b"k"), field(3, b"v")].concat()));
    send(&mut stream, &sent).await;
    let answered = clock::timeout(PATIENCE, expect_answer(&mut stream, id)).await;
    answered.expect("an answer to the put, or an end, in time");
    let mut kv = raw::kv(address).await.expect("a connection to a node that runs");
    let get = kv.get(bounded(raw::get("k"), ATTEMPT_MAX)).await.expect("a get of what was put").into_inner();
    assert_eq!(get.values.len(), 1, "expected the put to be done behind {requests} cancelled requests");
}

/// Reads frames until one brings a message of this stream.
async fn expect_answer(stream: &mut net::Stream, id: u32) {
    loop {
        let mut head = [0; HEAD_BYTES];
        let read = stream.read_exact(&mut head).await;
        read.unwrap_or_else(|error| panic!("expected an answer, but the connection ended: {error}"));
        let [high, middle, low, kind, _, of @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        stream.read_exact(&mut payload).await.expect("the rest of a frame");
        assert_ne!(kind, GOAWAY, "expected the connection to go on: {}", String::from_utf8_lossy(&payload));
        if u32::from_be_bytes(of) == id {
            assert_ne!(kind, RST_STREAM, "expected an answer, got a reset: {payload:?}");
            if kind == DATA {
                return;
            }
        }
    }
}

async fn dial(address: &str) -> net::Stream {
    net::dial(address).await.unwrap_or_else(|error| panic!("expected a connection to {address}: {error}"))
}

async fn send(stream: &mut net::Stream, bytes: &[u8]) {
    let sent = clock::timeout(PATIENCE, stream.write_all(bytes)).await;
    let sent = sent.unwrap_or_else(|_| panic!("expected the node to read {} bytes in time", bytes.len()));
    sent.unwrap_or_else(|error| panic!("expected to send {} bytes: {error}", bytes.len()));
}

fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The id of a client's stream.
fn stream_id(number: u32) -> u32 {
    2 * number + 1
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// The head of a request for a method of `Kv`, every field a literal (RFC 7541, section 6.2.2).
fn headers(id: u32, method: &str) -> Vec<u8> {
    let path = format!("/trefoil.v1.Kv/{method}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "kvd"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| [vec![0], sized(name.as_bytes()), sized(value.as_bytes())].concat())
        .collect();
    frame(HEADERS, END_HEADERS, id, &block)
}

/// A whole request.
fn request(id: u32, method: &str, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    let body = [&[0_u8][..], &length[..], message].concat();
    [headers(id, method), frame(DATA, END_STREAM, id, &body)].concat()
}

/// A field of a protobuf message that is bytes.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![(tag << 3) | 2], sized(bytes)].concat()
}

/// Bytes behind their length, of one byte.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 127).expect("a length of one byte");
    [&[length][..], bytes].concat()
}
