//! Histories by hand, and random ones against brute force.

use super::oracle::{Explain, linearizable, simulated, spoil};
use super::register::OneRegister;
use super::*;
use crate::checker::Valid;
use crate::generator::Dice;
use crate::history::Process;
use crate::workload::register::{Call, Register, Reply, Versioned};

type Asked = Operation<Call, Reply>;

const STEPS: u64 = 1_000_000;
const SEEDS: u64 = 6_000;

/// An operation of register 0 from `invoked` to `completed`, in milliseconds.
fn asked(process: u64, span: (u64, Option<u64>), call: Call, outcome: Outcome<Reply>) -> Asked {
    let ms = |time: u64| Nanos(time * 1_000_000);
    let (invoked, completed) = (ms(span.0), span.1.map(ms));
    Operation { index: 0, process: Process(process), call, invoked, completed, outcome }
}

fn read(process: u64, invoked: u64, completed: u64, held: Option<(u64, u64)>) -> Asked {
    let value = held.map(|(value, version)| Versioned { value, revision: 0, version });
    let reply = Reply::Read { value, at: 0 };
    asked(process, (invoked, Some(completed)), Call::Read { register: Register(0) }, Outcome::Ok(reply))
}

fn writing(value: u64) -> Call {
    Call::Write { register: Register(0), value }
}

fn swapping(from: u64, to: u64) -> Call {
    Call::Cas { register: Register(0), from, to }
}

fn write(process: u64, invoked: u64, completed: u64, value: u64) -> Asked {
    asked(process, (invoked, Some(completed)), writing(value), Outcome::Ok(Reply::Write { revision: 0 }))
}

fn cas(process: u64, invoked: u64, completed: u64, (from, to): (u64, u64), swapped: bool) -> Asked {
    let reply = Reply::Cas { swapped, revision: 0 };
    asked(process, (invoked, Some(completed)), swapping(from, to), Outcome::Ok(reply))
}

fn open(process: u64, invoked: u64, call: Call) -> Asked {
    asked(process, (invoked, None), call, Outcome::Info("timeout".into()))
}

fn failed(process: u64, invoked: u64, completed: u64, call: Call) -> Asked {
    asked(process, (invoked, Some(completed)), call, Outcome::Fail("refused".into()))
}

#[test]
fn histories_that_have_an_order() {
    let histories: [(&str, Vec<Asked>); 9] = [
        ("one after the other", vec![write(0, 0, 1, 7), read(1, 2, 3, Some((7, 1))), cas(0, 4, 5, (7, 8), true)]),
        ("nothing was there", vec![read(0, 0, 1, None), cas(0, 2, 3, (7, 8), false), write(0, 4, 5, 7)]),
        ("intervals that touch are concurrent", vec![write(0, 0, 5, 7), read(1, 5, 9, None)]),
        ("at one point", vec![write(0, 5, 5, 7), read(1, 5, 5, None), read(2, 5, 5, Some((7, 1)))]),
        (
            "a read inside a write sees it, one begun with it does not",
            vec![write(0, 0, 9, 7), read(1, 1, 2, None), read(1, 3, 4, Some((7, 1))), read(2, 0, 9, None)],
        ),
        (
            "an open write takes effect late",
            vec![open(0, 0, writing(7)), write(1, 1, 2, 8), read(1, 3, 4, Some((8, 1))), read(1, 5, 6, Some((7, 2)))],
        ),
        (
            "an open write nobody saw is counted",
            vec![write(1, 1, 2, 8), open(0, 3, writing(7)), write(1, 5, 6, 9), read(1, 7, 8, Some((9, 3)))],
        ),
        (
            "an open swap made way for another",
            vec![
                write(0, 0, 1, 7),
                open(1, 0, swapping(7, 8)),
                cas(0, 2, 3, (8, 9), true),
                read(0, 4, 5, Some((9, 3))),
            ],
        ),
        ("what failed is left out", vec![failed(0, 0, 1, writing(7)), read(0, 2, 3, None)]),
    ];
    for (name, history) in histories {
        let verdict = registers(&history, STEPS);
        assert_eq!(verdict.valid, Valid::True, "{name}: {:#?}", verdict.evidence);
    }
}

#[test]
fn histories_that_have_none() {
    let histories: [(&str, Vec<Asked>, &str); 9] = [
        ("a stale read", vec![write(0, 0, 1, 7), read(1, 2, 3, None)], "p1 read r0: nothing"),
        (
            "reads that go back",
            vec![write(0, 0, 1, 7), write(0, 2, 9, 8), read(1, 3, 4, Some((8, 2))), read(1, 5, 6, Some((7, 1)))],
            "p1 read r0: 7 (revision 0, version 1)",
        ),
        (
            "a value before its write",
            vec![read(1, 0, 1, Some((7, 1))), write(0, 2, 3, 7)],
            "p1 read r0: 7 (revision 0, version 1)",
        ),
        ("a value nobody wrote", vec![write(0, 0, 1, 7), read(1, 2, 3, Some((9, 2)))], "p1 read r0: 9"),
        (
            "a write said not done",
            vec![failed(0, 0, 1, writing(7)), read(0, 2, 3, Some((7, 1)))],
            "p0 read r0: 7 (revision 0, version 1)",
        ),
        ("a version too high", vec![write(0, 0, 1, 7), read(1, 2, 3, Some((7, 2)))], "version 2"),
        (
            "two swaps from one value",
            vec![write(0, 0, 1, 7), cas(0, 2, 5, (7, 8), true), cas(1, 2, 5, (7, 9), true)],
            "cas r0 7 to",
        ),
        (
            "a swap refused what was there",
            vec![write(0, 0, 1, 7), cas(1, 2, 3, (7, 9), false)],
            "p1 cas r0 7 to 9: not swapped",
        ),
        (
            "an open write before its invocation",
            vec![read(1, 0, 1, Some((7, 1))), open(0, 2, writing(7))],
            "p1 read r0: 7 (revision 0, version 1), at revision 0 [0.000000 ms to 1.000000 ms]",
        ),
    ];
    for (name, history, culprit) in histories {
        let verdict = registers(&history, STEPS);
        assert_eq!(verdict.valid, Valid::False, "{name}");
        assert!(verdict.evidence[0].starts_with("register 0:"), "{name}: {:#?}", verdict.evidence);
        let refused = verdict.evidence.iter().skip_while(|line| !line.starts_with("then it "));
        assert!(refused.skip(1).any(|line| line.contains(culprit)), "{name}: {:#?}", verdict.evidence);
    }
}

#[test]
fn evidence_is_the_longest_order_and_what_cannot_be_next() {
    let mut history = vec![write(0, 0, 1, 7), read(1, 2, 3, Some((7, 1))), open(2, 2, writing(9))];
    history.extend([write(0, 4, 6, 8), read(1, 5, 9, Some((7, 1))), read(1, 10, 12, Some((7, 1)))]);
    let lines = [
        "register 0: no order of its operations explains their replies",
        "the longest order has 4 operations; its last 4:",
        "  p0 write r0 7: done, revision 0 [0.000000 ms to 1.000000 ms]",
        "  p1 read r0: 7 (revision 0, version 1), at revision 0 [2.000000 ms to 3.000000 ms]",
        "  p1 read r0: 7 (revision 0, version 1), at revision 0 [5.000000 ms to 9.000000 ms]",
        "  p0 write r0 8: done, revision 0 [4.000000 ms to 6.000000 ms]",
        "then it holds 8, version 2, and none of these can be next:",
        "  p1 read r0: 7 (revision 0, version 1), at revision 0 [10.000000 ms to 12.000000 ms]",
    ];
    assert_eq!(registers(&history, STEPS).evidence, lines);
}

#[test]
fn registers_are_searched_one_by_one() {
    let elsewhere = |register: u64, operation: Asked| {
        let call = match operation.call {
            Call::Read { .. } => Call::Read { register: Register(register) },
            Call::StaleRead { .. } => Call::StaleRead { register: Register(register) },
            Call::Write { value, .. } => Call::Write { register: Register(register), value },
            Call::Cas { from, to, .. } => Call::Cas { register: Register(register), from, to },
        };
        Operation { call, ..operation }
    };
    let mut history = vec![write(0, 0, 1, 7), elsewhere(3, read(1, 2, 3, None))];
    assert_eq!(registers(&history, STEPS).valid, Valid::True);
    history.push(elsewhere(3, read(1, 4, 5, Some((7, 1)))));
    let verdict = registers(&history, STEPS);
    assert_eq!(verdict.valid, Valid::False);
    assert!(verdict.evidence[0].starts_with("register 3:"), "{:#?}", verdict.evidence);
}

#[test]
fn what_proves_nothing_is_unknown() {
    let unanswered = registers(&[open(0, 0, writing(7))], STEPS);
    assert_eq!(unanswered.valid, Valid::Unknown);
    assert_eq!(unanswered.evidence, ["no operation was answered"]);
    let history = [write(0, 0, 9, 7), write(1, 0, 9, 8), read(2, 0, 9, Some((7, 2)))];
    let too_short = registers(&history, 2);
    assert_eq!(too_short.valid, Valid::Unknown);
    assert_eq!(too_short.evidence, ["register 0: not decided within 2 steps"]);
    assert_eq!(registers(&history, STEPS).valid, Valid::True);
}

#[test]
fn searches_of_one_history_share_their_steps() {
    // Of sixteen writes at the same time any may be the last; none makes the version that was read.
    let mut hard: Vec<Asked> = (0..16).map(|number| write(number, 0, 9, number)).collect();
    hard.push(read(0, 10, 11, Some((0, 99))));
    let easy = [write(0, 0, 1, 7), read(0, 2, 3, Some((7, 1)))];
    let mut budget = Budget { each: 50_000, left: 80_000 };
    let mut found = |history: &[Asked]| budget.search(&OneRegister::new(history.iter()), history);
    assert_eq!(found(&hard), Found::OutOfSteps(50_000));
    assert_eq!(found(&hard), Found::OutOfSteps(30_000), "what the first one has left");
    assert_eq!(found(&hard), Found::OutOfSteps(STEPS_SURE), "what each one has");
    assert_eq!(found(&easy), Found::Linearizable);
}

/// What nobody read can be put anywhere: taking those writes in one order only keeps the search short.
#[test]
fn many_open_writes_cost_few_steps() {
    let mut history: Vec<Asked> = (0..60).map(|number| open(100 + number, 0, writing(1_000 + number))).collect();
    for number in 0..60 {
        history.push(write(0, 10 * number + 1, 10 * number + 2, number));
        history.push(read(0, 10 * number + 3, 10 * number + 4, Some((number, 2 * number + 2))));
    }
    assert_eq!(registers(&history, STEPS).valid, Valid::True);
    history.push(read(0, 700, 701, Some((59, 121))));
    assert_eq!(registers(&history, STEPS).valid, Valid::False);
}

#[test]
fn the_search_says_what_brute_force_says() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..SEEDS {
        let mut operations = simulated(seed);
        let mut dice = Dice::new(seed);
        assert!(linearizable(&operations, Explain::Values), "seed {seed}: it was carried out");
        for spoilt in 0..4 {
            let is_stale = |operation: &Asked| matches!(operation.call, Call::StaleRead { .. });
            let answered = operations.iter().any(|operation| !is_stale(operation) && reply(operation).is_some());
            let expected = match (answered, linearizable(&operations, Explain::Values)) {
                (false, _) => Valid::Unknown,
                (true, true) => Valid::True,
                (true, false) => Valid::False,
            };
            let verdict = registers(&operations, STEPS);
            assert_eq!(verdict.valid, expected, "seed {seed}, spoilt {spoilt} times: {operations:#?}");
            right += u64::from(expected == Valid::True);
            wrong += u64::from(expected == Valid::False);
            spoil(&mut dice, &mut operations);
        }
    }
    assert!(right.min(wrong) > SEEDS / 2, "{right} right and {wrong} wrong histories prove too little");
}
