//! More requests on a connection than a client should have: answers that nobody takes, and requests that are cancelled as
//! soon as they are sent.
//!
//! Their frames are made by hand (`frames.rs`): a client library takes answers in, and does not send what was cancelled
//! before.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::{clock, net};

use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::frames::{self, Answer, End, REFUSED_STREAM, RawConnection, WINDOW, Window, stream_id};
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
/// More requests at once than a connection may have. So many answers are more than its window, and half of them are less.
const OVER: u32 = 2000;
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

const GET: &str = "trefoil.v1.Kv/Get";
const PUT: &str = "trefoil.v1.Kv/Put";

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
    let mut stream = frames::dial(address).await;
    let asked = [frames::opening(), gets(0, count)].concat();
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
    let mut connection = RawConnection::open(&cluster.nodes[0].client, Window::GivenBack).await;
    let sent: Vec<u8> = ids(0, CANCELLED).flat_map(|id| [frames::head(id, GET), frames::cancel(id)].concat()).collect();
    connection.send(&sent).await;
    let (_, refused) = put_in_the_end(&mut connection, CANCELLED).await;
    expect_put(&cluster).await;
    println!("a put was answered behind {CANCELLED} cancelled requests; before it were refused: {refused:?}");
}

/// The same of a client that has not heard yet how many requests it may have. It has its share again behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_burst_over_the_share_ends_no_connection() {
    Scenario::begin("many_requests::a_cancelled_burst_over_the_share_ends_no_connection");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let mut connection = RawConnection::open(&cluster.nodes[0].client, Window::GivenBack).await;
    connection.send(&[gets(0, OVER), cancels(0, OVER)].concat()).await;
    let (next, refused) = put_in_the_end(&mut connection, OVER).await;
    expect_put(&cluster).await;
    let at_once = AT_ONCE as u32;
    connection.send(&gets(next, at_once)).await;
    for end in connection.ends_of(ids(next, at_once), PATIENCE).await {
        expect_done(&end);
    }
    println!(
        "a put and {at_once} gets at once were answered behind {OVER} that were cancelled; before the put were refused: \
         {refused:?}; {} bytes of answers",
        connection.data_bytes
    );
}

/// What was answered has used up the connection's window, also where the request was cancelled behind it (RFC 9113, section
/// 6.9): the answer to a put comes once its client takes more, and no sooner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_waits_for_the_connections_window_and_no_longer() {
    Scenario::begin("many_requests::an_answer_waits_for_the_connections_window_and_no_longer");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let mut connection = RawConnection::open(&cluster.nodes[0].client, Window::Kept).await;
    let (first, second, put) = (0..OVER / 2, OVER / 2..OVER, stream_id(OVER));
    connection.send(&gets(first.start, OVER / 2)).await;
    for end in connection.ends_of(first.map(stream_id), PATIENCE).await {
        expect_done(&end);
    }
    assert!(connection.data_bytes < WINDOW, "expected room for more than {} bytes", connection.data_bytes);
    connection.send(&gets(second.start, OVER / 2)).await;
    let all = ids(0, OVER).collect();
    connection.read_until("the window to be used up", &all, PATIENCE, |read, _| read.data_bytes == WINDOW).await;
    connection.send(&[cancels(second.start, OVER / 2), frames::request(put, PUT, &pair())].concat()).await;
    let begun = |read: &RawConnection, _: u32| read.answer(put).is_some_and(Answer::has_begun);
    connection.read_until("the head of the put's answer", &[put].into(), PATIENCE, begun).await;
    expect_put(&cluster).await;
    assert_eq!(connection.answer(put).map(|answer| answer.message_bytes), Some(0), "expected nothing over the window");
    connection.give_back().await;
    expect_done(&connection.end_of(put, PATIENCE).await);
    println!("behind {WINDOW} bytes of answers a put was done, and answered once the client took more");
}

/// The ids of `count` streams from this one on.
fn ids(first: u32, count: u32) -> impl Iterator<Item = u32> {
    (first..first + count).map(stream_id)
}

fn gets(first: u32, count: u32) -> Vec<u8> {
    ids(first, count).flat_map(|id| frames::request(id, GET, &frames::field(2, b"k"))).collect()
}

fn cancels(first: u32, count: u32) -> Vec<u8> {
    ids(first, count).flat_map(frames::cancel).collect()
}

/// A message that puts.
fn pair() -> Vec<u8> {
    [frames::field(2, b"k"), frames::field(3, b"v")].concat()
}

/// Puts until it is done, on streams from this one on: the next stream's number, and how it was refused before. It may be for
/// want of room, which cancelled requests have until it is seen that they are.
async fn put_in_the_end(connection: &mut RawConnection, first: u32) -> (u32, Vec<String>) {
    let (mut next, mut refused) = (first, Vec::new());
    let begun = clock::now();
    loop {
        let id = stream_id(next);
        connection.send(&frames::request(id, PUT, &pair())).await;
        next += 1;
        match connection.end_of(id, PATIENCE).await {
            End::Reset(REFUSED_STREAM) => refused.push("its stream".to_owned()),
            End::Status(status) if SHARE.is(&status) => refused.push(status.message().to_owned()),
            end => {
                expect_done(&end);
                return (next, refused);
            }
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "expected a put to be done in {PATIENCE:?}, not to be refused: {refused:?}"
        );
    }
}

fn expect_done(end: &End) {
    let done = matches!(end, End::Status(status) if status.code() == Code::Ok);
    assert!(done, "expected a request to be done, got {end:?}");
}

/// What was put is there.
async fn expect_put(cluster: &Cluster) {
    let mut kv = raw::kv(&cluster.nodes[0].client).await.expect("a connection to a node that runs");
    let get = kv.get(bounded(raw::get("k"), ATTEMPT_MAX)).await.expect("a get of what was put").into_inner();
    assert_eq!(get.values.len(), 1, "expected the put to be done");
}
