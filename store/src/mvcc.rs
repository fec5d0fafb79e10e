//! Every version of every key: what leader-mode commands do to a partition's state.
//!
//! A partition's state is a line of revisions. The empty store is at revision 1; each command that changes anything
//! adds exactly one, however many keys it touches, and its changes are told apart by their place (`sub`) within it.
//! The rules are etcd's, so that both APIs can be dialects over the same commands.
//!
//! Three families hold it, all written by the same batch:
//!
//! * `current`: each living key with its newest version. Most reads touch nothing else.
//! * `changes`: every change in revision order, with its value. Watches and repairs walk it.
//! * `index`: key, then newest change first. A read in the past finds here which change of each key counts, and
//!   fetches only those.
//!
//! A key that dies leaves `current` and gets a tombstone in the other two. **Compaction** first raises the floor, below
//! which reads are refused at once; later, in small steps, the scrub removes what no read at or above the floor can
//! reach. So two replicas may hold different rows below the floor and still be equal.
//!
//! The [`Head`] is the rest of the state: one small row, read once and written once per batch. It carries the
//! **content sum**: the wrapping sum over all living keys of a hash of key and row. It is kept up to date at the cost
//! of one hash a change, does not depend on order, and so lets replicas compare themselves at any applied position.
//!
//! Invariants:
//!
//! * A refused command has written nothing: everything that can be refused is checked before the first write.
//! * Nothing here depends on a clock, on chance, or on the order of a hash map: equal replicas stay equal.
//! * Every `index` row has its `changes` row and the other way round; every `current` row equals the newest change of
//!   its key.
//! * The floor never falls, and never stands above the revision.
//!
//! Left out: who may ask ([`crate::command::Envelope`] carries the principal), leases (every lease is unknown for
//! now), and when to scrub.

mod check;
mod compaction;
mod content;
mod cover;
mod range;
#[cfg(test)]
mod tests;
mod txn;
mod walk;

use bytes::Bytes;
use trefoil_causality::Revision;

pub use self::check::{Invalid, Limits, check, check_range};
pub use self::compaction::{compact, scrub};
pub use self::content::{Content, content_part_at, pair_sum};
pub use self::range::range;
pub use self::txn::{ANSWER_BYTES_MAX, DELETED_KEYS_MAX, execute, execute_within};
pub use self::walk::WALK_KEYS_MAX;
use crate::codec::{Decoder, Malformed, put_bool, put_u64};
use crate::command::Refusal;
use crate::engine::{EngineError, Family, Read};
use crate::key::{self, StoreNumber};
use crate::overlay::Overlay;

const FORMAT: u8 = 1;

/// What a partition's state is besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub revision: Revision,
    /// The lowest revision that can be read; `None` before the first compaction.
    pub floor: Option<Revision>,
    /// Log time: the highest clock reading of any command applied.
    pub clock_ms: u64,
    /// The content sum of the living keys.
    pub sum: u64,
    /// How many keys live.
    pub keys: u64,
    /// How many sessions are open, ended ones that were not yet removed included.
    pub sessions: u64,
    /// The session at which the search for ended ones goes on.
    pub sweep: u64,
}

impl Head {
    /// The head of a store nothing was ever applied to.
    pub fn empty() -> Head {
        Head { revision: Revision::EMPTY, floor: None, clock_ms: 0, sum: 0, keys: 0, sessions: 0, sweep: 0 }
    }

    /// The head row of `store`, or the empty head when it has none yet.
    pub fn load(read: &dyn Read, store: StoreNumber) -> Result<Head, EngineError> {
        match read.get(Family::State, &key::state::head(store))? {
            Some(row) => Ok(Head::decode(row)?),
            None => Ok(Head::empty()),
        }
    }

    /// Writes the head row. Once per batch, after its last command.
    pub fn store(&self, view: &mut Overlay<'_>, store: StoreNumber) {
        view.put(Family::State, key::state::head(store), self.encode());
    }

    /// The revision a read is for (`None`: the newest), or why it cannot be read.
    pub fn readable(&self, asked: Option<Revision>) -> Result<Revision, Refusal> {
        let asked = asked.unwrap_or(self.revision);
        if asked > self.revision {
            return Err(Refusal::FutureRevision { asked: asked.0, newest: self.revision.0 });
        }
        match self.floor {
            Some(floor) if asked < floor => Err(Refusal::Compacted { asked: asked.0, floor: floor.0 }),
            Some(_) | None => Ok(asked),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_u64(&mut out, self.revision.0);
        put_bool(&mut out, self.floor.is_some());
        put_u64(&mut out, self.floor.map_or(0, |floor| floor.0));
        for number in [self.clock_ms, self.sum, self.keys, self.sessions, self.sweep] {
            put_u64(&mut out, number);
        }
        out
    }

    pub fn decode(bytes: Bytes) -> Result<Head, Malformed> {
        let mut from = Decoder::new(bytes, "head row");
        if from.u8()? != FORMAT {
            return Err(Malformed { what: "head row: unknown format" });
        }
        let revision = Revision(from.u64()?);
        let (compacted, floor) = (from.bool()?, Revision(from.u64()?));
        let head = Head {
            revision,
            floor: compacted.then_some(floor),
            clock_ms: from.u64()?,
            sum: from.u64()?,
            keys: from.u64()?,
            sessions: from.u64()?,
            sweep: from.u64()?,
        };
        from.end()?;
        Ok(head)
    }
}
