//! Linearizability of registers by the revisions the store gave.
//!
//! The store says at which revision each write was done and each read looked. So the order is given and need not be
//! searched, only verified, rule by rule; the first rule that is broken ends it:
//!
//! 1. **Sightings.** Values are unique: what a read returns tells whose write it saw, and at which revision that was
//!    done. So a write of unknown outcome is known as done once it was read. One that failed must not be seen.
//! 2. **One write, one revision.**
//! 3. **Real time.** The revision of a write is above all that were known when it was invoked, that of a read at least
//!    as high. A stale read may look at an older one, but what it has looked at is known from its end on.
//! 4. **States.** A read at `at` returns the newest write at or below `at`, a swap finds the newest one below its own.
//! 5. **Replay.** Each register is played through in the order of revisions, with its versions. What was read by nobody
//!    and has an unknown outcome may be put in between, at a revision that no known write has (`replay`).
//!
//! Model: as for `checker/wgl.rs`, and revisions grow along the one order of all registers.
//!
//! Invariants:
//!
//! * `false` is a proof: no order explains the replies, their revisions among them.
//! * `true` is one too, as far as `checker/wgl.rs` looks: each register has an order that explains its values and versions.
//! * Rules 1 to 4 cost n log n; so does the replay, but for what it puts in between, which has a budget of steps.
//!
//! Left out: whether revisions are without gaps, since others may write to the store; and whether two registers put
//! something in between at one revision.

mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use replay::Runs;

use super::Verdict;
use super::evidence::Findings;
use super::place::{Place, floors, too_low};
use super::wgl::register::{nothing_answered, show, together};
use super::wgl::{Budget, STEPS_MAX};
use crate::history::{Operation, Outcome};
use crate::workload::register::{Call, Register, Reply};

const CHECKER: &str = "linearizable registers (revisions)";

type Asked = Operation<Call, Reply>;

/// What is wrong, by the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Misfit,
    Unwritten,
    Undone,
    TwoRevisions,
    Newer,
    OneRevision,
    WroteLate,
    LookedLate,
    Stale,
    NotHeld,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Misfit => "a reply is to another kind of call",
            Wrong::Unwritten => "a value was seen that nobody wrote",
            Wrong::Undone => "a write said not done was seen",
            Wrong::TwoRevisions => "a write was seen at two revisions",
            Wrong::Newer => "a read returned a value newer than the revision it looked at",
            Wrong::OneRevision => "two writes have one revision",
            Wrong::WroteLate => "a write's revision is not above one that was known before the write was invoked",
            Wrong::LookedLate => "what was looked at is older than a revision that was known before",
            Wrong::Stale => "a read did not return the newest write at its revision",
            Wrong::NotHeld => "a swap found what the register did not hold",
        })
    }
}

/// Whether the revisions give an order that explains every reply.
pub fn check(operations: &[Asked]) -> Verdict {
    if let Some(verdict) = nothing_answered(CHECKER, operations.iter()) {
        return verdict;
    }
    match writers(operations) {
        Ok(writers) => Order::new(operations, writers).judge(),
        Err(why) => Verdict::unknown(CHECKER, why),
    }
}

/// Who was to write what.
fn writers(operations: &[Asked]) -> Result<BTreeMap<(Register, u64), usize>, String> {
    let mut writers = BTreeMap::new();
    for (number, operation) in operations.iter().enumerate() {
        let (register, value) = match &operation.call {
            Call::Read { .. } | Call::StaleRead { .. } => continue,
            Call::Write { register, value } | Call::Cas { register, to: value, .. } => (*register, *value),
        };
        if writers.insert((register, value), number).is_some() {
            return Err(format!("{value} is written to register {} twice: no telling which was read", register.0));
        }
    }
    Ok(writers)
}

/// Where an answered call stands. `None`: the reply is to another kind of call.
fn place_of(call: &Call, reply: &Reply) -> Option<Place> {
    match (call, reply) {
        (Call::Read { .. } | Call::StaleRead { .. }, Reply::Read { at, .. }) => Some(Place::LookedAt(*at)),
        (Call::Write { .. }, Reply::Write { revision }) => Some(Place::Made(*revision)),
        (Call::Cas { .. }, Reply::Cas { swapped: true, revision }) => Some(Place::Made(*revision)),
        (Call::Cas { .. }, Reply::Cas { swapped: false, revision }) => Some(Place::LookedAt(*revision)),
        (
            Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
            Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. },
        ) => None,
    }
}

/// Whether it may look at a revision older than one that was known before: which revisions such a read may look at is
/// judged in `stale.rs`. What it finds there, with its version, is judged here as of any other read: its place in the
/// order of revisions is as good.
fn may_be_behind(operation: &Asked) -> bool {
    matches!(operation.call, Call::StaleRead { .. })
}

/// What the replies say about the order. Operations go by their places in the list.
struct Order<'a> {
    operations: &'a [Asked],
    writers: BTreeMap<(Register, u64), usize>,
    /// By operation; `None` for what is not known to be done. From rule 1 on with what was seen.
    places: Vec<Option<Place>>,
    /// From rule 2 on: the known writes by revision, of all registers and of each.
    made: BTreeMap<u64, usize>,
    made_in: BTreeMap<Register, BTreeMap<u64, usize>>,
    /// From rule 3 on, by operation: the highest revision known when it was invoked, 0 if there is none.
    floors: Vec<u64>,
    findings: Findings<Wrong>,
}

impl<'a> Order<'a> {
    fn new(operations: &'a [Asked], writers: BTreeMap<(Register, u64), usize>) -> Order<'a> {
        let place = |operation: &Asked| match &operation.outcome {
            Outcome::Ok(reply) => place_of(&operation.call, reply),
            Outcome::Fail(_) | Outcome::Info(_) => None,
        };
        Order {
            operations,
            writers,
            places: operations.iter().map(place).collect(),
            made: BTreeMap::new(),
            made_in: BTreeMap::new(),
            floors: vec![0; operations.len()],
            findings: Findings::new(),
        }
    }

    fn judge(mut self) -> Verdict {
        let rules: [fn(&mut Self); 4] = [Self::sightings, Self::one_revision, Self::real_time, Self::states];
        for rule in rules {
            rule(&mut self);
            if !self.findings.is_empty() {
                return Verdict::invalid(CHECKER, self.findings.lines());
            }
        }
        let mut registers: BTreeMap<Register, Vec<usize>> = BTreeMap::new();
        for (number, operation) in self.operations.iter().enumerate() {
            registers.entry(operation.call.register()).or_default().push(number);
        }
        let runs = Runs::new(self.made.keys().copied());
        let mut budget = Budget::new(STEPS_MAX);
        let replayed = registers.iter().map(|(register, own)| self.replay(*register, own, &runs, &mut budget));
        together(CHECKER, replayed.collect())
    }

    /// `operations`: what it is about, the one that is wrong last.
    fn finding(&mut self, wrong: Wrong, operations: &[usize]) {
        let all = self.operations;
        self.findings.add(wrong, || {
            let register = operations.last().map(|number| format!("register {}", all[*number].call.register().0));
            register.into_iter().chain(operations.iter().map(|number| show(&all[*number]))).collect()
        });
    }

    fn sightings(&mut self) {
        let operations = self.operations;
        for (number, operation) in operations.iter().enumerate() {
            let Outcome::Ok(reply) = &operation.outcome else { continue };
            if self.places[number].is_none() {
                self.finding(Wrong::Misfit, &[number]);
            }
            match (&operation.call, reply) {
                (Call::Read { .. } | Call::StaleRead { .. }, Reply::Read { value: Some(seen), at }) => {
                    if seen.revision > *at {
                        self.finding(Wrong::Newer, &[number]);
                    }
                    self.sighting(number, seen.value, Some(seen.revision));
                }
                (Call::Cas { from, .. }, Reply::Cas { swapped: true, .. }) => self.sighting(number, *from, None),
                (
                    Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
                    Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. },
                ) => {}
            }
        }
    }

    /// `seer` found `value` in its register; a read also says which revision made it.
    fn sighting(&mut self, seer: usize, value: u64, revision: Option<u64>) {
        let register = self.operations[seer].call.register();
        let Some(&writer) = self.writers.get(&(register, value)) else {
            self.finding(Wrong::Unwritten, &[seer]);
            return;
        };
        if let Outcome::Fail(_) = self.operations[writer].outcome {
            self.finding(Wrong::Undone, &[writer, seer]);
            return;
        }
        match (self.places[writer], revision) {
            (Some(Place::LookedAt(_)), _) => self.finding(Wrong::Undone, &[writer, seer]),
            (Some(Place::Made(own)), Some(seen)) if own != seen => {
                self.finding(Wrong::TwoRevisions, &[writer, seer]);
            }
            (None, Some(seen)) => self.places[writer] = Some(Place::Made(seen)),
            (Some(Place::Made(_)), _) | (None, None) => {}
        }
    }

    fn one_revision(&mut self) {
        let operations = self.operations;
        for (number, operation) in operations.iter().enumerate() {
            let Some(Place::Made(revision)) = self.places[number] else { continue };
            self.made_in.entry(operation.call.register()).or_default().insert(revision, number);
            if let Some(other) = self.made.insert(revision, number) {
                self.finding(Wrong::OneRevision, &[other, number]);
            }
        }
    }

    fn real_time(&mut self) {
        let floors = floors(self.operations, &self.places);
        for (number, place, floor) in too_low(&self.places, &floors) {
            if may_be_behind(&self.operations[number]) {
                continue;
            }
            let wrong = match place {
                Place::Made(_) => Wrong::WroteLate,
                Place::LookedAt(_) => Wrong::LookedLate,
            };
            self.finding(wrong, &[floor.by, number]);
        }
        self.floors = floors.into_iter().map(|floor| floor.map_or(0, |floor| floor.revision)).collect();
    }

    fn states(&mut self) {
        let operations = self.operations;
        for (number, operation) in operations.iter().enumerate() {
            let Some(place) = self.places[number] else { continue };
            match (&operation.call, &operation.outcome, place) {
                (
                    Call::Read { .. } | Call::StaleRead { .. },
                    Outcome::Ok(Reply::Read { value, .. }),
                    Place::LookedAt(at),
                ) => {
                    let held = value.map(|seen| seen.value);
                    self.state(number, held, at, Wrong::Stale);
                }
                (Call::Cas { from, .. }, _, Place::Made(_)) => {
                    self.state(number, Some(*from), place.found(), Wrong::NotHeld);
                }
                (Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. }, ..) => {}
            }
        }
    }

    /// Whether a register can have held this value at `revision`. A value whose revision is not known can: the replay
    /// will tell.
    fn state(&mut self, seer: usize, value: Option<u64>, revision: u64, otherwise: Wrong) {
        let register = self.operations[seer].call.register();
        let own = self.made_in.get(&register);
        let newest = own.and_then(|own| own.range(..=revision).next_back()).map(|(_, number)| *number);
        let writer = value.and_then(|value| self.writers.get(&(register, value)).copied());
        let known = writer.is_none_or(|writer| self.places[writer].is_some());
        if known && newest != writer {
            let shown: Vec<usize> = newest.into_iter().chain([seer]).collect();
            self.finding(otherwise, &shown);
        }
    }
}
