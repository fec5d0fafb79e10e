//! Bank: each account says which transfer has left it so, and a transfer that was done says what it found.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Change, Contradict, Kind, Tamper, any};
use crate::generator::Dice;
use crate::history::{Operation, Outcome};
use crate::workload::bank::{Account, Call, Held, Reply, Transfers};

impl Tamper for Transfers {
    type Facts<'a> = Facts<'a>;
}

#[derive(Default)]
pub struct Facts<'a> {
    operations: &'a [Asked<Transfers>],
    /// What transfers have found that say to be done, by their numbers.
    done: BTreeMap<u64, [(Account, Held); 2]>,
    /// Their revisions.
    revisions: BTreeSet<u64>,
    /// The transfers whose doing others found.
    seen: BTreeSet<u64>,
}

impl<'a> Contradict<'a, Transfers> for Facts<'a> {
    fn of(operations: &'a [Asked<Transfers>]) -> Facts<'a> {
        let mut facts = Facts { operations, ..Facts::default() };
        for operation in operations {
            if let Outcome::Ok(reply) = &operation.outcome {
                facts.note(&operation.call, reply);
            }
        }
        facts
    }

    fn change(&self, kind: Kind, place: usize, dice: &mut Dice) -> Option<Change<Reply>> {
        let Operation { call, outcome, .. } = &self.operations[place];
        match (call, outcome) {
            (Call::Read, Outcome::Ok(Reply::Read { accounts, at })) => {
                let (accounts, at, why) = self.of_read(kind, accounts, *at, dice)?;
                Some(Change::reply(Reply::Read { accounts, at }, why))
            }
            (Call::Transfer { id, .. }, Outcome::Ok(Reply::Transfer { done: true, from, to, revision })) => {
                match self.of_transfer(kind, *id, *revision, dice)? {
                    (None, why) => Some(Change::denied(why)),
                    (Some(revision), why) => {
                        Some(Change::reply(Reply::Transfer { done: true, from: *from, to: *to, revision }, why))
                    }
                }
            }
            (Call::Read | Call::Transfer { .. }, Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_)) => None,
        }
    }
}

impl Facts<'_> {
    fn note(&mut self, call: &Call, reply: &Reply) {
        match (call, reply) {
            (Call::Read, Reply::Read { accounts, .. }) => {
                self.seen.extend(accounts.iter().flatten().map(|held| held.by));
            }
            (Call::Transfer { id, from: giver, to: taker, .. }, Reply::Transfer { done, from, to, revision }) => {
                self.seen.extend([from.by, to.by]);
                if *done {
                    self.done.insert(*id, [(*giver, *from), (*taker, *to)]);
                    self.revisions.insert(*revision);
                }
            }
            (Call::Read, Reply::Transfer { .. }) | (Call::Transfer { .. }, Reply::Read { .. }) => {}
        }
    }

    fn of_read(
        &self,
        kind: Kind,
        accounts: &[Option<Held>],
        at: u64,
        dice: &mut Dice,
    ) -> Option<(Vec<Option<Held>>, u64, String)> {
        let place = dice.below(accounts.len().max(1) as u64) as usize;
        let held = (*accounts.get(place)?)?;
        let mut changed = accounts.to_vec();
        let why = match kind {
            Kind::Invented => {
                changed[place] = Some(Held { balance: held.balance + 1 + dice.below(5) as i64, ..held });
                format!("in account {place} it has read more than there was")
            }
            Kind::Stale => {
                changed[place] = Some(self.before(place, &held)?);
                format!("in account {place} it has read what was there before transfer {}", held.by)
            }
            Kind::Lost => {
                changed[place] = None;
                format!("it has not read account {place}")
            }
            Kind::Repeated => {
                let other = self.without(&held, accounts.len(), dice)?;
                changed[other] = Some(held);
                format!("in account {other} it has read what transfer {} left in account {place}", held.by)
            }
            Kind::Moved => return self.moved(accounts, at, dice),
            Kind::Back | Kind::Denied => return None,
        };
        Some((changed, at, why))
    }

    /// What an account held before the transfer that has left it so.
    fn before(&self, account: usize, held: &Held) -> Option<Held> {
        let found = self.done.get(&held.by)?;
        found.iter().find(|(found, _)| found.0 == account as u64).map(|(_, before)| *before)
    }

    /// An account that a transfer which was done has not touched.
    fn without(&self, held: &Held, accounts: usize, dice: &mut Dice) -> Option<usize> {
        let touched = self.done.get(&held.by)?;
        let others = (0..accounts).filter(|other| touched.iter().all(|(account, _)| account.0 != *other as u64));
        any(dice, others.collect())
    }

    /// A read with money in another account, or of another revision.
    fn moved(&self, accounts: &[Option<Held>], at: u64, dice: &mut Dice) -> Option<(Vec<Option<Held>>, u64, String)> {
        let newest = accounts.iter().flatten().map(|held| held.revision).max().filter(|newest| *newest > 0);
        if let Some(newest) = newest.filter(|_| dice.flag()) {
            let why = format!("it has read at revision {}, but found revision {newest}", newest - 1);
            return Some((accounts.to_vec(), newest - 1, why));
        }
        // What others say of such an account is enough to contradict.
        let is_known =
            |place: &usize| accounts[*place].is_some_and(|held| held.by == 0 || self.done.contains_key(&held.by));
        let from = any(dice, (0..accounts.len()).filter(is_known).collect())?;
        let to = any(dice, (0..accounts.len()).filter(|to| *to != from && is_known(to)).collect())?;
        let mut changed = accounts.to_vec();
        for (place, more) in [(from, -1), (to, 1)] {
            changed[place] = accounts[place].map(|held| Held { balance: held.balance + more, ..held });
        }
        Some((changed, at, format!("it has read 1 less in account {from} and 1 more in account {to}")))
    }

    /// The revision that a transfer which was done says instead, `None` when it says to have failed.
    fn of_transfer(&self, kind: Kind, id: u64, revision: u64, dice: &mut Dice) -> Option<(Option<u64>, String)> {
        let is_seen = self.seen.contains(&id);
        match kind {
            Kind::Repeated => {
                let others = self.revisions.iter().copied().filter(|other| *other != revision);
                let other = any(dice, others.collect())?;
                Some((Some(other), format!("it was done at revision {other}, as another transfer was")))
            }
            Kind::Denied if is_seen => Some((None, "it has failed, but what it left was found".to_owned())),
            Kind::Moved if is_seen => {
                let why = format!("it was done at revision {}, but was found as of {revision}", revision + 1);
                Some((Some(revision + 1), why))
            }
            Kind::Invented | Kind::Stale | Kind::Back | Kind::Lost | Kind::Denied | Kind::Moved => None,
        }
    }
}
