//! How far one command of the log may walk: a budget of keys for all its ranges and compares together.
//!
//! A command of the log runs on every replica, one after the other: a walk over everything would hold up the whole
//! partition. As of now each living key that a walk meets counts one. In the past a walk goes over changes: each change
//! above the floor that it meets counts one, and so does each key that is found alive by a change at or below the floor.
//!
//! Invariant: over equal states a walk counts the same on every replica. So nothing else below the floor counts: each
//! replica scrubs that at its own pace.
//!
//! Left out: what goes past the log, which walks as far as it has to; deletes, which have a bound of their own; and the
//! bytes of the rows: a key counts one however large its value is.

use trefoil_causality::Revision;

use crate::command::Refusal;
use crate::engine::Visit;
use crate::key::ChangeId;

/// Keys one command of the log may walk over in its ranges and compares together; in the past, changes.
pub const WALK_KEYS_MAX: u64 = 1_000_000;

/// What was walked over so far, and how much may be. Once that is exceeded every walk stops at its next key.
#[derive(Debug)]
pub(super) struct Walk {
    met: u64,
    max: u64,
    /// Revision 0 when there is none: no change is that old.
    floor: Revision,
}

impl Walk {
    /// For a state with this floor.
    pub(super) fn within(max: u64, floor: Option<Revision>) -> Walk {
        Walk { met: 0, max, floor: floor.unwrap_or_default() }
    }

    /// For what may walk as far as it has to.
    pub(super) fn unbounded() -> Walk {
        Walk::within(u64::MAX, None)
    }

    /// Meets a living key.
    pub(super) fn key(&mut self) -> Visit {
        self.met = self.met.saturating_add(1);
        if self.met > self.max { Visit::Stop } else { Visit::Next }
    }

    /// Meets a change of the history.
    pub(super) fn change(&mut self, id: ChangeId) -> Visit {
        if id.revision > self.floor { self.key() } else { Visit::Next }
    }

    /// Finds a key alive by a change that it met before.
    pub(super) fn alive(&mut self, id: ChangeId) -> Visit {
        if id.revision > self.floor { Visit::Next } else { self.key() }
    }

    /// Why the command is refused, if it walked too far.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        (self.met > self.max).then_some(Refusal::TooManyKeysRead { limit: self.max })
    }
}
