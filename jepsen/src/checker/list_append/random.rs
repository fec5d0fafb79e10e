//! Random small histories, judged by the checker and by the oracle: the two always agree.

use std::collections::BTreeMap;

use super::check;
use crate::checker::oracle::{Tally, Trial};
use crate::generator::Dice;
use crate::history::{Operation, Outcome};
use crate::workload::append::{Call, List, Reply, Step};

type Lists = BTreeMap<List, Vec<u64>>;

/// 1 to 3 steps on two lists. No value is used twice.
fn call(dice: &mut Dice, number: u64) -> Call {
    let steps = 1 + dice.below(3);
    let step = |place: u64| {
        let list = List(dice.below(2));
        match dice.flag() {
            true => Step::Append { list, value: 10 * number + place },
            false => Step::Read { list },
        }
    };
    Call { steps: (0..steps).map(step).collect() }
}

fn run(lists: &mut Lists, call: &Call) -> Reply {
    let read = call.steps.iter().map(|step| {
        let values = lists.entry(step.list()).or_default();
        match step {
            Step::Append { value, .. } => {
                values.push(*value);
                None
            }
            Step::Read { .. } => Some(values.clone()),
        }
    });
    Reply { read: read.collect() }
}

fn spoil(dice: &mut Dice, history: &mut [Operation<Call, Reply>]) {
    let place = dice.below(history.len() as u64) as usize;
    let others: Vec<Vec<u64>> = history.iter().flat_map(reads).cloned().collect();
    let outcome = &mut history[place].outcome;
    match outcome {
        Outcome::Ok(_) if dice.below(8) == 0 => *outcome = Outcome::Fail("it says".into()),
        Outcome::Ok(reply) => reply.read.iter_mut().flatten().for_each(|values| spoil_read(dice, values, &others)),
        Outcome::Fail(_) => {}
        Outcome::Info(why) => *outcome = Outcome::Fail(std::mem::take(why)),
    }
}

fn reads(operation: &Operation<Call, Reply>) -> Vec<&Vec<u64>> {
    match &operation.outcome {
        Outcome::Ok(reply) => reply.read.iter().flatten().collect(),
        Outcome::Fail(_) | Outcome::Info(_) => Vec::new(),
    }
}

fn spoil_read(dice: &mut Dice, values: &mut Vec<u64>, others: &[Vec<u64>]) {
    match dice.below(7) {
        0 => values.clear(),
        1 => values.truncate(values.len().saturating_sub(1)),
        2 => values.push(10 * dice.below(5) + dice.below(3)),
        3 => dice.shuffle(values),
        4 => values.extend(values.last().copied()),
        5 if !values.is_empty() => {
            values.remove(dice.below(values.len() as u64) as usize);
        }
        _ => values.clone_from(dice.pick(others)),
    }
}

#[test]
fn false_exactly_when_there_is_no_order() {
    let trial = Trial { calls_max: 5, call, start: Lists::new(), run, spoil, check };
    let Tally { right, wrong, caught } = trial.hold(20_000);
    assert_eq!(caught, wrong, "missed some of the wrong ones");
    assert!(right > 1_000 && wrong > 1_000, "{right} right, {wrong} wrong");
}
