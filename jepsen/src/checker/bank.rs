//! Bank: in every read all accounts together hold what they held at first, and none less than nothing.
//!
//! A transfer moves money and makes none, so a read that saw half of one, or the halves of two, shows by its sum.
//!
//! Model: each read sees one state that transfers, each done or not done, lead to. A run without a read, or in which no
//! transfer was acknowledged as done, is `unknown`.
//!
//! Left out: which transfers a read has to show, and whether one said to have failed took effect: sums do not tell, but
//! `order` does.

pub mod order;

use std::fmt;

use super::Verdict;
use super::evidence::{Findings, named};
use crate::history::{Operation, Outcome};
use crate::workload::bank::{Bank, Call, Held, Reply};

const CHECKER: &str = "bank (sum of all accounts)";

/// What is wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// An account is missing, or there is one too many.
    Accounts,
    Sum,
    Negative,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Accounts => "wrong accounts",
            Wrong::Sum => "wrong sum",
            Wrong::Negative => "negative balance",
        })
    }
}

/// Judges a history of reads and transfers, in the order of their invocations.
pub fn check(operations: &[Operation<Call, Reply>], bank: &Bank) -> Verdict {
    let mut findings = Findings::new();
    let (mut reads, mut transfers) = (0, 0);
    for operation in operations {
        match (&operation.call, &operation.outcome) {
            (Call::Read, Outcome::Ok(Reply::Read { accounts, .. })) => {
                reads += 1;
                if let Some((wrong, what)) = wrong(accounts, bank) {
                    findings.add(wrong, || vec![format!("{} has read {}: {what}", named(operation), shown(accounts))]);
                }
            }
            (Call::Transfer { .. }, Outcome::Ok(Reply::Transfer { done, .. })) => transfers += u64::from(*done),
            (Call::Read | Call::Transfer { .. }, Outcome::Fail(_) | Outcome::Info(_)) => {}
            (Call::Read, Outcome::Ok(Reply::Transfer { .. }))
            | (Call::Transfer { .. }, Outcome::Ok(Reply::Read { .. })) => {
                return Verdict::unknown(CHECKER, format!("{} has a reply that does not fit", named(operation)));
            }
        }
    }
    match (findings.is_empty(), reads, transfers) {
        (false, _, _) => Verdict::invalid(CHECKER, findings.lines()),
        (true, 0, _) => Verdict::unknown(CHECKER, "no read was answered"),
        (true, _, 0) => Verdict::unknown(CHECKER, "no transfer was acknowledged as done"),
        (true, _, _) => Verdict::valid(CHECKER),
    }
}

fn wrong(accounts: &[Option<Held>], bank: &Bank) -> Option<(Wrong, String)> {
    let there: Vec<i64> = accounts.iter().flatten().map(|held| held.balance).collect();
    let sum: i128 = there.iter().copied().map(i128::from).sum();
    if accounts.len() as u64 != bank.accounts || there.len() != accounts.len() {
        return Some((Wrong::Accounts, format!("{} accounts, not {}", there.len(), bank.accounts)));
    }
    if sum != bank.total() {
        return Some((Wrong::Sum, format!("{sum}, not {}", bank.total())));
    }
    let below = there.iter().zip(0..).find(|(balance, _)| bank.guarded && **balance < 0);
    below.map(|(balance, account)| (Wrong::Negative, format!("account {account} holds {balance}")))
}

fn shown(accounts: &[Option<Held>]) -> String {
    let words: Vec<String> =
        accounts.iter().map(|held| held.map_or("-".into(), |held| held.balance.to_string())).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests;
