//! What a run leaves behind when its harness dies, and removing it.
//!
//! Before a run makes or starts anything it claims a record (`cleanup/record.rs`) and locks it for as long as its harness
//! lives; in it stands later which processes it has started. The kernel gives up the lock of a process that ends, however
//! it does: so a record whose lock is free is that of a dead harness, whatever process has its pid now. [`sweep`] goes
//! through the records: of a run whose harness is dead it kills the processes, removes the namespaces, and at last the
//! record.
//!
//! Invariants:
//!
//! * Nothing of a run whose harness lives is touched.
//! * What cannot be removed does not keep the rest from being removed. It is told, and its record stays.
//!
//! Left out: the run's data and logs, which are its results. Processes also die with the thread that started them
//! (`cluster/process.rs`); this is for those of which the kernel was not told in time, and for namespaces. An interrupt is
//! no death: the harness then takes its runs down itself (`interrupt.rs`).

mod process;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, ensure};

use crate::backend::{RunId, is_root, namespaces};

pub(crate) use process::ProcessId;
pub(crate) use record::RunRecord;
pub use record::place;

use record::{Finding, Found, Records};

/// What a sweep has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// What was found and is settled, a line each.
    pub said: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

impl Swept {
    fn note(&mut self, run: &RunId, settled: anyhow::Result<String>) {
        match settled {
            Ok(said) => self.said.push(format!("{run}: {said}")),
            Err(error) => self.failed.push(format!("{run}: {error:#}")),
        }
    }
}

/// Removes what dead runs have left, and namespaces without a record in which nothing runs; prints what was found.
///
/// # Errors
/// Something could not be removed, after all else was.
pub fn run() -> anyhow::Result<()> {
    let mut swept = Swept::default();
    {
        let records = Records::lock(&place())?;
        sweep_runs(&records, &mut swept)?;
        if is_root() {
            sweep_orphans(&records, &mut swept)?;
        }
    }
    swept.said.iter().for_each(|line| println!("{line}"));
    if swept == Swept::default() {
        println!("nothing was left");
    }
    ensure!(swept.failed.is_empty(), "not all was removed:\n{}", swept.failed.join("\n"));
    Ok(())
}

/// Removes what dead runs have left.
///
/// # Errors
/// The records cannot be read.
pub fn sweep() -> anyhow::Result<Swept> {
    let mut swept = Swept::default();
    sweep_runs(&Records::lock(&place())?, &mut swept)?;
    Ok(swept)
}

fn sweep_runs(records: &Records, swept: &mut Swept) -> anyhow::Result<()> {
    for run in records.runs()? {
        match records.find(&run) {
            Ok(Finding::UnderWay) => swept.note(&run, Ok("under way, left alone".to_owned())),
            Ok(Finding::Gone) => {}
            Ok(Finding::Died(found)) => swept.note(&run, bury(&run, &found)),
            Err(error) => swept.note(&run, Err(error)),
        }
    }
    Ok(())
}

/// The record goes last: as long as it is there, the rest is found again.
fn bury(run: &RunId, found: &Found) -> anyhow::Result<String> {
    let mut results: Vec<anyhow::Result<()>> = found.processes.iter().map(|process| process.kill()).collect();
    if is_root() {
        results.push(clear_namespaces(run));
    }
    all(results)?;
    fs::remove_dir_all(&found.folder).with_context(|| format!("cannot remove {}", found.folder.display()))?;
    Ok("its harness has died, removed".to_owned())
}

/// Namespaces of runs that have no record here. One is there before them and after them: so they are of a harness that
/// could not remove them, or of one whose records are elsewhere, as in a container. In those of the latter something runs.
fn sweep_orphans(records: &Records, swept: &mut Swept) -> anyhow::Result<()> {
    let runs: BTreeSet<RunId> = namespaces::existing()?.iter().filter_map(|name| RunId::of_name(name)).collect();
    for run in runs.iter().filter(|run| !records.has(run)) {
        swept.note(run, remove_orphan(run));
    }
    Ok(())
}

fn remove_orphan(run: &RunId) -> anyhow::Result<String> {
    if !namespaces::processes(run)?.is_empty() {
        return Ok("namespaces without a record in which something runs, left alone".to_owned());
    }
    namespaces::remove(run)?;
    Ok("namespaces without a record, removed".to_owned())
}

/// All that runs in a run's namespaces is the run's.
fn clear_namespaces(run: &RunId) -> anyhow::Result<()> {
    let processes = namespaces::processes(run)?.into_iter().filter_map(ProcessId::of);
    all(processes.map(|process| process.kill()).collect())?;
    namespaces::remove(run)
}

/// All that went wrong, as one error.
fn all(results: Vec<anyhow::Result<()>>) -> anyhow::Result<()> {
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}
