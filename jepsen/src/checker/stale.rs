//! Reads of any replica, under a context, never go back.
//!
//! A process that carries a context takes note of all that it is shown: the revisions its reads have looked at, stale or
//! not, and those its acknowledged writes have made. A stale read under that context waits until its replica is as far. So
//! along one process no read looks at a revision below one that the process was shown before, whichever replica answers.
//!
//! The checker knows no workload: it is told what each answered call has [`Shown`].
//!
//! Model: of each process by itself, monotonic reads and reads of its own writes, by revisions. A history in which no
//! stale read was answered is `unknown`.
//!
//! Invariants:
//!
//! * `false` exactly when a read looked at a lower revision than its process was shown earlier.
//!
//! Left out: what a read returns at its revision, which is checked as for any other read; and a context that goes on
//! from one process to another, as after a call of unknown outcome.

use std::collections::BTreeMap;
use std::fmt;

use super::Verdict;
use super::evidence::{Findings, named};
use crate::history::{Operation, Outcome, Process};

const CHECKER: &str = "reads with a context never go back";

/// What an answered call has shown its process: a revision of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It made this revision.
    Wrote(u64),
    /// It looked at this revision, with the guarantee that it is the newest.
    Read(u64),
    /// It looked at this revision of some replica, under the context of its process.
    StaleRead(u64),
}

impl Shown {
    fn revision(self) -> u64 {
        match self {
            Shown::Wrote(revision) | Shown::Read(revision) | Shown::StaleRead(revision) => revision,
        }
    }

    /// What it is if it lies below what was shown before. Revisions of writes are others' to judge.
    fn back(self) -> Option<Back> {
        match self {
            Shown::Wrote(_) => None,
            Shown::Read(_) => Some(Back::Read),
            Shown::StaleRead(_) => Some(Back::StaleRead),
        }
    }
}

/// What went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Back {
    StaleRead,
    Read,
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Back::StaleRead => "a stale read went back",
            Back::Read => "a read went back",
        })
    }
}

/// Judges a history, in the order of invocations. `shown`: what a call with this reply has shown, if it is one that does.
pub fn never_back<C, R>(operations: &[Operation<C, R>], shown: impl Fn(&C, &R) -> Option<Shown>) -> Verdict {
    let mut findings = Findings::new();
    let mut stale_reads = 0_u64;
    let mut highest: BTreeMap<Process, (u64, &Operation<C, R>)> = BTreeMap::new();
    for operation in operations {
        let Outcome::Ok(reply) = &operation.outcome else { continue };
        let Some(shown) = shown(&operation.call, reply) else { continue };
        stale_reads += u64::from(matches!(shown, Shown::StaleRead(_)));
        let revision = shown.revision();
        let (known, by) = highest.entry(operation.process).or_insert((revision, operation));
        if revision >= *known {
            (*known, *by) = (revision, operation);
        } else if let Some(back) = shown.back() {
            findings.add(back, || told(operation, revision, (*known, *by)));
        }
    }
    match (findings.is_empty(), stale_reads) {
        (false, _) => Verdict::invalid(CHECKER, findings.lines()),
        (true, 0) => Verdict::unknown(CHECKER, "no stale read under a context was answered"),
        (true, _) => Verdict::valid(CHECKER),
    }
}

fn told<C, R>(operation: &Operation<C, R>, revision: u64, (known, by): (u64, &Operation<C, R>)) -> Vec<String> {
    let process = operation.process;
    vec![
        format!("{process} was shown revision {known}, then revision {revision}"),
        format!("shown {known} by {}", named(by)),
        format!("shown {revision} by {}", named(operation)),
    ]
}

#[cfg(test)]
mod tests;
