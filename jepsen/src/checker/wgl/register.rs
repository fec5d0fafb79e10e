//! Registers as a model, and what their checkers tell a person.
//!
//! A register holds a value with a version, which counts its writes. Versions are in the replies of reads: they tell how
//! many writes of unknown outcome were done, also of those nobody read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Budget, Found, Model, reply};
use crate::checker::{Valid, Verdict};
use crate::history::{Nanos, Operation, Outcome};
use crate::workload::register::{Call, Register, Reply};

const CHECKER: &str = "linearizable registers (search)";

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::checker) struct Held {
    pub(in crate::checker) value: u64,
    pub(in crate::checker) version: u64,
}

/// One register. It does not exist at first, and is never deleted.
pub(in crate::checker) struct OneRegister {
    /// Values of which a reply of the history can tell whether the register held them.
    telling: BTreeSet<u64>,
}

impl OneRegister {
    pub(in crate::checker) fn new<'a>(operations: impl Iterator<Item = &'a Operation<Call, Reply>>) -> OneRegister {
        let mut telling = BTreeSet::new();
        for operation in operations {
            if let Call::Cas { from, .. } = &operation.call {
                telling.insert(*from);
            }
            if let Outcome::Ok(Reply::Read { value: Some(seen), .. }) = &operation.outcome {
                telling.insert(seen.value);
            }
        }
        OneRegister { telling }
    }
}

impl Model for OneRegister {
    type State = Option<Held>;
    type Call = Call;
    type Reply = Reply;

    fn initial(&self) -> Option<Held> {
        None
    }

    fn step(&self, held: &Option<Held>, call: &Call, reply: Option<&Reply>) -> Option<Option<Held>> {
        let holds = |value: u64| held.is_some_and(|held| held.value == value);
        let written = |value: u64| Some(Some(Held { value, version: held.map_or(1, |held| held.version + 1) }));
        match (call, reply) {
            (Call::Write { value, .. }, None | Some(Reply::Write { .. })) => written(*value),
            (Call::Cas { from, to, .. }, None | Some(Reply::Cas { swapped: true, .. })) if holds(*from) => written(*to),
            (Call::Cas { from, .. }, Some(Reply::Cas { swapped: false, .. })) if !holds(*from) => Some(*held),
            (Call::Read { .. } | Call::StaleRead { .. }, Some(Reply::Read { value, .. })) => {
                let seen = value.map(|seen| Held { value: seen.value, version: seen.version });
                (seen == *held).then_some(*held)
            }
            (
                Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
                None | Some(Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. }),
            ) => None,
        }
    }

    fn only_looks(&self, _call: &Call, reply: &Reply) -> bool {
        match reply {
            Reply::Read { .. } | Reply::Cas { swapped: false, .. } => true,
            Reply::Write { .. } | Reply::Cas { swapped: true, .. } => false,
        }
    }

    fn alike(&self, one: &Call, other: &Call) -> bool {
        let dull = |call: &Call| match call {
            Call::Write { value, .. } => !self.telling.contains(value),
            Call::Read { .. } | Call::StaleRead { .. } | Call::Cas { .. } => false,
        };
        dull(one) && dull(other)
    }
}

/// Whether each register's operations are linearizable, its versions counted; `steps_max` for each register, and a
/// [`Budget`] for all.
pub fn registers(operations: &[Operation<Call, Reply>], steps_max: u64) -> Verdict {
    // Without revisions a stale read has no place among the others.
    let is_stale = |operation: &Operation<Call, Reply>| matches!(operation.call, Call::StaleRead { .. });
    let operations = operations.iter().filter(|operation| !is_stale(operation));
    if let Some(verdict) = nothing_answered(CHECKER, operations.clone()) {
        return verdict;
    }
    let mut parts: BTreeMap<Register, Vec<Operation<Call, Reply>>> = BTreeMap::new();
    for operation in operations {
        parts.entry(operation.call.register()).or_default().push(operation.clone());
    }
    let mut budget = Budget::new(steps_max);
    together(CHECKER, parts.into_iter().map(|(register, part)| judge(register, &part, &mut budget)).collect())
}

fn judge(register: Register, operations: &[Operation<Call, Reply>], budget: &mut Budget) -> Verdict {
    match budget.search(&OneRegister::new(operations.iter()), operations) {
        Found::Linearizable => Verdict::valid(CHECKER),
        Found::OutOfSteps(steps_max) => out_of_steps(CHECKER, register, steps_max),
        Found::NotLinearizable(end) => {
            let mut evidence =
                vec![format!("register {}: no order of its operations explains their replies", register.0)];
            let shown = |places: &[usize]| places.iter().map(|&place| show(&operations[place])).collect();
            evidence.extend(dead_end(end.before, shown(&end.last), end.state, shown(&end.refused)));
            Verdict::invalid(CHECKER, evidence)
        }
    }
}

/// `unknown`, if no operation was answered.
pub(in crate::checker) fn nothing_answered<'a>(
    checker: &str,
    mut operations: impl Iterator<Item = &'a Operation<Call, Reply>>,
) -> Option<Verdict> {
    let answered = operations.any(|operation| reply(operation).is_some());
    (!answered).then(|| Verdict::unknown(checker, "no operation was answered"))
}

pub(in crate::checker) fn out_of_steps(checker: &str, register: Register, steps_max: u64) -> Verdict {
    Verdict::unknown(checker, format!("register {}: not decided within {steps_max} steps", register.0))
}

/// The verdict on all registers: the shortest proof that one is wrong, or else all that is not known.
pub(in crate::checker) fn together(checker: &str, verdicts: Vec<Verdict>) -> Verdict {
    let (wrong, others): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|verdict| verdict.valid == Valid::False);
    let count = wrong.len();
    if let Some(mut shortest) = wrong.into_iter().min_by_key(|verdict| verdict.evidence.len()) {
        if count > 1 {
            shortest.evidence.push(format!("{} more registers are wrong", count - 1));
        }
        return shortest;
    }
    let doubts: Vec<String> = others.into_iter().flat_map(|verdict| verdict.evidence).collect();
    let valid = if doubts.is_empty() { Valid::True } else { Valid::Unknown };
    Verdict { checker: checker.into(), valid, evidence: doubts }
}

/// A dead end for a person, of operations that were made lines by [`show`].
pub(in crate::checker) fn dead_end(
    before: usize,
    last: Vec<String>,
    held: Option<Held>,
    refused: Vec<String>,
) -> Vec<String> {
    let mut lines = vec![format!("the longest order has {} operations; its last {}:", before + last.len(), last.len())];
    lines.extend(last.into_iter().map(|line| format!("  {line}")));
    lines.push(match held {
        None => "then it does not exist, and none of these can be next:".into(),
        Some(Held { value, version }) => {
            format!("then it holds {value}, version {version}, and none of these can be next:")
        }
    });
    lines.extend(refused.into_iter().map(|line| format!("  {line}")));
    lines
}

/// An operation in one line: process, call, what came of it, from when to when.
pub(in crate::checker) fn show(operation: &Operation<Call, Reply>) -> String {
    let asked = match &operation.call {
        Call::Read { register } => format!("read r{}", register.0),
        Call::StaleRead { register } => format!("stale-read r{}", register.0),
        Call::Write { register, value } => format!("write r{} {value}", register.0),
        Call::Cas { register, from, to } => format!("cas r{} {from} to {to}", register.0),
    };
    let came = match &operation.outcome {
        Outcome::Ok(reply) => show_reply(reply),
        Outcome::Fail(why) => format!("not done ({why})"),
        Outcome::Info(why) => format!("unknown ({why})"),
    };
    let ended = operation.completed.map_or("no end".into(), ms);
    format!("{} {asked}: {came} [{} to {ended}]", operation.process, ms(operation.invoked))
}

fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Read { value: None, at } => format!("nothing, at revision {at}"),
        Reply::Read { value: Some(seen), at } => {
            format!("{} (revision {}, version {}), at revision {at}", seen.value, seen.revision, seen.version)
        }
        Reply::Write { revision } => format!("done, revision {revision}"),
        Reply::Cas { swapped: true, revision } => format!("swapped, revision {revision}"),
        Reply::Cas { swapped: false, revision } => format!("not swapped, at revision {revision}"),
    }
}

fn ms(time: Nanos) -> String {
    format!("{}.{:06} ms", time.0 / 1_000_000, time.0 % 1_000_000)
}
