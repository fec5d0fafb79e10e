//! Bank, by the revisions the store gave: with them the order is given, and only has to be verified.
//!
//! Each account says which transfer has left it as it is, and at which revision. Rule by rule; the first rule that is
//! broken ends it:
//!
//! 1. **Sightings.** What an account holds was left by a transfer that touched it and was done, by each in one way. So
//!    a transfer of unknown outcome is known as done once it was seen. One was done exactly if there was enough.
//! 2. **One transfer, one revision.**
//! 3. **Real time.** The revision of a transfer is above all that were known when it was invoked, that of a look at
//!    least as high.
//! 4. **States.** A look at a revision, and a transfer just before its own, found what the newest transfer had left.
//! 5. **Chains.** Each account's versions count its transfers, and a balance follows from the one before it. What is
//!    between two known states beside known transfers was done by ones of unknown outcome, at revisions at which nobody
//!    has found the former state (`unseen`).
//!
//! Model: strict serializability of transfers and looks, whose revisions grow along the one order.
//!
//! Invariants:
//!
//! * `false` is a proof: no order explains the replies, their revisions among them. It costs n log n.
//!
//! Left out: what `unseen` does; and whether revisions are enough for the transfers between states of all accounts.

mod unseen;

use std::collections::BTreeMap;
use std::fmt;
use std::mem;

use unseen::Unseen;

use crate::checker::Verdict;
use crate::checker::evidence::{Findings, named};
use crate::checker::place::{Floor, Place, floors, too_low};
use crate::history::{Operation, Outcome};
use crate::workload::bank::{Account, Bank, Call, Held, Reply};

const CHECKER: &str = "bank (revisions)";

/// What is wrong, by the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Unwritten,
    Undone,
    TwoWays,
    Refusal,
    OneRevision,
    RealTime,
    State,
    Chain,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Unwritten => "nobody left it so",
            Wrong::Undone => "seen, though not done",
            Wrong::TwoWays => "seen in two ways",
            Wrong::Refusal => "wrongly done or refused",
            Wrong::OneRevision => "two transfers have one revision",
            Wrong::RealTime => "older than what was known before",
            Wrong::State => "not what the newest transfer left",
            Wrong::Chain => "does not follow",
        })
    }
}

type Asked = Operation<Call, Reply>;

/// Whether the revisions give an order that explains every reply.
pub fn check(operations: &[Asked], bank: &Bank) -> Verdict {
    match Order::new(operations, bank) {
        Ok(order) => order.judge(),
        Err(why) => Verdict::unknown(CHECKER, why),
    }
}

/// What the replies say about the order. Operations go by their places in the list.
struct Order<'a> {
    operations: &'a [Asked],
    bank: &'a Bank,
    /// Transfers by their numbers.
    transfers: BTreeMap<u64, usize>,
    /// By operation; `None` for what is not known to have happened. From rule 1 on with what was seen.
    places: Vec<Option<Place>>,
    /// What a transfer has left in an account, as far as that is known.
    left: BTreeMap<(Account, u64), Held>,
    /// From rule 2 on: the known transfers of each account by revision.
    made: BTreeMap<Account, BTreeMap<u64, usize>>,
    /// From rule 3 on, by operation: the highest revision known when it was invoked.
    floors: Vec<Option<Floor>>,
    /// From rule 4 on: the last revision at which an account was found as a transfer had left it.
    looked: BTreeMap<(Account, u64), u64>,
    findings: Findings<Wrong>,
}

impl<'a> Order<'a> {
    /// # Errors
    /// Why the history is none of this workload.
    fn new(operations: &'a [Asked], bank: &'a Bank) -> Result<Order<'a>, String> {
        let mut order = Order {
            operations,
            bank,
            transfers: BTreeMap::new(),
            places: vec![None; operations.len()],
            left: BTreeMap::new(),
            made: BTreeMap::new(),
            floors: vec![None; operations.len()],
            looked: BTreeMap::new(),
            findings: Findings::new(),
        };
        for (number, operation) in operations.iter().enumerate() {
            order.index(number, &operation.call)?;
            order.answered(number, operation)?;
        }
        Ok(order)
    }

    fn index(&mut self, number: usize, call: &Call) -> Result<(), String> {
        let Call::Transfer { id, from, to, .. } = call else { return Ok(()) };
        let operations = self.operations;
        let at = || named(&operations[number]);
        if from == to {
            return Err(format!("{} moves money from an account to itself", at()));
        }
        if *id == 0 || self.transfers.insert(*id, number).is_some() {
            return Err(format!("{} has the number {id}, which is 0 or another one's", at()));
        }
        Ok(())
    }

    fn answered(&mut self, number: usize, operation: &Asked) -> Result<(), String> {
        let Outcome::Ok(reply) = &operation.outcome else { return Ok(()) };
        match (&operation.call, reply) {
            (Call::Read, Reply::Read { at, .. }) => self.places[number] = Some(Place::LookedAt(*at)),
            (Call::Transfer { .. }, Reply::Transfer { done: false, revision, .. }) => {
                self.places[number] = Some(Place::LookedAt(*revision));
            }
            (
                Call::Transfer { id, from, to, amount },
                Reply::Transfer { done: true, from: giver, to: taker, revision },
            ) => {
                self.places[number] = Some(Place::Made(*revision));
                let after = |held: &Held, balance| {
                    let version = held.version.saturating_add(1);
                    Held { balance, by: *id, revision: *revision, version }
                };
                let (less, more) =
                    (giver.balance.saturating_sub_unsigned(*amount), taker.balance.saturating_add_unsigned(*amount));
                self.left.insert((*from, *id), after(giver, less));
                self.left.insert((*to, *id), after(taker, more));
            }
            (Call::Read, Reply::Transfer { .. }) | (Call::Transfer { .. }, Reply::Read { .. }) => {
                return Err(format!("{} has a reply that does not fit", named(operation)));
            }
        }
        Ok(())
    }

    fn judge(mut self) -> Verdict {
        let rules: [fn(&mut Self); 5] =
            [Self::sightings, Self::one_revision, Self::real_time, Self::states, Self::chains];
        for rule in rules {
            rule(&mut self);
            if !self.findings.is_empty() {
                return Verdict::invalid(CHECKER, self.findings.lines());
            }
        }
        let is_made = |place: &Place| matches!(place, Place::Made(_));
        let (made, looked): (Vec<Place>, Vec<Place>) = self.places.into_iter().flatten().partition(is_made);
        match (made.is_empty(), looked.is_empty()) {
            (true, _) => Verdict::unknown(CHECKER, "no transfer is known to be done"),
            (false, true) => Verdict::unknown(CHECKER, "nobody looked"),
            (false, false) => Verdict::valid(CHECKER),
        }
    }

    fn finding(&mut self, wrong: Wrong, what: &str, operations: &[usize]) {
        let all = self.operations;
        self.findings.add(wrong, || {
            let lines = operations.iter().map(|number| named(&all[*number]));
            [what.to_owned()].into_iter().chain(lines).collect()
        });
    }

    fn sightings(&mut self) {
        let operations = self.operations;
        for (number, operation) in operations.iter().enumerate() {
            for (account, held) in found(operation) {
                self.sighting(number, account, held);
            }
            if let (Call::Transfer { amount, .. }, Outcome::Ok(Reply::Transfer { done, from, .. })) =
                (&operation.call, &operation.outcome)
                && *done != self.bank.allows(from, *amount)
            {
                self.finding(Wrong::Refusal, &format!("{amount} from {}", from.balance), &[number]);
            }
        }
    }

    fn sighting(&mut self, seer: usize, account: Account, held: Held) {
        if self.bank.guarded && held.balance < 0 {
            self.finding(Wrong::Refusal, &format!("account {}: {held:?}", account.0), &[seer]);
        }
        let writer = self.transfers.get(&held.by).copied();
        let writer = writer.filter(|writer| moved(&self.operations[*writer].call, account).is_some());
        let wrong = match writer {
            None => (held != self.bank.opened()).then_some(Wrong::Unwritten),
            Some(writer) => self.attribute(writer, account, held),
        };
        if let Some(wrong) = wrong {
            let shown: Vec<usize> = writer.into_iter().chain([seer]).collect();
            self.finding(wrong, &format!("account {}: {held:?}", account.0), &shown);
        }
    }

    /// Notes what `writer` has left in an account, or says why it cannot have.
    fn attribute(&mut self, writer: usize, account: Account, held: Held) -> Option<Wrong> {
        match (&self.operations[writer].outcome, self.places[writer]) {
            (Outcome::Fail(_), _) | (Outcome::Ok(_) | Outcome::Info(_), Some(Place::LookedAt(_))) => {
                return Some(Wrong::Undone);
            }
            (Outcome::Ok(_) | Outcome::Info(_), Some(Place::Made(_)) | None) => {}
        }
        let place = *self.places[writer].get_or_insert(Place::Made(held.revision));
        let left = *self.left.entry((account, held.by)).or_insert(held);
        (place != Place::Made(held.revision) || left != held).then_some(Wrong::TwoWays)
    }

    fn one_revision(&mut self) {
        let operations = self.operations;
        let mut all: BTreeMap<u64, usize> = BTreeMap::new();
        for (number, operation) in operations.iter().enumerate() {
            let (Some(Place::Made(revision)), Call::Transfer { from, to, .. }) = (self.places[number], &operation.call)
            else {
                continue;
            };
            for account in [from, to] {
                self.made.entry(*account).or_default().insert(revision, number);
            }
            if let Some(other) = all.insert(revision, number) {
                self.finding(Wrong::OneRevision, &revision.to_string(), &[other, number]);
            }
        }
    }

    fn real_time(&mut self) {
        let floors = floors(self.operations, &self.places);
        for (number, place, floor) in too_low(&self.places, &floors) {
            let what = format!("revision {} after {}", place.revision(), floor.revision);
            self.finding(Wrong::RealTime, &what, &[floor.by, number]);
        }
        self.floors = floors;
    }

    fn states(&mut self) {
        let operations = self.operations;
        for (number, operation) in operations.iter().enumerate() {
            let Some(place) = self.places[number] else { continue };
            for (account, held) in found(operation) {
                let looked = self.looked.entry((account, held.by)).or_default();
                *looked = place.found().max(*looked);
                let own = self.made.get(&account);
                let newest = own.and_then(|own| own.range(..=place.found()).next_back());
                let (revision, writer) = newest.map_or((0, None), |(revision, writer)| (*revision, Some(*writer)));
                if revision != held.revision {
                    let what = format!("account {} at revision {}: {held:?}", account.0, place.found());
                    let shown: Vec<usize> = writer.into_iter().chain([number]).collect();
                    self.finding(Wrong::State, &what, &shown);
                }
            }
        }
    }

    fn chains(&mut self) {
        let (unseen, none) = (self.unseen(), Unseen::default());
        for (account, made) in mem::take(&mut self.made) {
            let unseen = unseen.get(&account).unwrap_or(&none);
            let mut since = self.since(account, self.bank.opened());
            for number in made.into_values() {
                let call = &self.operations[number].call;
                let Call::Transfer { id, .. } = call else { continue };
                since.pass(moved(call, account).unwrap_or(0));
                let Some(left) = self.left.get(&(account, *id)).copied() else { continue };
                if !since.leads_to(&left, unseen) {
                    let what = format!("account {}: {left:?} after {:?}", account.0, since.held);
                    self.finding(Wrong::Chain, &what, &[number]);
                }
                since = self.since(account, left);
            }
        }
    }

    fn since(&self, account: Account, held: Held) -> Since {
        let looked = self.looked.get(&(account, held.by)).copied().unwrap_or(0);
        Since { held, until: looked.max(held.revision), count: 0, moved: 0 }
    }

    /// Transfers of unknown outcome that nobody has seen, by account.
    fn unseen(&self) -> BTreeMap<Account, Unseen> {
        let mut open: BTreeMap<Account, Vec<(u64, i128)>> = BTreeMap::new();
        for ((operation, place), floor) in self.operations.iter().zip(&self.places).zip(&self.floors) {
            if let (Call::Transfer { from, to, .. }, Outcome::Info(_), None) =
                (&operation.call, &operation.outcome, place)
            {
                for account in [*from, *to] {
                    let floor = floor.map_or(0, |floor| floor.revision);
                    open.entry(account)
                        .or_default()
                        .extend(moved(&operation.call, account).map(|moved| (floor, moved)));
                }
            }
        }
        open.into_iter().map(|(account, transfers)| (account, Unseen::new(transfers))).collect()
    }
}

/// What is known to have happened to an account since a transfer left it so.
struct Since {
    held: Held,
    /// It was still so at this revision.
    until: u64,
    /// How many known transfers it was in since then, and what these moved.
    count: u64,
    moved: i128,
}

impl Since {
    fn pass(&mut self, moved: i128) {
        self.count += 1;
        self.moved += moved;
    }

    /// Whether the last of these transfers can have left this, if some of the unseen ones were done before it.
    fn leads_to(&self, left: &Held, unseen: &Unseen) -> bool {
        let steps = left.version.checked_sub(self.held.version);
        let Some(more) = steps.and_then(|steps| steps.checked_sub(self.count)) else { return false };
        let revisions_left = left.revision.saturating_sub(self.until).saturating_sub(self.count);
        let missing = i128::from(left.balance) - i128::from(self.held.balance) - self.moved;
        more <= revisions_left && unseen.can_have(more, missing, left.revision)
    }
}

/// What an answered operation found, of each account it looked at.
fn found(operation: &Asked) -> Vec<(Account, Held)> {
    match (&operation.call, &operation.outcome) {
        (Call::Read, Outcome::Ok(Reply::Read { accounts, .. })) => {
            (0..).map(Account).zip(accounts).filter_map(|(account, held)| Some((account, (*held)?))).collect()
        }
        (Call::Transfer { from, to, .. }, Outcome::Ok(Reply::Transfer { from: giver, to: taker, .. })) => {
            vec![(*from, *giver), (*to, *taker)]
        }
        (Call::Read | Call::Transfer { .. }, Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_)) => Vec::new(),
    }
}

/// By how much a call changes an account, if it is one that does.
fn moved(call: &Call, account: Account) -> Option<i128> {
    match call {
        Call::Transfer { from, amount, .. } if *from == account => Some(-i128::from(*amount)),
        Call::Transfer { to, amount, .. } if *to == account => Some(i128::from(*amount)),
        Call::Read | Call::Transfer { .. } => None,
    }
}

#[cfg(test)]
mod tests;
