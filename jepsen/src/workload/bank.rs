//! Bank: money moves between accounts, and is neither made nor lost.
//!
//! All accounts are read in one transaction, so that a read sees both sides of a transfer or neither.

use serde::{Deserialize, Serialize};

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
    Transfer { from: Account, to: Account, amount: u64 },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Reply {
    /// What each account holds, in the order of their numbers; `None` where there is no such account.
    Read { balances: Vec<Option<i64>> },
    /// `done`: whether the money moved.
    Transfer { done: bool },
}

impl Bank {
    /// What all accounts hold together, always.
    pub fn total(&self) -> i128 {
        i128::from(self.opening) * i128::from(self.accounts)
    }
}
