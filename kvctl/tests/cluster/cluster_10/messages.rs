//! Random messages of the native API: well-formed, and with anything in their fields.

use bytes::Bytes;
use trefoil_proto::v1;
use trefoil_proto::v1::compare::Target;
use trefoil_proto::v1::condition::When;
use trefoil_proto::v1::consistency::Level;
use trefoil_proto::v1::key_range::End;
use trefoil_proto::v1::op::Op;

use super::chance::{flag, junk, key, maybe, number, small_number, some, text};
use crate::scenario::Dice;

/// A request of the services `Kv` and `Cluster`.
#[derive(Clone, Debug)]
pub enum Ask {
    Get(v1::GetRequest),
    Put(v1::PutRequest),
    Delete(v1::DeleteRequest),
    Scan(v1::ScanRequest),
    Txn(v1::TxnRequest),
    OpenSession(v1::OpenSessionRequest),
    CloseSession(v1::CloseSessionRequest),
    Compact(v1::CompactRequest),
    Map,
    Status,
    Digest(v1::DigestRequest),
}

/// How deep transactions nest by chance; deeper ones are made on purpose.
const DEPTH: u32 = 4;
const TOO_DEEP: usize = 20;
const TOO_MANY: usize = 200;

/// One request of each type.
pub fn asks(dice: &mut Dice) -> Vec<Ask> {
    vec![
        Ask::Get(get(dice)),
        Ask::Put(put(dice)),
        Ask::Delete(delete(dice)),
        Ask::Scan(scan(dice)),
        Ask::Txn(v1::TxnRequest { header: header(dice), txn: maybe(dice, whole_txn), ..v1::TxnRequest::default() }),
        Ask::OpenSession(v1::OpenSessionRequest { header: header(dice) }),
        Ask::CloseSession(v1::CloseSessionRequest { header: header(dice), session: number(dice) }),
        Ask::Compact(v1::CompactRequest { header: header(dice), revision: number(dice) }),
        Ask::Map,
        Ask::Status,
        Ask::Digest(v1::DigestRequest {
            keyspace_id: dice.below(3) as u32,
            partition: small_number(dice),
            revision: number(dice),
        }),
    ]
}

fn get(dice: &mut Dice) -> v1::GetRequest {
    v1::GetRequest {
        header: header(dice),
        key: key(dice),
        revision: number(dice),
        consistency: consistency(dice),
        context: token(dice),
        keys_only: flag(dice),
    }
}

fn put(dice: &mut Dice) -> v1::PutRequest {
    v1::PutRequest {
        header: header(dice),
        key: key(dice),
        value: junk(dice),
        lease: if flag(dice) { 0 } else { number(dice) },
        previous: flag(dice),
        condition: condition(dice),
        context: token(dice),
    }
}

fn delete(dice: &mut Dice) -> v1::DeleteRequest {
    v1::DeleteRequest {
        header: header(dice),
        range: range(dice),
        previous: flag(dice),
        condition: condition(dice),
        context: token(dice),
    }
}

fn scan(dice: &mut Dice) -> v1::ScanRequest {
    v1::ScanRequest {
        header: header(dice),
        range: range(dice),
        limit: number(dice),
        revision: number(dice),
        reverse: flag(dice),
        keys_only: flag(dice),
        count_only: flag(dice),
        count: flag(dice),
        consistency: consistency(dice),
        context: token(dice),
        continuation: if flag(dice) { Bytes::new() } else { token(dice) },
    }
}

fn header(dice: &mut Dice) -> Option<v1::RequestHeader> {
    maybe(dice, |dice| v1::RequestHeader {
        keyspace: match dice.below(8) {
            0 => text(dice),
            1 => "_meta".to_owned(),
            2 => "default".to_owned(),
            _ => String::new(),
        },
        epoch: (dice.below(4) == 0).then(|| number(dice)),
        request_id: (dice.below(4) == 0).then(|| v1::RequestId {
            session: number(dice),
            sequence: number(dice),
            acknowledged: number(dice),
        }),
    })
}

fn consistency(dice: &mut Dice) -> Option<v1::Consistency> {
    maybe(dice, |dice| v1::Consistency {
        level: match dice.below(3) {
            0 => None,
            1 => Some(Level::Linearizable(v1::Linearizable {})),
            _ => Some(Level::Stale(v1::Stale {})),
        },
    })
}

/// A context or continuation: real ones begin with 1 and a revision.
fn token(dice: &mut Dice) -> Bytes {
    match dice.below(4) {
        0 => junk(dice),
        1 => [&[1_u8][..], &number(dice).to_be_bytes()[..]].concat().into(),
        2 => [&[1_u8][..], &number(dice).to_be_bytes()[..], &key(dice)[..]].concat().into(),
        _ => Bytes::new(),
    }
}

fn condition(dice: &mut Dice) -> Option<v1::Condition> {
    (dice.below(3) == 0).then(|| v1::Condition {
        when: match dice.below(3) {
            0 => None,
            1 => Some(When::Absent(flag(dice))),
            _ => Some(When::ModRevision(number(dice))),
        },
    })
}

fn range(dice: &mut Dice) -> Option<v1::KeyRange> {
    maybe(dice, |dice| v1::KeyRange {
        key: key(dice),
        end: match dice.below(5) {
            0 => None,
            1 => Some(End::Prefix(flag(dice))),
            2 => Some(End::Before(key(dice))),
            3 => Some(End::Before(junk(dice))),
            _ => Some(End::ToLast(flag(dice))),
        },
    })
}

fn whole_txn(dice: &mut Dice) -> v1::Txn {
    let whole = txn(dice, DEPTH);
    match dice.below(16) {
        0 => (0..TOO_DEEP).fold(whole, |inner, _| v1::Txn {
            failure: vec![v1::Op { op: Some(Op::Txn(inner)) }],
            ..v1::Txn::default()
        }),
        1 => v1::Txn { success: (0..TOO_MANY).map(|_| v1::Op { op: op(dice, 0) }).collect(), ..whole },
        _ => whole,
    }
}

fn txn(dice: &mut Dice, depth: u32) -> v1::Txn {
    v1::Txn {
        compares: some(dice, compare),
        success: some(dice, |dice| v1::Op { op: op(dice, depth) }),
        failure: some(dice, |dice| v1::Op { op: op(dice, depth) }),
    }
}

fn compare(dice: &mut Dice) -> v1::Compare {
    v1::Compare {
        range: range(dice),
        relation: if dice.below(8) == 0 { dice.roll() as i32 } else { dice.below(5) as i32 },
        target: maybe(dice, |dice| match dice.below(5) {
            0 => Target::Version(number(dice)),
            1 => Target::CreateRevision(number(dice)),
            2 => Target::ModRevision(number(dice)),
            3 => Target::Value(junk(dice)),
            _ => Target::Lease(number(dice)),
        }),
    }
}

/// Rarely none. Nested transactions are few, so that the whole stays small.
fn op(dice: &mut Dice, depth: u32) -> Option<Op> {
    match dice.below(16) {
        0 => None,
        1..5 => Some(Op::Range(v1::RangeOp {
            range: range(dice),
            limit: number(dice),
            revision: number(dice),
            reverse: flag(dice),
            keys_only: flag(dice),
            count_only: flag(dice),
            count: flag(dice),
        })),
        5..10 => Some(Op::Put(v1::PutOp {
            key: key(dice),
            value: dice.bytes(40).into(),
            lease: if flag(dice) { 0 } else { number(dice) },
            previous: flag(dice),
            keep_value: dice.below(4) == 0,
            keep_lease: dice.below(4) == 0,
        })),
        10..14 => Some(Op::Delete(v1::DeleteOp { range: range(dice), previous: flag(dice) })),
        _ if depth > 0 => Some(Op::Txn(txn(dice, depth - 1))),
        _ => None,
    }
}
