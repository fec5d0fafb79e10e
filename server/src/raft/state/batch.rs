//! From committed entries to one batch: the part of applying that only reads and computes.
//!
//! Entries are decoded a portion at a time. [`Progress::apply`] takes as many from a portion as one batch holds, and says
//! what they lead to: the batch, where the replica then stands, and what to answer. A portion of commands of few keys
//! may be applied on an async thread; one with any other command leaves them as a whole.
//!
//! Invariants:
//!
//! * Entries are applied once and in order.
//! * Nothing here is seen by anybody before the caller has written the batch: it may be dropped halfway, and the row cache
//!   with it, which then already has the batch's rows.
//!
//! Left out: writing and publishing, which are the state machine's.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder};
use trefoil_causality::ReplicaId;
use trefoil_store::apply::{Position, apply};
use trefoil_store::command::{Command, Envelope, Outcome, decode_batch};
use trefoil_store::engine::{Batch, Engine, EngineError, Family};
use trefoil_store::key;
use trefoil_store::overlay::{Overlay, OwnWrites};
use trefoil_store::row_cache::RowCache;

use crate::raft::state::View;
use crate::raft::types::{Group, LogEntry, LogId, Membership, Proposal, encode_applied, term_of};

/// Bytes of entries after which a portion is full.
const PORTION_BYTES_MAX: usize = 2 << 20;
/// Bytes of a batch and of its answers after which it is full.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// A portion with a command that may touch more keys than this leaves the async threads.
const INLINE_KEYS_MAX: usize = 64;

/// All of a replica's state that is not rows.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) replica: ReplicaId,
    pub(super) view: View,
    pub(super) membership: Arc<Membership>,
}

/// What applying some entries leads to; nothing of it has happened yet.
pub(super) struct Applying {
    pub(super) progress: Progress,
    /// With the rows of the batch.
    pub(super) cache: RowCache,
    pub(super) batch: Batch,
    pub(super) answers: Vec<Answer>,
    /// How many entries raised the floor.
    pub(super) compactions: u64,
    /// What did not fit into the batch.
    pub(super) rest: Portion,
}

/// Whom to tell the outcomes of an entry, if anybody waits for them.
pub(super) type Answer = (Option<ApplyResponder<Group>>, Vec<Outcome>);

impl Progress {
    /// Applies entries from the front of `portion` until the batch is full. Reads the engine, through the cache, and
    /// changes nothing in it.
    pub(super) fn apply(
        mut self,
        engine: &dyn Engine,
        mut cache: RowCache,
        mut portion: Portion,
    ) -> io::Result<Applying> {
        let through = cache.over(engine);
        let mut overlay = Overlay::new(&through);
        let (mut answers, mut answered, mut compactions) = (Vec::new(), 0, 0);
        while overlay.bytes() + answered < BATCH_BYTES_MAX {
            let Some(Committed { id, content, responder }) = portion.entries.pop_front() else { break };
            let floor = self.view.head.floor;
            let outcomes = self.apply_entry(&mut overlay, id, content)?;
            compactions += u64::from(self.view.head.floor != floor);
            answered += outcomes.iter().map(Outcome::bytes).sum::<usize>();
            answers.push((responder, outcomes));
        }
        let (batch, writes) = self.seal(overlay);
        cache.learn(writes);
        Ok(Applying { progress: self, cache, batch, answers, compactions, rest: portion })
    }

    fn apply_entry(&mut self, overlay: &mut Overlay<'_>, id: LogId, content: Content) -> io::Result<Vec<Outcome>> {
        assert!(self.view.applied < Some(id), "entries are applied once and in order");
        self.view.applied = Some(id);
        match content {
            Content::Blank => Ok(Vec::new()),
            Content::Membership(membership) => {
                self.membership = membership;
                Ok(Vec::new())
            }
            Content::Commands(envelopes) => {
                let outcomes = self.apply_commands(overlay, id, envelopes);
                outcomes.map_err(|error| cannot_apply(self.replica, id, &error))
            }
        }
    }

    fn apply_commands(
        &mut self,
        overlay: &mut Overlay<'_>,
        id: LogId,
        envelopes: Vec<Envelope>,
    ) -> Result<Vec<Outcome>, EngineError> {
        let at = Position { term: term_of(&id), index: id.index() };
        let store = self.view.store.number();
        envelopes
            .into_iter()
            .zip(0..)
            .map(|(envelope, place)| apply(overlay, store, &mut self.view.head, at, place, envelope))
            .collect()
    }

    fn seal(&self, mut overlay: Overlay<'_>) -> (Batch, OwnWrites) {
        let store = self.view.store.number();
        self.view.head.store(&mut overlay, store);
        let applied = encode_applied(&self.view.applied, &self.membership);
        overlay.put(Family::State, key::state::applied(store), applied);
        overlay.into_parts()
    }
}

/// Committed entries, decoded, that are applied on the same kind of thread.
pub(super) struct Portion {
    entries: VecDeque<Committed>,
    /// Whether every command of them may run on an async thread.
    pub(super) inline: bool,
}

struct Committed {
    id: LogId,
    content: Content,
    responder: Option<ApplyResponder<Group>>,
}

enum Content {
    Blank,
    Membership(Arc<Membership>),
    Commands(Vec<Envelope>),
}

impl Portion {
    /// Takes entries until they have enough bytes; the last one may exceed them. Empty when there are none.
    pub(super) fn decode(
        replica: ReplicaId,
        entries: &mut impl Iterator<Item = EntryResponder<Group>>,
    ) -> io::Result<Portion> {
        let mut portion = Portion { entries: VecDeque::new(), inline: true };
        let mut bytes = 0;
        while bytes < PORTION_BYTES_MAX {
            let Some((entry, responder)) = entries.next() else { break };
            let id = entry.log_id;
            bytes += entry_bytes(&entry);
            let content = Content::decode(entry).map_err(|error| cannot_apply(replica, id, &error))?;
            portion.inline &= content.is_inline();
            portion.entries.push_back(Committed { id, content, responder });
        }
        Ok(portion)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn entry_bytes(entry: &LogEntry) -> usize {
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        EntryPayload::Normal(Proposal(bytes)) => bytes.len(),
    }
}

impl Content {
    fn decode(entry: LogEntry) -> Result<Content, EngineError> {
        Ok(match entry.payload {
            EntryPayload::Blank => Content::Blank,
            EntryPayload::Membership(membership) => {
                Content::Membership(Arc::new(Membership::new(Some(entry.log_id), membership)))
            }
            EntryPayload::Normal(Proposal(bytes)) => Content::Commands(decode_batch(bytes)?),
        })
    }

    fn is_inline(&self) -> bool {
        let touches_few = |command: &Command| command.keys_max().is_some_and(|keys| keys <= INLINE_KEYS_MAX);
        match self {
            Content::Blank | Content::Membership(_) => true,
            Content::Commands(envelopes) => envelopes.iter().all(|envelope| touches_few(&envelope.command)),
        }
    }
}

fn cannot_apply(replica: ReplicaId, id: LogId, error: &EngineError) -> io::Error {
    io::Error::other(format!("{replica} cannot apply log entry {}: {error}", id.index()))
}
