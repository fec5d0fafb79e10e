//! The last rule: each register, played through in the order of revisions.
//!
//! What is known to be done stands in a row, so that [`search`] has no choice among it. Only where the row does not fit
//! does it put in what has an unknown outcome: above the revisions that were known when that was invoked, below that of
//! what comes next in the row, at one that no known write has.

use std::collections::BTreeMap;

use super::{Asked, CHECKER, Order, place_of};
use crate::checker::Verdict;
use crate::checker::place::Place;
use crate::checker::wgl::register::{Held, OneRegister, dead_end, out_of_steps, show};
use crate::checker::wgl::{Budget, Found, Model};
use crate::history::{Nanos, Operation, Outcome};
use crate::workload::register::{Call, Register, Reply};

/// Something known: its revision, whether it only looked, its number. In this order they stand in the row.
type Known = (u64, bool, usize);

/// A call of the replay.
struct Step {
    number: usize,
    call: Call,
    /// If its revision is not known, it is above this one.
    floor: u64,
}

impl Order<'_> {
    /// The verdict on one register, whose operations are its `own`. What is known costs eleven steps for each operation:
    /// it is not what they run out for.
    pub(super) fn replay(&self, register: Register, own: &[usize], runs: &Runs, budget: &mut Budget) -> Verdict {
        let known = self.in_order(own);
        let steps = self.steps(own, &known);
        let model = Replay {
            register: OneRegister::new(own.iter().map(|&number| &self.operations[number])),
            runs,
            limits: known.iter().map(|&(revision, looked, _)| revision.saturating_sub(u64::from(!looked))).collect(),
        };
        match budget.search(&model, &steps) {
            Found::Linearizable => Verdict::valid(CHECKER),
            Found::OutOfSteps(steps_max) => out_of_steps(CHECKER, register, steps_max),
            Found::NotLinearizable(end) => {
                let asked = |step: usize| &self.operations[steps[step].call.number];
                let shown = |places: &[usize]| places.iter().map(|&step| show(asked(step))).collect();
                let wrong = end.refused.first().map_or("it has no order", |&step| misfit(asked(step)));
                let mut evidence = vec![format!("register {}, in the order of revisions: {wrong}", register.0)];
                evidence.extend(dead_end(end.before, shown(&end.last), end.state.held, shown(&end.refused)));
                Verdict::invalid(CHECKER, evidence)
            }
        }
    }

    fn in_order(&self, own: &[usize]) -> Vec<Known> {
        let mut known: Vec<Known> = Vec::new();
        for &number in own {
            match self.places[number] {
                Some(Place::Made(revision)) => known.push((revision, false, number)),
                Some(Place::LookedAt(revision)) => known.push((revision, true, number)),
                None => {}
            }
        }
        known.sort_unstable();
        known
    }

    /// What is known, each at a time of its own, and what may have been done, from the time its floor allows.
    fn steps(&self, own: &[usize], known: &[Known]) -> Vec<Operation<Step, Reply>> {
        let mut steps: Vec<Operation<Step, Reply>> = Vec::new();
        for (time, &(revision, _, number)) in (0..).zip(known) {
            let outcome = match &self.operations[number].outcome {
                Outcome::Ok(reply) => Outcome::Ok(reply.clone()),
                Outcome::Fail(_) | Outcome::Info(_) => Outcome::Ok(seen_done(&self.operations[number].call, revision)),
            };
            steps.push(self.step(number, Nanos(time), Some(Nanos(time)), outcome));
        }
        for &number in own {
            if let (Outcome::Info(why), None) = (&self.operations[number].outcome, self.places[number]) {
                let before = known.partition_point(|&(revision, ..)| revision <= self.floors[number]);
                steps.push(self.step(number, Nanos(before as u64), None, Outcome::Info(why.clone())));
            }
        }
        steps
    }

    fn step(
        &self,
        number: usize,
        invoked: Nanos,
        completed: Option<Nanos>,
        outcome: Outcome<Reply>,
    ) -> Operation<Step, Reply> {
        let Operation { index, process, call, .. } = &self.operations[number];
        let call = Step { number, call: call.clone(), floor: self.floors[number] };
        Operation { index: *index, process: *process, call, invoked, completed, outcome }
    }
}

/// The reply that a write of unknown outcome would have had.
fn seen_done(call: &Call, revision: u64) -> Reply {
    match call {
        Call::Cas { .. } => Reply::Cas { swapped: true, revision },
        Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } => Reply::Write { revision },
    }
}

/// What is wrong if this cannot be next.
fn misfit(operation: &Asked) -> &'static str {
    match (&operation.call, &operation.outcome) {
        (Call::Read { .. } | Call::StaleRead { .. }, _) => "a read's version does not count the writes before it",
        (Call::Cas { .. }, Outcome::Ok(Reply::Cas { swapped: false, .. })) => {
            "a swap was refused although the register held what it asked for"
        }
        (Call::Cas { .. }, _) => "a swap found what the register did not hold",
        (Call::Write { .. }, _) => "a write does not fit",
    }
}

/// A register whose revisions grow.
struct Replay<'a> {
    register: OneRegister,
    runs: &'a Runs,
    /// By place in the row: the highest revision that what is put in before it can have.
    limits: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    held: Option<Held>,
    /// Of the newest step.
    revision: u64,
    /// How far in the row.
    place: usize,
}

impl Model for Replay<'_> {
    type State = State;
    type Call = Step;
    type Reply = Reply;

    fn initial(&self) -> State {
        State { held: None, revision: 0, place: 0 }
    }

    fn step(&self, state: &State, step: &Step, reply: Option<&Reply>) -> Option<State> {
        let held = self.register.step(&state.held, &step.call, reply)?;
        let Some(reply) = reply else {
            let revision = self.runs.free_above(state.revision.max(step.floor));
            return (revision <= *self.limits.get(state.place)?).then_some(State { held, revision, ..*state });
        };
        let (revision, fits) = match place_of(&step.call, reply)? {
            Place::Made(revision) => (revision, revision > state.revision),
            Place::LookedAt(revision) => (revision, revision >= state.revision),
        };
        fits.then_some(State { held, revision, place: state.place + 1 })
    }

    fn alike(&self, one: &Step, other: &Step) -> bool {
        self.register.alike(&one.call, &other.call)
    }
}

/// The revisions of known writes: the first and the last of each run without a gap.
pub(super) struct Runs(BTreeMap<u64, u64>);

impl Runs {
    pub(super) fn new(ascending: impl Iterator<Item = u64>) -> Runs {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for revision in ascending {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == revision => *last = revision,
                Some(_) | None => runs.push((revision, revision)),
            }
        }
        Runs(runs.into_iter().collect())
    }

    /// The lowest revision above this one that no known write has.
    fn free_above(&self, revision: u64) -> u64 {
        let next = revision.saturating_add(1);
        let run = self.0.range(..=next).next_back();
        run.map_or(next, |(_, &last)| next.max(last.saturating_add(1)))
    }
}
