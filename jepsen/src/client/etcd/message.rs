//! Requests of workloads as etcd's messages, and its replies in the words of workloads.
//!
//! etcd's numbers are signed, and none is below 0: one that is, is shown as one that nobody has.

use bytes::Bytes;
use trefoil_client::{NodeId, NodeStatus, ReplicaId, ReplicaStatus, Revision};
use trefoil_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use trefoil_proto::etcd::etcdserverpb::request_op::Request;
use trefoil_proto::etcd::etcdserverpb::response_op::Response;
use trefoil_proto::etcd::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, StatusResponse,
    TxnRequest, TxnResponse,
};
use trefoil_proto::etcd::mvccpb::KeyValue;

use crate::client::{Change, Guard, Holds, Pair, Reading, untold};

/// What a member says of itself when it knows no leader.
const NO_LEADER: &str = "etcdserver: no leader";

/// Reads one key: a range without an end.
pub(super) fn range(key: String) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

/// Reads all keys as they stood at a revision, of the member that is asked. One byte 0 is the first key there can be, and
/// as an end it stands for all keys behind. One that etcd's numbers do not reach is that of no store.
pub(super) fn all_at(revision: u64) -> RangeRequest {
    let first = Bytes::from_static(&[0]);
    RangeRequest {
        key: first.clone(),
        range_end: first,
        revision: i64::try_from(revision).unwrap_or(i64::MAX),
        serializable: true,
        ..RangeRequest::default()
    }
}

/// Reads keys together: etcd carries out a transaction of reads as a read.
pub(super) fn ranges(keys: Vec<String>) -> TxnRequest {
    let success = keys.into_iter().map(|key| op(Request::RequestRange(range(key)))).collect();
    TxnRequest { success, ..TxnRequest::default() }
}

pub(super) fn put(key: String, text: String) -> PutRequest {
    PutRequest { key: key.into(), value: text.into(), ..PutRequest::default() }
}

pub(super) fn txn(Change { guards, puts }: Change) -> TxnRequest {
    TxnRequest {
        compare: guards.into_iter().map(compare).collect(),
        success: puts.into_iter().map(|(key, text)| op(Request::RequestPut(put(key, text)))).collect(),
        failure: Vec::new(),
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn compare(Guard { key, holds }: Guard) -> Compare {
    let (target, union) = match holds {
        Holds::Absent => (CompareTarget::Version, TargetUnion::Version(0)),
        // A revision beyond etcd's is that of no key.
        Holds::Revision(revision) => {
            (CompareTarget::Mod, TargetUnion::ModRevision(i64::try_from(revision).unwrap_or(i64::MAX)))
        }
        Holds::Text(text) => (CompareTarget::Value, TargetUnion::Value(text.into())),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

pub(super) fn got(reply: RangeResponse) -> Reading {
    Reading { pairs: vec![reply.kvs.first().map(pair)], at: revision(reply.header) }
}

pub(super) fn got_all(reply: TxnResponse) -> Reading {
    Reading { pairs: reply.responses.iter().map(found).collect(), at: revision(reply.header) }
}

/// The pairs of a range in the words of Trefoil.
pub(super) fn got_pairs(reply: RangeResponse) -> Vec<trefoil_client::KeyValue> {
    let pair = |found: KeyValue| trefoil_client::KeyValue {
        create_revision: Revision(unsigned(found.create_revision)),
        mod_revision: Revision(unsigned(found.mod_revision)),
        version: unsigned(found.version),
        lease: unsigned(found.lease),
        key: found.key,
        value: found.value,
    };
    reply.kvs.into_iter().map(pair).collect()
}

/// The store's revision after a request; 0 when nothing was said.
pub(super) fn revision(header: Option<ResponseHeader>) -> u64 {
    header.map_or(0, |header| unsigned(header.revision))
}

fn found(reply: &ResponseOp) -> Option<Pair> {
    match &reply.response {
        Some(Response::ResponseRange(range)) => range.kvs.first().map(pair),
        Some(Response::ResponsePut(_) | Response::ResponseDeleteRange(_) | Response::ResponseTxn(_)) | None => None,
    }
}

fn pair(found: &KeyValue) -> Pair {
    let text = String::from_utf8_lossy(&found.value).into_owned();
    Pair { text, revision: unsigned(found.mod_revision), version: unsigned(found.version) }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// How a member is, as a node of Trefoil would say it: the store is its replica of the default partition, and what etcd
/// does not tell is 0. `sum`: of what it holds.
pub(super) fn status(reply: StatusResponse, sum: u32) -> NodeStatus {
    let header = reply.header.unwrap_or_default();
    let member = header.member_id;
    let replica = ReplicaStatus {
        leader: (reply.leader != 0).then_some((ReplicaId(reply.leader), NodeId(reply.leader))),
        term: reply.raft_term,
        last_log_index: reply.raft_index,
        committed_index: reply.raft_index,
        applied_index: reply.raft_applied_index,
        revision: Revision(unsigned(header.revision)),
        content_sum: u64::from(sum),
        ..untold::replica(member)
    };
    let (waits, alarms): (Vec<String>, Vec<String>) = reply.errors.into_iter().partition(|error| error == NO_LEADER);
    NodeStatus {
        cluster_id: Bytes::copy_from_slice(&header.cluster_id.to_be_bytes()),
        version: reply.version,
        ready: waits.is_empty() && reply.leader != 0,
        waiting_for: waits.join("; "),
        replicas: vec![replica],
        alarms,
        ..untold::node(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_proto::etcd::etcdserverpb::PutResponse;

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: 0x1f, member_id: 7, revision, raft_term: 3 })
    }

    fn held(value: &'static [u8]) -> KeyValue {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(value));
        KeyValue { key, create_revision: 2, mod_revision: 9, version: 4, value, lease: 0 }
    }

    #[test]
    fn a_guard_is_a_compare_for_equality() {
        let cases = [
            (Holds::Absent, CompareTarget::Version, TargetUnion::Version(0)),
            (Holds::Revision(9), CompareTarget::Mod, TargetUnion::ModRevision(9)),
            (Holds::Revision(u64::MAX), CompareTarget::Mod, TargetUnion::ModRevision(i64::MAX)),
            (Holds::Text("1 2".into()), CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"1 2"))),
        ];
        for (holds, target, union) in cases {
            let compare = compare(Guard { key: "k".into(), holds });
            assert_eq!((compare.result(), compare.target()), (CompareResult::Equal, target));
            assert_eq!((&compare.key[..], compare.target_union), (&b"k"[..], Some(union)));
            assert!(compare.range_end.is_empty());
        }
    }

    #[test]
    fn a_change_is_a_transaction_that_else_does_nothing() {
        let guards = vec![Guard { key: "a".into(), holds: Holds::Absent }];
        let txn = txn(Change { guards, puts: vec![("a".into(), "x".into()), ("b".into(), "y".into())] });
        assert_eq!((txn.compare.len(), txn.failure.len()), (1, 0));
        let puts = [("a", "x"), ("b", "y")].map(|(key, text)| op(Request::RequestPut(put(key.into(), text.into()))));
        assert_eq!(txn.success, puts);
        let put = put("a".into(), "x".into());
        assert_eq!((put.lease, put.prev_kv, put.ignore_value, put.ignore_lease), (0, false, false, false));
    }

    #[test]
    fn reads_are_linearizable_and_of_now() {
        let txn = ranges(vec!["a".into(), "b".into()]);
        assert!(txn.compare.is_empty() && txn.failure.is_empty());
        let ranges = ["a", "b"].map(|key| op(Request::RequestRange(range(key.into()))));
        assert_eq!(txn.success, ranges);
        let range = range("a".into());
        assert_eq!((range.serializable, range.revision, range.limit, range.range_end.len()), (false, 0, 0, 0));
    }

    #[test]
    fn a_replica_is_read_whole_and_without_asking_the_others() {
        let all = all_at(9);
        assert_eq!((&all.key[..], &all.range_end[..]), (&b"\0"[..], &b"\0"[..]));
        assert_eq!((all.revision, all.serializable, all.limit, all.keys_only), (9, true, 0, false));
        let reply = RangeResponse { header: header(12), kvs: vec![held(b"5")], more: false, count: 1 };
        let pairs = got_pairs(reply);
        assert_eq!((pairs.len(), &pairs[0].key[..], &pairs[0].value[..]), (1, &b"k"[..], &b"5"[..]));
        let numbers = (pairs[0].create_revision, pairs[0].mod_revision, pairs[0].version, pairs[0].lease);
        assert_eq!(numbers, (Revision(2), Revision(9), 4, 0));
    }

    #[test]
    fn replies_are_read() {
        let pair = |text: &str| Some(Pair { text: text.into(), revision: 9, version: 4 });
        let range =
            |kvs: Vec<KeyValue>| RangeResponse { header: header(12), count: kvs.len() as i64, kvs, more: false };
        assert_eq!(got(range(vec![held(b"5")])), Reading { pairs: vec![pair("5")], at: 12 });
        assert_eq!(got(range(Vec::new())), Reading { pairs: vec![None], at: 12 });
        let of = |response| ResponseOp { response };
        let responses = vec![
            of(Some(Response::ResponseRange(range(vec![held(b"\xff")])))),
            of(Some(Response::ResponseRange(range(Vec::new())))),
            of(Some(Response::ResponsePut(PutResponse::default()))),
            of(None),
        ];
        let reply = TxnResponse { header: header(12), succeeded: true, responses };
        assert_eq!(got_all(reply), Reading { pairs: vec![pair("\u{fffd}"), None, None, None], at: 12 });
        assert_eq!([revision(header(12)), revision(header(-1)), revision(None)], [12, u64::MAX, 0]);
    }

    #[test]
    fn a_member_says_how_it_is() {
        let reply = |leader, errors: &[&str]| StatusResponse {
            header: header(12),
            version: "3.5.1".into(),
            leader,
            raft_term: 3,
            raft_index: 20,
            raft_applied_index: 19,
            errors: errors.iter().map(|error| (*error).to_owned()).collect(),
            ..StatusResponse::default()
        };
        let led = status(reply(7, &[]), 0xabc);
        assert!(led.ready && led.alarms.is_empty() && led.node == NodeId(7));
        assert_eq!(led.replicas[0].content_sum, 0xabc);
        assert_eq!(led.replicas[0].leader, Some((led.replicas[0].replica, NodeId(7))));
        assert_eq!((led.replicas[0].term, led.replicas[0].applied_index, led.replicas[0].revision.0), (3, 19, 12));
        let alone = status(reply(0, &[NO_LEADER, "memberID:7 alarm:NOSPACE "]), 0);
        assert_eq!((alone.ready, alone.replicas[0].leader), (false, None));
        assert_eq!((alone.waiting_for.as_str(), alone.alarms.len()), (NO_LEADER, 1));
    }
}
