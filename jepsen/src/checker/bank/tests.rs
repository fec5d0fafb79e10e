//! Histories by hand, and random ones against brute force.

use super::*;
use crate::checker::Valid;
use crate::checker::oracle::{Tally, Trial};
use crate::generator::Dice;
use crate::history::{Nanos, Process};
use crate::workload::bank::Account;
use crate::workload::model::Accounts;

pub(super) const BANK: Bank = Bank { accounts: 3, opening: 10, guarded: true };
const READ: Call = Call::Read;
const TRANSFER: Call = Call::Transfer { id: 1, from: Account(0), to: Account(1), amount: 4 };

type Said = Outcome<Reply>;

fn held(balance: i64) -> Held {
    Held { balance, by: 0, revision: 0, version: 0 }
}

fn read(balances: &[i64]) -> Said {
    Outcome::Ok(Reply::Read { accounts: balances.iter().map(|balance| Some(held(*balance))).collect(), at: 1 })
}

fn transferred(done: bool) -> Said {
    Outcome::Ok(Reply::Transfer { done, from: held(10), to: held(10), revision: 1 })
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
    let missing = Outcome::Ok(Reply::Read { accounts: vec![Some(held(10)), None, Some(held(20))], at: 1 });
    let faults = [
        (read(&[6, 10, 10]), "wrong sum: event 1 (p10, 10 to 15 ns) has read [6 10 10]: 26, not 30"),
        (read(&[10, 14, 10]), "wrong sum: event 1 (p10, 10 to 15 ns) has read [10 14 10]: 34, not 30"),
        (read(&[-2, 22, 10]), "negative balance: event 1 (p10, 10 to 15 ns) has read [-2 22 10]: account 0 holds -2"),
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
    let calls =
        vec![(TRANSFER, transferred(true)), (READ, read(&[6, 14, 10])), (TRANSFER, lost), (READ, read(&[2, 18, 10]))];
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

/// The n-th call.
pub(super) fn call(dice: &mut Dice, number: u64) -> Call {
    if dice.flag() {
        return READ;
    }
    let from = dice.below(3);
    let to = (from + 1 + dice.below(2)) % 3;
    Call::Transfer { id: number + 1, from: Account(from), to: Account(to), amount: 1 + dice.below(9) }
}

fn spoil(dice: &mut Dice, history: &mut [Operation<Call, Reply>]) {
    let place = dice.below(history.len() as u64) as usize;
    match &mut history[place].outcome {
        Outcome::Ok(Reply::Read { accounts, .. }) => spoil_read(dice, accounts),
        Outcome::Ok(Reply::Transfer { done, .. }) => *done = !*done,
        Outcome::Fail(_) | Outcome::Info(_) => {}
    }
}

fn spoil_read(dice: &mut Dice, accounts: &mut Vec<Option<Held>>) {
    let place = dice.below(3) as usize;
    match dice.below(4) {
        0 => dice.shuffle(accounts),
        1 => accounts[place] = None,
        2 => accounts.truncate(place),
        _ => {
            let more = 1 + dice.below(5) as i64;
            accounts[place] = accounts[place].map(|held| Held { balance: held.balance + more, ..held });
        }
    }
}

#[test]
fn false_only_when_there_is_no_order() {
    let check = |operations: &[Operation<Call, Reply>]| check(operations, &BANK);
    let trial = Trial { calls_max: 5, call, start: Accounts::opened(BANK), run: Accounts::execute, spoil, check };
    let Tally { right, wrong, caught } = trial.hold(5_000);
    assert!(right > 500 && wrong > 500, "{right} right, {wrong} wrong");
    // Shuffled balances and transfers that lie about their outcome keep the sum.
    assert!(4 * caught > wrong, "only {caught} of {wrong} were caught");
}
