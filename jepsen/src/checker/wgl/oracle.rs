//! For tests: small histories of registers, and brute force as the judge of their checkers.
//!
//! [`simulated`] really carries out random calls on one store, each at one moment between its invocation and its end, or
//! after its process gave it up; a stale read finds the store as it was at any time before. [`spoil`] then changes a reply.
//! [`linearizable`] tries all orders that real time allows, and all choices of what was done of what has an unknown
//! outcome.

use std::collections::BTreeMap;
use std::mem::discriminant;

use crate::generator::Dice;
use crate::history::{Event, Nanos, Operation, Outcome, Process, What, pair};
use crate::workload::register::{Call, Register, Reply, Versioned};

type Asked = Operation<Call, Reply>;

/// A store of registers.
#[derive(Clone)]
struct Store {
    revision: u64,
    registers: BTreeMap<Register, Versioned>,
}

impl Store {
    fn put(&mut self, register: Register, value: u64) -> u64 {
        self.revision += 1;
        let version = self.registers.get(&register).map_or(0, |held| held.version) + 1;
        self.registers.insert(register, Versioned { value, revision: self.revision, version });
        self.revision
    }

    fn carry_out(&mut self, call: &Call) -> Reply {
        match call {
            Call::Read { register } | Call::StaleRead { register } => {
                Reply::Read { value: self.registers.get(register).copied(), at: self.revision }
            }
            Call::Write { register, value } => Reply::Write { revision: self.put(*register, *value) },
            Call::Cas { register, from, to } => {
                let swapped = self.registers.get(register).is_some_and(|held| held.value == *from);
                let revision = if swapped { self.put(*register, *to) } else { self.revision };
                Reply::Cas { swapped, revision }
            }
        }
    }
}

/// What a process is about.
enum Stage {
    Idle,
    Asked(Call),
    Done(Reply),
}

struct Simulation {
    dice: Dice,
    store: Store,
    /// As it was before each call.
    past: Vec<Store>,
    registers: u64,
    values: u64,
    time: u64,
    clients: Vec<(Process, Stage)>,
    next_process: u64,
    /// Calls their processes gave up; each may be carried out later.
    adrift: Vec<Call>,
    history: Vec<Event<Call, Reply>>,
}

/// At most six operations of two or three processes on one or two registers.
pub(in crate::checker) fn simulated(seed: u64) -> Vec<Asked> {
    let mut dice = Dice::new(seed);
    let clients = 2 + dice.below(2);
    let calls = 1 + dice.below(6);
    let mut simulation = Simulation {
        store: Store { revision: 1 + dice.below(4), registers: BTreeMap::new() },
        past: Vec::new(),
        registers: 1 + dice.below(2),
        values: 0,
        time: 0,
        clients: (0..clients).map(|number| (Process(number), Stage::Idle)).collect(),
        next_process: clients,
        adrift: Vec::new(),
        history: Vec::new(),
        dice,
    };
    simulation.run(calls);
    pair(&simulation.history)
}

impl Simulation {
    fn run(&mut self, mut calls: u64) {
        for _ in 0..40 {
            self.time += self.dice.below(3);
            if !self.adrift.is_empty() && self.dice.below(4) == 0 {
                let call = self.adrift.swap_remove(self.dice.below(self.adrift.len() as u64) as usize);
                self.carry_out(&call);
            }
            let client = self.dice.below(self.clients.len() as u64) as usize;
            calls -= self.turn(client, calls);
        }
    }

    /// One process goes on; how many of the `calls` that are left it has begun.
    fn turn(&mut self, client: usize, calls: u64) -> u64 {
        let (process, stage) = &mut self.clients[client];
        let process = *process;
        match std::mem::replace(stage, Stage::Idle) {
            Stage::Idle if calls == 0 => return 0,
            Stage::Idle => {
                let call = self.call();
                self.record(What::Invoke { process, call: call.clone() });
                self.clients[client].1 = Stage::Asked(call);
                return 1;
            }
            Stage::Asked(call) => match self.dice.below(8) {
                0 => self.record(What::Fail { process, why: "refused".into() }),
                1 => {
                    self.adrift.push(call);
                    self.give_up(client);
                }
                _ => self.clients[client].1 = Stage::Done(self.carry_out(&call)),
            },
            Stage::Done(reply) => match self.dice.below(5) {
                0 => self.give_up(client),
                _ => self.record(What::Ok { process, reply }),
            },
        }
        0
    }

    fn carry_out(&mut self, call: &Call) -> Reply {
        self.past.push(self.store.clone());
        match call {
            Call::StaleRead { .. } => self.dice.pick(&self.past).clone().carry_out(call),
            Call::Read { .. } | Call::Write { .. } | Call::Cas { .. } => self.store.carry_out(call),
        }
    }

    fn record(&mut self, what: What<Call, Reply>) {
        self.history.push(Event { time: Nanos(self.time), what });
    }

    fn give_up(&mut self, client: usize) {
        let process = self.clients[client].0;
        self.record(What::Info { process, why: "timeout".into() });
        self.clients[client].0 = Process(self.next_process);
        self.next_process += 1;
    }

    fn call(&mut self) -> Call {
        let register = Register(self.dice.below(self.registers));
        let held = self.store.registers.get(&register).map(|held| held.value);
        match self.dice.below(7) {
            0 | 1 => Call::Read { register },
            2 | 3 => Call::Write { register, value: self.fresh() },
            4 => Call::StaleRead { register },
            _ => {
                let guess = 1 + self.dice.below(self.values + 1);
                let from = held.filter(|_| self.dice.below(3) > 0).unwrap_or(guess);
                Call::Cas { register, from, to: self.fresh() }
            }
        }
    }

    fn fresh(&mut self) -> u64 {
        self.values += 1;
        self.values
    }
}

/// Changes a reply, or exchanges two, or calls one not done that was.
pub(in crate::checker) fn spoil(dice: &mut Dice, operations: &mut [Asked]) {
    let answered = |operation: &Asked| matches!(operation.outcome, Outcome::Ok(_));
    let answered: Vec<usize> = (0..operations.len()).filter(|&number| answered(&operations[number])).collect();
    if answered.is_empty() {
        return;
    }
    let (one, other) = (*dice.pick(&answered), *dice.pick(&answered));
    match dice.below(8) {
        0 => operations[one].outcome = Outcome::Fail("refused".into()),
        1 | 2 if discriminant(&operations[one].call) == discriminant(&operations[other].call) => {
            let outcome = operations[one].outcome.clone();
            operations[one].outcome = operations[other].outcome.clone();
            operations[other].outcome = outcome;
        }
        _ => {
            if let Outcome::Ok(reply) = &mut operations[one].outcome {
                spoil_reply(dice, reply);
            }
        }
    }
}

fn spoil_reply(dice: &mut Dice, reply: &mut Reply) {
    match reply {
        Reply::Read { value, at } => match (dice.below(6), value) {
            (0, _) => *at = near(dice, *at),
            (1, value) => *value = None,
            (2 | 3, Some(seen)) => seen.value = 1 + dice.below(7),
            (4, Some(seen)) => seen.revision = near(dice, seen.revision),
            (_, Some(seen)) => seen.version = near(dice, seen.version),
            (_, value) => {
                *value =
                    Some(Versioned { value: 1 + dice.below(7), revision: near(dice, *at), version: 1 + dice.below(3) });
            }
        },
        Reply::Write { revision } => *revision = near(dice, *revision),
        Reply::Cas { swapped, revision } => match dice.flag() {
            true => *swapped = !*swapped,
            false => *revision = near(dice, *revision),
        },
    }
}

fn near(dice: &mut Dice, number: u64) -> u64 {
    (number + dice.below(5)).saturating_sub(2)
}

/// What an order has to explain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::checker) enum Explain {
    /// Values, versions, and what was swapped; not what stale reads found.
    Values,
    /// Revisions too. They grow by one or more with each write.
    Revisions,
}

/// Whether there is an order that explains every reply.
pub(in crate::checker) fn linearizable(operations: &[Asked], explain: Explain) -> bool {
    let counts = |operation: &&Asked| match operation.outcome {
        Outcome::Fail(_) => false,
        Outcome::Ok(_) | Outcome::Info(_) => explain == Explain::Revisions || !is_stale(operation),
    };
    let left = operations.iter().filter(counts).collect();
    let all = operations;
    has_order(left, &Store { revision: 0, registers: BTreeMap::new() }, &|store, operation| match explain {
        Explain::Values => by_values(store, operation),
        Explain::Revisions => by_revisions(store, operation, all),
    })
}

/// Whether the store, in the state before, gives the reply; it is carried out in any case.
type Explains<'a> = &'a dyn Fn(&mut Store, &Asked) -> bool;

fn has_order(left: Vec<&Asked>, store: &Store, explains: Explains<'_>) -> bool {
    let answered = |operation: &Asked| matches!(operation.outcome, Outcome::Ok(_));
    if !left.iter().any(|operation| answered(operation)) {
        return true;
    }
    (0..left.len()).any(|place| {
        let next = left[place];
        let comes_first = |other: &Asked| answered(other) && other.completed.is_some_and(|end| end < next.invoked);
        let is_free = is_stale(next) || !left.iter().any(|other| comes_first(other));
        let mut store = store.clone();
        is_free && explains(&mut store, next) && {
            let mut rest = left.clone();
            rest.remove(place);
            has_order(rest, &store, explains)
        }
    })
}

/// It may come before what had ended when it began.
fn is_stale(operation: &Asked) -> bool {
    matches!(operation.call, Call::StaleRead { .. })
}

fn by_values(store: &mut Store, operation: &Asked) -> bool {
    let reply = store.carry_out(&operation.call);
    match &operation.outcome {
        Outcome::Ok(told) => without_revisions(told) == without_revisions(&reply),
        Outcome::Fail(_) | Outcome::Info(_) => true,
    }
}

fn without_revisions(reply: &Reply) -> Reply {
    match reply {
        Reply::Read { value, .. } => Reply::Read { value: value.map(|seen| Versioned { revision: 0, ..seen }), at: 0 },
        Reply::Write { .. } => Reply::Write { revision: 0 },
        Reply::Cas { swapped, .. } => Reply::Cas { swapped: *swapped, revision: 0 },
    }
}

/// Moves the store on to the revision it must have had, and compares.
fn by_revisions(store: &mut Store, operation: &Asked, all: &[Asked]) -> bool {
    let before = match &operation.outcome {
        Outcome::Ok(Reply::Read { at, .. }) => *at,
        Outcome::Ok(Reply::Cas { swapped: false, revision }) => *revision,
        Outcome::Ok(Reply::Write { revision } | Reply::Cas { swapped: true, revision }) => revision.saturating_sub(1),
        Outcome::Fail(_) | Outcome::Info(_) => seen_at(&operation.call, all).saturating_sub(1),
    };
    store.revision = store.revision.max(before);
    let reply = store.carry_out(&operation.call);
    match &operation.outcome {
        Outcome::Ok(told) => *told == reply,
        Outcome::Fail(_) | Outcome::Info(_) => true,
    }
}

/// The revision at which someone saw what this call writes; 0 if nobody did.
fn seen_at(call: &Call, all: &[Asked]) -> u64 {
    let (Call::Write { value, .. } | Call::Cas { to: value, .. }) = call else { return 0 };
    let seen = all.iter().find_map(|operation| match &operation.outcome {
        Outcome::Ok(Reply::Read { value: Some(seen), .. }) if seen.value == *value => Some(seen.revision),
        Outcome::Ok(_) | Outcome::Fail(_) | Outcome::Info(_) => None,
    });
    seen.unwrap_or(0)
}
