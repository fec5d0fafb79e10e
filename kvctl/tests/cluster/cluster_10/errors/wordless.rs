//! The table "Without Trefoil's words": what a client meets below the API, and what the client library and `kvctl` say.
//!
//! An answer that does not come, or a connection that breaks, is `silent_leader.rs`'s; one that is not taken is
//! `unread_answers.rs`'s; one connection with too many refused requests is `server/src/api/requests.rs`'s and
//! `server/src/api/accept.rs`'s.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use trefoil_client::{Client, Error, Kind, Outcome};
use trefoil_proto::peer::Introduction;
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::{clock, net, task};

use super::{PATIENCE, expect_error, failed};
use crate::cluster::{Cluster, free_address};
use crate::errors_table::{rows, says};
use crate::process::{finish, finish_given};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// Condition, code, what the client library says, `kvctl`'s exit code.
const DOCUMENTED: [[&str; 4]; 10] = [
    [
        "a message over twice `--message-bytes-max`, refused before it is read",
        "OUT_OF_RANGE `Error, decoded message length too large: found … bytes, the limit is: … bytes`",
        "refused",
        "3",
    ],
    [
        "a request that is no protobuf message of its method",
        "INTERNAL `failed to decode Protobuf message: …`",
        "nothing: it sends none",
        "not affected",
    ],
    [
        "a service or method the server does not have, as at a node's peer port",
        "UNIMPLEMENTED",
        "not done (`Unreachable`)",
        "4",
    ],
    ["what answers does not speak HTTP/2", "none", "not done (`Unreachable`)", "4"],
    ["no connection; nothing was sent", "none", "not done (`Unreachable`)", "4"],
    [
        "the connection broke, or the deadline passed, after sending",
        "none, or any",
        "a write: unknown; a read: not done",
        "5; 3",
    ],
    [
        "more connections than `--connections-max`",
        "the connection is closed before the server has said a word",
        "not done (`Unreachable`)",
        "4",
    ],
    [
        "a connection that sends nothing in its first 10 s",
        "the connection is closed",
        "nothing: it is made anew",
        "not affected",
    ],
    [
        "a connection that takes nothing for 30 s of the answers that wait for it",
        "the connection is closed",
        "a write: unknown; a read: not done",
        "5; 3",
    ],
    [
        "more than 8 of its requests are being refused for want of room, and 16 384 of all connections",
        "the connection is closed",
        "a write: unknown; a read: not done",
        "5; 3",
    ],
];

/// More than twice the largest request.
const TOO_LARGE: usize = 4 << 20;
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection that is closed at once is closed within this.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn the_table_is_as_these_tests_have_it() {
    assert_eq!(
        rows("Without Trefoil's words"),
        DOCUMENTED,
        "expected docs/errors.md (left) to say what is tested here"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_below_the_api() {
    Scenario::begin("cluster_10::errors::wordless::refused_below_the_api");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let channel = raw::connected(&cluster.nodes[0].client).await;
    let large = vec![b'v'; TOO_LARGE];
    let put = bounded(raw::put("k", large.clone()), ATTEMPT_MAX);
    let answer = KvClient::new(channel.clone()).put(put).await;
    let status = failed("a message over twice the limit", answer);
    expect_wordless(&status, Code::OutOfRange);
    let documented = "Error, decoded message length too large: found … bytes, the limit is: … bytes";
    assert!(says(documented, status.message()), "expected '{documented}', got {status:?}");
    let answer = cluster.client().await.put("k", large.clone()).await;
    expect_error("a message over twice the limit", answer.map(drop), &[Kind::MessageTooLarge], Outcome::Refused);
    let put = finish_given(cluster.kvctl(&["put", "k", "-"]), &large, PATIENCE).await;
    put.expect_code("kvctl put of a value over twice the limit", &[3]);

    let status = failed("a request that is no message", put_bytes(channel.clone(), b"\xff").await);
    expect_wordless(&status, Code::Internal);
    let documented = "failed to decode Protobuf message: …";
    assert!(says(documented, status.message()), "expected '{documented}', got {status:?}");

    let answer = PeerClient::new(channel).introduce(bounded(Introduction::default(), ATTEMPT_MAX)).await;
    expect_wordless(&failed("a service that is not there", answer), Code::Unimplemented);
    // The other port has none of the services clients want.
    let peer = &cluster.nodes[0].peer;
    expect_error("the wrong port", connect(peer).await, &[Kind::Unreachable], Outcome::NotDone);
    expect_exit(&cluster, peer, &[4]).await;

    let nobody = free_address().await;
    expect_error("nobody there", connect(&nobody).await, &[Kind::Unreachable], Outcome::NotDone);
    expect_exit(&cluster, &nobody, &[4]).await;
}

/// Sends bytes in the place of a put's message.
async fn put_bytes(channel: Channel, bytes: &'static [u8]) -> Result<Response<Bytes>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("a connection to a node that runs");
    let put = PathAndQuery::from_static("/trefoil.v1.Kv/Put");
    grpc.unary(bounded(Bytes::from_static(bytes), ATTEMPT_MAX), put, AsItIs).await
}

/// Messages are their bytes.
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsItIs;
    type Decoder = AsItIs;

    fn encoder(&mut self) -> AsItIs {
        AsItIs
    }

    fn decoder(&mut self) -> AsItIs {
        AsItIs
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// An endpoint that is no node's client port is as one where nobody is: the next one is asked, and if there is none, each
/// is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_endpoints() {
    Scenario::begin("cluster_10::errors::wordless::wrong_endpoints");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let client = &cluster.nodes[0].client;
    let wrong = [
        (cluster.nodes[0].peer.clone(), "what answers there does not have this part of trefoil.v1"),
        (free_address().await, "no connection: Connection refused"),
        (old_server().await, "no connection: the server does not speak HTTP/2"),
    ];
    for (first, _) in &wrong {
        for line in [&["put", "k", "v"][..], &["get", "k"], &["scan"], &["cluster", "nodes"], &["cluster", "verify"]] {
            let mut kvctl = cluster.kvctl(line);
            kvctl.env("KVCTL_ENDPOINTS", format!("{first},{client}"));
            finish(kvctl, PATIENCE).await.expect_code(&format!("kvctl {line:?} at {first}, then at a node"), &[0]);
        }
    }
    let all: Vec<&str> = wrong.iter().map(|(address, _)| address.as_str()).collect();
    // It says it speaks HTTP/2, and nothing more. There is time for the next one however little there is.
    let silent = silent_server().await;
    for line in [&["put", "k", "v", "--timeout", "800ms"][..], &["get", "k", "--timeout", "800ms"]] {
        let mut kvctl = cluster.kvctl(line);
        kvctl.env("KVCTL_ENDPOINTS", format!("{silent},{client}"));
        let what = format!("kvctl {line:?} at one that stays silent, then at a node");
        finish(kvctl, PATIENCE).await.expect_code(&what, &[0]);
    }
    expect_error("an old server", connect(all[2]).await, &[Kind::Unreachable], Outcome::NotDone);
    let mut kvctl = cluster.kvctl(&["get", "k", "--timeout", "1s"]);
    kvctl.env("KVCTL_ENDPOINTS", all.join(","));
    let done = finish(kvctl, PATIENCE).await;
    done.expect_code("kvctl get where no node is", &[4]);
    println!("{}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "expected one line, got:\n{}", done.stderr);
    for (address, why) in &wrong {
        // The system's words may have a number behind them.
        let named = done.stderr.split("; ").any(|part| part.contains(why) && part.contains(&format!("({address})")));
        assert!(named, "expected '{why}' of {address}, got:\n{}", done.stderr);
    }
}

/// A server that sends its SETTINGS and keeps the connection.
async fn silent_server() -> String {
    let mut listener = net::listen("127.0.0.1:0").await.expect("a listener of the test's own");
    let address = listener.address().to_string();
    task::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let said = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            kept.push((stream, said));
        }
    });
    address
}

/// A server that speaks HTTP/1.1, before it is asked anything.
async fn old_server() -> String {
    let mut listener = net::listen("127.0.0.1:0").await.expect("a listener of the test's own");
    let address = listener.address().to_string();
    task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever hangs up on it has heard enough.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_closed() {
    let scenario = Scenario::begin("cluster_10::errors::wordless::connections_that_are_closed");
    let _turn = beside_others().await;
    // Without a connection of the test's own.
    let mut cluster = Cluster::plan(1, &["--connections-max", "2"]).await;
    cluster.start(0).await;
    let address = cluster.nodes[0].client.clone();
    let (mut first, second, mut third) = (dial(&address).await, dial(&address).await, dial(&address).await);
    let from = clock::now();
    assert!(is_closed(&mut third, AT_ONCE).await, "expected a third connection to be closed at once, of two allowed");
    expect_error("no place for a connection", connect(&address).await, &[Kind::Unreachable], Outcome::NotDone);
    expect_exit(&cluster, &address, &[4]).await;
    let put = cluster.kvctl(&["put", "k", "v", "--timeout", "1s"]);
    finish(put, PATIENCE).await.expect_code("kvctl put at a node without a place", &[4]);
    if scenario.full {
        assert!(is_closed(&mut first, PATIENCE).await, "expected a connection that sends nothing to be closed");
        println!("a connection that sent nothing was closed {:?} later", from.elapsed());
        expect_exit(&cluster, &address, &[1]).await;
    }
    drop((first, second));
    until("a put once there is a place for a connection", PATIENCE, async || {
        let mut kv = raw::kv(&address).await?;
        kv.put(bounded(raw::put("k", "v"), ATTEMPT_MAX)).await.ok()
    })
    .await;
}

async fn dial(address: &str) -> net::Stream {
    net::dial(address).await.unwrap_or_else(|error| panic!("expected a connection to {address}: {error}"))
}

/// Whether the other side closes a connection within `bound`.
async fn is_closed(stream: &mut net::Stream, bound: Duration) -> bool {
    let read = async {
        let mut bytes = [0; 256];
        // It may say something first.
        while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    };
    clock::timeout(bound, read).await.is_ok()
}

async fn connect(address: &str) -> Result<(), Error> {
    Client::builder([address]).timeout(CONNECT_MAX).connect().await.map(drop)
}

fn expect_wordless(status: &Status, code: Code) {
    let expected = (code, String::new(), String::new());
    assert_eq!(raw::words(status), expected, "expected this code, and no words of Trefoil's: {status:?}");
}

/// `kvctl get` at an endpoint exits with one of these.
async fn expect_exit(cluster: &Cluster, endpoint: &str, codes: &[i32]) {
    let mut get = cluster.kvctl(&["get", "k", "--timeout", "1s"]);
    get.env("KVCTL_ENDPOINTS", endpoint);
    finish(get, PATIENCE).await.expect_code(&format!("kvctl get at {endpoint}"), codes);
}
