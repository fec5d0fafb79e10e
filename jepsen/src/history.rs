//! Histories: what was asked and what came of it, in the order in which it was seen.
//!
//! A history is a list of [`Event`]s. A client's **process** asks one thing at a time: an invocation, then one completion.
//! A completion is `Ok` (done, with this reply), `Fail` (surely not done) or `Info` (it may have been done, now or
//! later). A process whose call ended as `Info` is retired: whoever goes on has a new number, since the old one's call
//! may still be under way. [`pair`] joins invocations and completions into [`Operation`]s, which is what checkers read.
//!
//! Invariants, held by [`try_pair`]:
//!
//! * Times never go back along a history.
//! * A process has at most one call under way, and asks nothing after an `Info`.
//!
//! Left out: what calls and replies are, which is each workload's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Nanoseconds since the run began, on a monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

/// One logical, single-threaded client; never reused after an `Info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Process(pub u64);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<C, R> {
    pub time: Nanos,
    #[serde(flatten)]
    pub what: What<C, R>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum What<C, R> {
    Invoke {
        process: Process,
        call: C,
    },
    Ok {
        process: Process,
        reply: R,
    },
    Fail {
        process: Process,
        why: String,
    },
    Info {
        process: Process,
        why: String,
    },
    /// A fault was put in force, found to be in force, or healed: the nemesis' own words.
    Fault {
        name: String,
        phase: FaultPhase,
        detail: String,
    },
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPhase {
    Injected,
    /// A probe has seen it at work.
    InForce,
    Healed,
    /// It could not be put in force here.
    Unsupported,
}

/// What came of a call, as far as its process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    Ok(R),
    /// Surely not done.
    Fail(String),
    /// It may have been done, and may be still.
    Info(String),
}

/// A call with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<C, R> {
    /// Of its invocation, in the history.
    pub index: usize,
    pub process: Process,
    pub call: C,
    pub invoked: Nanos,
    /// When it ended; absent for `Info`, which has no end.
    pub completed: Option<Nanos>,
    pub outcome: Outcome<R>,
}

/// Operations in the order of their invocations. A call without a completion is `Info`.
///
/// # Panics
/// It is no history: see [`try_pair`].
pub fn pair<C: Clone, R: Clone>(history: &[Event<C, R>]) -> Vec<Operation<C, R>> {
    try_pair(history).unwrap_or_else(|why| panic!("{why}"))
}

/// As [`pair`], of a history that comes from elsewhere.
///
/// # Errors
/// Times go back, or a process asks while it may not, or ends what it has not begun: which event it is.
pub fn try_pair<C: Clone, R: Clone>(history: &[Event<C, R>]) -> Result<Vec<Operation<C, R>>, NoHistory> {
    let mut operations: Vec<Operation<C, R>> = Vec::new();
    let mut under_way: BTreeMap<Process, usize> = BTreeMap::new();
    let mut retired: BTreeSet<Process> = BTreeSet::new();
    let mut last = Nanos(0);
    for (index, event) in history.iter().enumerate() {
        if event.time < last {
            return Err(NoHistory::TimeGoesBack { index });
        }
        last = event.time;
        match &event.what {
            What::Invoke { process, call } => {
                if retired.contains(process) {
                    return Err(NoHistory::Retired { process: *process, index });
                }
                if under_way.insert(*process, operations.len()).is_some() {
                    return Err(NoHistory::Busy { process: *process, index });
                }
                operations.push(Operation {
                    index,
                    process: *process,
                    call: call.clone(),
                    invoked: event.time,
                    completed: None,
                    outcome: Outcome::Info("no completion".into()),
                });
            }
            What::Ok { process, reply } => {
                let operation = ended(&mut under_way, &mut operations, *process, index)?;
                (operation.completed, operation.outcome) = (Some(event.time), Outcome::Ok(reply.clone()));
            }
            What::Fail { process, why } => {
                let operation = ended(&mut under_way, &mut operations, *process, index)?;
                (operation.completed, operation.outcome) = (Some(event.time), Outcome::Fail(why.clone()));
            }
            What::Info { process, why } => {
                ended(&mut under_way, &mut operations, *process, index)?.outcome = Outcome::Info(why.clone());
                retired.insert(*process);
            }
            What::Fault { .. } => {}
        }
    }
    Ok(operations)
}

fn ended<'a, C, R>(
    under_way: &mut BTreeMap<Process, usize>,
    operations: &'a mut [Operation<C, R>],
    process: Process,
    index: usize,
) -> Result<&'a mut Operation<C, R>, NoHistory> {
    match under_way.remove(&process) {
        Some(place) => Ok(&mut operations[place]),
        None => Err(NoHistory::NotBegun { process, index }),
    }
}

/// Why a list of events is no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHistory {
    #[error("event {index} is earlier than the one before it")]
    TimeGoesBack { index: usize },
    #[error("{process} asks at event {index}, but is retired")]
    Retired { process: Process, index: usize },
    #[error("{process} asks at event {index}, but has a call under way")]
    Busy { process: Process, index: usize },
    #[error("{process} ends at event {index} what it has not begun")]
    NotBegun { process: Process, index: usize },
}

/// Writes a history as JSON, one event a line.
///
/// # Errors
/// Writing failed.
pub fn write_lines<C: Serialize, R: Serialize>(history: &[Event<C, R>], into: &mut dyn Write) -> io::Result<()> {
    for event in history {
        serde_json::to_writer(&mut *into, event)?;
        into.write_all(b"\n")?;
    }
    into.flush()
}

/// Reads what [`write_lines`] has written.
///
/// # Errors
/// A line is no event of this workload: it names the line.
pub fn read_lines<C: DeserializeOwned, R: DeserializeOwned>(from: impl BufRead) -> io::Result<Vec<Event<C, R>>> {
    let mut history = Vec::new();
    for (number, line) in (1..).zip(from.lines()) {
        let event = serde_json::from_str(&line?);
        history.push(event.map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {number} is no event: {error}"))
        })?);
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestEvent = Event<u64, u64>;

    fn invoke(time: u64, process: u64, call: u64) -> TestEvent {
        Event { time: Nanos(time), what: What::Invoke { process: Process(process), call } }
    }

    fn ok(time: u64, process: u64, reply: u64) -> TestEvent {
        Event { time: Nanos(time), what: What::Ok { process: Process(process), reply } }
    }

    fn info(time: u64, process: u64) -> TestEvent {
        Event { time: Nanos(time), what: What::Info { process: Process(process), why: "timeout".into() } }
    }

    #[test]
    fn calls_meet_their_completions() {
        let history = [invoke(1, 0, 10), invoke(2, 1, 11), ok(3, 1, 21), info(4, 0), invoke(5, 1, 12)];
        let operations = pair(&history);
        let seen: Vec<_> = operations.iter().map(|o| (o.call, o.completed, o.outcome.clone())).collect();
        assert_eq!(
            seen,
            [
                (10, None, Outcome::Info("timeout".into())),
                (11, Some(Nanos(3)), Outcome::Ok(21)),
                (12, None, Outcome::Info("no completion".into())),
            ]
        );
    }

    #[test]
    #[should_panic(expected = "retired")]
    fn a_retired_process_asks_nothing() {
        pair(&[invoke(1, 0, 10), info(2, 0), invoke(3, 0, 11)]);
    }

    #[test]
    fn what_breaks_the_rules_is_no_history() {
        let cases = [
            (vec![invoke(2, 0, 10), ok(1, 0, 20)], "event 1 is earlier than the one before it"),
            (vec![invoke(1, 0, 10), invoke(2, 0, 11)], "p0 asks at event 1, but has a call under way"),
            (vec![invoke(1, 0, 10), info(2, 0), invoke(3, 0, 11)], "p0 asks at event 2, but is retired"),
            (vec![ok(1, 0, 20)], "p0 ends at event 0 what it has not begun"),
            (vec![invoke(1, 0, 10), ok(2, 0, 20), info(3, 0)], "p0 ends at event 2 what it has not begun"),
        ];
        for (history, why) in cases {
            assert_eq!(try_pair(&history).expect_err("it is none").to_string(), why);
        }
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let fault = What::Fault { name: "kill".into(), phase: FaultPhase::InForce, detail: "n1".into() };
        let history = [invoke(1, 0, 10), Event { time: Nanos(2), what: fault }, ok(3, 0, 20)];
        let mut bytes = Vec::new();
        write_lines(&history, &mut bytes).expect("memory takes it");
        assert_eq!(read_lines::<u64, u64>(&bytes[..]).expect("events"), history);
        assert!(read_lines::<u64, u64>(&b"{}\n"[..]).is_err_and(|error| error.to_string().contains("line 1")));
    }
}
