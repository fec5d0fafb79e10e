//! Bank: money moves between accounts, and is neither made nor lost.
//!
//! All accounts are read in one transaction, so that a read sees both sides of a transfer or neither. A transfer reads
//! two accounts, and writes both in a transaction that holds only if neither has changed since. Each transfer has a
//! number that is used once in a run and stands in the accounts beside the balance: a read tells whose doing it saw. An
//! account that is not there yet holds what it opens with.
//!
//! Beside the load somebody at each node does nothing but read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guarded::{self, Row};
use crate::checker::{Verdict, bank};
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::workload::{Name, Workload};

/// The bank of a run: small balances, so that some transfers find too little.
pub const BANK: Bank = Bank { accounts: 8, opening: 10, guarded: true };
/// The highest amount of a transfer.
const AMOUNT_MAX: u64 = 5;

/// An account's number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Account(pub u64);

/// What a run opens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bank {
    pub accounts: u64,
    /// What each account holds at first.
    pub opening: i64,
    /// Whether a transfer that would leave an account below zero is not done.
    pub guarded: bool,
}

/// What is asked of the bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Call {
    Read,
    /// `id`: the transfer's number, from 1; `from` and `to` differ.
    Transfer {
        id: u64,
        from: Account,
        to: Account,
        amount: u64,
    },
}

/// What an account held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub balance: i64,
    /// The transfer that has left it so; 0 when it is as it opened, and then revision and version are 0 too.
    pub by: u64,
    /// Of that transfer.
    pub revision: u64,
    /// How many transfers it was in.
    pub version: u64,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Reply {
    /// The accounts in the order of their numbers, `None` where something else was found; `at`: the store's revision.
    Read { accounts: Vec<Option<Held>>, at: u64 },
    /// `done`: whether the money moved; `from` and `to`: what they held before; `revision`: of the transfer, or of the
    /// store when nothing was done because `from` held too little.
    Transfer { done: bool, from: Held, to: Held, revision: u64 },
}

impl Bank {
    /// What all accounts hold together, always.
    pub fn total(&self) -> i128 {
        i128::from(self.opening) * i128::from(self.accounts)
    }

    /// What an account holds at first.
    pub fn opened(&self) -> Held {
        Held { balance: self.opening, by: 0, revision: 0, version: 0 }
    }

    /// Whether a transfer of so much from an account that holds this is done.
    pub fn allows(&self, from: &Held, amount: u64) -> bool {
        !self.guarded || i128::from(from.balance) >= i128::from(amount)
    }
}

impl Held {
    /// What stands in the store.
    fn text(balance: i64, by: u64) -> String {
        format!("{balance} {by}")
    }

    fn of(row: &Row) -> Option<Held> {
        if row.version() == 0 {
            return Some(BANK.opened());
        }
        let (balance, by) = row.text().split_once(' ')?;
        let (balance, by) = (balance.parse().ok()?, by.parse().ok()?);
        Some(Held { balance, by, revision: row.revision(), version: row.version() })
    }
}

/// Chooses transfers and reads.
#[derive(Debug, Default)]
pub struct Transfers {
    chosen: u64,
}

impl Workload for Transfers {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::Bank;
    const KINDS: &'static [&'static str] = &["read", "transfer"];
    const WATCH: Option<fn(&mut Transfers, &mut Dice) -> Call> = Some(audit);

    fn next(&mut self, dice: &mut Dice) -> Call {
        if dice.flag() {
            return Call::Read;
        }
        self.chosen += 1;
        let from = dice.below(BANK.accounts);
        let to = (from + 1 + dice.below(BANK.accounts - 1)) % BANK.accounts;
        let amount = 1 + dice.below(AMOUNT_MAX);
        Call::Transfer { id: self.chosen, from: Account(from), to: Account(to), amount }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        vec![Call::Read]
    }

    fn kind(call: &Call) -> &'static str {
        match call {
            Call::Read => "read",
            Call::Transfer { .. } => "transfer",
        }
    }

    fn kind_of_success(call: &Call, reply: &Reply) -> &'static str {
        match reply {
            Reply::Transfer { done: false, .. } => "transfer-refused",
            Reply::Transfer { done: true, .. } | Reply::Read { .. } => Self::kind(call),
        }
    }

    fn access(call: &Call) -> Access {
        match call {
            Call::Read => Access::Read,
            Call::Transfer { .. } => Access::Write,
        }
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        match call {
            Call::Read => {
                let keys = (0..BANK.accounts).map(|number| key(Account(number))).collect();
                let seen = guarded::read(client, keys, timeout).await?;
                Ok(Some(Reply::Read { accounts: seen.rows.iter().map(Held::of).collect(), at: seen.at }))
            }
            Call::Transfer { id, from, to, amount } => transfer(client, *id, (*from, *to), *amount, timeout).await,
        }
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![bank::check(operations, &BANK), bank::order::check(operations, &BANK)]
    }
}

/// What a watcher asks.
fn audit(_: &mut Transfers, _: &mut Dice) -> Call {
    Call::Read
}

/// `None` when another transfer came in between, or an account holds what is none of ours.
async fn transfer(
    client: &Client,
    id: u64,
    (from, to): (Account, Account),
    amount: u64,
    timeout: Duration,
) -> Result<Option<Reply>, Failure> {
    let seen = guarded::read(client, vec![key(from), key(to)], timeout).await?;
    let held: Option<Vec<Held>> = seen.rows.iter().map(Held::of).collect();
    let Some(&[giver, taker]) = held.as_deref() else { return Ok(None) };
    if !BANK.allows(&giver, amount) {
        return Ok(Some(Reply::Transfer { done: false, from: giver, to: taker, revision: seen.at }));
    }
    let (less, more) = (giver.balance.saturating_sub_unsigned(amount), taker.balance.saturating_add_unsigned(amount));
    let puts = vec![(key(from), Held::text(less, id)), (key(to), Held::text(more, id))];
    let done = guarded::write(client, &seen.rows, puts, timeout).await?;
    Ok(done.map(|revision| Reply::Transfer { done: true, from: giver, to: taker, revision }))
}

fn key(account: Account) -> String {
    format!("bank/{}", account.0)
}
