//! For tests: brute force as the judge of checkers, on small histories.
//!
//! A [`Trial`] really executes random calls one after another on a model, gives them overlapping times around the points
//! at which they were executed, and has the checker judge the history; then it spoils replies and asks again. The oracle
//! tries every order.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::{Valid, Verdict};
use crate::generator::Dice;
use crate::history::{Event, Nanos, Operation, Outcome, Process, What, pair};

/// Time between the points at which calls are executed, and how far a call may reach to either side of its own.
const APART: u64 = 10;
const REACH: u64 = 25;

/// A kind of histories, and the checker on trial.
pub(crate) struct Trial<C, R, S> {
    /// Histories have 1 to so many calls.
    pub(crate) calls_max: u64,
    /// The n-th call.
    pub(crate) call: fn(&mut Dice, u64) -> C,
    /// The model: where it begins, and what a call does to it.
    pub(crate) start: S,
    pub(crate) run: fn(&mut S, &C) -> R,
    /// Changes one thing, so that the history is probably wrong.
    pub(crate) spoil: fn(&mut Dice, &mut [Operation<C, R>]),
    pub(crate) check: fn(&[Operation<C, R>]) -> Verdict,
}

/// How the spoilt histories were judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those which an order explains all the same.
    pub(crate) right: u64,
    /// Those which no order explains, and how many of them the checker calls false.
    pub(crate) wrong: u64,
    pub(crate) caught: u64,
}

impl<C: Clone, R: Clone + PartialEq, S: Clone> Trial<C, R, S> {
    /// Asserts that the checker calls no history false which an order explains.
    pub(crate) fn hold(&self, seeds: u64) -> Tally {
        let mut tally = Tally::default();
        for seed in 0..seeds {
            let mut dice = Dice::new(seed);
            let mut history = self.execute(&mut dice);
            assert!(self.has_order(&history), "seed {seed}: it was executed in an order");
            self.assert_not_false(&history, seed);
            (self.spoil)(&mut dice, &mut history);
            if self.has_order(&history) {
                self.assert_not_false(&history, seed);
                tally.right += 1;
            } else {
                tally.wrong += 1;
                tally.caught += u64::from((self.check)(&history).valid == Valid::False);
            }
        }
        tally
    }

    /// Asserts that the checker says what the oracle does of each history, executed and spoilt: `false` when no order
    /// explains it, else `unknown` when it shows too little, else `true`. All three come about.
    pub(crate) fn agree(&self, seeds: u64, shows_too_little: impl Fn(&[Operation<C, R>]) -> bool)
    where
        C: Debug,
        R: Debug,
    {
        let mut counts: BTreeMap<Valid, u64> = BTreeMap::new();
        for seed in 0..seeds {
            let mut dice = Dice::new(seed);
            let mut history = self.execute(&mut dice);
            for spoilt in 0..2 {
                let expected = match self.has_order(&history) {
                    false => Valid::False,
                    true if shows_too_little(&history) => Valid::Unknown,
                    true => Valid::True,
                };
                let Verdict { valid, evidence, .. } = (self.check)(&history);
                assert_eq!(valid, expected, "seed {seed}, spoilt {spoilt} times: {history:#?}: {evidence:#?}");
                *counts.entry(expected).or_default() += 1;
                (self.spoil)(&mut dice, &mut history);
            }
        }
        assert!(counts.len() == 3 && counts.values().all(|count| *count > 100), "{counts:?}");
    }

    fn assert_not_false(&self, history: &[Operation<C, R>], seed: u64) {
        let verdict = (self.check)(history);
        assert!(verdict.valid != Valid::False, "seed {seed}: an order explains it, yet {:#?}", verdict.evidence);
    }

    /// A history that was executed in an order.
    pub(crate) fn execute(&self, dice: &mut Dice) -> Vec<Operation<C, R>> {
        let mut state = self.start.clone();
        let calls = 1 + dice.below(self.calls_max);
        let done = (0..calls).map(|number| {
            let call = (self.call)(dice, number);
            let outcome = self.outcome(dice, &mut state, &call);
            (call, outcome)
        });
        let done: Vec<(C, Outcome<R>)> = done.collect();
        at_overlapping_times(dice, done)
    }

    /// One in five calls is done or not without its process learning which; one in ten fails.
    fn outcome(&self, dice: &mut Dice, state: &mut S, call: &C) -> Outcome<R> {
        match dice.below(10) {
            0 => Outcome::Fail("refused".into()),
            1 => Outcome::Info("lost on its way".into()),
            2 => {
                (self.run)(state, call);
                Outcome::Info("its answer was lost".into())
            }
            _ => Outcome::Ok((self.run)(state, call)),
        }
    }

    /// Whether the calls can be executed one after another, none before one that had ended when it began, so that every
    /// reply is the model's. Those with an unknown outcome may be left out, those that failed are.
    pub(crate) fn has_order(&self, history: &[Operation<C, R>]) -> bool {
        let left: Vec<&Operation<C, R>> =
            history.iter().filter(|operation| !matches!(operation.outcome, Outcome::Fail(_))).collect();
        self.order_of(&left, &self.start)
    }

    fn order_of(&self, left: &[&Operation<C, R>], state: &S) -> bool {
        let all_explained = !left.iter().any(|operation| is_ok(operation));
        all_explained
            || (0..left.len()).any(|place| {
                let next = left[place];
                let mut state = state.clone();
                let first = !left.iter().any(|other| precedes(other, next));
                first && self.explains(&mut state, next) && {
                    let mut rest = left.to_vec();
                    rest.remove(place);
                    self.order_of(&rest, &state)
                }
            })
    }

    fn explains(&self, state: &mut S, operation: &Operation<C, R>) -> bool {
        let reply = (self.run)(state, &operation.call);
        match &operation.outcome {
            Outcome::Ok(seen) => *seen == reply,
            Outcome::Info(_) | Outcome::Fail(_) => true,
        }
    }
}

fn is_ok<C, R>(operation: &Operation<C, R>) -> bool {
    matches!(operation.outcome, Outcome::Ok(_))
}

/// Whether `one` had ended when `other` began.
fn precedes<C, R>(one: &Operation<C, R>, other: &Operation<C, R>) -> bool {
    let in_time = one.completed.is_some_and(|end| end < other.invoked);
    let in_process = one.process == other.process && one.index < other.index;
    is_ok(one) && (in_time || in_process)
}

/// Calls in the order in which they were executed become a history in which they overlap.
fn at_overlapping_times<C: Clone, R: Clone>(dice: &mut Dice, done: Vec<(C, Outcome<R>)>) -> Vec<Operation<C, R>> {
    let mut spans = Vec::new();
    for (number, (call, outcome)) in (1..).zip(done) {
        let point = number * APART;
        let begin = point - dice.below(REACH).min(point);
        // A call with an unknown outcome may be executed after its process gave it up.
        let end = match outcome {
            Outcome::Info(_) => begin + 1,
            Outcome::Ok(_) | Outcome::Fail(_) => point + 1 + dice.below(REACH),
        };
        spans.push((begin, end, call, outcome));
    }
    spans.sort_by_key(|(begin, ..)| *begin);
    pair(&events(spans))
}

fn events<C, R>(spans: Vec<(u64, u64, C, Outcome<R>)>) -> Vec<Event<C, R>> {
    let mut events = Vec::new();
    let mut busy_until: BTreeMap<Process, u64> = BTreeMap::new();
    for (begin, end, call, outcome) in spans {
        let free = busy_until.iter().find(|(_, until)| **until < begin).map(|(process, _)| *process);
        let process = free.unwrap_or(Process(busy_until.len() as u64));
        let retires = matches!(outcome, Outcome::Info(_));
        busy_until.insert(process, if retires { u64::MAX } else { end });
        let what = match outcome {
            Outcome::Ok(reply) => What::Ok { process, reply },
            Outcome::Fail(why) => What::Fail { process, why },
            Outcome::Info(why) => What::Info { process, why },
        };
        events.push(Event { time: Nanos(begin), what: What::Invoke { process, call } });
        events.push(Event { time: Nanos(end), what });
    }
    events.sort_by_key(|event| event.time);
    events
}
