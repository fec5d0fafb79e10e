//! Histories by hand, each state of an element by its name; and random ones, on which checker and oracle always agree.

use std::collections::BTreeSet;

use super::*;
use crate::checker::Valid;
use crate::checker::oracle::{Tally, Trial};
use crate::generator::Dice;
use crate::history::Process;

/// The set that all is about, where nothing else is said.
const SET: SetId = SetId(0);

/// A call with its times and what came of it, each by a process of its own.
type Line = (u64, u64, Said);

#[derive(Clone, Copy)]
enum Said {
    Added(u64),
    Failed(u64),
    Unknown(u64),
    Has(&'static [u64]),
    ReadFailed,
}

use Said::{Added, Failed, Has, ReadFailed, Unknown};

fn operations(lines: &[Line]) -> Vec<Called> {
    let mut lines = lines.to_vec();
    lines.sort_by_key(|(begin, ..)| *begin);
    lines.into_iter().enumerate().map(|(index, line)| operation(index, line)).collect()
}

fn operation(index: usize, (begin, end, said): Line) -> Called {
    let (call, outcome) = match said {
        Added(element) => (Call::Add { set: SET, element }, Outcome::Ok(Reply::Add)),
        Failed(element) => (Call::Add { set: SET, element }, Outcome::Fail("refused".into())),
        Unknown(element) => (Call::Add { set: SET, element }, Outcome::Info("timeout".into())),
        Has(elements) => (Call::Read { set: SET }, Outcome::Ok(Reply::Read { elements: elements.to_vec() })),
        ReadFailed => (Call::Read { set: SET }, Outcome::Fail("timeout".into())),
    };
    let completed = (!matches!(outcome, Outcome::Info(_))).then_some(Nanos(end));
    Operation { index, process: Process(index as u64), call, invoked: Nanos(begin), completed, outcome }
}

/// A history, the verdict, and the states of elements 1, 2, …
type Scenario = (&'static str, &'static [Line], Valid, &'static [State]);

const SCENARIOS: &[Scenario] = &[
    (
        "one after another",
        &[(0, 1, Added(1)), (2, 3, Has(&[1])), (4, 5, Added(2)), (6, 7, Has(&[2, 1]))],
        Valid::True,
        &[State::Stable, State::Stable],
    ),
    (
        "at the same time, in either order",
        &[(0, 5, Added(1)), (5, 9, Has(&[])), (5, 9, Has(&[1]))],
        Valid::True,
        &[State::Stable],
    ),
    (
        "done long after, and never done",
        &[(0, 1, Unknown(1)), (0, 1, Unknown(2)), (0, 1, Failed(3)), (2, 3, Has(&[])), (20, 21, Has(&[1]))],
        Valid::True,
        &[State::Stable, State::Unacknowledged, State::Unacknowledged],
    ),
    ("lost before anyone saw it", &[(0, 1, Added(1)), (2, 3, Has(&[]))], Valid::False, &[State::Lost]),
    (
        "lost after it was seen",
        &[(0, 9, Unknown(1)), (1, 2, Has(&[1])), (3, 4, Has(&[]))],
        Valid::False,
        &[State::Lost],
    ),
    ("a stale read", &[(0, 1, Added(1)), (2, 3, Has(&[])), (4, 5, Has(&[1]))], Valid::False, &[State::Stale]),
    (
        "stale, then lost",
        &[(0, 1, Added(1)), (2, 3, Has(&[])), (4, 5, Has(&[1])), (6, 7, Has(&[]))],
        Valid::False,
        &[State::Lost],
    ),
    (
        "a read has what was added later, and not what was added before that",
        &[(0, 20, Has(&[2])), (1, 2, Added(1)), (3, 4, Added(2)), (30, 31, Has(&[1, 2]))],
        Valid::False,
        &[State::Stale, State::Stable],
    ),
    ("from nowhere", &[(0, 1, Has(&[1]))], Valid::False, &[State::Unexpected]),
    ("it had failed", &[(0, 1, Failed(1)), (2, 3, Has(&[1]))], Valid::False, &[State::Unexpected]),
    ("read before it was added", &[(0, 1, Has(&[1])), (2, 3, Added(1))], Valid::False, &[State::Unexpected]),
    ("twice", &[(0, 1, Added(1)), (2, 3, Has(&[1, 1]))], Valid::False, &[State::Duplicated]),
    (
        "two reads that contradict each other",
        &[(0, 9, Added(1)), (0, 9, Added(2)), (0, 9, Has(&[1])), (0, 9, Has(&[2]))],
        Valid::False,
        &[State::Stable, State::Stable],
    ),
    (
        "acknowledged after the last read began",
        &[(0, 1, Added(1)), (2, 9, Has(&[1])), (3, 4, Added(2)), (10, 11, ReadFailed)],
        Valid::Unknown,
        &[State::Stable, State::NeverRead],
    ),
    ("nothing happened", &[], Valid::Unknown, &[]),
    ("nothing to read", &[(0, 1, Unknown(1)), (2, 3, Has(&[]))], Valid::Unknown, &[State::Unacknowledged]),
];

#[test]
fn each_state_is_found_by_its_name() {
    for (name, lines, valid, expected) in SCENARIOS {
        let operations = operations(lines);
        let verdict = check(&operations);
        assert_eq!(verdict.valid, *valid, "{name}: {:#?}", verdict.evidence);
        let states: Vec<State> = states(&operations).expect("a history of sets").into_values().collect();
        assert_eq!(states, *expected, "{name}");
    }
}

/// The same history of another set.
fn of_other(mut operations: Vec<Called>) -> Vec<Called> {
    for operation in &mut operations {
        match &mut operation.call {
            Call::Add { set, .. } | Call::Read { set } => *set = SetId(1),
        }
    }
    operations
}

/// What happens to one set and to another one, and the verdict on both.
type OfTwo = (&'static str, &'static [Line], &'static [Line], Valid);

#[test]
fn each_set_is_judged_alone() {
    const GOOD: &[Line] = &[(0, 1, Added(1)), (2, 3, Has(&[1]))];
    let cases: [OfTwo; 5] = [
        ("each has its own", GOOD, &[(0, 1, Added(2)), (2, 3, Has(&[2]))], Valid::True),
        ("an old one has lost something", &[(0, 1, Added(1)), (2, 3, Has(&[]))], GOOD, Valid::False),
        ("it was added to the other one", GOOD, &[(2, 3, Has(&[1]))], Valid::False),
        (
            "an old one was not read any more",
            &[(0, 1, Added(1))],
            &[(0, 1, Added(2)), (2, 3, Has(&[2]))],
            Valid::Unknown,
        ),
        ("reads of two sets need not agree", GOOD, &[(2, 3, Has(&[]))], Valid::True),
    ];
    for (name, one, other, valid) in cases {
        let both = [operations(one), of_other(operations(other))].concat();
        let verdict = check(&both);
        assert_eq!(verdict.valid, valid, "{name}: {:#?}", verdict.evidence);
    }
}

#[test]
fn a_history_of_something_else_is_unknown() {
    let mut misfit = operations(&[(0, 1, Added(1))]);
    misfit[0].outcome = Outcome::Ok(Reply::Read { elements: vec![] });
    let twice = operations(&[(0, 1, Added(1)), (2, 3, Unknown(1))]);
    for history in [misfit, twice] {
        assert_eq!((check(&history).valid, states(&history).is_err()), (Valid::Unknown, true));
    }
}

#[test]
fn a_lost_element_is_told_with_its_add_and_the_reads_around() {
    let lines = [(0, 1, Added(1)), (2, 3, Has(&[1])), (4, 5, Has(&[1])), (6, 7, Has(&[])), (8, 9, Has(&[]))];
    let told = [
        "lost: element 1",
        "  added by: event 0 (p0, 0 to 1 ns)",
        "  known since 1 ns, by event 0 (p0, 0 to 1 ns)",
        "  last in: event 2 (p2, 4 to 5 ns)",
        "  first had to be, but is not, in: event 3 (p3, 6 to 7 ns)",
    ];
    assert_eq!(check(&operations(&lines)).evidence, told);
}

#[test]
fn reads_that_contradict_each_other_are_told() {
    let lines = [(0, 9, Added(1)), (1, 9, Added(2)), (2, 9, Has(&[1])), (3, 9, Has(&[2]))];
    let told =
        ["incomparable: two reads", "  event 2 (p2, 2 to 9 ns) has 1, not 2", "  event 3 (p3, 3 to 9 ns) has 2, not 1"];
    assert_eq!(check(&operations(&lines)).evidence, told);
}

fn call(dice: &mut Dice, number: u64) -> Call {
    match dice.flag() {
        true => Call::Read { set: SET },
        false => Call::Add { set: SET, element: number },
    }
}

fn run(set: &mut BTreeSet<u64>, call: &Call) -> Reply {
    match call {
        Call::Add { element, .. } => {
            set.insert(*element);
            Reply::Add
        }
        Call::Read { .. } => Reply::Read { elements: set.iter().copied().collect() },
    }
}

fn spoil(dice: &mut Dice, history: &mut [Called]) {
    let place = dice.below(history.len() as u64) as usize;
    let outcome = &mut history[place].outcome;
    match outcome {
        Outcome::Ok(Reply::Read { elements }) => spoil_read(dice, elements),
        Outcome::Ok(Reply::Add) => *outcome = Outcome::Fail("it says".into()),
        Outcome::Info(why) => *outcome = Outcome::Fail(std::mem::take(why)),
        Outcome::Fail(_) => {}
    }
}

/// Ascending, as the model has them.
fn spoil_read(dice: &mut Dice, elements: &mut Vec<u64>) {
    match dice.below(4) {
        0 => elements.extend(elements.last().copied()),
        1 if !elements.is_empty() => {
            elements.remove(dice.below(elements.len() as u64) as usize);
        }
        2 if !elements.is_empty() => elements[0] = dice.below(6),
        _ => elements.push(dice.below(6)),
    }
    elements.sort_unstable();
}

fn trial() -> Trial<Call, Reply, BTreeSet<u64>> {
    Trial { calls_max: 6, call, start: BTreeSet::new(), run, spoil, check }
}

#[test]
fn false_exactly_when_there_is_no_order() {
    let Tally { right, wrong, caught } = trial().hold(20_000);
    assert_eq!(caught, wrong, "missed some of the wrong ones");
    assert!(right > 1_000 && wrong > 1_000, "{right} right, {wrong} wrong");
}

/// Whether an add that was acknowledged need not have been done.
fn may_have_lost(history: &[Called]) -> bool {
    (0..history.len()).any(|place| {
        let mut lost = history.to_vec();
        lost[place].outcome = Outcome::Fail("lost".into());
        matches!(history[place].outcome, Outcome::Ok(Reply::Add)) && trial().has_order(&lost)
    })
}

fn has_element(operation: &Called) -> bool {
    matches!(&operation.outcome, Outcome::Ok(Reply::Read { elements }) if !elements.is_empty())
}

#[test]
fn true_exactly_when_no_loss_would_go_unnoticed() {
    trial().agree(4_000, |history| may_have_lost(history) || !history.iter().any(has_element));
}
