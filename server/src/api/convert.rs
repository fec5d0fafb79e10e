//! The native API's messages to commands, and outcomes back. Pure.

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_proto::{peer, v1};
use trefoil_store::command::{
    Compare, DeleteOp, KeyRange, Op, Pair, PutOp, RangeEnd, RangeOp, RangeReply, Relation, Reply, RequestId,
    TXN_DEPTH_MAX, Target, Txn,
};
use trefoil_store::engine::successor;
use trefoil_store::mvcc::Invalid;

use crate::api::status;
use crate::error::Error;
use crate::replication::{Consistency, Effective};

const CONTEXT_FORMAT: u8 = 1;

fn malformed(field: &'static str, why: &str) -> Error {
    Error::Malformed { field, why: why.into() }
}

/// Why nothing was done, for the node that handed the request on. The outcome of a write that is unknown has a reply of
/// its own; that of a read changes nothing.
pub fn refused(error: Error) -> peer::Refused {
    use peer::refused::Kind;
    let plain = |kind: Kind, why: String| peer::Refused { kind: kind.into(), why, ..peer::Refused::default() };
    match error {
        Error::Unavailable { why } | Error::Unknown { why } => plain(Kind::Unavailable, why),
        Error::DeadlinePassed | Error::NotWhole { .. } => plain(Kind::Deadline, String::new()),
        Error::Exhausted { what, limit } => peer::Refused { limit, ..plain(Kind::Exhausted, what.into_owned()) },
        Error::Broken { why } => plain(Kind::Broken, why),
        error @ Error::NotLeader { .. } => plain(Kind::Unavailable, error.to_string()),
        error @ (Error::Refused(_)
        | Error::Invalid(_)
        | Error::Malformed { .. }
        | Error::TooLarge { .. }
        | Error::Unsupported { .. }
        | Error::NoSuchKeyspace { .. }
        | Error::RefusedThere { .. }) => {
            let (code, reason) = status::code(&error);
            let reason = reason.to_owned();
            peer::Refused { code: code.into(), reason, ..plain(Kind::Refused, error.to_string()) }
        }
    }
}

/// The request id, when the header has one.
pub fn request_id(header: &v1::RequestHeader) -> Result<Option<RequestId>, Error> {
    let Some(id) = &header.request_id else { return Ok(None) };
    if id.session == 0 || id.sequence == 0 {
        return Err(malformed("request_id", "session and sequence start at 1"));
    }
    Ok(Some(RequestId { session: id.session, sequence: id.sequence, acknowledged: id.acknowledged }))
}

/// The keys a message names.
pub fn key_range(range: Option<v1::KeyRange>) -> Result<KeyRange, Error> {
    use v1::key_range::End;
    let range = range.ok_or_else(|| malformed("range", "is missing"))?;
    let end = match range.end {
        None | Some(End::Prefix(false) | End::ToLast(false)) => RangeEnd::Single,
        Some(End::ToLast(true)) => RangeEnd::Last,
        Some(End::Before(before)) => RangeEnd::Before(before),
        Some(End::Prefix(true)) => successor(&range.key).map_or(RangeEnd::Last, |end| RangeEnd::Before(end.into())),
    };
    // All keys have at least one byte, so the range from the empty key is the range from the first one.
    let key = match end {
        RangeEnd::Single => range.key,
        RangeEnd::Before(_) | RangeEnd::Last if range.key.is_empty() => Bytes::from_static(&[0]),
        RangeEnd::Before(_) | RangeEnd::Last => range.key,
    };
    Ok(KeyRange { key, end })
}

/// The revision a message names; 0 is none.
pub fn revision(revision: u64) -> Option<Revision> {
    (revision != 0).then_some(Revision(revision))
}

/// How fresh a read must be.
pub fn consistency(consistency: Option<v1::Consistency>, context: &Bytes) -> Result<Consistency, Error> {
    use v1::consistency::Level;
    match consistency.and_then(|consistency| consistency.level) {
        None | Some(Level::Linearizable(_)) => Ok(Consistency::Linearizable),
        Some(Level::Stale(_)) => Ok(Consistency::Stale { context: decode_context(context)? }),
    }
}

/// The token a reply carries: the revision it had seen.
pub fn context(revision: Revision) -> Bytes {
    let mut token = vec![CONTEXT_FORMAT];
    token.extend_from_slice(&revision.0.to_be_bytes());
    token.into()
}

fn decode_context(token: &Bytes) -> Result<Option<Revision>, Error> {
    match token.as_ref() {
        [] => Ok(None),
        [CONTEXT_FORMAT, rest @ ..] if rest.len() == 8 => {
            Ok(Some(Revision(u64::from_be_bytes(rest.try_into().expect("8 bytes")))))
        }
        _ => Err(malformed("context", "is not a token of this keyspace")),
    }
}

/// What a read really was.
pub fn effective(effective: Effective) -> v1::EffectiveConsistency {
    use v1::effective_consistency::Level;
    let level = match effective {
        Effective::Linearizable => Level::Linearizable(v1::Linearizable {}),
        Effective::Stale { entries_behind, leader_silent_ms } => {
            Level::Stale(v1::Staleness { entries_behind, leader_silent_ms })
        }
    };
    v1::EffectiveConsistency { level: Some(level) }
}

/// A condition on `key` as a compare; `None` when there is none.
pub fn condition(key: &Bytes, condition: Option<v1::Condition>) -> Result<Option<Compare>, Error> {
    use v1::condition::When;
    let Some(condition) = condition else { return Ok(None) };
    let target = match condition.when {
        Some(When::Absent(true)) => Target::CreateRevision(0),
        Some(When::ModRevision(revision)) => Target::ModRevision(revision),
        Some(When::Absent(false)) | None => return Err(malformed("condition", "names no condition")),
    };
    let range = KeyRange { key: key.clone(), end: RangeEnd::Single };
    Ok(Some(Compare { range, relation: Relation::Equal, target }))
}

/// A transaction.
pub fn txn(txn: Option<v1::Txn>) -> Result<Txn, Error> {
    nested(txn.ok_or_else(|| malformed("txn", "is missing"))?, 0)
}

fn nested(txn: v1::Txn, depth: usize) -> Result<Txn, Error> {
    if depth >= TXN_DEPTH_MAX {
        return Err(Error::Invalid(Invalid::NestedTooDeep { limit: TXN_DEPTH_MAX }));
    }
    let ops = |ops: Vec<v1::Op>| ops.into_iter().map(|op| self::op(op, depth)).collect::<Result<Vec<_>, _>>();
    Ok(Txn {
        compares: txn.compares.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: ops(txn.success)?,
        failure: ops(txn.failure)?,
    })
}

fn op(op: v1::Op, depth: usize) -> Result<Op, Error> {
    match op.op.ok_or_else(|| malformed("op", "is none of range, put, delete, txn"))? {
        v1::op::Op::Range(range) => Ok(Op::Range(RangeOp {
            range: key_range(range.range)?,
            limit: (range.limit != 0).then_some(range.limit),
            revision: revision(range.revision),
            descending: range.reverse,
            keys_only: range.keys_only,
            count: range.count,
            count_only: range.count_only,
        })),
        v1::op::Op::Put(put) => put_op(put).map(Op::Put),
        v1::op::Op::Delete(delete) => {
            Ok(Op::Delete(DeleteOp { range: key_range(delete.range)?, previous: delete.previous }))
        }
        v1::op::Op::Txn(txn) => nested(txn, depth + 1).map(Op::Txn),
    }
}

fn put_op(put: v1::PutOp) -> Result<PutOp, Error> {
    if put.keep_value && !put.value.is_empty() {
        return Err(malformed("value", "must be empty when the present value is kept"));
    }
    if put.keep_lease && put.lease != 0 {
        return Err(malformed("lease", "must be 0 when the present lease is kept"));
    }
    Ok(PutOp {
        key: put.key,
        value: (!put.keep_value).then_some(put.value),
        lease: (!put.keep_lease).then_some(put.lease),
        previous: put.previous,
    })
}

fn compare(compare: v1::Compare) -> Result<Compare, Error> {
    use v1::compare::Target as From;
    let relation = match compare.relation() {
        v1::Relation::Equal => Relation::Equal,
        v1::Relation::NotEqual => Relation::NotEqual,
        v1::Relation::Greater => Relation::Greater,
        v1::Relation::Less => Relation::Less,
        v1::Relation::Unspecified => return Err(malformed("relation", "is missing or unknown")),
    };
    let target = match compare.target.ok_or_else(|| malformed("target", "is missing"))? {
        From::Version(version) => Target::Version(version),
        From::CreateRevision(revision) => Target::CreateRevision(revision),
        From::ModRevision(revision) => Target::ModRevision(revision),
        From::Value(value) => Target::Value(value),
        From::Lease(lease) => Target::Lease(lease),
    };
    Ok(Compare { range: key_range(compare.range)?, relation, target })
}

/// A pair as clients see it.
pub fn pair(pair: Pair) -> v1::KeyValue {
    v1::KeyValue {
        key: pair.key,
        value: pair.value,
        create_revision: pair.create_revision.0,
        mod_revision: pair.mod_revision.0,
        version: pair.version,
        lease: pair.lease,
    }
}

/// Pairs as clients see them.
pub fn pairs(pairs: Vec<Pair>) -> Vec<v1::KeyValue> {
    pairs.into_iter().map(pair).collect()
}

/// The reply to one operation of a transaction.
pub fn op_reply(reply: Reply) -> Result<v1::OpReply, Error> {
    use v1::op_reply::Reply as To;
    let reply = match reply {
        Reply::Range(range) => To::Range(range_reply(range)),
        Reply::Put { previous } => To::Put(v1::PutReply { previous: previous.map(pair) }),
        Reply::Delete { deleted, previous } => To::Delete(v1::DeleteReply { deleted, previous: pairs(previous) }),
        Reply::Txn { succeeded, replies } => {
            To::Txn(v1::TxnReply { succeeded, replies: replies.into_iter().map(op_reply).collect::<Result<_, _>>()? })
        }
        Reply::Compacted | Reply::SessionOpened { .. } | Reply::SessionClosed => {
            return Err(Error::Broken { why: "an answer to another question".into() });
        }
    };
    Ok(v1::OpReply { reply: Some(reply) })
}

fn range_reply(range: RangeReply) -> v1::RangeReply {
    v1::RangeReply { pairs: pairs(range.pairs), more: range.more, count: range.count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::refused::Kind;

    #[test]
    fn a_refusal_is_told_without_what_the_other_node_adds() {
        let why = || "x".to_owned();
        for (error, kind, told) in [
            (Error::Unavailable { why: why() }, Kind::Unavailable, "x"),
            (Error::Unknown { why: why() }, Kind::Unavailable, "x"),
            (Error::Broken { why: why() }, Kind::Broken, "x"),
            (Error::DeadlinePassed, Kind::Deadline, ""),
            (Error::NotLeader { leader: None }, Kind::Unavailable, "this node does not lead the partition"),
            (Error::Malformed { field: "f", why: why() }, Kind::Refused, "f: x"),
        ] {
            let refused = refused(error);
            assert_eq!((refused.kind(), refused.why.as_str()), (kind, told));
        }
    }
}
