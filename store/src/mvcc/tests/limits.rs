//! The bounds of one command: keys it deletes, bytes it answers with, keys it walks over.

use trefoil_causality::Revision;

use super::{STORE, Store, delete, everything, put, put_of, txn_of};
use crate::command::{
    Compare, DeleteOp, KeyRange, Op, RangeEnd, RangeOp, RangeReply, Refusal, Relation, Reply, Target, Txn,
};
use crate::mvcc::{ANSWER_BYTES_MAX, DELETED_KEYS_MAX, compact, execute_within, range};
use crate::overlay::Overlay;

#[test]
fn one_command_deletes_a_bounded_number_of_keys() {
    let mut store = Store::new();
    let keys = DELETED_KEYS_MAX + 1;
    for first in (0..keys).step_by(1000) {
        let puts = (first..keys.min(first + 1000)).map(|number| put_of(format!("{number:08}"), 1)).collect();
        assert!(store.run(&txn_of(puts)).is_ok());
    }
    let before = store.head;
    let delete = Op::Delete(DeleteOp { range: everything(), previous: false });
    let refused = Err(Refusal::TooManyKeys { limit: DELETED_KEYS_MAX });
    assert_eq!(store.run(&delete), refused);
    assert_eq!(store.run(&txn_of(vec![put_of("new".into(), 1), delete.clone()])), refused);
    assert_eq!(store.head, before, "a refused delete leaves everything as it was");
    let one = Op::Delete(DeleteOp { range: KeyRange::single("00000000"), previous: false });
    assert_eq!(store.run(&one), Ok(Reply::Delete { deleted: 1, previous: Vec::new() }));
    assert_eq!(store.run(&delete), Ok(Reply::Delete { deleted: DELETED_KEYS_MAX, previous: Vec::new() }));
}

#[test]
fn one_command_answers_with_a_bounded_number_of_bytes() {
    let mut store = Store::new();
    let (value, fitting) = (1 << 20, ANSWER_BYTES_MAX >> 20);
    for number in 0..fitting {
        assert!(store.run(&put_of(format!("{number:02}"), value)).is_ok());
    }
    let read = Op::Range(RangeOp::all(everything()));
    let deleted = Op::Delete(DeleteOp { range: everything(), previous: true });
    assert!(store.run(&txn_of(vec![read.clone()])).is_ok());
    assert!(store.run(&put_of("more".into(), value)).is_ok());
    let before = store.head;
    let refused = Err(Refusal::AnswerTooLarge { limit: ANSWER_BYTES_MAX as u64 });
    for too_much in [read, deleted] {
        assert_eq!(store.run(&txn_of(vec![put_of("new".into(), 1), too_much])), refused);
        assert_eq!(store.head, before, "a refused answer leaves everything as it was");
    }
    let delete = Op::Delete(DeleteOp { range: everything(), previous: false });
    assert!(store.run(&delete).is_ok());
}

#[test]
fn a_page_ends_with_its_bytes() {
    let mut store = Store::new();
    for number in 0..10 {
        assert!(store.run(&put_of(format!("k{number}"), 100)).is_ok());
    }
    let now = store.head.revision;
    assert!(store.run(&put_of("z".into(), 1)).is_ok());
    for revision in [None, Some(now)] {
        for (bytes_max, keys) in [(0, 0), (1, 1), (134, 1), (135, 2), (10_000, 10)] {
            let range = KeyRange { key: "k".into(), end: RangeEnd::Before("l".into()) };
            let op = RangeOp { revision, count: true, ..RangeOp::all(range) };
            let page = range_of(&store, &op, bytes_max);
            assert_eq!((page.pairs.len(), page.more, page.count), (keys, keys < 10, Some(10)), "{bytes_max} bytes");
        }
    }
}

fn range_of(store: &Store, op: &RangeOp, bytes_max: usize) -> RangeReply {
    let found = range(&store.engine, STORE, &store.head, op, bytes_max).expect("memory does not fail");
    found.expect("a readable revision")
}

/// How far `op` walks: the smallest budget that is enough for it. Nothing of it stays.
pub(super) fn walked(store: &Store, op: &Op) -> u64 {
    let is_enough = |max: &u64| {
        let (mut view, mut head) = (Overlay::new(&store.engine), store.head);
        let result = execute_within(&mut view, STORE, &mut head, op, *max).expect("memory does not fail");
        result != Err(Refusal::TooManyKeysRead { limit: *max })
    };
    (0..).find(is_enough).expect("some budget is enough")
}

/// Under a compare of the versions of all keys.
fn when(relation: Relation, success: Vec<Op>, failure: Vec<Op>) -> Op {
    let compare = Compare { range: everything(), relation, target: Target::Version(0) };
    Op::Txn(Txn { compares: vec![compare], success, failure })
}

#[test]
fn ranges_and_compares_share_one_budget_of_keys() {
    let mut store = Store::new();
    for number in 0..10 {
        assert!(store.run(&put_of(format!("k{number}"), 1)).is_ok());
    }
    let all = || RangeOp::all(everything());
    let count = || Op::Range(RangeOp { count_only: true, ..all() });
    let get = |key: &'static str| Op::Range(RangeOp::all(KeyRange::single(key)));
    let new = || put_of("new".into(), 1);
    let delete = Op::Delete(DeleteOp { range: everything(), previous: false });
    let (holds, fails) = (Relation::Greater, Relation::Equal);
    for (op, keys) in [
        (Op::Range(all()), 10u64),
        (Op::Range(RangeOp { descending: true, ..all() }), 10),
        // One more, to know that there is more.
        (Op::Range(RangeOp { limit: Some(3), ..all() }), 4),
        (Op::Range(RangeOp { limit: Some(3), count: true, ..all() }), 10),
        (count(), 10),
        (get("k1"), 1),
        (get("missing"), 0),
        (new(), 0),
        // It sees its own writes.
        (txn_of(vec![new(), count(), count()]), 22),
        (txn_of(vec![delete, count()]), 0),
        (when(holds, vec![new()], vec![count()]), 10),
        (when(holds, vec![new(), count()], vec![]), 21),
        // The first key fails it.
        (when(fails, vec![count()], vec![new()]), 1),
        (when(holds, vec![when(holds, vec![new()], vec![])], vec![]), 20),
    ] {
        assert_eq!(walked(&store, &op), keys, "{op:?}");
        let Some(limit) = keys.checked_sub(1) else { continue };
        assert_eq!(store.run_within(&op, limit), Err(Refusal::TooManyKeysRead { limit }), "{op:?}");
    }
}

#[test]
fn in_the_past_changes_count_but_not_what_is_left_below_the_floor() {
    let mut store = Store::new();
    for op in [put("a", "1"), put("b", "1"), put("a", "2"), delete("b"), put("c", "1")] {
        assert!(store.run(&op).is_ok());
    }
    for (floor, reads) in [(None, [(2, 5), (5, 5)]), (Some(3), [(3, 5), (5, 3)]), (Some(5), [(5, 2), (6, 2)])] {
        if let Some(floor) = floor {
            assert_eq!(compact(&mut store.head, Revision(floor)), Ok(()));
        }
        for scrubbed in [false, true] {
            for ((revision, changes), descending) in reads.into_iter().flat_map(|read| [(read, false), (read, true)]) {
                let revision = Some(Revision(revision));
                let op = Op::Range(RangeOp { revision, descending, ..RangeOp::all(everything()) });
                assert_eq!(walked(&store, &op), changes, "floor {floor:?}, scrubbed {scrubbed}: {op:?}");
            }
            store.scrub(2);
        }
    }
}
