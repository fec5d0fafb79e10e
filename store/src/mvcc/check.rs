//! What a request must satisfy before it is proposed: checks that need no state.
//!
//! The rules, quirks included, are etcd's: the depth of the budget for nested transactions, and which writes of one
//! branch may meet on a key. A command that passes can still be refused by the state; one that fails never reaches
//! the log. Replicas do not depend on these checks: [`super::execute`] is well defined for any operation.
//!
//! Left out: the size of the whole request, which the server bounds, and the length of keys that are only read: no
//! key that long exists, and paging goes on from "the last key and a zero byte".

use std::collections::BTreeSet;

use bytes::Bytes;

use super::cover::Cover;
use crate::command::{KeyRange, Op, PutOp, RangeEnd, RangeOp, TXN_DEPTH_MAX, Txn};

/// What the server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub key_bytes_max: usize,
    pub txn_ops_max: usize,
}

/// Why a request is not proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("a key is empty")]
    EmptyKey,
    #[error("a key has {actual} bytes; at most {limit} are allowed")]
    KeyTooLong { actual: usize, limit: usize },
    /// `actual` counts those of the transactions around it, too.
    #[error("a transaction has {actual} operations or compares; at most {limit} are allowed")]
    TooManyOps { actual: usize, limit: usize },
    #[error("a transaction writes one key twice: {key:?}")]
    DuplicateKey { key: Bytes },
    #[error("transactions are nested more than {limit} deep")]
    NestedTooDeep { limit: usize },
}

/// Whether `op` may be proposed.
pub fn check(op: &Op, limits: &Limits) -> Result<(), Invalid> {
    check_op(op, limits, 0, 1)?;
    if let Op::Txn(txn) = op {
        Touched::by(&txn.success)?;
        Touched::by(&txn.failure)?;
    }
    Ok(())
}

/// `ops_around` is what the transactions around `op` take of the budget; `depth` counts from 1.
fn check_op(op: &Op, limits: &Limits, ops_around: usize, depth: usize) -> Result<(), Invalid> {
    match op {
        Op::Range(range) => check_range(range),
        Op::Put(put) => check_put(put, limits),
        Op::Delete(delete) => check_key(&delete.range.key),
        Op::Txn(txn) => check_txn(txn, limits, ops_around, depth),
    }
}

/// Whether `op` may be asked.
pub fn check_range(op: &RangeOp) -> Result<(), Invalid> {
    check_key(&op.range.key)
}

fn check_key(key: &Bytes) -> Result<(), Invalid> {
    if key.is_empty() { Err(Invalid::EmptyKey) } else { Ok(()) }
}

fn check_put(put: &PutOp, limits: &Limits) -> Result<(), Invalid> {
    check_key(&put.key)?;
    let (actual, limit) = (put.key.len(), limits.key_bytes_max);
    if actual > limit { Err(Invalid::KeyTooLong { actual, limit }) } else { Ok(()) }
}

fn check_txn(txn: &Txn, limits: &Limits, ops_around: usize, depth: usize) -> Result<(), Invalid> {
    if depth > TXN_DEPTH_MAX {
        return Err(Invalid::NestedTooDeep { limit: TXN_DEPTH_MAX });
    }
    let own = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    let (actual, limit) = (ops_around + own, limits.txn_ops_max);
    if actual > limit {
        return Err(Invalid::TooManyOps { actual, limit });
    }
    for compare in &txn.compares {
        check_key(&compare.range.key)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        check_op(op, limits, actual, depth + 1)?;
    }
    Ok(())
}

/// The keys the operations of one branch write.
#[derive(Debug, Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    deletes: Cover,
}

impl Touched {
    /// What `ops` write, unless a put meets another put or a delete.
    ///
    /// The order of the passes is part of the rule: a put meets every delete of its own branch, but a put of a nested
    /// transaction does not meet the deletes of nested ones after it.
    fn by(ops: &[Op]) -> Result<Touched, Invalid> {
        let mut touched = Touched::default();
        for op in ops {
            if let Op::Delete(delete) = op {
                touched.delete(&delete.range);
            }
        }
        for op in ops {
            if let Op::Txn(txn) = op {
                touched.nested(txn)?;
            }
        }
        for op in ops {
            if let Op::Put(put) = op {
                touched.put(&put.key)?;
            }
        }
        Ok(touched)
    }

    fn delete(&mut self, range: &KeyRange) {
        match &range.end {
            RangeEnd::Single | RangeEnd::Before(_) => self.deletes.add(range.key.clone(), range.upper()),
            // etcd takes the "\0" that stands for "no end" as an ordinary key here, so that such a delete meets no put.
            RangeEnd::Last => {}
        }
    }

    fn nested(&mut self, txn: &Txn) -> Result<(), Invalid> {
        let (success, failure) = (Touched::by(&txn.success)?, Touched::by(&txn.failure)?);
        // Only one of the branches runs: a key that both put counts once.
        for key in success.puts.union(&failure.puts) {
            self.put(key)?;
        }
        self.deletes.absorb(success.deletes);
        self.deletes.absorb(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &Bytes) -> Result<(), Invalid> {
        if self.deletes.contains(key) || !self.puts.insert(key.clone()) {
            return Err(Invalid::DuplicateKey { key: key.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Compare, DeleteOp, Relation, Target};

    const LIMITS: Limits = Limits { key_bytes_max: 8, txn_ops_max: 4 };

    fn put(key: &'static str) -> Op {
        Op::Put(PutOp { key: key.into(), value: Some(Bytes::new()), lease: Some(0), previous: false })
    }

    fn delete(key: &'static str, end: RangeEnd) -> Op {
        Op::Delete(DeleteOp { range: KeyRange { key: key.into(), end }, previous: false })
    }

    fn get(key: &'static str) -> Op {
        Op::Range(RangeOp::all(KeyRange::single(key)))
    }

    fn either(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Txn { compares: Vec::new(), success, failure })
    }

    fn txn(success: Vec<Op>) -> Op {
        either(success, Vec::new())
    }

    fn checked(op: &Op) -> Result<(), Invalid> {
        check(op, &LIMITS)
    }

    #[test]
    fn keys() {
        let limit = 8;
        for (op, expected) in [
            (get(""), Err(Invalid::EmptyKey)),
            (put(""), Err(Invalid::EmptyKey)),
            (delete("", RangeEnd::Last), Err(Invalid::EmptyKey)),
            (txn(vec![get("a"), put("")]), Err(Invalid::EmptyKey)),
            (either(vec![], vec![txn(vec![get("")])]), Err(Invalid::EmptyKey)),
            (put("12345678"), Ok(())),
            (put("123456789"), Err(Invalid::KeyTooLong { actual: 9, limit })),
            (txn(vec![put("123456789")]), Err(Invalid::KeyTooLong { actual: 9, limit })),
            (get("123456789"), Ok(())),
        ] {
            assert_eq!(checked(&op), expected, "{op:?}");
        }
    }

    #[test]
    fn an_empty_compare_key_is_refused() {
        let compare = Compare { range: KeyRange::single(""), relation: Relation::Equal, target: Target::Version(0) };
        let txn = Txn { compares: vec![compare], ..Txn::default() };
        assert_eq!(checked(&Op::Txn(txn)), Err(Invalid::EmptyKey));
    }

    #[test]
    fn nested_transactions_share_the_budget() {
        let gets = |count| vec![get("a"); count];
        let with = |mut ops: Vec<Op>, op| {
            ops.push(op);
            txn(ops)
        };
        for (op, expected) in [
            (txn(gets(4)), Ok(())),
            (txn(gets(5)), Err(Invalid::TooManyOps { actual: 5, limit: 4 })),
            (either(gets(4), gets(4)), Ok(())),
            (either(vec![], gets(5)), Err(Invalid::TooManyOps { actual: 5, limit: 4 })),
            (with(gets(1), txn(gets(2))), Ok(())),
            (with(gets(1), txn(gets(3))), Err(Invalid::TooManyOps { actual: 5, limit: 4 })),
        ] {
            assert_eq!(checked(&op), expected, "{op:?}");
        }
    }

    #[test]
    fn nesting_ends_somewhere() {
        let limits = Limits { txn_ops_max: 1000, ..LIMITS };
        let nested = |levels| (0..levels).fold(get("a"), |op, _| txn(vec![op]));
        assert_eq!(check(&nested(TXN_DEPTH_MAX), &limits), Ok(()));
        let too_deep = Err(Invalid::NestedTooDeep { limit: TXN_DEPTH_MAX });
        assert_eq!(check(&nested(TXN_DEPTH_MAX + 1), &limits), too_deep);
    }

    #[test]
    fn writes_that_meet() {
        let before = |end: &'static str| RangeEnd::Before(end.into());
        let a_twice: Result<(), Invalid> = Err(Invalid::DuplicateKey { key: "a".into() });
        for (op, expected) in [
            (txn(vec![put("a"), put("b")]), Ok(())),
            (txn(vec![put("a"), put("a")]), a_twice.clone()),
            (either(vec![put("a")], vec![put("a")]), Ok(())),
            (either(vec![], vec![put("a"), put("a")]), a_twice.clone()),
            (txn(vec![put("a"), delete("a", RangeEnd::Single)]), a_twice.clone()),
            (txn(vec![delete("A", before("b")), put("a")]), a_twice.clone()),
            (txn(vec![delete("A", before("a")), put("a")]), Ok(())),
            (txn(vec![delete("A", RangeEnd::Last), put("a")]), Ok(())),
            (txn(vec![delete("a", RangeEnd::Single), delete("a", before("b"))]), Ok(())),
            (txn(vec![get("a"), put("a"), get("a")]), Ok(())),
            // Nested writes count against siblings, but the two branches of one nested transaction may share keys.
            (txn(vec![txn(vec![put("a")]), put("a")]), a_twice.clone()),
            (txn(vec![txn(vec![put("a")]), txn(vec![put("a")])]), a_twice.clone()),
            (txn(vec![either(vec![put("a")], vec![put("a")])]), Ok(())),
            (txn(vec![either(vec![put("a")], vec![delete("a", RangeEnd::Single)])]), Ok(())),
            (txn(vec![txn(vec![put("a")]), delete("a", RangeEnd::Single)]), a_twice.clone()),
            // A nested delete meets the puts of later siblings only.
            (txn(vec![txn(vec![delete("a", RangeEnd::Single)]), txn(vec![put("a")])]), a_twice.clone()),
            (txn(vec![txn(vec![put("a")]), txn(vec![delete("a", RangeEnd::Single)])]), Ok(())),
            (txn(vec![put("a"), txn(vec![delete("a", RangeEnd::Single)])]), a_twice.clone()),
        ] {
            assert_eq!(checked(&op), expected, "{op:?}");
        }
    }
}
