//! The bytes of commands and outcomes: a log entry's batch of envelopes, a command one node hands on to another, and
//! the outcome a session keeps.
//!
//! Each begins with a format byte. Inside, where there are several kinds a tag byte says which, and the fields follow
//! in a fixed order, each optional one behind a yes or no.
//!
//! Invariants:
//!
//! * An unknown format or tag is an error, never skipped: a replica that cannot read a command stops.
//! * A command nests no deeper than [`TXN_DEPTH_MAX`], whatever its bytes say.

use std::borrow::Borrow;

use bytes::Bytes;
use trefoil_causality::Revision;

use super::{
    ANONYMOUS, Command, Compare, DeleteOp, Envelope, KeyRange, Op, Outcome, Pair, PutOp, RangeEnd, RangeOp, RangeReply,
    Refusal, Relation, Reply, RequestId, TXN_DEPTH_MAX, Target, Txn, UnknownReason,
};
use crate::codec::{Decoder, Malformed, put_bool, put_bytes, put_u64};

/// The format all of these are written in.
pub const FORMAT: u8 = 1;

/// Bytes an envelope has besides its command's key and value: seldom more.
const ENVELOPE_BYTES: usize = 64;

/// Encodes one envelope, for [`encode_batch`].
pub fn encode_envelope<C: Borrow<Command>>(envelope: &Envelope<C>) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENVELOPE_BYTES + rough_bytes(envelope.command.borrow()));
    put_envelope(&mut out, envelope);
    out
}

/// The bytes of a log entry that holds these encoded envelopes.
pub fn encode_batch<'a>(envelopes: impl ExactSizeIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = vec![FORMAT];
    put_u64(&mut out, envelopes.len() as u64);
    for envelope in envelopes {
        out.extend_from_slice(envelope);
    }
    out.into()
}

/// Decodes the envelopes of one log entry.
pub fn decode_batch(bytes: Bytes) -> Result<Vec<Envelope>, Malformed> {
    let mut from = Decoder::new(bytes, "log command");
    if from.u8()? != FORMAT {
        return Err(Malformed { what: "log command: unknown format" });
    }
    let envelopes = (0..from.count()?).map(|_| envelope(&mut from)).collect::<Result<_, _>>()?;
    from.end()?;
    Ok(envelopes)
}

/// Key and value of a put, which most commands are; others let their bytes grow as they need it.
fn rough_bytes(command: &Command) -> usize {
    match command {
        Command::Op(Op::Put(put)) => put.key.len() + put.value.as_ref().map_or(0, Bytes::len),
        Command::Op(Op::Range(_) | Op::Delete(_) | Op::Txn(_))
        | Command::Compact(_)
        | Command::OpenSession
        | Command::CloseSession(_) => 0,
    }
}

fn put_envelope<C: Borrow<Command>>(out: &mut Vec<u8>, envelope: &Envelope<C>) {
    put_u64(out, envelope.at_ms);
    put_bool(out, envelope.request.is_some());
    if let Some(request) = envelope.request {
        put_u64(out, request.session);
        put_u64(out, request.sequence);
        put_u64(out, request.acknowledged);
    }
    put_bytes(out, envelope.principal.as_bytes());
    put_u64(out, envelope.auth_revision);
    put_command(out, envelope.command.borrow());
}

fn envelope(from: &mut Decoder) -> Result<Envelope, Malformed> {
    let at_ms = from.u64()?;
    let request = match from.bool()? {
        true => Some(RequestId { session: from.u64()?, sequence: from.u64()?, acknowledged: from.u64()? }),
        false => None,
    };
    let principal = from.string_or(ANONYMOUS)?;
    Ok(Envelope { at_ms, request, principal, auth_revision: from.u64()?, command: command(from)? })
}

/// Encodes a command alone: what one node hands on to another.
pub fn encode_command(command: &Command) -> Bytes {
    let mut out = vec![FORMAT];
    put_command(&mut out, command);
    out.into()
}

/// Decodes a command that was handed on.
pub fn decode_command(bytes: Bytes) -> Result<Command, Malformed> {
    let mut from = Decoder::new(bytes, "command");
    if from.u8()? != FORMAT {
        return Err(Malformed { what: "command: unknown format" });
    }
    let command = command(&mut from)?;
    from.end()?;
    Ok(command)
}

fn put_command(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::Op(op) => {
            out.push(1);
            put_op(out, op);
        }
        Command::Compact(revision) => {
            out.push(2);
            put_u64(out, revision.0);
        }
        Command::OpenSession => out.push(3),
        Command::CloseSession(session) => {
            out.push(4);
            put_u64(out, *session);
        }
    }
}

fn command(from: &mut Decoder) -> Result<Command, Malformed> {
    match from.u8()? {
        1 => Ok(Command::Op(op(from, 0)?)),
        2 => Ok(Command::Compact(Revision(from.u64()?))),
        3 => Ok(Command::OpenSession),
        4 => Ok(Command::CloseSession(from.u64()?)),
        _ => Err(Malformed { what: "log command: unknown command" }),
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Range(range) => {
            out.push(1);
            put_range_op(out, range);
        }
        Op::Put(put) => {
            out.push(2);
            put_bytes(out, &put.key);
            put_option(out, put.value.as_ref(), |out, value| put_bytes(out, value));
            put_option(out, put.lease.as_ref(), |out, lease| put_u64(out, *lease));
            put_bool(out, put.previous);
        }
        Op::Delete(delete) => {
            out.push(3);
            put_range(out, &delete.range);
            put_bool(out, delete.previous);
        }
        Op::Txn(txn) => {
            out.push(4);
            put_txn(out, txn);
        }
    }
}

fn op(from: &mut Decoder, depth: usize) -> Result<Op, Malformed> {
    match from.u8()? {
        1 => Ok(Op::Range(range_op(from)?)),
        2 => Ok(Op::Put(PutOp {
            key: from.bytes()?,
            value: option(from, Decoder::bytes)?,
            lease: option(from, Decoder::u64)?,
            previous: from.bool()?,
        })),
        3 => Ok(Op::Delete(DeleteOp { range: range(from)?, previous: from.bool()? })),
        4 if depth < TXN_DEPTH_MAX => Ok(Op::Txn(txn(from, depth + 1)?)),
        4 => Err(Malformed { what: "log command: transactions nested too deep" }),
        _ => Err(Malformed { what: "log command: unknown operation" }),
    }
}

fn put_range_op(out: &mut Vec<u8>, op: &RangeOp) {
    put_range(out, &op.range);
    put_option(out, op.limit.as_ref(), |out, limit| put_u64(out, *limit));
    put_option(out, op.revision.as_ref(), |out, revision| put_u64(out, revision.0));
    for flag in [op.descending, op.keys_only, op.count, op.count_only] {
        put_bool(out, flag);
    }
}

fn range_op(from: &mut Decoder) -> Result<RangeOp, Malformed> {
    Ok(RangeOp {
        range: range(from)?,
        limit: option(from, Decoder::u64)?,
        revision: option(from, Decoder::u64)?.map(Revision),
        descending: from.bool()?,
        keys_only: from.bool()?,
        count: from.bool()?,
        count_only: from.bool()?,
    })
}

fn put_range(out: &mut Vec<u8>, range: &KeyRange) {
    put_bytes(out, &range.key);
    match &range.end {
        RangeEnd::Single => out.push(1),
        RangeEnd::Before(end) => {
            out.push(2);
            put_bytes(out, end);
        }
        RangeEnd::Last => out.push(3),
    }
}

fn range(from: &mut Decoder) -> Result<KeyRange, Malformed> {
    let key = from.bytes()?;
    let end = match from.u8()? {
        1 => RangeEnd::Single,
        2 => RangeEnd::Before(from.bytes()?),
        3 => RangeEnd::Last,
        _ => return Err(from.malformed()),
    };
    Ok(KeyRange { key, end })
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_u64(out, txn.compares.len() as u64);
    for compare in &txn.compares {
        put_compare(out, compare);
    }
    for branch in [&txn.success, &txn.failure] {
        put_u64(out, branch.len() as u64);
        for op in branch {
            put_op(out, op);
        }
    }
}

fn txn(from: &mut Decoder, depth: usize) -> Result<Txn, Malformed> {
    Ok(Txn {
        compares: (0..from.count()?).map(|_| compare(from)).collect::<Result<_, _>>()?,
        success: (0..from.count()?).map(|_| op(from, depth)).collect::<Result<_, _>>()?,
        failure: (0..from.count()?).map(|_| op(from, depth)).collect::<Result<_, _>>()?,
    })
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    put_range(out, &compare.range);
    out.push(match compare.relation {
        Relation::Equal => 1,
        Relation::NotEqual => 2,
        Relation::Greater => 3,
        Relation::Less => 4,
    });
    let (tag, number) = match &compare.target {
        Target::Version(number) => (1, number),
        Target::CreateRevision(number) => (2, number),
        Target::ModRevision(number) => (3, number),
        Target::Lease(number) => (4, number),
        Target::Value(value) => {
            out.push(5);
            return put_bytes(out, value);
        }
    };
    out.push(tag);
    put_u64(out, *number);
}

fn compare(from: &mut Decoder) -> Result<Compare, Malformed> {
    let range = range(from)?;
    let relation = match from.u8()? {
        1 => Relation::Equal,
        2 => Relation::NotEqual,
        3 => Relation::Greater,
        4 => Relation::Less,
        _ => return Err(from.malformed()),
    };
    let target = match from.u8()? {
        1 => Target::Version(from.u64()?),
        2 => Target::CreateRevision(from.u64()?),
        3 => Target::ModRevision(from.u64()?),
        4 => Target::Lease(from.u64()?),
        5 => Target::Value(from.bytes()?),
        _ => return Err(from.malformed()),
    };
    Ok(Compare { range, relation, target })
}

/// Encodes an outcome: what a session keeps of an executed request.
pub fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_u64(&mut out, outcome.revision.0);
    match &outcome.result {
        Ok(reply) => {
            out.push(1);
            put_reply(&mut out, reply);
        }
        Err(refusal) => {
            out.push(2);
            put_refusal(&mut out, refusal);
        }
    }
    out
}

/// Decodes a kept outcome.
pub fn decode_outcome(bytes: Bytes) -> Result<Outcome, Malformed> {
    let mut from = Decoder::new(bytes, "kept reply");
    if from.u8()? != FORMAT {
        return Err(Malformed { what: "kept reply: unknown format" });
    }
    let revision = Revision(from.u64()?);
    let result = match from.u8()? {
        1 => Ok(reply(&mut from)?),
        2 => Err(refusal(&mut from)?),
        _ => return Err(from.malformed()),
    };
    from.end()?;
    Ok(Outcome { revision, result })
}

fn put_reply(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Range(range) => {
            out.push(1);
            put_pairs(out, &range.pairs);
            put_bool(out, range.more);
            put_option(out, range.count.as_ref(), |out, count| put_u64(out, *count));
        }
        Reply::Put { previous } => {
            out.push(2);
            put_option(out, previous.as_ref(), put_pair);
        }
        Reply::Delete { deleted, previous } => {
            out.push(3);
            put_u64(out, *deleted);
            put_pairs(out, previous);
        }
        Reply::Txn { succeeded, replies } => {
            out.push(4);
            put_bool(out, *succeeded);
            put_u64(out, replies.len() as u64);
            for reply in replies {
                put_reply(out, reply);
            }
        }
        Reply::Compacted => out.push(5),
        Reply::SessionOpened { session } => {
            out.push(6);
            put_u64(out, *session);
        }
        Reply::SessionClosed => out.push(7),
    }
}

fn reply(from: &mut Decoder) -> Result<Reply, Malformed> {
    Ok(match from.u8()? {
        1 => Reply::Range(RangeReply { pairs: pairs(from)?, more: from.bool()?, count: option(from, Decoder::u64)? }),
        2 => Reply::Put { previous: option(from, pair)? },
        3 => Reply::Delete { deleted: from.u64()?, previous: pairs(from)? },
        4 => Reply::Txn {
            succeeded: from.bool()?,
            replies: (0..from.count()?).map(|_| reply(from)).collect::<Result<_, _>>()?,
        },
        5 => Reply::Compacted,
        6 => Reply::SessionOpened { session: from.u64()? },
        7 => Reply::SessionClosed,
        _ => return Err(from.malformed()),
    })
}

fn put_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    match refusal {
        Refusal::Compacted { asked, floor } => {
            out.push(1);
            put_u64(out, *asked);
            put_u64(out, *floor);
        }
        Refusal::FutureRevision { asked, newest } => {
            out.push(2);
            put_u64(out, *asked);
            put_u64(out, *newest);
        }
        Refusal::KeyNotFound => out.push(3),
        Refusal::LeaseNotFound { lease } => {
            out.push(4);
            put_u64(out, *lease);
        }
        Refusal::OutcomeUnknown { reason } => {
            out.push(5);
            out.push(match reason {
                UnknownReason::SessionEnded => 1,
                UnknownReason::BelowWindow => 2,
                UnknownReason::ReplyForgotten => 3,
            });
        }
        Refusal::TooManySessions { limit } => {
            out.push(6);
            put_u64(out, *limit);
        }
        Refusal::TooManyKeys { limit } => {
            out.push(7);
            put_u64(out, *limit);
        }
        Refusal::AnswerTooLarge { limit } => {
            out.push(8);
            put_u64(out, *limit);
        }
        Refusal::TooManyKeysRead { limit } => {
            out.push(9);
            put_u64(out, *limit);
        }
    }
}

fn refusal(from: &mut Decoder) -> Result<Refusal, Malformed> {
    Ok(match from.u8()? {
        1 => Refusal::Compacted { asked: from.u64()?, floor: from.u64()? },
        2 => Refusal::FutureRevision { asked: from.u64()?, newest: from.u64()? },
        3 => Refusal::KeyNotFound,
        4 => Refusal::LeaseNotFound { lease: from.u64()? },
        5 => Refusal::OutcomeUnknown {
            reason: match from.u8()? {
                1 => UnknownReason::SessionEnded,
                2 => UnknownReason::BelowWindow,
                3 => UnknownReason::ReplyForgotten,
                _ => return Err(from.malformed()),
            },
        },
        6 => Refusal::TooManySessions { limit: from.u64()? },
        7 => Refusal::TooManyKeys { limit: from.u64()? },
        8 => Refusal::AnswerTooLarge { limit: from.u64()? },
        9 => Refusal::TooManyKeysRead { limit: from.u64()? },
        _ => return Err(from.malformed()),
    })
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[Pair]) {
    put_u64(out, pairs.len() as u64);
    for pair in pairs {
        put_pair(out, pair);
    }
}

fn pairs(from: &mut Decoder) -> Result<Vec<Pair>, Malformed> {
    (0..from.count()?).map(|_| pair(from)).collect()
}

fn put_pair(out: &mut Vec<u8>, pair: &Pair) {
    put_bytes(out, &pair.key);
    put_bytes(out, &pair.value);
    for number in [pair.create_revision.0, pair.mod_revision.0, pair.version, pair.lease] {
        put_u64(out, number);
    }
}

fn pair(from: &mut Decoder) -> Result<Pair, Malformed> {
    Ok(Pair {
        key: from.bytes()?,
        value: from.bytes()?,
        create_revision: Revision(from.u64()?),
        mod_revision: Revision(from.u64()?),
        version: from.u64()?,
        lease: from.u64()?,
    })
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put(out, value);
    }
}

fn option<T>(
    from: &mut Decoder,
    read: impl FnOnce(&mut Decoder) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    match from.bool()? {
        true => Ok(Some(read(from)?)),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_keeps_its_tag() {
        let unknown = |reason| Refusal::OutcomeUnknown { reason };
        for (tag, refusal) in [
            (1, Refusal::Compacted { asked: 3, floor: 300 }),
            (2, Refusal::FutureRevision { asked: 300, newest: 3 }),
            (3, Refusal::KeyNotFound),
            (4, Refusal::LeaseNotFound { lease: 7 }),
            (5, unknown(UnknownReason::SessionEnded)),
            (5, unknown(UnknownReason::BelowWindow)),
            (5, unknown(UnknownReason::ReplyForgotten)),
            (6, Refusal::TooManySessions { limit: 10 }),
            (7, Refusal::TooManyKeys { limit: 10 }),
            (8, Refusal::AnswerTooLarge { limit: 10 }),
            (9, Refusal::TooManyKeysRead { limit: 10 }),
        ] {
            let outcome = Outcome { revision: Revision(5), result: Err(refusal) };
            let bytes = encode_outcome(&outcome);
            assert_eq!(bytes[..4], [FORMAT, 5, 2, tag], "{outcome:?}");
            assert_eq!(decode_outcome(bytes.into()), Ok(outcome));
        }
        for (tag, reason) in
            [(1, UnknownReason::SessionEnded), (2, UnknownReason::BelowWindow), (3, UnknownReason::ReplyForgotten)]
        {
            let bytes = encode_outcome(&Outcome { revision: Revision(5), result: Err(unknown(reason)) });
            assert_eq!(bytes[4..], [tag], "{reason:?}");
        }
    }
}
