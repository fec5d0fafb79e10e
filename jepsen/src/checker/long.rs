//! For tests: long histories of every workload, really executed by calls that overlap. A checker that costs more than n
//! log n does not get through them in the time that tests take.

use super::{Valid, Verdict, worst};
use crate::generator::Dice;
use crate::history::{Nanos, Operation, Outcome, Process};
use crate::outcome::Access;
use crate::with_workload;
use crate::workload::model::Model;
use crate::workload::{Name, Workload};

/// Time between the points at which calls are executed, and how far a call reaches to either side of its own.
const APART: u64 = 10;
const REACH: u64 = 15;

/// Processes of what is answered; one has ended its call when its turn comes again.
const PROCESSES: u64 = 8;

type Asked<W> = Operation<<W as Workload>::Call, <W as Workload>::Reply>;

/// The call at a place of the history; without a reply its outcome is unknown.
fn asked<W: Model>(index: usize, call: W::Call, reply: Option<W::Reply>) -> Asked<W> {
    let place = index as u64;
    let point = REACH + APART * place;
    let (process, completed, outcome) = match reply {
        Some(reply) => (place % PROCESSES, Some(Nanos(point + REACH)), Outcome::Ok(reply)),
        None => (PROCESSES + place, None, Outcome::Info("timeout".into())),
    };
    Operation { index, process: Process(process), call, invoked: Nanos(point - REACH), completed, outcome }
}

/// What the checkers say of so many calls and the last ones. One write in fifty has an unknown outcome.
fn judged<W: Model>(calls: usize) -> Vec<Verdict> {
    let (mut workload, mut store, mut dice) = (W::default(), W::store(), Dice::new(7));
    let mut history: Vec<Asked<W>> = Vec::new();
    for index in 0..calls {
        let call = workload.next(&mut dice);
        let reply = W::execute(&mut store, &call);
        let is_lost = W::access(&call) == Access::Write && dice.below(50) == 0;
        if !is_lost {
            workload.observe(&call, &reply);
        }
        history.push(asked::<W>(index, call, (!is_lost).then_some(reply)));
    }
    for call in workload.last_calls() {
        let reply = W::execute(&mut store, &call);
        history.push(asked::<W>(history.len(), call, Some(reply)));
    }
    W::check(&history)
}

#[test]
fn long_histories_are_judged() {
    for name in Name::ALL {
        // Each read has a whole set, of up to some hundred elements.
        let calls = if name == Name::Set { 10_000 } else { 30_000 };
        let verdicts = with_workload!(name, W => judged::<W>(calls));
        assert_eq!(worst(&verdicts), Valid::True, "{name}: {verdicts:#?}");
    }
}
