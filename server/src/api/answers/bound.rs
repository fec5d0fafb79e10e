//! The most that an operation may be answered with: what room is reserved for before it is carried out.
//!
//! Known is only the operation and the largest pair that can be put. So a range without a limit counts as the most that
//! one command answers with at all ([`mvcc::ANSWER_BYTES_MAX`] and one pair).
//!
//! Left out: the answer's fields beside its pairs, which are small.

use trefoil_store::command::{KeyRange, Op, RangeEnd};
use trefoil_store::mvcc;

/// The most bytes that `op` may be answered with, when no pair has more than `pair_max`; 0 when that is little in any
/// case. Of a transaction one branch is carried out.
pub fn answer_bytes_max(op: &Op, pair_max: usize) -> usize {
    pairs_bytes_max(op, pair_max).min(mvcc::ANSWER_BYTES_MAX.saturating_add(pair_max))
}

fn pairs_bytes_max(op: &Op, pair_max: usize) -> usize {
    let branch = |ops: &[Op]| ops.iter().fold(0_usize, |sum, op| sum.saturating_add(pairs_bytes_max(op, pair_max)));
    match op {
        Op::Range(op) if op.count_only => 0,
        Op::Range(op) => pairs_max(&op.range, op.limit).saturating_mul(pair_max),
        Op::Put(op) if op.previous => pair_max,
        Op::Delete(op) if op.previous => pairs_max(&op.range, None).saturating_mul(pair_max),
        Op::Put(_) | Op::Delete(_) => 0,
        Op::Txn(txn) => branch(&txn.success).max(branch(&txn.failure)),
    }
}

fn pairs_max(range: &KeyRange, limit: Option<u64>) -> usize {
    match range.end {
        RangeEnd::Single => 1,
        RangeEnd::Before(_) | RangeEnd::Last => limit.map_or(usize::MAX, |limit| limit as usize),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trefoil_store::command::{DeleteOp, PutOp, RangeOp, Txn};

    use super::*;

    const PAIR: usize = 1000;
    const MOST: usize = mvcc::ANSWER_BYTES_MAX + PAIR;

    fn range(end: RangeEnd) -> RangeOp {
        RangeOp::all(KeyRange { key: "a".into(), end })
    }

    fn get() -> Op {
        Op::Range(range(RangeEnd::Single))
    }

    fn put(previous: bool) -> Op {
        Op::Put(PutOp { key: "a".into(), value: Some(Bytes::new()), lease: Some(0), previous })
    }

    fn delete(end: RangeEnd, previous: bool) -> Op {
        Op::Delete(DeleteOp { range: KeyRange { key: "a".into(), end }, previous })
    }

    fn either(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Txn { compares: Vec::new(), success, failure })
    }

    #[test]
    fn what_an_operation_may_be_answered_with() {
        let limited = |limit| Op::Range(RangeOp { limit: Some(limit), ..range(RangeEnd::Last) });
        for (op, expected) in [
            (get(), PAIR),
            (limited(3), 3 * PAIR),
            (limited(u64::MAX), MOST),
            (Op::Range(range(RangeEnd::Before("b".into()))), MOST),
            (Op::Range(RangeOp { count_only: true, ..range(RangeEnd::Last) }), 0),
            (put(false), 0),
            (put(true), PAIR),
            (delete(RangeEnd::Last, false), 0),
            (delete(RangeEnd::Single, true), PAIR),
            (delete(RangeEnd::Last, true), MOST),
            (either(vec![put(false)], vec![]), 0),
            (either(vec![get(), put(true)], vec![get()]), 2 * PAIR),
            (either(vec![], vec![get(), put(false), either(vec![get()], vec![get(), get()])]), 3 * PAIR),
            (either(vec![limited(u64::MAX), limited(u64::MAX)], vec![]), MOST),
        ] {
            assert_eq!(answer_bytes_max(&op, PAIR), expected, "{op:?}");
        }
    }
}
