//! Registers whose values come again: versions count the writes, so what was surely written, and what may have been,
//! says which versions a read can have found.

use std::collections::BTreeMap;

use super::{Asked, Change, Contradict, Kind, Tamper, any};
use crate::generator::Dice;
use crate::history::{Nanos, Outcome};
use crate::workload::cas_register::{CasRegisters, VALUES};
use crate::workload::register::{Call, Register, Reply, Versioned};

/// Registers with more writes of unknown outcome are left alone: a search among them may be given up.
const OPEN_MAX: usize = 6;

impl Tamper for CasRegisters {
    type Facts<'a> = Facts<'a>;
}

/// What is known of a register.
#[derive(Default)]
struct Known {
    /// When writes that may have been done began, and when those ended that were; ascending.
    began: Vec<Nanos>,
    ended: Vec<Nanos>,
    open: usize,
    /// What reads have found, by version.
    found: BTreeMap<u64, u64>,
    /// When the last read ended that found as many writes as there can have been.
    full: Option<Nanos>,
}

impl Known {
    fn possibly_until(&self, time: Nanos) -> u64 {
        self.began.partition_point(|began| *began <= time) as u64
    }

    fn surely_before(&self, time: Nanos) -> u64 {
        self.ended.partition_point(|ended| *ended < time) as u64
    }
}

pub struct Facts<'a> {
    operations: &'a [Asked<CasRegisters>],
    known: BTreeMap<Register, Known>,
}

impl<'a> Contradict<'a, CasRegisters> for Facts<'a> {
    fn of(operations: &'a [Asked<CasRegisters>]) -> Facts<'a> {
        let mut known: BTreeMap<Register, Known> = BTreeMap::new();
        for operation in operations {
            let known = known.entry(operation.call.register()).or_default();
            match (may_have_written(operation), &operation.outcome, operation.completed) {
                (true, Outcome::Ok(_), Some(end)) => known.ended.push(end),
                (true, ..) => known.open += 1,
                (false, ..) => continue,
            }
            known.began.push(operation.invoked);
        }
        for known in known.values_mut() {
            known.began.sort_unstable();
            known.ended.sort_unstable();
        }
        for (seen, operation) in operations.iter().filter_map(|operation| Some((found(operation)?, operation))) {
            let known = known.entry(operation.call.register()).or_default();
            known.found.insert(seen.version, seen.value);
            let end = operation.completed.filter(|end| known.possibly_until(*end) == seen.version);
            known.full = known.full.max(end);
        }
        Facts { operations, known }
    }

    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<Reply>> {
        let operation = &self.operations[place];
        let known = self.known.get(&operation.call.register()).filter(|known| known.open <= OPEN_MAX)?;
        match (found(operation), may_have_written(operation), &operation.outcome) {
            (Some(seen), ..) => known.of_read(kind, seen, (operation.invoked, operation.completed?), dice),
            (None, true, Outcome::Ok(_)) => {
                let is_seen = known.full.is_some_and(|full| operation.invoked <= full);
                (kind == Kind::Denied && is_seen)
                    .then(|| Change::denied("it has failed, but a read found as many writes as there can have been"))
            }
            (None, ..) => None,
        }
    }
}

impl Known {
    fn of_read(
        &self,
        kind: Kind,
        seen: Versioned,
        (began, ended): (Nanos, Nanos),
        dice: &mut Dice,
    ) -> Option<Change<Reply>> {
        let read = |value, why: String| Some(Change::reply(Reply::Read { value, at: 0 }, why));
        let surely = self.surely_before(began);
        match kind {
            Kind::Invented => {
                let value = VALUES + dice.below(1000);
                read(Some(Versioned { value, ..seen }), format!("it has read {value}, which nobody wrote"))
            }
            Kind::Stale => {
                let older = self.found.range(..surely).map(|(version, value)| (*version, *value));
                let (version, value) = any(dice, older.collect())?;
                let why = format!("it has read version {version}, after {surely} writes were done");
                read(Some(Versioned { value, version, ..seen }), why)
            }
            Kind::Lost if surely > 0 => read(None, format!("it has read nothing, after {surely} writes were done")),
            Kind::Repeated => {
                let others = self.found.iter().filter(|(_, value)| **value != seen.value);
                let version = any(dice, others.map(|(version, _)| *version).collect())?;
                let why = format!("it has read {} as version {version}, another read something else", seen.value);
                read(Some(Versioned { version, ..seen }), why)
            }
            Kind::Moved => {
                let possibly = self.possibly_until(ended);
                let version = possibly + 1 + dice.below(3);
                let why = format!("it has read version {version}, when at most {possibly} writes were done");
                read(Some(Versioned { version, ..seen }), why)
            }
            Kind::Back | Kind::Lost | Kind::Denied => None,
        }
    }
}

fn found(operation: &Asked<CasRegisters>) -> Option<Versioned> {
    match (&operation.call, &operation.outcome) {
        (Call::Read { .. }, Outcome::Ok(Reply::Read { value, .. })) => *value,
        (
            Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
            Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_),
        ) => None,
    }
}

fn may_have_written(operation: &Asked<CasRegisters>) -> bool {
    match (&operation.call, &operation.outcome) {
        (Call::Read { .. } | Call::StaleRead { .. }, _) => false,
        (Call::Write { .. } | Call::Cas { .. }, Outcome::Fail(_)) => false,
        (Call::Cas { .. }, Outcome::Ok(Reply::Cas { swapped, .. })) => *swapped,
        (Call::Write { .. } | Call::Cas { .. }, Outcome::Ok(_) | Outcome::Info(_)) => true,
    }
}
