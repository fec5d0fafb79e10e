//! `jepsen test-all`: a matrix of runs, each with a line in the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use trefoil_world::clock;

use super::setup::Setup;
use super::test::run_one;
use crate::checker::Valid;
use crate::ledger::{self, Line, Outcomes, is_dirty};
use crate::matrix::{self, Cell, Profile};
use crate::store::{self, Results};
use crate::wall::Wall;
use crate::with_workload;
use crate::workload::Name;

/// A harness that fails as often in a row fails in all runs.
const FAILURES_MAX: u32 = 3;

#[derive(Debug, clap::Args)]
pub struct TestAll {
    /// Separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<Name>,
    /// Kinds of faults joined by '+', or 'none'; separated by commas. Those that need proxies are run on the loopback
    #[arg(long, value_delimiter = ',', default_values = matrix::PROFILES)]
    profiles: Vec<Profile>,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// No run is begun that would load the cluster for longer than so many minutes from now
    #[arg(long)]
    minutes: Option<u32>,
    /// Runs that stand in it, for this commit and with this setup, are not run again
    #[arg(long, default_value = "docs/chaos/ledger.jsonl")]
    ledger: PathBuf,
    /// What is run [default: the commit that is checked out]
    #[arg(long)]
    commit: Option<String>,
    #[command(flatten)]
    setup: Setup,
}

/// What is run, as the ledger has it.
struct Build {
    commit: String,
    server_sha256: String,
}

/// What has come of the cells so far.
#[derive(Default)]
struct Progress {
    /// Of those that were run, now or by earlier calls.
    lines: Vec<Line>,
    /// For which there was no time.
    left: u32,
    /// In which the harness failed, and how often in a row up to now.
    failed: u32,
    in_a_row: u32,
}

impl Progress {
    /// Takes note of a run, and of whether its line is in the ledger.
    fn note(&mut self, line: Line, appended: anyhow::Result<()>) {
        let unwritten = appended.err().map(|error| format!("{error:#}"));
        let failures: Vec<&str> = line.failed.as_deref().into_iter().chain(unwritten.as_deref()).collect();
        if failures.is_empty() {
            self.in_a_row = 0;
        } else {
            let Line { workload, profile, seed, .. } = &line;
            eprintln!("jepsen: {workload} under {profile}, seed {seed}: {}", failures.join("; "));
            self.failed += 1;
            self.in_a_row += 1;
        }
        self.lines.push(line);
    }
}

impl TestAll {
    /// Runs what does not stand in the ledger yet. The worst of all, those that do among them.
    ///
    /// # Errors
    /// [`Usage`](super::Usage); or the harness itself failed in some of the runs, after all others were run, or in several
    /// in a row.
    pub async fn run(&self) -> anyhow::Result<Valid> {
        self.profiles.iter().try_for_each(|profile| self.setup.allows(&profile.faults))?;
        self.setup.print_capabilities(self.profiles.iter().any(|profile| !profile.faults.is_empty()))?;
        let build = self.build()?;
        let known = ledger::read(&self.ledger).with_context(|| self.ledger.display().to_string())?;
        if let Some(warning) = known.warning() {
            eprintln!("jepsen: {}: {warning}", self.ledger.display());
        }
        let cells = self.cells();
        let progress = self.run_cells(&cells, &build, &known.lines).await;
        self.print(&progress, cells.len(), &build)?;
        let worst = matrix::worst(&progress.lines);
        // A counter-example stands, whatever else went wrong.
        ensure!(progress.failed == 0 || worst == Valid::False, "the harness failed in {} runs", progress.failed);
        Ok(worst)
    }

    /// Says so when nobody will be able to tell what was run.
    fn build(&self) -> anyhow::Result<Build> {
        let commit = self.commit.as_deref().map_or_else(ledger::commit, |commit| Ok(ledger::named(commit)))?;
        if is_dirty(&commit) {
            eprintln!(
                "jepsen: tracked files are changed: the lines of these runs say {commit}, no line of the ledger is taken for \
                 one of them, and they show nothing of a commit"
            );
        }
        Ok(Build { commit, server_sha256: self.server_sha256()? })
    }

    fn server_sha256(&self) -> anyhow::Result<String> {
        let program = self.setup.program()?;
        store::sha256(program.path()).with_context(|| format!("cannot read {}", program.path().display()))
    }

    fn cells(&self) -> Vec<Cell> {
        let workloads: &[Name] = if self.workloads.is_empty() { &Name::ALL } else { &self.workloads };
        let seeds: Vec<u64> = (0..self.seeds).map(|number| self.first_seed.wrapping_add(number)).collect();
        matrix::cells(workloads, &self.profiles, &seeds)
    }

    async fn run_cells(&self, cells: &[Cell], build: &Build, known: &[Line]) -> Progress {
        let until = self.minutes.map(|minutes| clock::now() + Duration::from_secs(60 * u64::from(minutes)));
        let load = Duration::from_secs(self.setup.time_limit);
        let mut progress = Progress::default();
        for cell in cells {
            let setup = self.setup.able_to(&cell.profile.faults).with_seed(cell.seed);
            if let Some(line) = cell.done(known, &build.commit, &setup.conditions(&build.server_sha256)) {
                progress.lines.push(line.clone());
            } else if until.is_some_and(|until| clock::now() + load > until) || progress.in_a_row == FAILURES_MAX {
                progress.left += 1;
            } else {
                let line = self.run_cell(cell, &setup, build).await;
                let appended = ledger::append(&self.ledger, &line).with_context(|| self.ledger.display().to_string());
                progress.note(line, appended);
            }
        }
        progress
    }

    /// One run, as the ledger is to have it, whatever went wrong.
    async fn run_cell(&self, cell: &Cell, setup: &Setup, build: &Build) -> Line {
        let Cell { workload, profile, seed } = cell;
        let faults = &profile.faults;
        println!("{workload} under {profile}");
        let unjudged = unjudged(cell, setup, build);
        let ended = with_workload!(*workload, W => run_one::<W>(setup, faults, *seed, Some(&build.commit)).await);
        let line = concluded(unjudged, ended);
        let failed = match self.server_sha256() {
            Ok(sha256) if sha256 == build.server_sha256 => None,
            Ok(_) => Some("the server's program is another one than at the beginning".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        Line { failed: line.failed.clone().or(failed), ..line }
    }

    /// These runs, and all that the ledger has of this commit.
    fn print(&self, progress: &Progress, cells: usize, build: &Build) -> anyhow::Result<()> {
        let Build { commit, .. } = build;
        print!("{}", matrix::table(&progress.lines));
        println!("{} of {cells} runs are done for {commit}; {} are left", progress.lines.len(), progress.left);
        let ledger = ledger::read(&self.ledger).with_context(|| self.ledger.display().to_string())?;
        print!("{}", ledger::by_commit(ledger.lines.iter().filter(|line| line.commit == *commit)));
        Ok(())
    }
}

/// The line of a run of which nothing is known yet.
fn unjudged(cell: &Cell, setup: &Setup, build: &Build) -> Line {
    Line {
        commit: build.commit.clone(),
        date: Wall(clock::wall_ms()).to_string(),
        seed: cell.seed,
        workload: cell.workload,
        profile: cell.profile.to_string(),
        conditions: Some(setup.conditions(&build.server_sha256)),
        faults: BTreeMap::new(),
        pairs: 0,
        seconds: 0.0,
        operations: Outcomes::default(),
        verdict: Valid::Unknown,
        history_sha256: String::new(),
        failed: None,
        explained: None,
    }
}

/// The same once the run has ended, well or not.
fn concluded(line: Line, ended: anyhow::Result<Results>) -> Line {
    match ended {
        Ok(results) => Line {
            date: results.date,
            faults: results.faults,
            pairs: results.pairs,
            seconds: results.seconds,
            operations: Outcomes::of(&results.operations),
            verdict: results.valid,
            history_sha256: results.history_sha256,
            ..line
        },
        Err(error) => Line { failed: Some(format!("{error:#}")), ..line },
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::ledger::tests::line;

    #[test]
    fn a_run_in_which_the_harness_failed_has_a_line() {
        let failed = concluded(line(1, Valid::Unknown), Err(anyhow::Error::msg("worker 1: panicked")));
        assert_eq!(failed, Line { failed: Some("worker 1: panicked".into()), ..line(1, Valid::Unknown) });
        assert!(!failed.counts());
    }

    /// The lines of runs, whether each could be written, and how many failed in a row at the end.
    #[test]
    fn failures_are_counted_and_every_line_is_kept() {
        let failed = || Line { failed: Some("worker 1: panicked".into()), ..line(1, Valid::Unknown) };
        let cases = [
            (vec![(line(1, Valid::False), true)], (0, 0)),
            (vec![(failed(), true), (line(2, Valid::True), true)], (1, 0)),
            (vec![(line(1, Valid::True), true), (failed(), true), (failed(), false)], (2, 2)),
            (vec![(line(1, Valid::True), false)], (1, 1)),
        ];
        for (runs, (failed, in_a_row)) in cases {
            let (mut progress, lines) = (Progress::default(), runs.len());
            for (line, written) in runs {
                progress.note(line, if written { Ok(()) } else { unwritten() });
            }
            assert_eq!((progress.lines.len(), progress.failed, progress.in_a_row), (lines, failed, in_a_row));
        }
    }

    fn unwritten() -> anyhow::Result<()> {
        bail!("no space is left")
    }
}
