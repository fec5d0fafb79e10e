//! Bank: in every read all accounts together hold what they held at first, and none less than nothing.
//!
//! A transfer moves money and makes none, so a read that saw half of one, or the halves of two, shows by its sum.
//!
//! Model: each read sees one state that transfers, each done or not done, lead to. A run without a read, or in which no
//! transfer was acknowledged as done, is `unknown`.
//!
//! Left out: which transfers a read has to show (a state that is too old has the same sum), and whether one said to have
//! failed, or to be not done, took effect.

use std::fmt;

use super::Verdict;
use super::evidence::{Findings, named};
use crate::history::{Operation, Outcome};
use crate::workload::bank::{Bank, Call, Reply};

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
            (Call::Read, Outcome::Ok(Reply::Read { balances })) => {
                reads += 1;
                if let Some((wrong, what)) = wrong(balances, bank) {
                    findings.add(wrong, || vec![format!("{} has read {}: {what}", named(operation), shown(balances))]);
                }
            }
            (Call::Transfer { .. }, Outcome::Ok(Reply::Transfer { done })) => transfers += u64::from(*done),
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

fn wrong(balances: &[Option<i64>], bank: &Bank) -> Option<(Wrong, String)> {
    let there: Vec<i64> = balances.iter().flatten().copied().collect();
    let sum: i128 = there.iter().copied().map(i128::from).sum();
    if balances.len() as u64 != bank.accounts || there.len() != balances.len() {
        return Some((Wrong::Accounts, format!("{} accounts, not {}", there.len(), bank.accounts)));
    }
    if sum != bank.total() {
        return Some((Wrong::Sum, format!("{sum}, not {}", bank.total())));
    }
    let below = there.iter().zip(0..).find(|(balance, _)| bank.guarded && **balance < 0);
    below.map(|(balance, account)| (Wrong::Negative, format!("account {account} holds {balance}")))
}

fn shown(balances: &[Option<i64>]) -> String {
    let words: Vec<String> =
        balances.iter().map(|balance| balance.map_or("-".into(), |held| held.to_string())).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Valid;
    use crate::checker::oracle::{Tally, Trial};
    use crate::generator::Dice;
    use crate::history::{Nanos, Process};
    use crate::workload::bank::Account;

    const BANK: Bank = Bank { accounts: 3, opening: 10, guarded: true };
    const READ: Call = Call::Read;
    const TRANSFER: Call = Call::Transfer { from: Account(0), to: Account(1), amount: 4 };

    type Said = Outcome<Reply>;

    fn read(balances: &[i64]) -> Said {
        Outcome::Ok(Reply::Read { balances: balances.iter().copied().map(Some).collect() })
    }

    fn transferred(done: bool) -> Said {
        Outcome::Ok(Reply::Transfer { done })
    }

    /// One after another.
    fn judged(calls: Vec<(Call, Said)>, bank: &Bank) -> Verdict {
        let operation = |(place, (call, outcome)): (usize, (Call, Said))| {
            let time = 10 * place as u64;
            let completed = (!matches!(outcome, Outcome::Info(_))).then_some(Nanos(time + 5));
            Operation { index: place, process: Process(time), call, invoked: Nanos(time), completed, outcome }
        };
        let operations: Vec<Operation<Call, Reply>> = calls.into_iter().enumerate().map(operation).collect();
        check(&operations, bank)
    }

    #[test]
    fn every_fault_is_found_by_its_name() {
        let missing = Outcome::Ok(Reply::Read { balances: vec![Some(10), None, Some(20)] });
        let faults = [
            (read(&[6, 10, 10]), "wrong sum: event 1 (p10, 10 to 15 ns) has read [6 10 10]: 26, not 30"),
            (read(&[10, 14, 10]), "wrong sum: event 1 (p10, 10 to 15 ns) has read [10 14 10]: 34, not 30"),
            (
                read(&[-2, 22, 10]),
                "negative balance: event 1 (p10, 10 to 15 ns) has read [-2 22 10]: account 0 holds -2",
            ),
            (read(&[10, 20]), "wrong accounts: event 1 (p10, 10 to 15 ns) has read [10 20]: 2 accounts, not 3"),
            (missing, "wrong accounts: event 1 (p10, 10 to 15 ns) has read [10 - 20]: 2 accounts, not 3"),
        ];
        for (said, evidence) in faults {
            let verdict = judged(vec![(TRANSFER, transferred(true)), (READ, said)], &BANK);
            assert_eq!((verdict.valid, verdict.evidence), (Valid::False, vec![evidence.to_owned()]));
        }
    }

    #[test]
    fn good_reads_are_true() {
        let lost = Outcome::Info("timeout".into());
        let calls = vec![
            (TRANSFER, transferred(true)),
            (READ, read(&[6, 14, 10])),
            (TRANSFER, lost),
            (READ, read(&[2, 18, 10])),
        ];
        assert_eq!(judged(calls, &BANK), Verdict::valid(CHECKER));
        let overdraft = vec![(TRANSFER, transferred(true)), (READ, read(&[-2, 22, 10]))];
        assert_eq!(judged(overdraft, &Bank { guarded: false, ..BANK }).valid, Valid::True);
    }

    #[test]
    fn what_tells_nothing_is_unknown() {
        let refused = Outcome::Fail("refused".into());
        let histories = [
            vec![],
            vec![(TRANSFER, transferred(true)), (READ, refused)],
            vec![(TRANSFER, transferred(false)), (READ, read(&[10, 10, 10]))],
            vec![(TRANSFER, transferred(true)), (READ, transferred(true))],
        ];
        for history in histories {
            assert_eq!(judged(history, &BANK).valid, Valid::Unknown);
        }
    }

    fn call(dice: &mut Dice, _: u64) -> Call {
        match dice.flag() {
            true => READ,
            false => {
                Call::Transfer { from: Account(dice.below(3)), to: Account(dice.below(3)), amount: 1 + dice.below(9) }
            }
        }
    }

    fn run(balances: &mut [i64; 3], call: &Call) -> Reply {
        match call {
            Call::Read => Reply::Read { balances: balances.iter().copied().map(Some).collect() },
            Call::Transfer { from: Account(from), to: Account(to), amount } => {
                let left = balances[*from as usize] - *amount as i64;
                if left >= 0 {
                    balances[*from as usize] = left;
                    balances[*to as usize] += *amount as i64;
                }
                Reply::Transfer { done: left >= 0 }
            }
        }
    }

    fn spoil(dice: &mut Dice, history: &mut [Operation<Call, Reply>]) {
        let place = dice.below(history.len() as u64) as usize;
        match &mut history[place].outcome {
            Outcome::Ok(Reply::Read { balances }) => spoil_read(dice, balances),
            Outcome::Ok(Reply::Transfer { done }) => *done = !*done,
            Outcome::Fail(_) | Outcome::Info(_) => {}
        }
    }

    fn spoil_read(dice: &mut Dice, balances: &mut Vec<Option<i64>>) {
        let place = dice.below(3) as usize;
        match dice.below(4) {
            0 => dice.shuffle(balances),
            1 => balances[place] = None,
            2 => balances.truncate(place),
            _ => balances[place] = balances[place].map(|held| held + 1 + dice.below(5) as i64),
        }
    }

    #[test]
    fn false_only_when_there_is_no_order() {
        let check = |operations: &[Operation<Call, Reply>]| check(operations, &BANK);
        let trial = Trial { calls_max: 5, call, start: [10; 3], run, spoil, check };
        let Tally { right, wrong, caught } = trial.hold(5_000);
        assert!(right > 500 && wrong > 500, "{right} right, {wrong} wrong");
        // Shuffled balances and transfers that lie about their outcome keep the sum.
        assert!(3 * caught > wrong, "only {caught} of {wrong} were caught");
    }
}
