//! Histories by hand, and random ones against brute force.

use super::*;
use crate::checker::Valid;
use crate::checker::oracle::{Tally, Trial};
use crate::generator::Dice;
use crate::history::Process;

const READ: Call = Call::Read;
const ONE: Call = Call::Increment { by: 1 };
const THREE: Call = Call::Increment { by: 3 };

type Said = Outcome<Reply>;

fn read(value: u64) -> Said {
    Outcome::Ok(Reply::Read { value })
}

fn made(value: u64) -> Said {
    Outcome::Ok(Reply::Increment { value })
}

fn open() -> Said {
    Outcome::Info("timeout".into())
}

fn failed() -> Said {
    Outcome::Fail("refused".into())
}

/// Each from its first to its second time; one of unknown outcome has no end.
fn history(calls: Vec<(u64, u64, Call, Said)>) -> Vec<Asked> {
    let operation = |(index, (from, to, call, outcome)): (usize, (u64, u64, Call, Said))| {
        let completed = (!matches!(outcome, Outcome::Info(_))).then_some(Nanos(to));
        Operation { index, process: Process(index as u64), call, invoked: Nanos(from), completed, outcome }
    };
    calls.into_iter().enumerate().map(operation).collect()
}

/// What both checkers say.
fn judged(calls: Vec<(u64, u64, Call, Said)>) -> (Valid, Valid) {
    let history = history(calls);
    (bounds(&history).valid, linearizable(&history).valid)
}

#[test]
fn histories_that_have_an_order() {
    let histories = [
        ("one after the other", vec![(0, 5, ONE, made(1)), (10, 15, THREE, made(4)), (20, 25, READ, read(4))]),
        (
            "what is concurrent is seen or not",
            vec![(0, 50, ONE, made(1)), (1, 5, READ, read(0)), (6, 9, READ, read(1))],
        ),
        ("an open one was done", vec![(0, 0, ONE, open()), (10, 15, ONE, made(2)), (20, 25, READ, read(2))]),
        ("or not", vec![(0, 0, ONE, open()), (10, 15, ONE, made(1)), (20, 25, READ, read(1))]),
        (
            "or late",
            vec![(0, 0, THREE, open()), (10, 15, ONE, made(1)), (20, 25, READ, read(1)), (30, 35, READ, read(4))],
        ),
        (
            "the right one of two was",
            vec![(0, 0, THREE, open()), (0, 0, ONE, open()), (10, 15, ONE, made(2)), (20, 25, READ, read(2))],
        ),
        ("a failed one was not", vec![(0, 5, THREE, failed()), (10, 15, ONE, made(1)), (20, 25, READ, read(1))]),
    ];
    for (name, calls) in histories {
        assert_eq!(judged(calls), (Valid::True, Valid::True), "{name}");
    }
}

#[test]
fn histories_that_have_none() {
    const BOTH: (Valid, Valid) = (Valid::False, Valid::False);
    /// The sums do not tell.
    const ORDER_ONLY: (Valid, Valid) = (Valid::True, Valid::False);
    let histories = [
        ("an increment was lost", BOTH, vec![(0, 5, ONE, made(1)), (10, 15, READ, read(0))]),
        ("something was added twice", BOTH, vec![(0, 5, ONE, made(1)), (10, 15, READ, read(2))]),
        ("a failed one was done", BOTH, vec![(0, 5, ONE, failed()), (6, 9, THREE, made(4)), (10, 15, READ, read(4))]),
        ("two made the same of it", BOTH, vec![(0, 5, ONE, made(1)), (10, 15, ONE, made(1)), (20, 25, READ, read(1))]),
        (
            "two that are concurrent did",
            ORDER_ONLY,
            vec![(0, 50, ONE, made(1)), (0, 50, ONE, made(1)), (10, 45, READ, read(1))],
        ),
        (
            "it was seen where it never was",
            ORDER_ONLY,
            vec![(0, 50, THREE, made(3)), (1, 5, READ, read(0)), (6, 9, READ, read(2))],
        ),
        ("it went back", ORDER_ONLY, vec![(0, 50, ONE, made(1)), (1, 5, READ, read(1)), (6, 9, READ, read(0))]),
        ("an increment made less of it than it added", ORDER_ONLY, vec![(0, 9, THREE, made(2)), (0, 9, READ, read(0))]),
    ];
    for (name, valid, calls) in histories {
        assert_eq!(judged(calls), valid, "{name}");
    }
}

#[test]
fn what_tells_nothing_is_unknown() {
    for calls in [vec![], vec![(0, 5, ONE, made(1))], vec![(0, 5, READ, read(0)), (10, 10, ONE, open())]] {
        assert_eq!(judged(calls), (Valid::Unknown, Valid::Unknown));
    }
}

#[test]
fn findings_name_the_call() {
    let lost = history(vec![(0, 5, ONE, made(1)), (10, 15, READ, read(0))]);
    assert_eq!(
        bounds(&lost).evidence,
        ["too little: event 1 (p1, 10 to 15 ns) read 0, but 1 were surely added before"]
    );
    assert_eq!(
        linearizable(&lost).evidence,
        [
            "no order explains the replies; the longest has 1 operations, its last 1:",
            "  event 0 (p0, 0 to 5 ns) increment by 1 to 1",
            "then the counter is at 1, and none of these can be next:",
            "  event 1 (p1, 10 to 15 ns) read 0",
        ]
    );
}

/// Many of unknown outcome, alike or not, neither make the search long nor hide what is wrong.
#[test]
fn many_open_increments_are_no_burden() {
    for by in [1, 2] {
        let open_ones = (0..200).map(|number| (0, 0, Call::Increment { by: 1 + number % by }, open()));
        let known = (0..500).map(|number| (10 * number, 10 * number + 5, ONE, made(2 * number + 2)));
        let mut calls: Vec<(u64, u64, Call, Said)> = open_ones.chain(known).collect();
        calls.push((9000, 9001, READ, read(1000)));
        let wrong = history(calls);
        assert_eq!(linearizable(&wrong).valid, Valid::False, "200 open ones do not fill 500 gaps");
    }
}

#[test]
fn false_exactly_when_there_is_no_order() {
    let call = |dice: &mut Dice, _| match dice.below(3) {
        0 => READ,
        _ => Call::Increment { by: 1 + dice.below(2) },
    };
    let run = |held: &mut u64, call: &Call| match call {
        Call::Read => Reply::Read { value: *held },
        Call::Increment { by } => {
            *held += by;
            Reply::Increment { value: *held }
        }
    };
    let spoil = |dice: &mut Dice, history: &mut [Asked]| {
        let place = dice.below(history.len() as u64) as usize;
        match &mut history[place].outcome {
            Outcome::Ok(Reply::Read { value } | Reply::Increment { value }) => *value = dice.below(6),
            Outcome::Fail(_) | Outcome::Info(_) => {}
        }
    };
    let exact = Trial { calls_max: 6, call, start: 0, run, spoil, check: linearizable };
    let Tally { right, wrong, caught } = exact.hold(6_000);
    assert!(right > 500 && wrong > 500, "{right} right, {wrong} wrong");
    assert_eq!(caught, wrong, "the search is exact");
    let Tally { wrong, caught, .. } = Trial { check: bounds, ..exact }.hold(6_000);
    assert!(caught * 10 > wrong, "only {caught} of {wrong} were caught by their sums");
}
