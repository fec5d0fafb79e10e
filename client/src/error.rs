//! What can go wrong, and what the caller may then assume.
//!
//! One type for all calls: [`Error::outcome`] is the question a caller asks first, [`Error::kind`] the second. How a
//! gRPC status becomes an `Error` is in `status.rs`.

use trefoil_placement::NodeId;

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done, and nothing will be. Repeating is safe and may succeed.
    NotDone,
    /// A write may have been done, may not, or may still be. Reads never end so.
    Unknown,
    /// Nothing was done, and repeating it unchanged will not help.
    Refused,
}

impl Outcome {
    /// The word used in `trefoil-outcome` and in the docs.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::NotDone => "not-done",
            Outcome::Unknown => "unknown",
            Outcome::Refused => "refused",
        }
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody who has this API could be reached; nothing was done.
    Unreachable,
    /// The connection broke after the request was sent.
    ConnectionLost,
    /// The deadline passed.
    Deadline,
    /// The asked node does not lead the partition.
    NotLeader,
    /// The asked node cannot have it carried out at the moment; the message says why.
    Unavailable,
    /// A limit of the server is reached for now.
    Exhausted,
    EmptyKey,
    KeyTooLong,
    MessageTooLarge,
    TooManyOps,
    NestedTooDeep,
    /// One request would delete, read or answer more than one may.
    TooMuch,
    /// A transaction would write a key twice.
    DuplicateKey,
    /// Keeping a value or a lease needs an existing key.
    KeyNotFound,
    LeaseNotFound,
    /// The asked revision has been compacted.
    Compacted,
    /// The asked revision does not exist yet.
    FutureRevision,
    /// The keyspace's mode cannot do this.
    Unsupported,
    NoSuchKeyspace,
    /// The session ended, or has forgotten the request or its reply: what became of it will never be known.
    SessionEnded,
    /// The caller gave something that is not an endpoint.
    InvalidEndpoint,
    /// The node the caller named is not in the map.
    NoSuchNode,
    /// A message makes no sense to the one that got it.
    Malformed,
    /// The server could not read its own data.
    Broken,
    /// Something this client has no name for; see [`Error::reason`].
    Other,
}

/// The server's words for [`Kind`]s.
const WORDS: [(&str, Kind); 25] = [
    ("NOT_LEADER", Kind::NotLeader),
    ("EXHAUSTED", Kind::Exhausted),
    ("DEADLINE", Kind::Deadline),
    ("EMPTY_KEY", Kind::EmptyKey),
    ("KEY_TOO_LONG", Kind::KeyTooLong),
    ("MESSAGE_TOO_LARGE", Kind::MessageTooLarge),
    ("TOO_MANY_OPS", Kind::TooManyOps),
    ("DUPLICATE_KEY", Kind::DuplicateKey),
    ("KEY_NOT_FOUND", Kind::KeyNotFound),
    ("LEASE_NOT_FOUND", Kind::LeaseNotFound),
    ("COMPACTED", Kind::Compacted),
    ("FUTURE_REVISION", Kind::FutureRevision),
    ("UNSUPPORTED", Kind::Unsupported),
    ("NO_SUCH_KEYSPACE", Kind::NoSuchKeyspace),
    ("SESSION_ENDED", Kind::SessionEnded),
    ("BELOW_WINDOW", Kind::SessionEnded),
    ("REPLY_FORGOTTEN", Kind::SessionEnded),
    ("UNAVAILABLE", Kind::Unavailable),
    ("NESTED_TOO_DEEP", Kind::NestedTooDeep),
    ("MALFORMED", Kind::Malformed),
    ("BROKEN", Kind::Broken),
    ("TOO_MANY_SESSIONS", Kind::Exhausted),
    ("TOO_MANY_KEYS", Kind::TooMuch),
    ("TOO_MANY_KEYS_READ", Kind::TooMuch),
    ("ANSWER_TOO_LARGE", Kind::TooMuch),
];

impl Kind {
    /// The kind behind a server's `trefoil-reason`.
    pub(crate) fn of_word(word: &str) -> Kind {
        WORDS.iter().find(|(known, _)| *known == word).map_or(Kind::Other, |(_, kind)| *kind)
    }

    /// Whether only the execution of an operation refuses so. Within a session such a refusal is the reply to the
    /// request, however often that was sent; any other one says nothing about what was sent before.
    pub(crate) fn is_of_execution(self) -> bool {
        match self {
            Kind::KeyNotFound | Kind::LeaseNotFound | Kind::Compacted | Kind::FutureRevision | Kind::TooMuch => true,
            Kind::Unreachable
            | Kind::ConnectionLost
            | Kind::Deadline
            | Kind::NotLeader
            | Kind::Unavailable
            // Too many sessions are refused where commands are executed, but opening one has no number in a session.
            | Kind::Exhausted
            | Kind::EmptyKey
            | Kind::KeyTooLong
            | Kind::MessageTooLarge
            | Kind::TooManyOps
            | Kind::NestedTooDeep
            | Kind::DuplicateKey
            | Kind::Unsupported
            | Kind::NoSuchKeyspace
            | Kind::SessionEnded
            | Kind::InvalidEndpoint
            | Kind::NoSuchNode
            | Kind::Malformed
            | Kind::Broken
            | Kind::Other => false,
        }
    }
}

/// A call that did not succeed.
///
/// ```
/// # trefoil_client::doctest::run(|endpoint| async move {
/// use trefoil_client::{Client, Kind, Outcome};
///
/// let client = Client::connect([endpoint]).await?;
/// let error = client.put("", "a key must not be empty").await.unwrap_err();
/// assert_eq!(error.outcome(), Outcome::Refused);
/// assert_eq!(error.kind(), Kind::EmptyKey);
/// # Ok::<(), trefoil_client::Error>(())
/// # });
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    outcome: Outcome,
    code: Option<i32>,
    reason: String,
    message: String,
    leader: Option<NodeId>,
}

impl Error {
    pub(crate) fn new(kind: Kind, outcome: Outcome, message: impl Into<String>) -> Error {
        Error { kind, outcome, code: None, reason: String::new(), message: message.into(), leader: None }
    }

    /// What the caller may assume.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The server's word for it (`trefoil-reason`); empty when no server said one.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// gRPC's number of the code that [`reason`](Self::reason) came with; absent when no server said one.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Who leads the partition, when the server said so.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(crate) fn with_reason(mut self, code: i32, reason: &str) -> Error {
        self.code = Some(code);
        self.reason = reason.to_owned();
        self
    }

    pub(crate) fn with_leader(mut self, leader: Option<NodeId>) -> Error {
        self.leader = leader;
        self
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Error {
        self.outcome = outcome;
        self
    }

    /// Says more behind the message.
    pub(crate) fn adding(mut self, more: impl std::fmt::Display) -> Error {
        self.message = format!("{} ({more})", self.message);
        self
    }
}
