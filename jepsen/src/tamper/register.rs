//! Registers: values are used once, so a read tells whose write it saw, and revisions say when.
//!
//! A stale read is changed as any other. Beside that it is made to go back: to what its register once held, at a revision
//! below one that its process was shown.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Change, Contradict, Kind, Tamper, any};
use crate::generator::Dice;
use crate::history::{Operation, Outcome, Process};
use crate::workload::register::{Call, Register, Registers, Reply, Versioned};

impl Tamper for Registers {
    type Facts<'a> = Facts<'a>;
}

#[derive(Default)]
pub struct Facts<'a> {
    operations: &'a [Asked<Registers>],
    /// By operation: the highest revision that its process was shown before, 0 if it was shown nothing.
    shown: Vec<u64>,
    /// Answered writes by register and value: their revisions.
    written: BTreeMap<(Register, u64), u64>,
    /// What reads found of those, by register and revision.
    found: BTreeMap<(Register, u64), Versioned>,
    /// How many reads found a value, and which values a swap found.
    reads: BTreeMap<(Register, u64), u64>,
    swapped: BTreeSet<(Register, u64)>,
    /// Registers with a write of unknown outcome.
    open: BTreeSet<Register>,
    /// No value is as high.
    fresh: u64,
}

impl<'a> Contradict<'a, Registers> for Facts<'a> {
    fn of(operations: &'a [Asked<Registers>]) -> Facts<'a> {
        let mut facts = Facts { operations, ..Facts::default() };
        let mut highest: BTreeMap<Process, u64> = BTreeMap::new();
        for operation in operations {
            facts.note_call(operation);
            let shown = highest.entry(operation.process).or_default();
            facts.shown.push(*shown);
            if let Outcome::Ok(reply) = &operation.outcome {
                *shown = (*shown).max(revision(reply));
                facts.note_reply(&operation.call, reply);
            }
        }
        let written = &facts.written;
        facts.found.retain(|(register, _), seen| written.contains_key(&(*register, seen.value)));
        facts
    }

    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<Reply>> {
        let Operation { call, outcome, .. } = &self.operations[place];
        let Outcome::Ok(reply) = outcome else { return None };
        if let (Kind::Back, Call::StaleRead { register }, Reply::Read { value, .. }) = (kind, call, reply) {
            return self.back(*register, *value, self.shown[place], dice);
        }
        if let Reply::Read { value: Some(seen), at } = reply {
            return self.of_read(kind, call.register(), (*seen, *at), dice);
        }
        let (value, revision) = written(call, reply)?;
        self.of_write(kind, (call.register(), value), revision, dice).map(|(revision, why)| match (reply, revision) {
            (_, None) => Change::denied(why),
            (Reply::Cas { swapped, .. }, Some(revision)) => {
                Change::reply(Reply::Cas { swapped: *swapped, revision }, why)
            }
            (Reply::Read { .. } | Reply::Write { .. }, Some(revision)) => Change::reply(Reply::Write { revision }, why),
        })
    }
}

impl Facts<'_> {
    fn note_call(&mut self, operation: &Asked<Registers>) {
        match operation.call {
            Call::Read { .. } | Call::StaleRead { .. } => {}
            Call::Write { register, value } | Call::Cas { register, to: value, .. } => {
                self.fresh = self.fresh.max(value.saturating_add(1));
                self.open.extend(matches!(operation.outcome, Outcome::Info(_)).then_some(register));
            }
        }
    }

    fn note_reply(&mut self, call: &Call, reply: &Reply) {
        let register = call.register();
        if let Some((value, revision)) = written(call, reply) {
            self.written.insert((register, value), revision);
        }
        match (call, reply) {
            (Call::Read { .. }, Reply::Read { value: Some(seen), .. }) => {
                self.found.insert((register, seen.revision), *seen);
                *self.reads.entry((register, seen.value)).or_default() += 1;
            }
            (Call::Cas { from, .. }, Reply::Cas { swapped: true, .. }) => {
                self.swapped.insert((register, *from));
            }
            (
                Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
                Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. },
            ) => {}
        }
    }

    fn of_read(
        &self,
        kind: Kind,
        register: Register,
        (seen, at): (Versioned, u64),
        dice: &mut Dice,
    ) -> Option<Change<Reply>> {
        let is_written = self.written.contains_key(&(register, seen.value));
        let read = |value, at, why: String| Some(Change::reply(Reply::Read { value, at }, why));
        match kind {
            Kind::Invented => {
                let value = self.fresh.saturating_add(dice.below(1000));
                read(Some(Versioned { value, ..seen }), at, format!("it has read {value}, which nobody wrote"))
            }
            Kind::Stale => {
                let older = self.found.range((register, 0)..(register, seen.revision));
                let older = any(dice, older.map(|(_, older)| *older).collect()).filter(|_| is_written)?;
                let why = format!("it has read {} at {at}, but {} was written since", older.value, seen.value);
                read(Some(older), at, why)
            }
            Kind::Lost if is_written => {
                read(None, at, format!("it has read nothing at {at}, but {} was written before", seen.value))
            }
            Kind::Moved => self.moved(register, (seen, at), dice),
            Kind::Back | Kind::Lost | Kind::Repeated | Kind::Denied => None,
        }
    }

    /// A stale read of what the register held at a revision below `shown`: only the context of its process says that it
    /// must not be. `value`: what it has found.
    fn back(&self, register: Register, value: Option<Versioned>, shown: u64, dice: &mut Dice) -> Option<Change<Reply>> {
        let since = value.map_or(0, |seen| seen.revision);
        let older = self.found.range((register, 0)..(register, shown.min(since))).map(|(_, older)| *older);
        let mut backs: Vec<(Option<Versioned>, u64)> = older.map(|older| (Some(older), older.revision)).collect();
        if since < shown {
            backs.push((value, since + dice.below(shown - since)));
        }
        let (value, at) = any(dice, backs)?;
        let why = format!("it has looked at revision {at}, but its process was shown revision {shown} before");
        Some(Change::reply(Reply::Read { value, at }, why))
    }

    /// A read with another revision or version.
    fn moved(&self, register: Register, (seen, at): (Versioned, u64), dice: &mut Dice) -> Option<Change<Reply>> {
        let mut moves = Vec::new();
        if let Some(before) = seen.revision.checked_sub(1) {
            let why = format!("it has looked at revision {before}, before {} was written", seen.value);
            moves.push((seen, before, why));
        }
        if self.written.contains_key(&(register, seen.value)) {
            let revision = seen.revision + 1;
            let why = format!("it has read {} of revision {revision}, its writer says {}", seen.value, seen.revision);
            moves.push((Versioned { revision, ..seen }, at, why));
        }
        let again = self.reads.get(&(register, seen.value)).is_some_and(|reads| *reads > 1);
        if again && !self.open.contains(&register) {
            let version = seen.version + 1;
            let why = format!("it has read {} as version {version}, another read as {}", seen.value, seen.version);
            moves.push((Versioned { version, ..seen }, at, why));
        }
        let (seen, at, why) = any(dice, moves)?;
        Some(Change::reply(Reply::Read { value: Some(seen), at }, why))
    }

    /// The revision that an answered write says instead, `None` when it says to have failed.
    fn of_write(
        &self,
        kind: Kind,
        written: (Register, u64),
        revision: u64,
        dice: &mut Dice,
    ) -> Option<(Option<u64>, String)> {
        let is_read = self.reads.contains_key(&written);
        match kind {
            Kind::Repeated => {
                let others = self.written.values().copied().filter(|other| *other != revision);
                let other = any(dice, others.collect())?;
                Some((Some(other), format!("it was done at revision {other}, as another write was")))
            }
            Kind::Denied if is_read || self.swapped.contains(&written) => {
                Some((None, format!("it has failed, but {} was found", written.1)))
            }
            Kind::Moved if is_read => {
                let why = format!("it was done at revision {}, but was found as of {revision}", revision + 1);
                Some((Some(revision + 1), why))
            }
            Kind::Invented | Kind::Stale | Kind::Back | Kind::Lost | Kind::Denied | Kind::Moved => None,
        }
    }
}

/// The revision that a reply has shown.
fn revision(reply: &Reply) -> u64 {
    match reply {
        Reply::Read { at: revision, .. } | Reply::Write { revision } | Reply::Cas { revision, .. } => *revision,
    }
}

/// What an answered call has written, and at which revision.
fn written(call: &Call, reply: &Reply) -> Option<(u64, u64)> {
    match (call, reply) {
        (Call::Write { value, .. }, Reply::Write { revision })
        | (Call::Cas { to: value, .. }, Reply::Cas { swapped: true, revision }) => Some((*value, *revision)),
        (
            Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
            Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. },
        ) => None,
    }
}
