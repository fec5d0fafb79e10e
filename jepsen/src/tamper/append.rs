//! Lists: they only grow, so every read of a list is a beginning of the longest one.

use std::collections::BTreeMap;

use super::{Asked, Change, Contradict, Kind, Tamper, any};
use crate::generator::Dice;
use crate::history::{Nanos, Outcome};
use crate::workload::append::{Call, List, Lists, Reply, Step};

impl Tamper for Lists {
    type Facts<'a> = Facts<'a>;
}

/// A read of a list: the place of its transaction, and what it has read.
type Read<'a> = (usize, &'a [u64]);

#[derive(Default)]
pub struct Facts<'a> {
    operations: &'a [Asked<Lists>],
    /// Which transaction appended what.
    appended: BTreeMap<(List, u64), usize>,
    /// The longest read of each list, and the longest of another transaction than that one.
    longest: BTreeMap<List, (Read<'a>, Option<Read<'a>>)>,
    /// No value is as high.
    fresh: u64,
}

impl<'a> Contradict<'a, Lists> for Facts<'a> {
    fn of(operations: &'a [Asked<Lists>]) -> Facts<'a> {
        let mut facts = Facts { operations, ..Facts::default() };
        for (place, operation) in operations.iter().enumerate() {
            for (list, value) in appends(&operation.call) {
                facts.appended.insert((list, value), place);
                facts.fresh = facts.fresh.max(value.saturating_add(1));
            }
            for (_, list, values) in reads(operation) {
                facts.note(list, (place, values));
            }
        }
        facts
    }

    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<Reply>> {
        let operation = &self.operations[place];
        let Outcome::Ok(reply) = &operation.outcome else { return None };
        if kind == Kind::Denied {
            let read = |(list, value): &(List, u64)| self.read_by_others(place, *list).contains(value);
            let (list, value) = any(dice, appends(&operation.call).filter(read).collect())?;
            return Some(Change::denied(format!("it has failed, but {value} was read in list {}", list.0)));
        }
        let (step, list, values) = any(dice, reads(operation).collect())?;
        let others = self.read_by_others(place, list);
        let (values, why) = match kind {
            Kind::Invented => self.invented(values, dice),
            Kind::Stale => self.stale(place, list, values, dice)?,
            Kind::Lost => lost(values, others, dice)?,
            Kind::Repeated => repeated(values, dice)?,
            Kind::Moved => moved(values, others, dice)?,
            Kind::Back | Kind::Denied => return None,
        };
        let mut read = reply.read.clone();
        read[step] = Some(values);
        Some(Change::reply(Reply { read }, format!("in list {} it {why}", list.0)))
    }
}

impl<'a> Facts<'a> {
    fn note(&mut self, list: List, read: Read<'a>) {
        let (first, second) = self.longest.entry(list).or_insert((read, None));
        let longer = |one: Read<'_>, other: Read<'_>| one.1.len() > other.1.len();
        if longer(read, *first) {
            if first.0 != read.0 {
                *second = Some(*first);
            }
            *first = read;
        } else if first.0 != read.0 && second.is_none_or(|second| longer(read, second)) {
            *second = Some(read);
        }
    }

    /// The longest that another transaction has read of a list.
    fn read_by_others(&self, place: usize, list: List) -> &'a [u64] {
        match self.longest.get(&list).copied() {
            Some(((by, values), _)) if by != place => values,
            Some((_, Some((_, values)))) => values,
            Some((_, None)) | None => &[],
        }
    }

    fn invented(&self, values: &[u64], dice: &mut Dice) -> (Vec<u64>, String) {
        let value = self.fresh.saturating_add(dice.below(1000));
        let mut values = values.to_vec();
        values.insert(dice.below(values.len() as u64 + 1) as usize, value);
        (values, format!("has read {value}, which nobody appended"))
    }

    /// A read that ends before something that another transaction had appended when it began.
    fn stale(&self, place: usize, list: List, values: &[u64], dice: &mut Dice) -> Option<(Vec<u64>, String)> {
        let began = self.operations[place].invoked;
        let is_old = |value: &u64| {
            let by = self.appended.get(&(list, *value)).copied();
            by.is_some_and(|by| by != place && self.ended(by).is_some_and(|end| end < began))
        };
        let last_old = values.iter().rposition(is_old)?;
        let kept = dice.below(last_old as u64 + 1) as usize;
        Some((values[..kept].to_vec(), format!("has not read {}, appended before it began", values[last_old])))
    }

    fn ended(&self, place: usize) -> Option<Nanos> {
        match self.operations[place].outcome {
            Outcome::Ok(_) => self.operations[place].completed,
            Outcome::Fail(_) | Outcome::Info(_) => None,
        }
    }
}

/// A read without one that stands before another, where another transaction has read both.
fn lost(values: &[u64], others: &[u64], dice: &mut Dice) -> Option<(Vec<u64>, String)> {
    let lost = pair_in_both(values, others, dice)?;
    let mut left = values.to_vec();
    left.remove(lost);
    Some((left, format!("has not read {}, but {} behind it", values[lost], values[lost + 1])))
}

/// A read in which two have changed places that another transaction has read.
fn moved(values: &[u64], others: &[u64], dice: &mut Dice) -> Option<(Vec<u64>, String)> {
    let place = pair_in_both(values, others, dice)?;
    let mut moved = values.to_vec();
    moved.swap(place, place + 1);
    Some((moved, format!("has read {} before {}, another the other way", values[place + 1], values[place])))
}

/// Where two stand one behind the other in both reads.
fn pair_in_both(values: &[u64], others: &[u64], dice: &mut Dice) -> Option<usize> {
    let pairs = values.len().min(others.len()).checked_sub(1)?;
    any(dice, (0..pairs).collect())
}

fn repeated(values: &[u64], dice: &mut Dice) -> Option<(Vec<u64>, String)> {
    let value = any(dice, values.to_vec())?;
    Some(([values, &[value]].concat(), format!("has read {value} twice")))
}

fn appends(call: &Call) -> impl Iterator<Item = (List, u64)> {
    call.steps.iter().filter_map(|step| match step {
        Step::Append { list, value } => Some((*list, *value)),
        Step::Read { .. } => None,
    })
}

/// What an answered transaction has read: the place of the step, the list, and what it read.
fn reads(operation: &Asked<Lists>) -> impl Iterator<Item = (usize, List, &[u64])> {
    let read = match &operation.outcome {
        Outcome::Ok(reply) => reply.read.as_slice(),
        Outcome::Fail(_) | Outcome::Info(_) => &[],
    };
    let steps = operation.call.steps.iter().zip(read).enumerate();
    steps.filter_map(|(place, (step, read))| Some((place, step.list(), read.as_deref()?)))
}
