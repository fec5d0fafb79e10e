//! Requests that one healthy node refuses, as data: each with the row it belongs to.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};
use trefoil_proto::v1;
use trefoil_proto::v1::cluster_client::ClusterClient;
use trefoil_proto::v1::condition::When;
use trefoil_proto::v1::key_range::End;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::op::Op;

use super::failed;
use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};

const ATTEMPT_MAX: Duration = Duration::from_secs(5);
const LARGE_KEY: &str = "large";
/// More than a session keeps of replies, and less than a request may have.
const LARGE_BYTES: usize = 1_200_000;

/// A request.
#[derive(Clone, Debug)]
enum Ask {
    Get(v1::GetRequest),
    Put(v1::PutRequest),
    Delete(v1::DeleteRequest),
    Scan(v1::ScanRequest),
    Txn(v1::TxnRequest),
    Compact(v1::CompactRequest),
    Digest(v1::DigestRequest),
}

impl Ask {
    async fn of(self, channel: Channel) -> Result<(), Status> {
        let mut kv = KvClient::new(channel.clone());
        match self {
            Ask::Get(get) => kv.get(bounded(get, ATTEMPT_MAX)).await.map(drop),
            Ask::Put(put) => kv.put(bounded(put, ATTEMPT_MAX)).await.map(drop),
            Ask::Delete(delete) => kv.delete(bounded(delete, ATTEMPT_MAX)).await.map(drop),
            Ask::Scan(scan) => raw::drain(kv.scan(bounded(scan, ATTEMPT_MAX)).await).await,
            Ask::Txn(txn) => kv.txn(bounded(txn, ATTEMPT_MAX)).await.map(drop),
            Ask::Compact(compact) => kv.compact(bounded(compact, ATTEMPT_MAX)).await.map(drop),
            Ask::Digest(digest) => ClusterClient::new(channel).digest(bounded(digest, ATTEMPT_MAX)).await.map(drop),
        }
    }
}

/// What the node has seen before it is asked.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The newest revision, to which history is compacted.
    newest: u64,
    /// A session whose first two puts were carried out, the first one acknowledged, and behind them [`large_reply`].
    session: u64,
    /// One that was closed.
    closed: u64,
}

/// What this test provokes.
pub fn cases() -> Vec<Case> {
    asks(Known::default()).into_iter().map(|(case, _)| case).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_refuses() {
    Scenario::begin("cluster_10::errors::refusals::what_one_node_refuses");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open(cases());
    let cluster = Cluster::form(1, &[]).await;
    let channel = raw::connected(&cluster.nodes[0].client).await;
    let known = prepare(&mut KvClient::new(channel.clone())).await;
    for (case, ask) in asks(known) {
        ledger.check(case, &failed(case.condition, ask.of(channel.clone()).await));
    }
    // The row's message has the name of another one.
    let meta = failed("a put to _meta", Ask::Put(elsewhere("_meta")).of(channel).await);
    let (_, outcome, reason) = raw::words(&meta);
    assert_eq!((&outcome[..], &reason[..]), ("refused", "NO_SUCH_KEYSPACE"), "expected _meta to be none: {meta:?}");
    ledger.close();
}

/// Brings about what [`Known`] says.
async fn prepare(kv: &mut KvClient<Channel>) -> Known {
    let session = open(kv).await;
    let closed = open(kv).await;
    let close = v1::CloseSessionRequest { header: None, session: closed };
    expect_done("closing a session", kv.close_session(bounded(close, ATTEMPT_MAX)).await);
    expect_done("the first put of a session", kv.put(as_request(session, 1, 0)).await);
    let second = expect_done("the second put of a session", kv.put(as_request(session, 2, 1)).await);
    let newest = second.header.unwrap_or_default().revision;
    let compact = v1::CompactRequest { header: None, revision: newest };
    expect_done("compacting", kv.compact(bounded(compact, ATTEMPT_MAX)).await);
    let large = raw::put(LARGE_KEY, vec![b'v'; LARGE_BYTES]);
    expect_done("a put of a large value", kv.put(bounded(large, ATTEMPT_MAX)).await);
    let third = expect_done("a put with a large reply", kv.put(bounded(large_reply(session), ATTEMPT_MAX)).await);
    let answered = third.previous.map_or(0, |pair| pair.value.len());
    assert_eq!(answered, LARGE_BYTES, "expected the large value in the reply");
    Known { newest, session, closed }
}

async fn open(kv: &mut KvClient<Channel>) -> u64 {
    let opened = kv.open_session(bounded(v1::OpenSessionRequest { header: None }, ATTEMPT_MAX)).await;
    expect_done("opening a session", opened).session
}

fn expect_done<T>(what: &str, answer: Result<tonic::Response<T>, Status>) -> T {
    answer.unwrap_or_else(|status| panic!("expected {what} to work: {status:?}")).into_inner()
}

fn as_request(session: u64, sequence: u64, acknowledged: u64) -> Request<v1::PutRequest> {
    bounded(within_session(session, sequence, acknowledged), ATTEMPT_MAX)
}

fn within_session(session: u64, sequence: u64, acknowledged: u64) -> v1::PutRequest {
    v1::PutRequest { header: request_id(session, sequence, acknowledged), ..raw::put("k", "v") }
}

/// Replaces the large value and answers with it: more than a session keeps.
fn large_reply(session: u64) -> v1::PutRequest {
    v1::PutRequest { header: request_id(session, 3, 1), previous: true, ..raw::put(LARGE_KEY, "v") }
}

fn request_id(session: u64, sequence: u64, acknowledged: u64) -> Option<v1::RequestHeader> {
    let request_id = Some(v1::RequestId { session, sequence, acknowledged });
    Some(v1::RequestHeader { request_id, ..v1::RequestHeader::default() })
}

fn asks(known: Known) -> Vec<(Case, Ask)> {
    let mut asks = bounds();
    asks.extend(histories(known));
    asks.extend(sessions(known));
    asks.extend(absences());
    asks.extend(malformed_fields());
    asks.extend(malformed_transactions());
    asks
}

fn bounds() -> Vec<(Case, Ask)> {
    let too_many_ops = "a transaction has 129 operations or compares; at most 128 are allowed";
    let many = (0..129).map(|number| put_of(format!("k{number}"))).collect();
    let twice = Case::new("puts a key twice", "DUPLICATE_KEY", r#"a transaction writes one key twice: b"a""#);
    let deletes = Op::Delete(v1::DeleteOp { range: Some(key("a")), previous: false });
    let too_long = "a key has 70000 bytes; at most 65536 are allowed";
    let too_large = "a request of 2000020 bytes is over the limit of 1572864";
    let too_deep = "transactions are nested more than 16 deep";
    let nested = (0..16).fold(v1::Txn::default(), |inner, _| only(vec![Op::Txn(inner)]));
    vec![
        (Case::new("an empty key", "EMPTY_KEY", "a key is empty"), Ask::Put(raw::put("", "v"))),
        (Case::new("a key over", "KEY_TOO_LONG", too_long), Ask::Put(raw::put(vec![b'k'; 70_000], "v"))),
        (Case::new("a transaction over", "TOO_MANY_OPS", too_many_ops), txn(many)),
        (twice, txn(vec![put_of("a".to_owned()), put_of("a".to_owned())])),
        (twice, txn(vec![put_of("a".to_owned()), deletes])),
        (Case::new("over 16 deep", "NESTED_TOO_DEEP", too_deep), txn(vec![Op::Txn(nested)])),
        (Case::new("a request over", "MESSAGE_TOO_LARGE", too_large), Ask::Put(raw::put("k", vec![b'v'; 3 << 19]))),
    ]
}

fn histories(known: Known) -> Vec<(Case, Ask)> {
    let gone = "revision 4 has been compacted; the first readable one is 5";
    let gone = Case::new("read below the floor", "COMPACTED", gone);
    let again = "compacted before: revision 5 is the first readable one already";
    let again = Case::new("read below the floor", "COMPACTED", again);
    let to_come = "revision 1000 is in the future; the newest is 2";
    let to_come = Case::new("above the newest", "FUTURE_REVISION", to_come);
    let read = |revision| Ask::Get(v1::GetRequest { revision, ..raw::get("k") });
    let compact = |revision| Ask::Compact(v1::CompactRequest { header: None, revision });
    vec![
        (gone, read(known.newest.saturating_sub(1))),
        (gone, compact(known.newest.saturating_sub(1))),
        (again, compact(known.newest)),
        (to_come, read(known.newest + 1000)),
        (to_come, compact(known.newest + 1000)),
    ]
}

fn sessions(known: Known) -> Vec<(Case, Ask)> {
    let below = "outcome unknown: the sequence lies below the session's window";
    let ended = "outcome unknown: the session has ended or never existed";
    let ended = Case::new("the session ended", "SESSION_ENDED", ended);
    let forgotten = "outcome unknown: the session no longer has the reply, which was too large";
    let forgotten = Case::new("more than 1 MiB of replies", "REPLY_FORGOTTEN", forgotten);
    let other = "a local read failed: an answer to another question";
    let header = request_id(known.session, 2, 1);
    let delete = v1::DeleteRequest { header, range: Some(key("k")), ..v1::DeleteRequest::default() };
    vec![
        (Case::new("below the session's window", "BELOW_WINDOW", below), Ask::Put(within_session(known.session, 1, 0))),
        (ended, Ask::Put(within_session(known.closed, 1, 0))),
        (ended, Ask::Put(within_session(u64::MAX, 1, 0))),
        (forgotten, Ask::Put(large_reply(known.session))),
        // It was a put.
        (Case::new("an answer to another question", "BROKEN", other), Ask::Delete(delete)),
    ]
}

fn absences() -> Vec<(Case, Ask)> {
    let keeps = "key not found: keeping its value or lease needs one";
    let keeps = Case::new("keeps value or lease", "KEY_NOT_FOUND", keeps);
    let missing = || v1::PutOp { key: "missing".into(), ..v1::PutOp::default() };
    let digest = v1::DigestRequest { keyspace_id: 999, partition: 0, revision: 0 };
    let nowhere = Case::new("an unknown keyspace", "NO_SUCH_KEYSPACE", "no keyspace 'nowhere'");
    let no_replica = "not available: this node holds no replica of …";
    let with_lease = v1::PutRequest { lease: 7, ..raw::put("k", "v") };
    vec![
        (keeps, txn(vec![Op::Put(v1::PutOp { keep_value: true, ..missing() })])),
        (keeps, txn(vec![Op::Put(v1::PutOp { keep_lease: true, ..missing() })])),
        (Case::new("a put with a lease", "LEASE_NOT_FOUND", "lease 7 not found"), Ask::Put(with_lease)),
        (nowhere, Ask::Put(elsewhere("nowhere"))),
        (Case::new("digest of a partition", "UNAVAILABLE", no_replica), Ask::Digest(digest)),
    ]
}

fn malformed_fields() -> Vec<(Case, Ask)> {
    let put = raw::put("k", "v");
    let prefix = v1::KeyRange { key: "k".into(), end: Some(End::Prefix(true)) };
    let absent = v1::Condition { when: Some(When::Absent(true)) };
    let many =
        v1::DeleteRequest { range: Some(prefix.clone()), condition: Some(absent), ..v1::DeleteRequest::default() };
    let epoch = Some(v1::RequestHeader { epoch: Some(1 << 40), ..v1::RequestHeader::default() });
    let continued = v1::ScanRequest { range: Some(prefix), continuation: "?".into(), ..v1::ScanRequest::default() };
    let unconditional = v1::PutRequest { condition: Some(v1::Condition { when: None }), ..put.clone() };
    vec![
        (malformed("request_id: session and sequence start at 1"), Ask::Put(within_session(0, 1, 0))),
        (malformed("request_id: session and sequence start at 1"), Ask::Put(within_session(1, 0, 0))),
        (malformed("range: is missing"), Ask::Delete(v1::DeleteRequest::default())),
        (malformed("range: is missing"), Ask::Scan(v1::ScanRequest::default())),
        (
            malformed("context: is not a token of this keyspace"),
            Ask::Get(v1::GetRequest { context: "?".into(), ..raw::stale_get("k") }),
        ),
        (malformed("condition: names no condition"), Ask::Put(unconditional)),
        (malformed("condition: is only for a single key"), Ask::Delete(many)),
        (malformed("continuation: is not a token of such a scan"), Ask::Scan(continued)),
        (
            malformed("epoch: … is newer than the newest placement's, …"),
            Ask::Put(v1::PutRequest { header: epoch, ..put }),
        ),
    ]
}

fn malformed_transactions() -> Vec<(Case, Ask)> {
    let put = || v1::PutOp { key: "k".into(), ..v1::PutOp::default() };
    let compare = |compare: v1::Compare| {
        let txn = v1::Txn { compares: vec![compare], ..v1::Txn::default() };
        Ask::Txn(v1::TxnRequest { header: None, txn: Some(txn), ..v1::TxnRequest::default() })
    };
    let no_relation = v1::Compare { range: Some(key("k")), ..v1::Compare::default() };
    let no_target = v1::Compare { relation: v1::Relation::Equal.into(), ..no_relation.clone() };
    let no_op = v1::Txn { success: vec![v1::Op { op: None }], ..v1::Txn::default() };
    let stale = Some(v1::Consistency { level: Some(v1::consistency::Level::Stale(v1::Stale {})) });
    let stale_put =
        v1::TxnRequest { txn: Some(only(vec![Op::Put(put())])), consistency: stale, ..v1::TxnRequest::default() };
    vec![
        (malformed("txn: is missing"), Ask::Txn(v1::TxnRequest::default())),
        (
            malformed("op: is none of range, put, delete, txn"),
            Ask::Txn(v1::TxnRequest { header: None, txn: Some(no_op), ..v1::TxnRequest::default() }),
        ),
        (
            malformed("value: must be empty when the present value is kept"),
            txn(vec![Op::Put(v1::PutOp { keep_value: true, value: "v".into(), ..put() })]),
        ),
        (
            malformed("lease: must be 0 when the present lease is kept"),
            txn(vec![Op::Put(v1::PutOp { keep_lease: true, lease: 7, ..put() })]),
        ),
        (malformed("relation: is missing or unknown"), compare(no_relation)),
        (malformed("target: is missing"), compare(no_target)),
        (malformed("consistency: a transaction that may write is linearizable"), Ask::Txn(stale_put)),
    ]
}

fn malformed(message: &'static str) -> Case {
    Case::new("a field that makes no sense", "MALFORMED", message)
}

fn elsewhere(keyspace: &str) -> v1::PutRequest {
    let header = v1::RequestHeader { keyspace: keyspace.to_owned(), ..v1::RequestHeader::default() };
    v1::PutRequest { header: Some(header), ..raw::put("k", "v") }
}

fn key(key: &'static str) -> v1::KeyRange {
    v1::KeyRange { key: key.into(), end: None }
}

fn put_of(key: String) -> Op {
    Op::Put(v1::PutOp { key: key.into(), value: "v".into(), ..v1::PutOp::default() })
}

/// A transaction that carries out these operations in any case.
fn only(ops: Vec<Op>) -> v1::Txn {
    let success = ops.into_iter().map(|op| v1::Op { op: Some(op) }).collect();
    v1::Txn { success, ..v1::Txn::default() }
}

fn txn(ops: Vec<Op>) -> Ask {
    Ask::Txn(v1::TxnRequest { header: None, txn: Some(only(ops)), ..v1::TxnRequest::default() })
}
