//! Counter: increments and reads of one number.
//!
//! Two checkers. [`bounds`] compares what was seen with sums: at least what was surely added before a call began, at
//! most what may have been added until it ended. [`linearizable`] looks for an order of all calls: an answered
//! increment says what it made of the counter, so that its place is given, and only those of unknown outcome can be put
//! between.
//!
//! Model: a counter that begins at 0 and is only incremented, by more than 0; of unknown outcome, once or never.
//!
//! Invariants:
//!
//! * `false` is a proof, of both; `true` of the search is one too.
//! * An increment of unknown outcome passes over no number that was seen, and does not leave one that an answered
//!   increment has left. So where the search stands still, it soon gives up.

use std::collections::BTreeSet;

use super::Verdict;
use super::evidence::{Findings, named};
use super::wgl::{DeadEnd, Found, Model, search};
use crate::history::{Nanos, Operation, Outcome};
use crate::workload::counter::{Call, Reply};

const BOUNDS: &str = "counter (bounds)";
const ORDER: &str = "counter (linearizability)";

/// Steps of the search: so many for each operation, and these; but no more than take 2 GB.
const STEPS_EACH: u64 = 1_000;
const STEPS_MIN: u64 = 1_000_000;
const STEPS_MAX: u64 = 100_000_000;

type Asked = Operation<Call, Reply>;

/// Whether all that was seen lies between what was surely added and what may have been.
pub fn bounds(operations: &[Asked]) -> Verdict {
    let sums = Sums::of(operations);
    let mut findings = Findings::new();
    for operation in operations {
        let Some((before, after)) = seen(operation) else { continue };
        let least = sums.surely_before(operation.invoked);
        if u128::from(before) < least {
            let tell = || vec![format!("{}, but {least} were surely added before", told(operation))];
            findings.add("too little", tell);
        }
        let most = operation.completed.map_or(u128::MAX, |end| sums.possibly_until(end));
        if u128::from(after) > most {
            let tell = || vec![format!("{}, but at most {most} can have been added by then", told(operation))];
            findings.add("too much", tell);
        }
    }
    match (findings.is_empty(), nothing_to_judge(operations)) {
        (false, _) => Verdict::invalid(BOUNDS, findings.lines()),
        (true, Some(why)) => Verdict::unknown(BOUNDS, why),
        (true, None) => Verdict::valid(BOUNDS),
    }
}

/// Whether the operations have an order that explains every reply.
pub fn linearizable(operations: &[Asked]) -> Verdict {
    let steps_max = STEPS_MAX.min(STEPS_MIN + STEPS_EACH * operations.len() as u64);
    match (search(&Counter::of(operations), operations, steps_max), nothing_to_judge(operations)) {
        (Found::NotLinearizable(end), _) => Verdict::invalid(ORDER, explained(operations, &end)),
        (Found::OutOfSteps(steps), _) => Verdict::unknown(ORDER, format!("not decided within {steps} steps")),
        (Found::Linearizable, Some(why)) => Verdict::unknown(ORDER, why),
        (Found::Linearizable, None) => Verdict::valid(ORDER),
    }
}

/// Why a history without a fault proves nothing.
fn nothing_to_judge(operations: &[Asked]) -> Option<&'static str> {
    let answered = operations.iter().filter(|asked| matches!(asked.outcome, Outcome::Ok(_)));
    let (reads, increments): (Vec<&Asked>, Vec<&Asked>) = answered.partition(|asked| matches!(asked.call, Call::Read));
    match (reads.is_empty(), increments.is_empty()) {
        (true, _) => Some("no read was answered"),
        (false, true) => Some("no increment was answered"),
        (false, false) => None,
    }
}

/// What a call that was answered saw of the counter, before and after itself. One that says to have made less of it
/// than it added saw 0 before: it has no place in any order.
fn seen(operation: &Asked) -> Option<(u64, u64)> {
    match (&operation.call, &operation.outcome) {
        (Call::Read, Outcome::Ok(Reply::Read { value })) => Some((*value, *value)),
        (Call::Increment { by }, Outcome::Ok(Reply::Increment { value })) => Some((value.saturating_sub(*by), *value)),
        (Call::Read | Call::Increment { .. }, Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_)) => None,
    }
}

/// What was added until when.
struct Sums {
    /// Answered increments by their ends, all but those that failed by their beginnings; each with the sum up to there.
    surely: Vec<(Nanos, u128)>,
    possibly: Vec<(Nanos, u128)>,
}

impl Sums {
    fn of(operations: &[Asked]) -> Sums {
        let (mut surely, mut possibly) = (Vec::new(), Vec::new());
        for operation in operations {
            let Call::Increment { by } = operation.call else { continue };
            match (&operation.outcome, operation.completed) {
                (Outcome::Fail(_), _) => continue,
                (Outcome::Ok(_), Some(end)) => surely.push((end, u128::from(by))),
                (Outcome::Ok(_), None) | (Outcome::Info(_), _) => {}
            }
            possibly.push((operation.invoked, u128::from(by)));
        }
        Sums { surely: added_up(surely), possibly: added_up(possibly) }
    }

    fn surely_before(&self, time: Nanos) -> u128 {
        up_to(&self.surely, self.surely.partition_point(|(end, _)| *end < time))
    }

    fn possibly_until(&self, time: Nanos) -> u128 {
        up_to(&self.possibly, self.possibly.partition_point(|(begin, _)| *begin <= time))
    }
}

fn added_up(mut added: Vec<(Nanos, u128)>) -> Vec<(Nanos, u128)> {
    added.sort_unstable();
    let mut sum = 0;
    for (_, by) in &mut added {
        sum += *by;
        *by = sum;
    }
    added
}

/// The sum of the first `count`.
fn up_to(sums: &[(Nanos, u128)], count: usize) -> u128 {
    count.checked_sub(1).map_or(0, |last| sums[last].1)
}

/// The counter as a model.
struct Counter {
    /// Every number that an answered call saw.
    seen: BTreeSet<u64>,
    /// Those from which an answered increment went on.
    left: BTreeSet<u64>,
}

impl Counter {
    fn of(operations: &[Asked]) -> Counter {
        let mut counter = Counter { seen: BTreeSet::new(), left: BTreeSet::new() };
        for (before, after) in operations.iter().filter_map(seen) {
            counter.seen.extend([before, after]);
            counter.left.extend((before < after).then_some(before));
        }
        counter
    }

    /// After an increment of unknown outcome.
    fn passed(&self, from: u64, by: u64) -> Option<u64> {
        let to = from.checked_add(by)?;
        let next = self.seen.range(from.saturating_add(1)..).next();
        (!self.left.contains(&from) && next.is_none_or(|next| *next >= to)).then_some(to)
    }
}

impl Model for Counter {
    type State = u64;
    type Call = Call;
    type Reply = Reply;

    fn initial(&self) -> u64 {
        0
    }

    fn step(&self, held: &u64, call: &Call, reply: Option<&Reply>) -> Option<u64> {
        match (call, reply) {
            (Call::Increment { by }, None) => self.passed(*held, *by),
            (Call::Increment { by }, Some(Reply::Increment { value })) => {
                (held.checked_add(*by) == Some(*value)).then_some(*value)
            }
            (Call::Read, Some(Reply::Read { value })) => (held == value).then_some(*held),
            (Call::Increment { .. } | Call::Read, None | Some(Reply::Increment { .. } | Reply::Read { .. })) => None,
        }
    }

    fn only_looks(&self, _call: &Call, reply: &Reply) -> bool {
        match reply {
            Reply::Read { .. } => true,
            Reply::Increment { .. } => false,
        }
    }

    fn alike(&self, one: &Call, other: &Call) -> bool {
        one == other
    }
}

fn explained(operations: &[Asked], end: &DeadEnd<u64>) -> Vec<String> {
    let shown = |places: &[usize]| -> Vec<String> {
        places.iter().map(|place| format!("  {}", told(&operations[*place]))).collect()
    };
    let (count, last) = (end.before + end.last.len(), end.last.len());
    let mut lines =
        vec![format!("no order explains the replies; the longest has {count} operations, its last {last}:")];
    lines.extend(shown(&end.last));
    lines.push(format!("then the counter is at {}, and none of these can be next:", end.state));
    lines.extend(shown(&end.refused));
    lines
}

fn told(operation: &Asked) -> String {
    let asked = match operation.call {
        Call::Increment { by } => format!("increment by {by}"),
        Call::Read => "read".to_owned(),
    };
    let came = match &operation.outcome {
        Outcome::Ok(Reply::Increment { value }) => format!(" to {value}"),
        Outcome::Ok(Reply::Read { value }) => format!(" {value}"),
        Outcome::Fail(_) | Outcome::Info(_) => String::new(),
    };
    format!("{} {asked}{came}", named(operation))
}

#[cfg(test)]
mod tests;
