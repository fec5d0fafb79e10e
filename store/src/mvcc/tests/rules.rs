//! The rules of transactions: one revision, all or nothing, compares before steps.

use bytes::Bytes;
use trefoil_causality::Revision;

use super::{Store, delete, keep, put, txn};
use crate::command::{Compare, KeyRange, Op, PutOp, RangeOp, Refusal, Relation, Reply, Target, Txn};
use crate::mvcc::compact;

#[test]
fn a_transaction_is_one_revision() {
    let mut store = Store::new();
    for (op, revision) in [
        (put("a", "1"), 2),
        (delete("missing"), 2),
        (txn(vec![]), 2),
        (txn(vec![delete("missing")]), 2),
        (put("a", "1"), 3),
        (txn(vec![put("b", "1"), delete("a"), txn(vec![put("c", "1")])]), 4),
        (delete("a"), 4),
    ] {
        assert!(store.run(&op).is_ok());
        assert_eq!(store.head.revision, Revision(revision), "{op:?}");
    }
    let last: Vec<(u64, u32, Bytes)> =
        store.history().0.into_iter().skip(2).map(|(id, key, _)| (id.revision.0, id.sub, key)).collect();
    let expected: [(u64, u32, Bytes); 3] = [(4, 0, "b".into()), (4, 1, "a".into()), (4, 2, "c".into())];
    assert_eq!(last, expected);
}

#[test]
fn a_refused_transaction_writes_nothing() {
    let read = |revision| {
        let all = RangeOp::all(KeyRange::single("a"));
        Op::Range(RangeOp { revision: Some(Revision(revision)), ..all })
    };
    let lease = Op::Put(PutOp { key: "z".into(), value: None, lease: Some(7), previous: false });
    let mut store = Store::new();
    assert!(store.run(&put("a", "1")).is_ok());
    assert!(store.run(&put("a", "2")).is_ok());
    assert_eq!(compact(&mut store.head, Revision(3)), Ok(()));
    for (op, refusal) in [
        (txn(vec![put("b", "1"), keep("c")]), Refusal::KeyNotFound),
        (txn(vec![put("b", "1"), keep("b")]), Refusal::KeyNotFound),
        (txn(vec![delete("a"), keep("a")]), Refusal::KeyNotFound),
        (txn(vec![put("b", "1"), read(4)]), Refusal::FutureRevision { asked: 4, newest: 3 }),
        (txn(vec![put("b", "1"), read(2)]), Refusal::Compacted { asked: 2, floor: 3 }),
        (txn(vec![read(4), keep("c")]), Refusal::KeyNotFound),
        (txn(vec![lease.clone()]), Refusal::KeyNotFound),
        (lease, Refusal::LeaseNotFound { lease: 7 }),
    ] {
        assert_eq!(store.run(&op), Err(refusal), "{op:?}");
    }
    assert!(store.run(&txn(vec![delete("a"), put("a", "3"), keep("a")])).is_ok());
}

#[test]
fn compares_see_the_state_before_all_steps() {
    let exists = Compare { range: KeyRange::single("a"), relation: Relation::Greater, target: Target::Version(0) };
    let nested = Op::Txn(Txn { compares: vec![exists], success: vec![], failure: vec![put("b", "1")] });
    let mut store = Store::new();
    let failed = Reply::Txn { succeeded: false, replies: vec![Reply::Put { previous: None }] };
    let replies = vec![Reply::Put { previous: None }, failed];
    assert_eq!(store.run(&txn(vec![put("a", "1"), nested])), Ok(Reply::Txn { succeeded: true, replies }));
}
