//! Histories by hand, one for each anomaly, and random ones against brute force.

use super::*;
use crate::checker::Valid;
use crate::checker::bank::tests::{BANK, call};
use crate::checker::oracle::{Tally, Trial};
use crate::generator::Dice;
use crate::history::{Nanos, Process};
use crate::workload::model::Accounts;

/// The beginning of what is said of a history, and what was done to it.
type Anomaly = (&'static str, fn(&mut [Asked]));

fn transfer(id: u64, from: u64, to: u64, amount: u64) -> Call {
    Call::Transfer { id, from: Account(from), to: Account(to), amount }
}

fn lost() -> Option<Outcome<Reply>> {
    Some(Outcome::Info("timeout".into()))
}

/// One after another: transfers by every account, one of unknown outcome that was done, one that was refused, one that
/// was not done, and reads. Their numbers are those in the comments.
fn history() -> Vec<Asked> {
    executed(vec![
        (transfer(1, 0, 1, 4), None),                                  // 0: [6 14 10] at 2
        (Call::Read, None),                                            // 1
        (transfer(2, 1, 2, 3), lost()),                                // 2: [6 11 13] at 3
        (Call::Read, None),                                            // 3
        (transfer(3, 0, 2, 9), None),                                  // 4: refused
        (transfer(4, 2, 0, 5), None),                                  // 5: [11 11 8] at 4
        (transfer(5, 1, 2, 1), Some(Outcome::Fail("refused".into()))), // 6
        (Call::Read, None),                                            // 7
    ])
}

/// Transfer 1 was done, and written over in both of its accounts before anyone looked.
fn unseen_history() -> Vec<Asked> {
    executed(vec![
        (Call::Read, None),             // 0: [10 10 10] at 1
        (transfer(1, 0, 1, 4), lost()), // 1: [6 14 10] at 2
        (transfer(2, 0, 2, 1), lost()), // 2: [5 14 11] at 3
        (transfer(3, 1, 2, 2), lost()), // 3: [5 12 13] at 4
        (Call::Read, None),             // 4
    ])
}

/// Each call with what its process learns of it, if that is not the reply.
fn executed(calls: Vec<(Call, Option<Outcome<Reply>>)>) -> Vec<Asked> {
    let mut bank = Accounts::opened(BANK);
    let mut history = Vec::new();
    for (index, (call, said)) in calls.into_iter().enumerate() {
        let time = 10 * index as u64;
        let is_open = matches!(said, Some(Outcome::Info(_)));
        let outcome = match said {
            Some(Outcome::Fail(why)) => Outcome::Fail(why),
            said => {
                let reply = bank.execute(&call);
                said.unwrap_or(Outcome::Ok(reply))
            }
        };
        let completed = (!is_open).then_some(Nanos(time + 5));
        history.push(Operation { index, process: Process(0), call, invoked: Nanos(time), completed, outcome });
    }
    history
}

/// What a read found of an account, to be changed.
fn of_read(history: &mut [Asked], number: usize, account: usize) -> &mut Held {
    match &mut history[number].outcome {
        Outcome::Ok(Reply::Read { accounts, .. }) => accounts[account].as_mut().expect("it is there"),
        other => panic!("{other:?} is no read"),
    }
}

/// The revision an operation says.
fn revision(history: &mut [Asked], number: usize) -> &mut u64 {
    match &mut history[number].outcome {
        Outcome::Ok(Reply::Read { at: revision, .. } | Reply::Transfer { revision, .. }) => revision,
        other => panic!("{other:?} says none"),
    }
}

fn fail(history: &mut [Asked], number: usize) {
    history[number].outcome = Outcome::Fail("refused".into());
}

#[test]
fn every_anomaly_is_named() {
    assert_eq!(check(&history(), &BANK), Verdict::valid(CHECKER));
    let anomalies: [Anomaly; 15] = [
        ("nobody left it so", |history| of_read(history, 1, 0).by = 9),
        ("nobody left it so", |history| of_read(history, 1, 2).by = 1),
        ("nobody left it so", |history| of_read(history, 1, 2).balance = 11),
        ("seen, though not done", |history| fail(history, 0)),
        ("seen, though not done", |history| of_read(history, 7, 1).by = 5),
        ("seen, though not done", |history| of_read(history, 7, 2).by = 3),
        ("seen in two ways", |history| of_read(history, 1, 0).balance = 7),
        ("seen in two ways", |history| of_read(history, 7, 0).version = 4),
        ("seen in two ways", |history| of_read(history, 7, 1).revision = 2),
        ("wrongly done or refused", |history| {
            let Outcome::Ok(Reply::Transfer { done, .. }) = &mut history[4].outcome else { return };
            *done = true;
        }),
        ("two transfers have one revision", |history| {
            fail(history, 7);
            *revision(history, 5) = 2;
        }),
        ("older than what was known before", |history| *revision(history, 7) = 3),
        ("not what the newest transfer left", |history| *of_read(history, 7, 1) = *of_read(history, 1, 1)),
        ("does not follow", |history| {
            of_read(history, 3, 1).balance = 12;
            of_read(history, 7, 1).balance = 12;
        }),
        ("does not follow", |history| {
            of_read(history, 3, 1).version = 3;
            of_read(history, 7, 1).version = 3;
        }),
    ];
    for (name, change) in anomalies {
        let mut changed = history();
        change(&mut changed);
        let verdict = check(&changed, &BANK);
        let told = verdict.evidence.first().is_some_and(|line| line.starts_with(name));
        assert!(verdict.valid == Valid::False && told, "{name}: {verdict:#?}");
    }
}

#[test]
fn a_transfer_that_nobody_saw_leaves_room_for_what_it_moved() {
    assert_eq!(check(&unseen_history(), &BANK), Verdict::valid(CHECKER), "it was in between");
    let changes: [(&str, Anomaly); 5] = [
        (
            "it moved 4, not 3",
            ("does not follow", |history| {
                of_read(history, 4, 0).balance += 1;
                of_read(history, 4, 1).balance -= 1;
            }),
        ),
        (
            "two were in between, for which there was one revision",
            ("does not follow", |history| {
                of_read(history, 4, 0).version += 1;
            }),
        ),
        ("somebody looked when it must have been done", ("does not follow", |history| *revision(history, 0) = 2)),
        ("it was asked for too late", ("does not follow", |history| history[1].invoked = Nanos(90))),
        (
            "it would have left less than nothing",
            ("wrongly done or refused", |history| {
                of_read(history, 4, 0).balance = -1;
            }),
        ),
    ];
    for (why, (name, change)) in changes {
        let mut changed = unseen_history();
        change(&mut changed);
        let verdict = check(&changed, &BANK);
        let told = verdict.evidence.first().is_some_and(|line| line.starts_with(name));
        assert!(verdict.valid == Valid::False && told, "{why}: {verdict:#?}");
    }
}

#[test]
fn what_is_none_of_this_workload_is_unknown() {
    let changes: [fn(&mut Vec<Asked>); 4] = [
        |history| history[0].outcome = history[1].outcome.clone(),
        |history| history[2].call = transfer(1, 1, 2, 3),
        |history| history[6].call = transfer(6, 1, 1, 3),
        |history| history.clear(),
    ];
    for change in changes {
        let mut changed = history();
        change(&mut changed);
        assert_eq!(check(&changed, &BANK).valid, Valid::Unknown);
    }
}

fn spoil(dice: &mut Dice, history: &mut [Asked]) {
    let place = dice.below(history.len() as u64) as usize;
    match &mut history[place].outcome {
        Outcome::Ok(Reply::Transfer { done, .. }) => *done = !*done,
        Outcome::Ok(Reply::Read { accounts, .. }) => spoil_read(dice, accounts),
        Outcome::Fail(_) | Outcome::Info(_) => {}
    }
}

fn spoil_read(dice: &mut Dice, accounts: &mut [Option<Held>]) {
    let place = dice.below(3) as usize;
    match dice.below(3) {
        0 => dice.shuffle(accounts),
        1 => accounts[place] = Some(BANK.opened()),
        _ => {
            let more = |held: Option<Held>, by: i64| held.map(|held| Held { balance: held.balance + by, ..held });
            let other = (place + 1) % 3;
            (accounts[place], accounts[other]) = (more(accounts[place], 1), more(accounts[other], -1));
        }
    }
}

#[test]
fn false_only_when_there_is_no_order() {
    let check = |operations: &[Asked]| check(operations, &BANK);
    let trial = Trial { calls_max: 5, call, start: Accounts::opened(BANK), run: Accounts::execute, spoil, check };
    let Tally { right, wrong, caught } = trial.hold(5_000);
    assert!(right > 500 && wrong > 500, "{right} right, {wrong} wrong");
    assert!(2 * caught > wrong, "only {caught} of {wrong} were caught");
}
