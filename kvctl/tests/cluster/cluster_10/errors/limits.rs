//! Bounds that take many requests to reach.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use tonic::Status;
use tonic::transport::Channel;
use trefoil_client::PartitionId;
use trefoil_proto::v1;
use trefoil_proto::v1::cluster_client::ClusterClient;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::op::Op;

use super::failed;
use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::load::fill;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};

const SESSIONS: Case = Case::new(
    "10 000 sessions",
    "TOO_MANY_SESSIONS",
    "the partition has 10000 open sessions, its most; close some or let them end",
);
const KEYS: Case = Case::new(
    "of more than 100 000 keys",
    "TOO_MANY_KEYS",
    "more than 100000 keys would be deleted at once; delete smaller ranges",
);
const ANSWER: Case = Case::new(
    "more than 16 MiB",
    "ANSWER_TOO_LARGE",
    "the answer would have more than 16777216 bytes; ask for less, or scan",
);
const WALKED: Case = Case::new(
    "more than 1 000 000 keys",
    "TOO_MANY_KEYS_READ",
    "more than 1000000 keys would be read by a transaction that writes; read them outside of it, or in pages",
);
const WALKS: Case =
    Case::new("whole-content walks", "EXHAUSTED", "room for digests is exhausted: the limit is 4; try again later");
pub const PROVOKED: [Case; 5] = [SESSIONS, KEYS, ANSWER, WALKED, WALKS];

const SESSIONS_MAX: usize = 10_000;
const SESSIONS_AT_ONCE: usize = 256;
const DELETED_KEYS_MAX: u64 = 100_000;
const WALKED_KEYS_MAX: u64 = 1_000_000;
const WALKS_MAX: usize = 4;
/// So many values of this size are more than one answer may have.
const LARGE: (u64, usize) = (13, 1_400_000);
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reached_bounds() {
    Scenario::begin("cluster_10::errors::limits::reached_bounds");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open(PROVOKED);
    let cluster = Cluster::form(1, &[]).await;
    let client = cluster.client().await;
    let channel = raw::connected(&cluster.nodes[0].client).await;
    let mut kv = KvClient::new(channel.clone());
    ledger.check(WALKS, &first_digest(&channel).await);
    fill(&client, "large/", LARGE.0, LARGE.1, 1).await;
    let read = v1::RangeOp { range: Some(prefix("large/")), ..v1::RangeOp::default() };
    let large = txn(vec![Op::Range(read)]);
    ledger.check(ANSWER, &failed("a large answer", kv.txn(bounded(large, PATIENCE)).await));
    fill(&client, "many/", DELETED_KEYS_MAX + 1, 1, 128).await;
    let delete = v1::DeleteRequest { range: Some(prefix("many/")), ..v1::DeleteRequest::default() };
    ledger.check(KEYS, &failed("a large delete", kv.delete(bounded(delete, PATIENCE)).await));
    let put = Op::Put(v1::PutOp { key: "k".into(), ..v1::PutOp::default() });
    let writing = txn([counts(), vec![put]].concat());
    ledger.check(WALKED, &failed("a long walk", kv.txn(bounded(writing, PATIENCE)).await));
    let reading = kv.txn(bounded(txn(counts()), PATIENCE)).await;
    assert!(reading.is_ok(), "expected a transaction that only reads to walk as far as it has to: {reading:?}");
    open_all_sessions(&kv).await;
    let open = v1::OpenSessionRequest { header: None };
    ledger.check(SESSIONS, &failed("a session too many", kv.open_session(bounded(open, PATIENCE)).await));
    ledger.close();
}

/// Walks over more keys than a transaction that writes may.
fn counts() -> Vec<Op> {
    let count = v1::RangeOp { range: Some(prefix("many/")), count_only: true, ..v1::RangeOp::default() };
    (0..WALKED_KEYS_MAX / DELETED_KEYS_MAX).map(|_| Op::Range(count.clone())).collect()
}

fn txn(ops: Vec<Op>) -> v1::TxnRequest {
    let success = ops.into_iter().map(|op| v1::Op { op: Some(op) }).collect();
    v1::TxnRequest { txn: Some(v1::Txn { success, ..v1::Txn::default() }), ..v1::TxnRequest::default() }
}

fn prefix(key: &'static str) -> v1::KeyRange {
    v1::KeyRange { key: key.into(), end: Some(v1::key_range::End::Prefix(true)) }
}

/// The first answer to one walk more than may run: each waits for a revision that does not come.
async fn first_digest(channel: &Channel) -> Status {
    let PartitionId { keyspace, index } = PartitionId::DEFAULT;
    let ask = v1::DigestRequest { keyspace_id: keyspace.0, partition: index, revision: 1 << 40 };
    let walks = (0..=WALKS_MAX).map(|_| {
        let mut cluster = ClusterClient::new(channel.clone());
        async move { cluster.digest(bounded(ask, PATIENCE)).await }
    });
    let mut waiting: FuturesUnordered<_> = walks.collect();
    failed("a walk too many", waiting.next().await.expect("an answer to one of a few digests"))
}

async fn open_all_sessions(kv: &KvClient<Channel>) {
    let opens = (0..SESSIONS_MAX).map(|_| {
        let mut kv = kv.clone();
        async move { kv.open_session(bounded(v1::OpenSessionRequest { header: None }, PATIENCE)).await.err() }
    });
    let errors: Vec<Option<Status>> = stream::iter(opens).buffer_unordered(SESSIONS_AT_ONCE).collect().await;
    let errors: Vec<Status> = errors.into_iter().flatten().collect();
    assert!(errors.is_empty(), "expected to open {SESSIONS_MAX} sessions; {} failed: {:?}", errors.len(), errors[0]);
}
