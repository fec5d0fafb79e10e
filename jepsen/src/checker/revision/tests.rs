//! Histories by hand, one for each anomaly, and random ones against brute force.

use super::*;
use crate::checker::Valid;
use crate::checker::wgl::oracle::{Explain, linearizable, simulated, spoil};
use crate::generator::Dice;
use crate::history::{Nanos, Process};
use crate::workload::register::Versioned;

const SEEDS: u64 = 6_000;

/// An operation of process 0 from `invoked` on; it takes one unit of time.
fn asked(invoked: u64, call: Call, reply: Reply) -> Asked {
    let (invoked, completed) = (Nanos(invoked), Some(Nanos(invoked + 1)));
    Operation { index: 0, process: Process(0), call, invoked, completed, outcome: Outcome::Ok(reply) }
}

fn writing(value: u64) -> Call {
    Call::Write { register: Register(0), value }
}

fn swapping(from: u64, to: u64) -> Call {
    Call::Cas { register: Register(0), from, to }
}

fn write(invoked: u64, value: u64, revision: u64) -> Asked {
    asked(invoked, writing(value), Reply::Write { revision })
}

/// What was held: value, revision, version.
fn read(invoked: u64, held: Option<(u64, u64, u64)>, at: u64) -> Asked {
    let value = held.map(|(value, revision, version)| Versioned { value, revision, version });
    asked(invoked, Call::Read { register: Register(0) }, Reply::Read { value, at })
}

fn stale(invoked: u64, held: Option<(u64, u64, u64)>, at: u64) -> Asked {
    Operation { call: Call::StaleRead { register: Register(0) }, ..read(invoked, held, at) }
}

fn swap(invoked: u64, from: u64, to: u64, revision: u64) -> Asked {
    asked(invoked, swapping(from, to), Reply::Cas { swapped: true, revision })
}

fn no_swap(invoked: u64, from: u64, to: u64, revision: u64) -> Asked {
    asked(invoked, swapping(from, to), Reply::Cas { swapped: false, revision })
}

fn until(completed: u64, operation: Asked) -> Asked {
    Operation { completed: Some(Nanos(completed)), ..operation }
}

fn open(invoked: u64, call: Call) -> Asked {
    let outcome = Outcome::Info("timeout".into());
    Operation { completed: None, outcome, ..asked(invoked, call, Reply::Write { revision: 0 }) }
}

fn failed(invoked: u64, call: Call) -> Asked {
    Operation { outcome: Outcome::Fail("refused".into()), ..asked(invoked, call, Reply::Write { revision: 0 }) }
}

fn in_register(register: u64, operation: Asked) -> Asked {
    let register = Register(register);
    let call = match operation.call {
        Call::Read { .. } => Call::Read { register },
        Call::StaleRead { .. } => Call::StaleRead { register },
        Call::Write { value, .. } => Call::Write { register, value },
        Call::Cas { from, to, .. } => Call::Cas { register, from, to },
    };
    Operation { call, ..operation }
}

#[test]
fn histories_that_have_an_order() {
    let (first, second) = (Some((7, 2, 1)), Some((8, 3, 2)));
    let histories: [(&str, Vec<Asked>); 14] = [
        ("one after the other", vec![write(0, 7, 2), read(10, Some((7, 2, 1)), 2), swap(20, 7, 8, 3)]),
        ("nothing was there", vec![read(0, None, 1), no_swap(10, 7, 8, 1), write(20, 9, 2)]),
        ("others may write", vec![write(0, 7, 5), read(10, Some((7, 5, 1)), 9), write(20, 8, 12)]),
        (
            "revisions are those of all registers",
            vec![write(0, 7, 2), in_register(1, write(10, 8, 3)), read(20, Some((7, 2, 1)), 3)],
        ),
        ("concurrent, in the order of revisions", vec![until(30, write(0, 7, 3)), write(10, 8, 2)]),
        ("a read began before a write ended", vec![until(30, read(0, None, 1)), write(10, 7, 2)]),
        ("intervals that touch are concurrent", vec![write(0, 7, 2), read(1, None, 1)]),
        (
            "an open write is seen later, and again",
            vec![open(0, writing(7)), write(10, 8, 2), read(20, Some((7, 3, 2)), 3), read(30, Some((7, 3, 2)), 4)],
        ),
        (
            "an open write nobody saw is counted",
            vec![write(0, 7, 2), open(10, writing(8)), write(20, 9, 4), read(30, Some((9, 4, 3)), 4)],
        ),
        (
            "an open write was swapped away",
            vec![write(0, 7, 2), open(10, writing(8)), swap(20, 8, 9, 4), read(30, Some((9, 4, 3)), 4)],
        ),
        (
            "a swap was refused because of an open write",
            vec![write(0, 7, 2), open(10, writing(8)), no_swap(20, 7, 9, 3), read(30, Some((8, 3, 2)), 3)],
        ),
        ("what failed is not seen", vec![failed(0, writing(7)), read(10, None, 1)]),
        (
            "stale reads are behind",
            vec![write(0, 7, 2), write(10, 8, 3), stale(20, first, 2), stale(30, None, 1), read(40, second, 3)],
        ),
        (
            "a stale read saw what was before an open write",
            vec![
                write(0, 7, 2),
                open(10, writing(8)),
                write(20, 9, 5),
                stale(30, first, 3),
                read(40, Some((9, 5, 3)), 5),
            ],
        ),
    ];
    for (name, history) in histories {
        let verdict = check(&history);
        assert_eq!(verdict.valid, Valid::True, "{name}: {:#?}", verdict.evidence);
    }
}

#[test]
fn every_anomaly_is_named() {
    const SEEN_UNWRITTEN: &str = "a value was seen that nobody wrote";
    const SEEN_UNDONE: &str = "a write said not done was seen";
    const SEEN_TWICE: &str = "a write was seen at two revisions";
    const STALE: &str = "a read did not return the newest write at its revision";
    const FOUND: &str = "a swap found what the register did not hold";
    const WRITE_LATE: &str = "a write's revision is not above one that was known before the write was invoked";
    const LOOK_LATE: &str = "what was looked at is older than a revision that was known before";
    const VERSION: &str = "register 0, in the order of revisions: a read's version does not count the writes before it";
    const REFUSED: &str =
        "register 0, in the order of revisions: a swap was refused although the register held what it asked for";
    const FOUND_IN_REPLAY: &str = "register 0, in the order of revisions: a swap found what the register did not hold";
    let (first, third) = (Some((7, 2, 1)), Some((9, 4, 3)));
    let histories: [(&str, Vec<Asked>); 33] = [
        ("a reply is to another kind of call", vec![asked(0, writing(7), Reply::Read { value: None, at: 2 })]),
        (SEEN_UNWRITTEN, vec![write(0, 7, 2), read(10, Some((9, 2, 1)), 2)]),
        (SEEN_UNWRITTEN, vec![in_register(1, write(0, 7, 2)), read(10, Some((7, 2, 1)), 2)]),
        (SEEN_UNWRITTEN, vec![swap(0, 7, 8, 2)]),
        (SEEN_UNDONE, vec![failed(0, writing(7)), read(10, Some((7, 2, 1)), 2)]),
        (SEEN_UNDONE, vec![failed(0, writing(7)), swap(10, 7, 8, 3)]),
        (SEEN_UNDONE, vec![no_swap(0, 6, 7, 1), read(10, Some((7, 2, 1)), 2)]),
        (SEEN_TWICE, vec![write(0, 7, 2), read(10, Some((7, 3, 1)), 3)]),
        (SEEN_TWICE, vec![open(0, writing(7)), read(10, Some((7, 2, 1)), 3), read(20, Some((7, 3, 1)), 3)]),
        (
            "a read returned a value newer than the revision it looked at",
            vec![write(0, 7, 5), until(30, read(0, Some((7, 5, 1)), 4))],
        ),
        ("two writes have one revision", vec![write(0, 7, 2), in_register(1, until(30, write(0, 8, 2)))]),
        (WRITE_LATE, vec![write(0, 7, 3), in_register(1, write(10, 8, 2))]),
        // The read has seen what was written after it returned.
        (WRITE_LATE, vec![read(0, Some((7, 2, 1)), 2), write(10, 7, 2)]),
        (WRITE_LATE, vec![read(0, Some((7, 2, 1)), 2), open(10, writing(7))]),
        (WRITE_LATE, vec![read(0, None, 4), open(10, writing(7)), until(30, read(10, Some((7, 3, 1)), 5))]),
        (LOOK_LATE, vec![write(0, 7, 3), in_register(1, read(10, None, 2))]),
        (LOOK_LATE, vec![read(0, None, 3), read(10, None, 2)]),
        (LOOK_LATE, vec![read(0, None, 3), no_swap(10, 7, 8, 2)]),
        (STALE, vec![write(0, 7, 2), write(10, 8, 3), read(20, Some((7, 2, 1)), 3)]),
        (STALE, vec![write(0, 7, 2), read(10, None, 2)]),
        (FOUND, vec![write(0, 7, 2), write(10, 8, 3), swap(20, 7, 9, 4)]),
        (FOUND, vec![until(30, write(0, 7, 5)), swap(10, 7, 9, 4)]),
        (FOUND_IN_REPLAY, vec![write(0, 7, 2), open(10, swapping(6, 8)), swap(20, 8, 9, 4)]),
        (REFUSED, vec![write(0, 7, 2), no_swap(10, 7, 8, 2)]),
        (VERSION, vec![write(0, 7, 2), open(10, writing(8)), write(20, 9, 5), read(30, Some((9, 5, 4)), 5)]),
        (SEEN_UNDONE, vec![failed(0, writing(7)), stale(10, first, 2)]),
        (SEEN_TWICE, vec![write(0, 7, 2), stale(10, Some((7, 3, 1)), 3)]),
        (STALE, vec![write(0, 7, 2), write(10, 8, 3), stale(20, first, 3)]),
        (VERSION, vec![write(0, 7, 2), write(10, 8, 3), stale(20, Some((7, 2, 2)), 2)]),
        // It has seen what was written after it returned, or looked at a revision of which there was none yet.
        (WRITE_LATE, vec![stale(0, first, 2), write(10, 7, 2)]),
        (WRITE_LATE, vec![stale(0, None, 5), write(10, 7, 5)]),
        (LOOK_LATE, vec![stale(0, None, 5), read(10, None, 4)]),
        // The open write would have been done at a revision at which the stale read has not found it.
        (VERSION, vec![write(0, 7, 2), open(10, writing(8)), write(20, 9, 4), stale(30, first, 3), read(40, third, 4)]),
    ];
    for (number, (anomaly, history)) in histories.into_iter().enumerate() {
        let verdict = check(&history);
        assert_eq!(verdict.valid, Valid::False, "history {number}");
        assert!(verdict.evidence[0].starts_with(anomaly), "history {number}: {:#?}", verdict.evidence);
        assert!(verdict.evidence[1..].iter().any(|line| line.contains("p0 ")), "{number}: {:#?}", verdict.evidence);
    }
}

/// The version counts one more write than is known: each of these could have been it, but for what is said.
#[test]
fn open_writes_count_only_where_they_fit() {
    let end = |at: u64| [write(50, 9, at), read(60, Some((9, at, 3)), at)];
    let histories: [(&str, Valid, Vec<Asked>); 8] = [
        ("nothing else was open", Valid::False, vec![write(0, 7, 2)]),
        ("it fits", Valid::True, vec![write(0, 7, 2), open(10, writing(8))]),
        ("it is another register's", Valid::False, vec![write(0, 7, 2), in_register(1, open(10, writing(8)))]),
        ("it began after its effect was counted", Valid::False, vec![write(0, 7, 2), open(70, writing(8))]),
        (
            "it would have been read",
            Valid::False,
            vec![write(0, 7, 2), open(10, writing(8)), read(20, Some((7, 2, 1)), 3)],
        ),
        ("it would not have found its value", Valid::False, vec![write(0, 7, 2), open(10, swapping(6, 8))]),
        ("it found its value", Valid::True, vec![write(0, 7, 2), open(10, swapping(7, 8))]),
        (
            "a read saw another register only",
            Valid::True,
            vec![write(0, 7, 2), open(10, writing(8)), in_register(1, read(20, None, 2))],
        ),
    ];
    for (name, expected, mut history) in histories {
        history.extend(end(4));
        let verdict = check(&history);
        assert_eq!(verdict.valid, expected, "{name}: {:#?}", verdict.evidence);
    }
    let mut no_revision_left = vec![write(0, 7, 2), open(10, writing(8))];
    no_revision_left.extend(end(3));
    assert_eq!(check(&no_revision_left).valid, Valid::False, "there is no revision for it");
}

#[test]
fn what_proves_nothing_is_unknown() {
    let unanswered = check(&[open(0, writing(7))]);
    assert_eq!(unanswered.valid, Valid::Unknown);
    assert_eq!(unanswered.evidence, ["no operation was answered"]);
    let twice = check(&[write(0, 7, 2), write(10, 7, 3)]);
    assert_eq!(twice.valid, Valid::Unknown);
    assert!(twice.evidence[0].contains("7 is written to register 0 twice"), "{:#?}", twice.evidence);
}

#[test]
fn anomalies_beyond_the_first_are_counted() {
    let mut history: Vec<Asked> = (0..5).map(|number| write(0, number, 2 + number)).collect();
    history.extend((0..5).map(|number| read(10 + 2 * number, Some((90 + number, 2, 1)), 9)));
    let verdict = check(&history);
    assert_eq!(verdict.evidence[0], "a value was seen that nobody wrote: register 0");
    assert_eq!(verdict.evidence.len(), 2 * 3 + 1);
    assert_eq!(verdict.evidence.last().map(String::as_str), Some("a value was seen that nobody wrote: and 2 more"));
}

#[test]
fn long_histories_are_no_matter() {
    let mut history = Vec::new();
    for number in 0..20_000 {
        let revision = 2 * number + 2;
        history.push(write(10 * number, number, revision));
        history.push(read(10 * number + 2, Some((number, revision, number + 1)), revision));
        if number % 100 == 0 {
            history.push(open(10 * number + 4, writing(1_000_000 + number)));
        }
    }
    assert_eq!(check(&history).valid, Valid::True);
    history.push(read(1_000_000, Some((19_999, 40_000, 20_001)), 40_000));
    assert_eq!(check(&history).valid, Valid::False);
}

#[test]
fn no_order_is_missed_and_none_made_up() {
    let (mut right, mut wrong, mut by_revision_only) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut operations = simulated(seed);
        let mut dice = Dice::new(seed);
        let answered = operations.iter().any(|operation| matches!(operation.outcome, Outcome::Ok(_)));
        let expected = if answered { Valid::True } else { Valid::Unknown };
        assert_eq!(check(&operations).valid, expected, "seed {seed}: {operations:#?}");
        for spoilt in 1..4 {
            spoil(&mut dice, &mut operations);
            let valid = check(&operations).valid;
            let (by_values, by_revisions) =
                (linearizable(&operations, Explain::Values), linearizable(&operations, Explain::Revisions));
            let case = format!("seed {seed}, spoilt {spoilt} times: {operations:#?}");
            assert!(!by_revisions || valid != Valid::False, "an order explains all: {case}");
            assert!(by_values || valid == Valid::False, "no order explains the values: {case}");
            right += u64::from(by_revisions);
            wrong += u64::from(!by_values);
            by_revision_only += u64::from(by_values && valid == Valid::False);
        }
    }
    let least = right.min(wrong).min(by_revision_only);
    assert!(
        least > SEEDS / 4,
        "{right} right, {wrong} wrong, {by_revision_only} by revision only: that proves too little"
    );
}
