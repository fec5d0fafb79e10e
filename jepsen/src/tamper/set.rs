//! Sets: each only grows, so what was added to it before a read of it began is in it. No element is added to two.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Change, Contradict, Kind, Tamper, any};
use crate::generator::Dice;
use crate::history::{Nanos, Outcome};
use crate::workload::set::{Call, Reply, Set};

impl Tamper for Set {
    type Facts<'a> = Facts<'a>;
}

#[derive(Default)]
pub struct Facts<'a> {
    operations: &'a [Asked<Set>],
    /// When the adds that were answered ended.
    added: BTreeMap<u64, Nanos>,
    read: BTreeSet<u64>,
    /// No element is as high.
    fresh: u64,
}

impl<'a> Contradict<'a, Set> for Facts<'a> {
    fn of(operations: &'a [Asked<Set>]) -> Facts<'a> {
        let mut facts = Facts { operations, ..Facts::default() };
        for operation in operations {
            match (&operation.call, &operation.outcome) {
                (Call::Add { element, .. }, outcome) => {
                    facts.fresh = facts.fresh.max(element.saturating_add(1));
                    let end = operation.completed.filter(|_| matches!(outcome, Outcome::Ok(_)));
                    facts.added.extend(end.map(|end| (*element, end)));
                }
                (Call::Read { .. }, Outcome::Ok(Reply::Read { elements })) => facts.read.extend(elements),
                (Call::Read { .. }, Outcome::Ok(Reply::Add) | Outcome::Fail(_) | Outcome::Info(_)) => {}
            }
        }
        facts
    }

    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<Reply>> {
        let operation = &self.operations[place];
        match (&operation.call, &operation.outcome) {
            (Call::Add { element, .. }, Outcome::Ok(_)) => (kind == Kind::Denied && self.read.contains(element))
                .then(|| Change::denied(format!("it has failed, but {element} was read"))),
            (Call::Read { .. }, Outcome::Ok(Reply::Read { elements })) => {
                let (elements, why) = self.of_read(kind, operation, elements, dice)?;
                Some(Change::reply(Reply::Read { elements }, why))
            }
            (Call::Read { .. } | Call::Add { .. }, Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_)) => None,
        }
    }
}

impl Facts<'_> {
    fn of_read(
        &self,
        kind: Kind,
        operation: &Asked<Set>,
        elements: &[u64],
        dice: &mut Dice,
    ) -> Option<(Vec<u64>, String)> {
        let with = |element: u64| [elements, &[element]].concat();
        match kind {
            Kind::Invented => {
                let element = self.fresh.saturating_add(dice.below(1000));
                Some((with(element), format!("it has read {element}, which nobody added")))
            }
            Kind::Stale => {
                let last = elements.iter().rposition(|element| self.is_added_before(*element, operation.invoked))?;
                let kept = elements[..dice.below(last as u64 + 1) as usize].to_vec();
                Some((kept, format!("it has not read {}, added before it began", elements[last])))
            }
            Kind::Lost => {
                let old = elements.iter().filter(|element| self.is_added_before(**element, operation.invoked));
                let lost = any(dice, old.copied().collect())?;
                let left = elements.iter().copied().filter(|element| *element != lost);
                Some((left.collect(), format!("it has not read {lost}, added before it began")))
            }
            Kind::Repeated => {
                let element = any(dice, elements.to_vec())?;
                Some((with(element), format!("it has read {element} twice")))
            }
            Kind::Moved => {
                let element = self.added_after(operation.completed?, dice)?;
                Some((with(element), format!("it has read {element}, which was added later")))
            }
            Kind::Back | Kind::Denied => None,
        }
    }

    fn is_added_before(&self, element: u64, time: Nanos) -> bool {
        self.added.get(&element).is_some_and(|end| *end < time)
    }

    /// An element whose add began later.
    fn added_after(&self, time: Nanos, dice: &mut Dice) -> Option<u64> {
        let later = self.operations.partition_point(|operation| operation.invoked <= time);
        let added = self.operations[later..].iter().filter_map(|operation| match operation.call {
            Call::Add { element, .. } => Some(element),
            Call::Read { .. } => None,
        });
        any(dice, added.collect())
    }
}
