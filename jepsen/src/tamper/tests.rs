//! Good histories by workers that run concurrently on the stores in memory; each change to one is red.

use std::collections::BTreeSet;

use super::*;
use crate::checker::{Valid, worst};
use crate::history::{Nanos, Process};
use crate::outcome::Access;
use crate::target::Target;
use crate::with_workload;
use crate::workload::Name;
use crate::workload::model::Model;
use crate::workload::register::Registers;

const WORKERS: u64 = 6;
const CALLS: usize = 400;
const CHANGES: u64 = 20;

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Ask,
    /// The call is carried out, if it is.
    Act,
    Hear,
}

/// A worker, and the call it has under way with what came of it.
struct Worker<C, R> {
    process: Process,
    call: Option<C>,
    outcome: Option<Outcome<R>>,
}

/// Workers of a workload, asking its store.
struct Scene<W: Model> {
    dice: Dice,
    workload: W,
    store: W::Store,
    workers: Vec<Worker<W::Call, W::Reply>>,
    history: Vec<Event<W::Call, W::Reply>>,
}

impl<W: Model> Scene<W> {
    fn new(seed: u64) -> Scene<W> {
        let worker = |number| Worker { process: Process(number), call: None, outcome: None };
        Scene {
            dice: Dice::new(seed),
            workload: W::default().for_target(Target::Trefoil),
            store: W::store(),
            workers: (0..WORKERS).map(worker).collect(),
            history: Vec::new(),
        }
    }

    /// `CALLS` calls, each carried out at a time between its invocation and its end; then the last ones.
    fn play(mut self) -> Vec<Event<W::Call, W::Reply>> {
        let mut agenda: BTreeSet<(u64, usize, Next)> =
            (0..self.workers.len()).map(|worker| (worker as u64, worker, Next::Ask)).collect();
        let mut calls = 0;
        while let Some((time, worker, next)) = agenda.pop_first() {
            let then = match next {
                Next::Ask if calls == CALLS => continue,
                Next::Ask => {
                    calls += 1;
                    let call = self.workload.next(&mut self.dice);
                    self.ask(time, worker, call);
                    Next::Act
                }
                Next::Act => {
                    self.act(worker);
                    Next::Hear
                }
                Next::Hear => {
                    self.hear(time, worker);
                    Next::Ask
                }
            };
            agenda.insert((time + 1 + self.dice.below(20), worker, then));
        }
        self.last_calls();
        self.history
    }

    fn last_calls(&mut self) {
        for call in self.workload.last_calls() {
            let reply = W::execute(&mut self.store, &call);
            self.ask(0, 0, call);
            self.workers[0].outcome = Some(Outcome::Ok(reply));
            self.hear(0, 0);
        }
    }

    fn ask(&mut self, time: u64, worker: usize, call: W::Call) {
        let process = self.workers[worker].process;
        self.workers[worker].call = Some(call.clone());
        self.record(time, What::Invoke { process, call });
    }

    /// One call in twelve is not done; one write in twelve is done or not without its worker learning which.
    fn act(&mut self, worker: usize) {
        let call = self.workers[worker].call.clone().expect("it has asked");
        let outcome = match (self.dice.below(24), W::access(&call)) {
            (0 | 1, _) => Outcome::Fail("refused".into()),
            (2, Access::Write) => Outcome::Info("lost on its way".into()),
            (3, Access::Write) => {
                W::execute(&mut self.store, &call);
                Outcome::Info("its answer was lost".into())
            }
            (_, Access::Read | Access::Write) => Outcome::Ok(W::execute(&mut self.store, &call)),
        };
        self.workers[worker].outcome = Some(outcome);
    }

    fn hear(&mut self, time: u64, worker: usize) {
        let Worker { process, call, outcome } = &mut self.workers[worker];
        let (call, outcome) = (call.take().expect("it has asked"), outcome.take().expect("something came of it"));
        let who = *process;
        let what = match outcome {
            Outcome::Ok(reply) => {
                self.workload.observe(&call, &reply);
                What::Ok { process: who, reply }
            }
            Outcome::Fail(why) => What::Fail { process: who, why },
            Outcome::Info(why) => {
                process.0 += WORKERS;
                What::Info { process: who, why }
            }
        };
        self.record(time, what);
    }

    /// At this time, or as soon after the last event as can be told.
    fn record(&mut self, time: u64, what: What<W::Call, W::Reply>) {
        let earliest = self.history.last().map_or(0, |last| last.time.0 + 1);
        self.history.push(Event { time: Nanos(earliest.max(1_000 * time)), what });
    }
}

/// Makes so many changes to a good history of each seed, and gives the kinds that were made.
fn all_are_red<W: Model + Tamper>(seeds: u64) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for seed in 0..seeds {
        let history = Scene::<W>::new(seed).play();
        let good = W::check(&pair(&history));
        assert_eq!(worst(&good), Valid::True, "{}, seed {seed}: {good:#?}", W::NAME);
        for change in 0..CHANGES {
            let (changed, told) = tampered::<W>(&history, seed * CHANGES + change).expect("there is much to change");
            let differ = history.iter().zip(&changed).filter(|(one, other)| one != other).count();
            assert_eq!((differ, changed.len()), (1, history.len()), "{told}");
            let verdicts = W::check(&pair(&changed));
            assert_eq!(worst(&verdicts), Valid::False, "{}, seed {seed}: {told}: {verdicts:#?}", W::NAME);
            kinds.extend(told.split_once(',').map(|(kind, _)| kind.to_owned()));
        }
    }
    kinds
}

#[test]
fn every_change_is_red() {
    for name in Name::ALL {
        let kinds = with_workload!(name, W => all_are_red::<W>(10));
        let has = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Back || name == Name::Register);
        let all: BTreeSet<String> = has.map(|kind| kind.to_string()).collect();
        assert_eq!(kinds, all, "{name}");
    }
}

/// Without the context it may be: each is a state that its register was once in.
#[test]
fn a_stale_read_that_goes_back_is_seen_by_its_own_checker_alone() {
    let mut made = 0;
    for seed in 0..3 {
        let history = Scene::<Registers>::new(seed).play();
        let operations = pair(&history);
        let facts = register::Facts::of(&operations);
        let mut dice = Dice::new(seed);
        for (place, operation) in operations.iter().enumerate() {
            let Some(change) = facts.change(Kind::Back, place, &mut dice) else { continue };
            let verdicts = Registers::check(&pair(&with(&history, operation, change.outcome)));
            let invalid = verdicts.iter().filter(|verdict| verdict.valid == Valid::False);
            let by: Vec<&str> = invalid.map(|verdict| verdict.checker.as_str()).collect();
            assert_eq!(by, ["reads with a context never go back"], "seed {seed}: {}: {verdicts:#?}", change.why);
            made += 1;
        }
    }
    assert!(made > 50, "{made}");
}

/// As of a target that has none.
#[test]
fn where_no_read_is_stale_none_goes_back() {
    let mut scene = Scene::<Registers>::new(7);
    scene.workload = Registers::default();
    let history = scene.play();
    let operations = pair(&history);
    let facts = register::Facts::of(&operations);
    let made = (0..operations.len()).filter_map(|place| facts.change(Kind::Back, place, &mut Dice::new(7)));
    assert_eq!(made.count(), 0);
}

#[test]
fn a_seed_stands_for_one_change() {
    let history = Scene::<Registers>::new(7).play();
    assert_eq!(tampered::<Registers>(&history, 1), tampered::<Registers>(&history, 1));
    assert_ne!(tampered::<Registers>(&history, 1), tampered::<Registers>(&history, 2));
    assert_eq!(tampered::<Registers>(&[], 1), None);
}
