//! Transactions as values: compares, two lists of operations, and what came of them.
//!
//! Building one asks nobody; `Client::txn` and `Session::txn` carry it out.

use bytes::Bytes;
use trefoil_causality::Revision;

use crate::pair::KeyValue;
use crate::range::KeyRange;

/// If all compares hold, the first list is carried out, else the second; all of it as one change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

impl Txn {
    /// Compares nothing and does nothing.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds a compare.
    pub fn when(mut self, compare: Compare) -> Txn {
        self.compares.push(compare);
        self
    }

    /// Adds an operation for when all compares hold.
    pub fn then(mut self, op: Op) -> Txn {
        self.success.push(op);
        self
    }

    /// Adds an operation for when one does not.
    pub fn otherwise(mut self, op: Op) -> Txn {
        self.failure.push(op);
        self
    }

    /// Whether neither branch changes anything.
    pub fn only_reads(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::Delete(_) => false,
            Op::Txn(inner) => inner.only_reads(),
        })
    }
}

/// Holds when every key of the range satisfies it. A missing key has version, revisions and lease 0 and no value: a
/// comparison with its value never holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub range: KeyRange,
    pub relation: Relation,
    pub target: Target,
}

/// How the two sides of a [`Compare`] must stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// Which property of the keys is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Version(u64),
    CreateRevision(Revision),
    ModRevision(Revision),
    Value(Bytes),
    Lease(u64),
}

impl Compare {
    /// Compares a property of one key.
    pub fn key(key: impl Into<Bytes>, relation: Relation, target: Target) -> Compare {
        Compare::range(KeyRange::key(key), relation, target)
    }

    /// Compares a property of every key of a range.
    pub fn range(range: KeyRange, relation: Relation, target: Target) -> Compare {
        Compare { range, relation, target }
    }

    /// The key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Compare {
        Compare::key(key, Relation::Equal, Target::Version(0))
    }

    /// The key exists.
    pub fn exists(key: impl Into<Bytes>) -> Compare {
        Compare::key(key, Relation::Greater, Target::Version(0))
    }

    /// The key's newest put is the one at `revision`.
    pub fn unchanged_since(key: impl Into<Bytes>, revision: Revision) -> Compare {
        Compare::key(key, Relation::Equal, Target::ModRevision(revision))
    }

    /// The key has this value.
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Compare {
        Compare::key(key, Relation::Equal, Target::Value(value.into()))
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Range(RangeOp),
    Put(PutOp),
    Delete(DeleteOp),
    Txn(Txn),
}

impl Op {
    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Op {
        Op::range(KeyRange::key(key))
    }

    /// Reads a range.
    pub fn range(range: KeyRange) -> Op {
        Op::Range(RangeOp::new(range))
    }

    /// Writes one key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::Put(PutOp::new(key, value))
    }

    /// Removes one key.
    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op::delete_range(KeyRange::key(key))
    }

    /// Removes a range.
    pub fn delete_range(range: KeyRange) -> Op {
        Op::Delete(DeleteOp { range, previous: false })
    }
}

/// Reads keys within a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOp {
    pub range: KeyRange,
    /// At most this many pairs; 0 for all.
    pub limit: u64,
    /// The state at this revision; absent for what the transaction sees.
    pub revision: Option<Revision>,
    /// From the last key to the first.
    pub reverse: bool,
    pub keys_only: bool,
    /// Only count: no pairs.
    pub count_only: bool,
    /// Also count all keys of the range, whatever the limit; costs a walk over them.
    pub count: bool,
}

impl RangeOp {
    /// All keys of `range` with their values.
    pub fn new(range: KeyRange) -> RangeOp {
        RangeOp { range, limit: 0, revision: None, reverse: false, keys_only: false, count_only: false, count: false }
    }
}

/// Writes one key within a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOp {
    pub key: Bytes,
    /// Absent: keep the present value; the key must exist.
    pub value: Option<Bytes>,
    /// Absent: keep the present lease; the key must exist. 0 for none.
    pub lease: Option<u64>,
    /// Answer with the pair as it was before.
    pub previous: bool,
}

impl PutOp {
    /// Writes `value`, without a lease.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutOp {
        PutOp { key: key.into(), value: Some(value.into()), lease: Some(0), previous: false }
    }
}

/// Removes keys within a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOp {
    pub range: KeyRange,
    /// Answer with the pairs as they were before.
    pub previous: bool,
}

/// What came of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    Range {
        pairs: Vec<KeyValue>,
        /// The limit cut the answer.
        more: bool,
        /// When asked for.
        count: Option<u64>,
    },
    Put {
        previous: Option<KeyValue>,
    },
    Delete {
        deleted: u64,
        previous: Vec<KeyValue>,
    },
    Txn {
        succeeded: bool,
        replies: Vec<OpReply>,
    },
}
