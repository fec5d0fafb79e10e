//! What a history tells a report: its operations as text, and its faults from injection to healing.

use std::collections::BTreeMap;

use super::{Ended, Fault, Force, Operation};
use crate::edn::{Answer, Asked, Form};
use crate::history::{Event, FaultPhase, Nanos, Process, What};

/// Letters of a call or a reply that are kept.
const TEXT_MAX: usize = 160;

/// What a history tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub operations: Vec<Operation>,
    pub faults: Vec<Fault>,
    /// The time of the last event.
    pub lasted: Nanos,
}

/// Reads a history for a report; `kind` names as what a call counts, with its reply when it was answered.
pub fn recorded<C: Form>(
    history: &[Event<C, C::Reply>],
    kind: impl Fn(&C, Option<&C::Reply>) -> &'static str,
) -> Recorded {
    let lasted = history.last().map_or(Nanos(0), |event| event.time);
    Recorded { operations: operations(history, kind), faults: faults(history), lasted }
}

fn operations<C: Form>(
    history: &[Event<C, C::Reply>],
    kind: impl Fn(&C, Option<&C::Reply>) -> &'static str,
) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut under_way: BTreeMap<Process, (usize, &C)> = BTreeMap::new();
    for (index, event) in history.iter().enumerate() {
        let (process, came, outcome) = match &event.what {
            What::Invoke { process, call } => {
                under_way.insert(*process, (operations.len(), call));
                operations.push(begun(index, event.time, *process, call, kind(call, None)));
                continue;
            }
            What::Ok { process, reply } => (process, Ok(reply), Ended::Ok),
            What::Fail { process, why } => (process, Err(why), Ended::Fail),
            What::Info { process, why } => (process, Err(why), Ended::Info),
            What::Fault { .. } => continue,
        };
        let (place, call) = under_way.remove(process).expect("what ends was begun");
        let operation = &mut operations[place];
        operation.kind = kind(call, came.ok());
        operation.came = match came {
            Ok(reply) => answer(call.answered(reply)),
            Err(why) => short(why),
        };
        operation.ended = Some((event.time, index));
        operation.outcome = outcome;
    }
    operations
}

fn begun<C: Form>(index: usize, invoked: Nanos, process: Process, call: &C, kind: &'static str) -> Operation {
    let Asked { f, value } = call.asked();
    Operation {
        index,
        process,
        kind,
        part: call.part(),
        asked: short(&format!("{f} {value}")),
        came: "no completion".to_owned(),
        invoked,
        ended: None,
        outcome: Ended::Info,
    }
}

fn answer(answer: Answer) -> String {
    match answer {
        Answer::Ok(value) => short(&value.to_string()),
        Answer::Fail(why) => why.to_owned(),
        Answer::Unfit => "a reply that does not fit".to_owned(),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Faults by name: none comes twice at a time. One that is injected again before it was healed could not be healed.
fn faults<C, R>(history: &[Event<C, R>]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for event in history {
        let What::Fault { name, phase, detail } = &event.what else { continue };
        let own = open.get(name.as_str()).copied();
        match (phase, own) {
            (FaultPhase::Injected, Some(_)) | (FaultPhase::Healed, None) => {}
            (FaultPhase::Injected | FaultPhase::InForce | FaultPhase::Unsupported, None) => {
                faults.push(come(name, *phase, detail, event.time));
                if *phase != FaultPhase::Unsupported {
                    open.insert(name, faults.len() - 1);
                }
            }
            (FaultPhase::InForce, Some(own)) => {
                faults[own].force = Force::Seen { at: event.time, what: detail.clone() };
            }
            (FaultPhase::Unsupported, Some(own)) => faults[own].force = Force::Unseen { why: detail.clone() },
            (FaultPhase::Healed, Some(own)) => {
                faults[own].healed = Some(event.time);
                open.remove(name.as_str());
            }
        }
    }
    faults
}

fn come(name: &str, phase: FaultPhase, detail: &str, at: Nanos) -> Fault {
    let (force, healed) = match phase {
        FaultPhase::InForce => (Force::Seen { at, what: detail.to_owned() }, None),
        FaultPhase::Unsupported => (Force::Unsupported { why: detail.to_owned() }, Some(at)),
        FaultPhase::Injected | FaultPhase::Healed => (Force::Unseen { why: "nobody looked".to_owned() }, None),
    };
    Fault { name: name.to_owned(), detail: detail.to_owned(), injected: at, force, healed }
}
