//! Tampering: one change to a history that alters its meaning, so that its checkers can be shown to see it.
//!
//! In the history of a green run one completion becomes another: of a [`Kind`], at a place, and with what else it
//! takes, all chosen by a seed. Each change is wrong by construction: what the rest of the history says contradicts it,
//! whatever calls of unknown outcome have done. What contradicts it is told with it, so that a person can follow. Where
//! to find such places is each workload's ([`Tamper`], [`Contradict`]).
//!
//! Invariants:
//!
//! * Only one completion differs, and it ends what it ended before: the history is still one that could be recorded.
//! * Nothing here asks a checker: that a change is found is what is to be shown.
//!
//! Left out: changes of which the history cannot tell, as of a value that nobody could have read again.

mod append;
mod bank;
mod cas_register;
mod counter;
mod register;
mod set;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::generator::Dice;
use crate::history::{Event, Operation, Outcome, What, pair};
use crate::workload::Workload;

/// How a completion is changed. Not every workload has every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A reply has what nobody wrote.
    Invented,
    /// A reply has what had been there before.
    Stale,
    /// A stale read looks at less than its process was shown before. Only of a history that has stale reads.
    Back,
    /// A reply lacks what was there.
    Lost,
    /// A reply has twice what was there once, or what is another one's.
    Repeated,
    /// What was done is said to have failed.
    Denied,
    /// A revision, a version, or a place in an order is another one.
    Moved,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Invented, Kind::Stale, Kind::Back, Kind::Lost, Kind::Repeated, Kind::Denied, Kind::Moved];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Invented => "invented",
            Kind::Stale => "stale",
            Kind::Back => "back",
            Kind::Lost => "lost",
            Kind::Repeated => "repeated",
            Kind::Denied => "denied",
            Kind::Moved => "moved",
        })
    }
}

/// What came of an operation instead, and what contradicts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<R> {
    pub outcome: Outcome<R>,
    pub why: String,
}

impl<R> Change<R> {
    fn reply(reply: R, why: impl Into<String>) -> Change<R> {
        Change { outcome: Outcome::Ok(reply), why: why.into() }
    }

    /// Said to have failed, although it was done.
    fn denied(why: impl Into<String>) -> Change<R> {
        Change { outcome: Outcome::Fail("refused".into()), why: why.into() }
    }
}

/// An operation of a workload's history.
pub type Asked<W> = Operation<<W as Workload>::Call, <W as Workload>::Reply>;

/// What a history says that its checkers hold to be valid, put so that what contradicts it is found.
pub trait Contradict<'a, W: Workload>: Sized {
    fn of(operations: &'a [Asked<W>]) -> Self;

    /// The change of a kind to the operation at a place of the list, if there is one.
    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<W::Reply>>;
}

/// A workload whose histories can be tampered with.
pub trait Tamper: Workload + Sized {
    type Facts<'a>: Contradict<'a, Self>;
}

/// A history, and in words how it was changed.
pub type Tampered<C, R> = (Vec<Event<C, R>>, String);

/// The history with the change that `seed` stands for. `None` when there is nothing to change.
pub fn tampered<W: Tamper>(history: &[Event<W::Call, W::Reply>], seed: u64) -> Option<Tampered<W::Call, W::Reply>> {
    let operations = pair(history);
    let facts = <W::Facts<'_> as Contradict<'_, W>>::of(&operations);
    let mut dice = Dice::new(seed);
    let mut kinds = Kind::ALL;
    dice.shuffle(&mut kinds);
    let first = dice.below(operations.len().max(1) as u64) as usize;
    for kind in kinds {
        for place in (first..operations.len()).chain(0..first) {
            if let Some(change) = facts.change(kind, place, &mut dice) {
                let operation = &operations[place];
                let told = format!("{kind}, event {}: {:?}: {}", operation.index, operation.call, change.why);
                return Some((with(history, operation, change.outcome), told));
            }
        }
    }
    None
}

/// The history in which `operation` ended so.
fn with<C: Clone, R: Clone>(
    history: &[Event<C, R>],
    operation: &Operation<C, R>,
    outcome: Outcome<R>,
) -> Vec<Event<C, R>> {
    let mut changed = history.to_vec();
    let ends = |what: &What<C, R>| match what {
        What::Ok { process, .. } | What::Fail { process, .. } | What::Info { process, .. } => {
            *process == operation.process
        }
        What::Invoke { .. } | What::Fault { .. } => false,
    };
    let end = changed[operation.index..].iter_mut().find(|event| ends(&event.what));
    let process = operation.process;
    end.expect("what is changed has ended").what = match outcome {
        Outcome::Ok(reply) => What::Ok { process, reply },
        Outcome::Fail(why) => What::Fail { process, why },
        Outcome::Info(why) => What::Info { process, why },
    };
    changed
}

/// One of them, if there is any.
fn any<T>(dice: &mut Dice, mut choices: Vec<T>) -> Option<T> {
    match choices.len() as u64 {
        0 => None,
        count => Some(choices.swap_remove(dice.below(count) as usize)),
    }
}
