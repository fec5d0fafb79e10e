//! What replication carries and what applying it answers.
//!
//! A log entry holds a batch of [`Envelope`]s; each becomes one [`Outcome`]. The same bytes are written to the log,
//! sent to the other replicas and applied there, so they are encoded once, where a command is proposed.
//!
//! Invariant: everything an outcome depends on is in the envelope or in the replicated state.
//!
//! Left out: the bytes, which are `command/codec.rs`'s, and what a command does, which is [`crate::apply`]'s.

mod codec;

use std::borrow::Cow;

use bytes::Bytes;
use trefoil_causality::Revision;

pub use self::codec::{
    FORMAT, decode_batch, decode_command, decode_outcome, encode_batch, encode_command, encode_envelope, encode_outcome,
};

/// How deep transactions may nest; deeper ones are refused before they are proposed.
pub const TXN_DEPTH_MAX: usize = 16;

/// Who asks, until there are users.
pub const ANONYMOUS: &str = "anonymous";

/// A command, or a borrowed one, with all that its outcome depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<C = Command> {
    /// The proposer's wall clock in milliseconds since 1970. Applying makes it monotonic: this is log time.
    pub at_ms: u64,
    pub request: Option<RequestId>,
    /// Who asked: [`ANONYMOUS`].
    pub principal: Cow<'static, str>,
    /// The revision of the access rules the request was checked under.
    pub auth_revision: u64,
    pub command: C,
}

/// Makes repeating a request safe: within its session a sequence is executed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// What [`Command::OpenSession`] answered.
    pub session: u64,
    /// Starts at 1; unique within the session.
    pub sequence: u64,
    /// Replies up to and including this sequence have arrived or are no longer waited for; 0 for none.
    pub acknowledged: u64,
}

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Op(Op),
    /// History below this revision may be forgotten.
    Compact(Revision),
    /// The log position becomes the session's id.
    OpenSession,
    CloseSession(u64),
}

impl Command {
    /// The most keys it may touch; `None` when it does not say: it has a range, or works on the rows of sessions.
    pub fn keys_max(&self) -> Option<usize> {
        match self {
            Command::Op(op) => op.keys_max(),
            // It only raises the floor.
            Command::Compact(_) => Some(0),
            Command::OpenSession | Command::CloseSession(_) => None,
        }
    }
}

/// One step of a transaction; a put or delete alone is a transaction of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Range(RangeOp),
    Put(PutOp),
    Delete(DeleteOp),
    Txn(Txn),
}

impl Op {
    fn keys_max(&self) -> Option<usize> {
        match self {
            Op::Put(_) => Some(1),
            Op::Range(range) => range.range.keys_max(),
            Op::Delete(delete) => delete.range.keys_max(),
            Op::Txn(txn) => {
                let compared = txn.compares.iter().map(|compare| compare.range.keys_max());
                let done = txn.success.iter().chain(&txn.failure).map(Op::keys_max);
                compared.chain(done).sum()
            }
        }
    }
}

/// Which keys: one, a half-open range, or all from one on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub key: Bytes,
    pub end: RangeEnd,
}

/// Where a [`KeyRange`] ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeEnd {
    /// The range is one key.
    Single,
    /// Up to but not including this key; nothing when it is not above the start.
    Before(Bytes),
    /// To the last key.
    Last,
}

impl KeyRange {
    /// `key` alone.
    pub fn single(key: impl Into<Bytes>) -> KeyRange {
        KeyRange { key: key.into(), end: RangeEnd::Single }
    }

    /// The first key above the range; `None` when it has no upper end.
    pub fn upper(&self) -> Option<Bytes> {
        match &self.end {
            RangeEnd::Single => Some([&self.key[..], &[0]].concat().into()),
            RangeEnd::Before(end) => Some(end.clone()),
            RangeEnd::Last => None,
        }
    }

    fn keys_max(&self) -> Option<usize> {
        match self.end {
            RangeEnd::Single => Some(1),
            RangeEnd::Before(_) | RangeEnd::Last => None,
        }
    }
}

/// Reads keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOp {
    pub range: KeyRange,
    /// At most this many keys; `None` for all.
    pub limit: Option<u64>,
    /// The state at this revision; `None` for now.
    pub revision: Option<Revision>,
    pub descending: bool,
    pub keys_only: bool,
    /// Whether to count all keys of the range, whatever the limit; costs a walk over them.
    pub count: bool,
    /// No pairs, only the count.
    pub count_only: bool,
}

impl RangeOp {
    /// All keys of `range` with their values, as of now.
    pub fn all(range: KeyRange) -> RangeOp {
        RangeOp {
            range,
            limit: None,
            revision: None,
            descending: false,
            keys_only: false,
            count: false,
            count_only: false,
        }
    }
}

/// Writes one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOp {
    pub key: Bytes,
    /// `None` keeps the present value; the key must exist.
    pub value: Option<Bytes>,
    /// `None` keeps the present lease; the key must exist. 0 is no lease.
    pub lease: Option<u64>,
    /// Whether to answer with the pair as it was before.
    pub previous: bool,
}

/// Removes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOp {
    pub range: KeyRange,
    /// Whether to answer with the pairs as they were before.
    pub previous: bool,
}

/// If all compares hold, `success`, else `failure`. All compares, nested ones too, see the state before the first
/// step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// Holds when every key of the range satisfies it. A missing key, like an empty range, has version, revisions and
/// lease 0, and no value: a compare with its value never holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub range: KeyRange,
    pub relation: Relation,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Version(u64),
    CreateRevision(u64),
    ModRevision(u64),
    Value(Bytes),
    Lease(u64),
}

/// A key with its value and where it stands in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Counts the puts since the key was created; a fresh key has 1.
    pub version: u64,
    /// 0 for none.
    pub lease: u64,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The store's revision after the command.
    pub revision: Revision,
    pub result: Result<Reply, Refusal>,
}

impl Outcome {
    /// About how many bytes of memory its keys and values hold.
    pub fn bytes(&self) -> usize {
        self.result.as_ref().map_or(0, Reply::bytes)
    }
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Range(RangeReply),
    Put { previous: Option<Pair> },
    Delete { deleted: u64, previous: Vec<Pair> },
    Txn { succeeded: bool, replies: Vec<Reply> },
    Compacted,
    SessionOpened { session: u64 },
    SessionClosed,
}

impl Reply {
    fn bytes(&self) -> usize {
        let of = |pairs: &[Pair]| pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
        match self {
            Reply::Range(range) => of(&range.pairs),
            Reply::Put { previous } => of(previous.as_slice()),
            Reply::Delete { deleted: _, previous } => of(previous),
            Reply::Txn { succeeded: _, replies } => replies.iter().map(Reply::bytes).sum(),
            Reply::Compacted | Reply::SessionOpened { .. } | Reply::SessionClosed => 0,
        }
    }
}

/// The keys a range holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReply {
    pub pairs: Vec<Pair>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// All keys of the range, when asked for.
    pub count: Option<u64>,
}

/// A command that changed nothing, and why. The same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// At `asked == floor` only a compaction is refused: it was done before.
    #[error("{}", compacted(*.asked, *.floor))]
    Compacted { asked: u64, floor: u64 },
    #[error("revision {asked} is in the future; the newest is {newest}")]
    FutureRevision { asked: u64, newest: u64 },
    #[error("key not found: keeping its value or lease needs one")]
    KeyNotFound,
    #[error("lease {lease} not found")]
    LeaseNotFound { lease: u64 },
    /// The request may or may not have been executed earlier; it is not executed now.
    #[error("outcome unknown: {reason}")]
    OutcomeUnknown { reason: UnknownReason },
    #[error("the partition has {limit} open sessions, its most; close some or let them end")]
    TooManySessions { limit: u64 },
    #[error("more than {limit} keys would be deleted at once; delete smaller ranges")]
    TooManyKeys { limit: u64 },
    #[error("the answer would have more than {limit} bytes; ask for less, or scan")]
    AnswerTooLarge { limit: u64 },
    /// In the past, changes count.
    #[error("more than {limit} keys would be read by a transaction that writes; read them outside of it, or in pages")]
    TooManyKeysRead { limit: u64 },
}

fn compacted(asked: u64, floor: u64) -> String {
    match asked == floor {
        true => format!("compacted before: revision {floor} is the first readable one already"),
        false => format!("revision {asked} has been compacted; the first readable one is {floor}"),
    }
}

/// Why a session cannot say what became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownReason {
    #[error("the session has ended or never existed")]
    SessionEnded,
    #[error("the sequence lies below the session's window")]
    BelowWindow,
    /// The request was executed; what it was answered is not known any more.
    #[error("the session no longer has the reply, which was too large")]
    ReplyForgotten,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put() -> Op {
        Op::Put(PutOp { key: "a".into(), value: None, lease: None, previous: true })
    }

    fn delete(end: RangeEnd) -> Op {
        Op::Delete(DeleteOp { range: KeyRange { key: "a".into(), end }, previous: false })
    }

    fn read(end: RangeEnd) -> Op {
        Op::Range(RangeOp { limit: Some(1), ..RangeOp::all(KeyRange { key: "a".into(), end }) })
    }

    fn txn(compared: RangeEnd, success: Vec<Op>, failure: Vec<Op>) -> Op {
        let range = KeyRange { key: "a".into(), end: compared };
        let compare = Compare { range, relation: Relation::Equal, target: Target::Version(0) };
        Op::Txn(Txn { compares: vec![compare], success, failure })
    }

    #[test]
    fn a_command_says_how_many_keys_it_may_touch() {
        let before = || RangeEnd::Before("b".into());
        let nested = |op| txn(RangeEnd::Single, vec![put()], vec![txn(RangeEnd::Single, vec![op], vec![])]);
        for (op, expected) in [
            (put(), Some(1)),
            (delete(RangeEnd::Single), Some(1)),
            (delete(before()), None),
            (delete(RangeEnd::Last), None),
            (read(RangeEnd::Single), Some(1)),
            (read(before()), None),
            (txn(RangeEnd::Single, vec![], vec![]), Some(1)),
            (txn(RangeEnd::Last, vec![], vec![]), None),
            (nested(put()), Some(4)),
            (nested(read(RangeEnd::Last)), None),
        ] {
            assert_eq!(Command::Op(op.clone()).keys_max(), expected, "{op:?}");
        }
        assert_eq!(Command::Compact(Revision(7)).keys_max(), Some(0));
        for sessions in [Command::OpenSession, Command::CloseSession(7)] {
            assert_eq!(sessions.keys_max(), None, "{sessions:?}");
        }
    }
}
