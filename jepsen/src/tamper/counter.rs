//! The counter: it only grows, and every number that was seen bounds what others can have seen.

use std::collections::BTreeMap;

use super::{Asked, Change, Contradict, Kind, Tamper, any};
use crate::generator::Dice;
use crate::history::{Nanos, Outcome};
use crate::workload::counter::{Call, Counter, Reply};

impl Tamper for Counter {
    type Facts<'a> = Facts<'a>;
}

#[derive(Default)]
pub struct Facts<'a> {
    operations: &'a [Asked<Counter>],
    /// Answered calls by their ends, with the highest number seen until then.
    seen: Vec<(Nanos, u64)>,
    /// Answered increments by their ends; those of unknown outcome, and all that have not failed, by their beginnings;
    /// each with the sum up to there.
    surely: Vec<(Nanos, u64)>,
    open: Vec<(Nanos, u64)>,
    possibly: Vec<(Nanos, u64)>,
    /// How many answered calls saw a number.
    seers: BTreeMap<u64, u64>,
    /// By a number that a call found before it did anything: the first end of one that found it or a higher one.
    reached: BTreeMap<u64, Nanos>,
    /// What answered increments have made of it.
    made: Vec<u64>,
}

impl<'a> Contradict<'a, Counter> for Facts<'a> {
    fn of(operations: &'a [Asked<Counter>]) -> Facts<'a> {
        let mut facts = Facts { operations, ..Facts::default() };
        for operation in operations {
            facts.note_call(operation);
            if let (Some((before, after)), Some(end)) = (seen(operation), operation.completed) {
                facts.note_seen(before, after, end);
            }
        }
        facts.seen = running(facts.seen, u64::max);
        facts.surely = running(facts.surely, u64::saturating_add);
        facts.open = running(facts.open, u64::saturating_add);
        facts.possibly = running(facts.possibly, u64::saturating_add);
        let mut first = Nanos(u64::MAX);
        for end in facts.reached.values_mut().rev() {
            first = first.min(*end);
            *end = first;
        }
        facts
    }

    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<Reply>> {
        let operation = &self.operations[place];
        let (before, after) = seen(operation)?;
        if kind == Kind::Denied {
            return (before < after && self.is_needed(before, after))
                .then(|| Change::denied(format!("it has failed, but nobody else can have made {after} of {before}")));
        }
        let is_read = before == after;
        let (value, why) = self.another(kind, operation, is_read, after, dice)?;
        let reply = if is_read { Reply::Read { value } } else { Reply::Increment { value } };
        Some(Change::reply(reply, why))
    }
}

impl Facts<'_> {
    fn note_call(&mut self, operation: &Asked<Counter>) {
        let Call::Increment { by } = operation.call else { return };
        match (&operation.outcome, operation.completed) {
            (Outcome::Fail(_), _) => return,
            (Outcome::Ok(_), Some(end)) => self.surely.push((end, by)),
            (Outcome::Ok(_), None) | (Outcome::Info(_), _) => self.open.push((operation.invoked, by)),
        }
        self.possibly.push((operation.invoked, by));
    }

    fn note_seen(&mut self, before: u64, after: u64, end: Nanos) {
        self.seen.push((end, after));
        let reached = self.reached.entry(before).or_insert(end);
        *reached = end.min(*reached);
        *self.seers.entry(before).or_default() += 1;
        if before < after {
            *self.seers.entry(after).or_default() += 1;
            self.made.push(after);
        }
    }

    /// A number that a call cannot have seen, or made.
    fn another(
        &self,
        kind: Kind,
        operation: &Asked<Counter>,
        is_read: bool,
        value: u64,
        dice: &mut Dice,
    ) -> Option<(u64, String)> {
        let floor = before(&self.seen, operation.invoked);
        match kind {
            Kind::Invented => {
                let possibly = until(&self.possibly, operation.completed?);
                let value = possibly + 1 + dice.below(10);
                Some((value, format!("it says {value}, when at most {possibly} can have been added")))
            }
            Kind::Stale if is_read && floor > 0 => {
                let value = dice.below(floor);
                Some((value, format!("it has read {value}, but {floor} was seen before it began")))
            }
            Kind::Moved if !is_read && floor > 0 => {
                let value = 1 + dice.below(floor);
                Some((value, format!("it has made {value} of it, but {floor} was seen before it began")))
            }
            Kind::Lost if is_read => {
                let surely = before(&self.surely, operation.invoked);
                let value = surely.checked_sub(1)?;
                Some((value, format!("it has read {value}, but {surely} were surely added before")))
            }
            Kind::Repeated if !is_read => {
                let others = self.made.iter().copied().filter(|other| *other != value);
                let value = any(dice, others.collect())?;
                Some((value, format!("it has made {value} of it, as another increment has")))
            }
            Kind::Stale | Kind::Back | Kind::Moved | Kind::Lost | Kind::Repeated | Kind::Denied => None,
        }
    }

    /// Whether increments of unknown outcome cannot have done what an answered one did: by the time someone had seen
    /// the number it made, or a higher one, too few of them had begun.
    fn is_needed(&self, before: u64, after: u64) -> bool {
        let Some((_, reached)) = self.reached.range(after..).next() else { return false };
        // Its own view of the number before does not count.
        let mut below = self.seers.range(..=before).rev();
        let by_others = below.find(|(number, seers)| **number < before || **seers > 1);
        let from = by_others.map_or(0, |(number, _)| *number);
        until(&self.open, *reached) < after - from
    }
}

/// What an answered call saw of the counter, before and after itself.
fn seen(operation: &Asked<Counter>) -> Option<(u64, u64)> {
    match (&operation.call, &operation.outcome) {
        (Call::Read, Outcome::Ok(Reply::Read { value })) => Some((*value, *value)),
        (Call::Increment { by }, Outcome::Ok(Reply::Increment { value })) => Some((value.saturating_sub(*by), *value)),
        (Call::Read | Call::Increment { .. }, Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_)) => None,
    }
}

/// In the order of times, each with what came of all up to there.
fn running(mut all: Vec<(Nanos, u64)>, and: fn(u64, u64) -> u64) -> Vec<(Nanos, u64)> {
    all.sort_unstable();
    let mut so_far = 0;
    for (_, number) in &mut all {
        so_far = and(so_far, *number);
        *number = so_far;
    }
    all
}

fn before(running: &[(Nanos, u64)], time: Nanos) -> u64 {
    last(&running[..running.partition_point(|(at, _)| *at < time)])
}

fn until(running: &[(Nanos, u64)], time: Nanos) -> u64 {
    last(&running[..running.partition_point(|(at, _)| *at <= time)])
}

fn last(running: &[(Nanos, u64)]) -> u64 {
    running.last().map_or(0, |(_, number)| *number)
}
