//! Sets: elements are added and a whole set is read. Linearizability of each set, element by element.
//!
//! An element is *known* when its add was acknowledged, or when the first read that has it ended. A read that cannot have
//! happened before that must have it: one that began later, or that has an element whose add began later. When later
//! reads have it again, the one without it was *stale*; when none has, the element is *lost*. Also wrong: an element
//! that nobody added, or whose add failed, or that was read before it was added (*unexpected*); one that stands in the
//! set twice (*duplicated*); and two reads each of which has what the other lacks (*incomparable*).
//!
//! Model: linearizable sets that only grow, each a thing of its own. When an acknowledged element was never read and no
//! read began after its acknowledgement, the verdict is `unknown`: a run ends with a read of each set. So it is when no
//! element of any set was read at all.
//!
//! Invariants:
//!
//! * `false` exactly when no order of the calls explains all replies: reads that are neither lacking, nor early, nor
//!   incomparable fall into an order by size, and each add between the last read without it and the first with it.
//! * Equal times count as at the same time.
//!
//! Left out: removals, and how long it took until an element was seen.

use std::collections::BTreeMap;
use std::fmt;

use super::Verdict;
use super::evidence::{Findings, named};
use crate::history::{Nanos, Operation, Outcome};
use crate::workload::set::{Call, Reply, SetId};

const CHECKER: &str = "set-full (linearizability)";

type Called = Operation<Call, Reply>;

/// What became of an element; the first are violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Read, though not added, or not yet.
    Unexpected,
    /// Twice in one read.
    Duplicated,
    /// Known, and then in no read any more.
    Lost,
    /// Known, then not in a read, then in one again.
    Stale,
    /// Acknowledged, and no read that could show it began afterwards.
    NeverRead,
    /// Neither acknowledged nor read.
    Unacknowledged,
    /// In every read that had to have it, and in at least one.
    Stable,
}

/// What is wrong with a history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Element(State),
    /// Two reads each have what the other lacks.
    Incomparable,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Unexpected => "unexpected",
            State::Duplicated => "duplicated",
            State::Lost => "lost",
            State::Stale => "stale",
            State::NeverRead => "never read",
            State::Unacknowledged => "unacknowledged",
            State::Stable => "stable",
        })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Element(state) => fmt::Display::fmt(state, f),
            Wrong::Incomparable => f.write_str("incomparable"),
        }
    }
}

/// Judges a history of adds and reads, in the order of their invocations.
pub fn check(operations: &[Operation<Call, Reply>]) -> Verdict {
    match sets(operations) {
        Ok(sets) => judge(&sets),
        Err(why) => Verdict::unknown(CHECKER, why),
    }
}

/// The history of each set.
fn sets(operations: &[Called]) -> Result<BTreeMap<SetId, Seen<'_>>, String> {
    let mut own: BTreeMap<SetId, Vec<&Called>> = BTreeMap::new();
    for operation in operations {
        own.entry(operation.call.set()).or_default().push(operation);
    }
    own.into_iter().map(|(set, operations)| Seen::of(operations).map(|seen| (set, seen))).collect()
}

/// What became of each element of each set.
///
/// # Errors
/// Why the history is none of this workload.
pub fn states(operations: &[Operation<Call, Reply>]) -> Result<BTreeMap<(SetId, u64), State>, String> {
    let sets = sets(operations)?;
    let of_set = |(set, seen): (&SetId, &Seen<'_>)| -> Vec<((SetId, u64), State)> {
        seen.elements.iter().map(|(number, element)| ((*set, *number), element.state())).collect()
    };
    Ok(sets.iter().flat_map(of_set).collect())
}

fn judge(sets: &BTreeMap<SetId, Seen<'_>>) -> Verdict {
    let mut findings = Findings::new();
    let mut stable = 0;
    let mut never_read = Vec::new();
    for (number, element) in sets.values().flat_map(|seen| &seen.elements) {
        let state = element.state();
        match state {
            State::Unexpected | State::Duplicated | State::Lost | State::Stale => {
                findings.add(Wrong::Element(state), || element.tell(*number));
            }
            State::NeverRead => never_read.push(*number),
            State::Unacknowledged => {}
            State::Stable => stable += 1,
        }
    }
    sets.values().for_each(|seen| seen.incomparable(&mut findings));
    match (findings.is_empty(), never_read.first(), stable) {
        (false, _, _) => Verdict::invalid(CHECKER, findings.lines()),
        (true, Some(first), _) => {
            let count = never_read.len();
            Verdict::unknown(
                CHECKER,
                format!("no read began after {count} elements were acknowledged, {first} the first"),
            )
        }
        (true, None, 0) => Verdict::unknown(CHECKER, "no read has any element"),
        (true, None, _) => Verdict::valid(CHECKER),
    }
}

/// A read that was answered.
struct Read<'a> {
    operation: &'a Called,
    /// Ascending, each once.
    elements: Vec<u64>,
    ended: Nanos,
    /// It cannot have happened before: when it began, or the last of the adds whose elements it has.
    not_before: Nanos,
}

/// What the history says of an element. Reads are in the order of their invocations.
#[derive(Default)]
struct Element<'a> {
    add: Option<&'a Called>,
    /// When it was surely in the set, and what says so.
    known: Option<(Nanos, &'a Called)>,
    /// A read that had ended when the add began.
    early: Option<&'a Called>,
    /// A read that has it twice.
    twice: Option<&'a Called>,
    last_with: Option<&'a Called>,
    /// The first read after `last_with` that had to have it and has not.
    missing: Option<&'a Called>,
    /// The first such read after which one has it again, and that one.
    stale: Option<(&'a Called, &'a Called)>,
}

impl<'a> Element<'a> {
    fn is_known_before(&self, time: Nanos) -> bool {
        self.known.is_some_and(|(at, _)| at < time)
    }

    fn know(&mut self, at: Nanos, by: &'a Called) {
        if self.known.is_none_or(|(known, _)| at < known) {
            self.known = Some((at, by));
        }
    }

    fn found(&mut self, read: &'a Called) {
        self.last_with = Some(read);
        if let Some(missing) = self.missing.take() {
            self.stale.get_or_insert((missing, read));
        }
    }

    fn state(&self) -> State {
        let may_be_done = self.add.is_some_and(|add| !matches!(add.outcome, Outcome::Fail(_)));
        if self.last_with.is_some() && (!may_be_done || self.early.is_some()) {
            State::Unexpected
        } else if self.twice.is_some() {
            State::Duplicated
        } else if self.missing.is_some() {
            State::Lost
        } else if self.stale.is_some() {
            State::Stale
        } else if self.last_with.is_some() {
            State::Stable
        } else if self.known.is_some() {
            State::NeverRead
        } else {
            State::Unacknowledged
        }
    }

    fn tell(&self, number: u64) -> Vec<String> {
        let line = |what: &str, operation: Option<&Called>| operation.map(|found| format!("{what}: {}", named(found)));
        let known = self.known.map(|(at, by)| format!("known since {} ns, by {}", at.0, named(by)));
        let add = line("added by", self.add).unwrap_or_else(|| "added by nobody".into());
        let lines = [
            Some(format!("element {number}")),
            Some(add),
            line("read before it was added by", self.early),
            line("twice in", self.twice),
            known,
            line("had to be, but is not, in", self.stale.map(|(without, _)| without)),
            line("is again in", self.stale.map(|(_, again)| again)),
            line("last in", self.last_with),
            line("first had to be, but is not, in", self.missing),
        ];
        lines.into_iter().flatten().collect()
    }
}

/// The history of a set, element by element.
#[derive(Default)]
struct Seen<'a> {
    elements: BTreeMap<u64, Element<'a>>,
    reads: Vec<Read<'a>>,
}

impl<'a> Seen<'a> {
    /// From the calls of one set, in the order of their invocations.
    fn of(operations: Vec<&'a Called>) -> Result<Seen<'a>, String> {
        let mut seen = Seen::default();
        for operation in operations {
            seen.take(operation)?;
        }
        seen.look_for_present();
        seen.look_for_missing();
        Ok(seen)
    }

    fn take(&mut self, operation: &'a Called) -> Result<(), String> {
        match (&operation.call, &operation.outcome) {
            (Call::Add { element, .. }, Outcome::Ok(Reply::Add) | Outcome::Fail(_) | Outcome::Info(_)) => {
                self.take_add(*element, operation)
            }
            (Call::Read { .. }, Outcome::Ok(Reply::Read { elements })) => {
                self.take_read(elements, operation);
                Ok(())
            }
            (Call::Read { .. }, Outcome::Fail(_) | Outcome::Info(_)) => Ok(()),
            (Call::Add { .. }, Outcome::Ok(Reply::Read { .. })) | (Call::Read { .. }, Outcome::Ok(Reply::Add)) => {
                Err(format!("{} has a reply that does not fit", named(operation)))
            }
        }
    }

    fn take_add(&mut self, number: u64, operation: &'a Called) -> Result<(), String> {
        let element = self.elements.entry(number).or_default();
        if element.add.replace(operation).is_some() {
            return Err(format!("{} adds {number}, not for the first time", named(operation)));
        }
        match operation.outcome {
            Outcome::Ok(_) => element.know(end(operation), operation),
            Outcome::Fail(_) | Outcome::Info(_) => {}
        }
        Ok(())
    }

    fn take_read(&mut self, numbers: &[u64], operation: &'a Called) {
        let mut elements = numbers.to_vec();
        elements.sort_unstable();
        for pair in elements.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.elements.entry(pair[0]).or_default().twice.get_or_insert(operation);
        }
        elements.dedup();
        self.reads.push(Read { operation, elements, ended: end(operation), not_before: operation.invoked });
    }

    /// By which reads elements are known, and before which adds reads cannot have happened.
    fn look_for_present(&mut self) {
        for read in &mut self.reads {
            for number in &read.elements {
                let element = self.elements.entry(*number).or_default();
                element.know(read.ended, read.operation);
                if let Some(add) = element.add {
                    read.not_before = read.not_before.max(add.invoked);
                    if read.ended < add.invoked {
                        element.early.get_or_insert(read.operation);
                    }
                }
            }
        }
    }

    /// Which reads have their elements, and which lack some.
    fn look_for_missing(&mut self) {
        let mut known: Vec<Nanos> = self.elements.values().filter_map(|element| Some(element.known?.0)).collect();
        known.sort_unstable();
        for read in &self.reads {
            let due = known.partition_point(|at| *at < read.not_before);
            let mut held = 0;
            for number in &read.elements {
                let element = self.elements.get_mut(number).expect("what was read has an entry");
                held += usize::from(element.is_known_before(read.not_before));
                element.found(read.operation);
            }
            if held < due {
                note_missing(&mut self.elements, read);
            }
        }
    }

    /// In the order of their sizes each read has all that the one before it has, or neither has all of the other's.
    fn incomparable(&self, findings: &mut Findings<Wrong>) {
        let mut reads: Vec<&Read<'a>> = self.reads.iter().collect();
        reads.sort_by_key(|read| read.elements.len());
        for pair in reads.windows(2) {
            if let (Some(one), Some(other)) = (only_in(pair[0], pair[1]), only_in(pair[1], pair[0])) {
                let tell =
                    |read: &Read<'_>, has: u64, lacks: u64| format!("{} has {has}, not {lacks}", named(read.operation));
                findings.add(Wrong::Incomparable, || {
                    let reads = [tell(pair[0], one, other), tell(pair[1], other, one)];
                    std::iter::once("two reads".to_owned()).chain(reads).collect()
                });
            }
        }
    }
}

fn note_missing<'a>(elements: &mut BTreeMap<u64, Element<'a>>, read: &Read<'a>) {
    for (number, element) in elements {
        if element.is_known_before(read.not_before) && read.elements.binary_search(number).is_err() {
            element.missing.get_or_insert(read.operation);
        }
    }
}

/// An element of `one` that `other` has not.
fn only_in(one: &Read<'_>, other: &Read<'_>) -> Option<u64> {
    one.elements.iter().find(|number| other.elements.binary_search(number).is_err()).copied()
}

fn end(operation: &Called) -> Nanos {
    operation.completed.expect("a call with a reply has ended")
}

#[cfg(test)]
mod tests;
