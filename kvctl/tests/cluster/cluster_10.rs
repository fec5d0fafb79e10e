//! Line 10: bad input. Random bytes at both ports and in the fields of requests kill nothing, and every documented
//! error comes with its code and its words.

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::{clock, net};

use crate::cluster::Cluster;
use crate::raw::{self, bounded};
use crate::scenario::{Dice, Scenario, beside_others};

/// Connections with random bytes at a time.
const AT_ONCE: usize = 16;
/// How long an answer to nonsense is listened to.
const LISTENED: Duration = Duration::from_millis(50);
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Stands for a connection that does not come about.
const NO_CONNECTION: &str = "expected a connection to a node that runs";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_kill_nothing() {
    let scenario = Scenario::begin("cluster_10::random_bytes_kill_nothing");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let seeds = scenario.pick(1000_u64, 50);
    let mut dice = scenario.dice();
    let mut attacks = Vec::new();
    for number in 0..seeds {
        let node = &cluster.nodes[(number % 3) as usize];
        attacks.push((node.client.clone(), nonsense(&mut dice)));
        attacks.push((node.peer.clone(), nonsense(&mut dice)));
    }
    let attacks = attacks.into_iter().map(|(address, bytes)| async move { send(&address, &bytes).await });
    let answered: Vec<bool> = futures::stream::iter(attacks).buffer_unordered(AT_ONCE).collect().await;
    let answered = answered.into_iter().filter(|answered| *answered).count();
    expect_alive(&mut cluster).await;
    println!("{seeds} seeds of random bytes at both ports: {answered} were answered, nobody died");
}

/// Random bytes: alone, behind an HTTP/2 preface, or as HTTP/2 frames with random bodies.
fn nonsense(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    let form = dice.below(3);
    if form > 0 {
        bytes.extend_from_slice(PREFACE);
        bytes.extend_from_slice(SETTINGS);
    }
    if form == 2 {
        for _ in 0..dice.below(8) {
            let body = dice.bytes(300);
            bytes.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
            bytes.extend_from_slice(&[dice.below(11) as u8, dice.roll() as u8, 0, 0, 0, dice.below(8) as u8]);
            bytes.extend_from_slice(&body);
        }
    } else {
        bytes.extend_from_slice(&dice.bytes(4096));
    }
    bytes
}

/// Sends bytes on a connection of their own. Whether anything came back.
async fn send(address: &str, bytes: &[u8]) -> bool {
    let mut stream = net::dial(address).await.unwrap_or_else(|error| panic!("{NO_CONNECTION}, {address}: {error}"));
    // The other side may hang up in the middle of it, which is its good right.
    if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    let mut answer = [0; 256];
    let read = clock::timeout(LISTENED, stream.read(&mut answer)).await;
    matches!(read, Ok(Ok(count)) if count > 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_fields_kill_nothing() {
    let scenario = Scenario::begin("cluster_10::random_fields_kill_nothing");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let mut dice = scenario.dice();
    let (mut ok, mut refused) = (0, 0);
    for number in 0..scenario.pick(1000, 50) {
        let address = cluster.nodes[number % 3].client.clone();
        let mut kv = raw::kv(&address).await.unwrap_or_else(|| panic!("{NO_CONNECTION}, {address}"));
        for result in random_requests(&mut kv, &mut dice).await {
            match result {
                Ok(()) => ok += 1,
                Err(status) => {
                    refused += 1;
                    assert!(status.code() != Code::Internal, "expected no inner failure: {status:?}");
                }
            }
        }
    }
    expect_alive(&mut cluster).await;
    println!("requests with random fields: {ok} carried out, {refused} refused, nobody died");
}

async fn random_requests(kv: &mut KvClient<tonic::transport::Channel>, dice: &mut Dice) -> Vec<Result<(), Status>> {
    let get = v1::GetRequest {
        header: header(dice),
        key: dice.bytes(40).into(),
        revision: sometimes(dice),
        consistency: None,
        context: dice.bytes(20).into(),
        keys_only: dice.below(2) == 0,
    };
    let put = v1::PutRequest {
        header: header(dice),
        key: dice.bytes(40).into(),
        value: dice.bytes(200).into(),
        lease: sometimes(dice),
        previous: dice.below(2) == 0,
        condition: Some(v1::Condition { when: Some(v1::condition::When::ModRevision(dice.roll())) }),
        context: dice.bytes(20).into(),
    };
    let delete = v1::DeleteRequest { header: header(dice), range: range(dice), ..v1::DeleteRequest::default() };
    let scan = v1::ScanRequest {
        header: header(dice),
        range: range(dice),
        limit: sometimes(dice),
        revision: sometimes(dice),
        reverse: dice.below(2) == 0,
        context: dice.bytes(20).into(),
        continuation: dice.bytes(30).into(),
        ..v1::ScanRequest::default()
    };
    let txn = v1::TxnRequest { header: header(dice), txn: Some(txn(dice, 3)) };
    let close = v1::CloseSessionRequest { header: header(dice), session: dice.roll() };
    vec![
        kv.get(bounded(get, ATTEMPT_MAX)).await.map(drop),
        kv.put(bounded(put, ATTEMPT_MAX)).await.map(drop),
        kv.delete(bounded(delete, ATTEMPT_MAX)).await.map(drop),
        drain(kv.scan(bounded(scan, ATTEMPT_MAX)).await).await,
        kv.txn(bounded(txn, ATTEMPT_MAX)).await.map(drop),
        kv.close_session(bounded(close, ATTEMPT_MAX)).await.map(drop),
    ]
}

/// Reads a scan to its end.
async fn drain(scan: Result<tonic::Response<tonic::Streaming<v1::ScanResponse>>, Status>) -> Result<(), Status> {
    let mut chunks = scan?.into_inner();
    while chunks.message().await?.is_some() {}
    Ok(())
}

fn sometimes(dice: &mut Dice) -> u64 {
    if dice.below(2) == 0 { 0 } else { dice.roll() }
}

fn header(dice: &mut Dice) -> Option<v1::RequestHeader> {
    let keyspace = if dice.below(4) > 0 { String::new() } else { String::from_utf8_lossy(&dice.bytes(9)).into_owned() };
    let epoch = (dice.below(2) == 0).then(|| dice.roll());
    let request_id = (dice.below(4) == 0).then(|| v1::RequestId {
        session: dice.roll(),
        sequence: dice.roll(),
        acknowledged: dice.roll(),
    });
    (dice.below(8) > 0).then_some(v1::RequestHeader { keyspace, epoch, request_id })
}

fn range(dice: &mut Dice) -> Option<v1::KeyRange> {
    use v1::key_range::End;
    let end = match dice.below(4) {
        0 => None,
        1 => Some(End::Prefix(dice.below(2) == 0)),
        2 => Some(End::Before(dice.bytes(20).into())),
        _ => Some(End::ToLast(dice.below(2) == 0)),
    };
    (dice.below(8) > 0).then(|| v1::KeyRange { key: dice.bytes(20).into(), end })
}

fn txn(dice: &mut Dice, depth: u32) -> v1::Txn {
    let compare = v1::Compare {
        range: range(dice),
        relation: dice.roll() as i32,
        target: Some(v1::compare::Target::Value(dice.bytes(20).into())),
    };
    let inner = match (depth, dice.below(3)) {
        (0, _) | (_, 0) => v1::op::Op::Delete(v1::DeleteOp { range: range(dice), previous: true }),
        (_, 1) => v1::op::Op::Put(v1::PutOp { key: dice.bytes(20).into(), keep_lease: true, ..v1::PutOp::default() }),
        (_, _) => v1::op::Op::Txn(txn(dice, depth - 1)),
    };
    v1::Txn { compares: vec![compare], success: vec![v1::Op { op: Some(inner) }], failure: vec![v1::Op { op: None }] }
}

/// All processes are up, and a put and a get work.
async fn expect_alive(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        let process = node.running();
        let (exited, end) = (process.exited(), process.log_end());
        assert_eq!(exited, None, "expected {} to be alive; its log ends:\n{end}", node.name);
    }
    let client = cluster.client().await;
    client.put("alive", "yes").await.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    let found = client.get("alive").await.unwrap_or_else(|error| panic!("expected a get to work: {error}"));
    assert_eq!(found.value().map(|value| &value[..]), Some(&b"yes"[..]), "expected to read what was put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_errors() {
    Scenario::begin("cluster_10::documented_errors");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let address = &cluster.nodes[0].client;
    let mut kv = raw::kv(address).await.unwrap_or_else(|| panic!("{NO_CONNECTION}, {address}"));
    let puts = [
        ("empty key", raw::put("", "v"), Code::InvalidArgument, "EMPTY_KEY"),
        ("long key", raw::put(vec![b'k'; (64 << 10) + 1], "v"), Code::InvalidArgument, "KEY_TOO_LONG"),
        ("large request", raw::put("k", vec![b'v'; 3 << 19]), Code::InvalidArgument, "MESSAGE_TOO_LARGE"),
        ("unknown keyspace", elsewhere(raw::put("k", "v")), Code::NotFound, "NO_SUCH_KEYSPACE"),
    ];
    for (what, put, code, reason) in puts {
        refused(what, kv.put(bounded(put, ATTEMPT_MAX)).await.map(drop), code, reason);
    }
    let keys: Vec<String> = (0..129).map(|number| format!("k{number}")).collect();
    let many: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (what, keys, reason) in
        [("too many operations", &many[..], "TOO_MANY_OPS"), ("a key put twice", &["k", "k"][..], "DUPLICATE_KEY")]
    {
        let request = bounded(puts_of(keys), ATTEMPT_MAX);
        refused(what, kv.txn(request).await.map(drop), Code::InvalidArgument, reason);
    }
    revisions(&mut kv).await;
    println!("every documented error came with its code and its words");
}

/// Reads at revisions that are gone, or not there yet.
async fn revisions(kv: &mut KvClient<tonic::transport::Channel>) {
    let mut newest = 0;
    for value in ["1", "2", "3"] {
        let reply = kv.put(bounded(raw::put("k", value), ATTEMPT_MAX)).await;
        let reply = reply.unwrap_or_else(|status| panic!("expected a put to work: {status:?}"));
        newest = reply.into_inner().header.unwrap_or_default().revision;
    }
    let compact = v1::CompactRequest { header: None, revision: newest };
    let compacted = kv.compact(bounded(compact, ATTEMPT_MAX)).await;
    compacted.unwrap_or_else(|status| panic!("expected a compaction to work: {status:?}"));
    for (what, revision, reason) in
        [("a compacted revision", newest - 1, "COMPACTED"), ("a future revision", newest + 100, "FUTURE_REVISION")]
    {
        let get = v1::GetRequest { revision, ..raw::get("k") };
        refused(what, kv.get(bounded(get, ATTEMPT_MAX)).await.map(drop), Code::OutOfRange, reason);
    }
}

fn elsewhere(put: v1::PutRequest) -> v1::PutRequest {
    let header = v1::RequestHeader { keyspace: "nowhere".into(), ..v1::RequestHeader::default() };
    v1::PutRequest { header: Some(header), ..put }
}

/// A transaction that puts these keys.
fn puts_of(keys: &[&str]) -> v1::TxnRequest {
    let put = |key: &&str| {
        let put = v1::PutOp { key: (*key).to_owned().into(), value: "v".into(), ..v1::PutOp::default() };
        v1::Op { op: Some(v1::op::Op::Put(put)) }
    };
    let txn = v1::Txn { success: keys.iter().map(put).collect(), ..v1::Txn::default() };
    v1::TxnRequest { header: None, txn: Some(txn) }
}

fn refused(what: &str, result: Result<(), Status>, code: Code, reason: &str) {
    let status = match result {
        Ok(()) => panic!("{what}: expected {code:?} {reason}, got success"),
        Err(status) => status,
    };
    println!("{what}: {:?}: {}", status.code(), status.message());
    let expected = (code, "refused".to_owned(), reason.to_owned());
    assert_eq!(raw::words(&status), expected, "{what}: expected this code, outcome and reason; got {status:?}");
}
