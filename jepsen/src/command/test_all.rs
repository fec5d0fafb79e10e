//! `jepsen test-all`: a matrix of runs, each with a line in the ledger.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use trefoil_world::clock;

use super::setup::Setup;
use super::test::run_one;
use crate::checker::Valid;
use crate::ledger::{self, Line, Outcomes, is_dirty};
use crate::matrix::{self, Cell, Profile};
use crate::workload::Name;
use crate::{store, with_workload};

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
    /// Of those that are in the ledger.
    lines: Vec<Line>,
    /// For which there was no time.
    left: u32,
    /// In which the harness failed, and how often in a row up to now.
    failed: u32,
    in_a_row: u32,
}

impl Progress {
    fn note(&mut self, cell: &Cell, ended: anyhow::Result<Line>) {
        match ended {
            Ok(line) => {
                self.lines.push(line);
                self.in_a_row = 0;
            }
            Err(error) => {
                eprintln!("jepsen: {} under {}, seed {}: {error:#}", cell.workload, cell.profile, cell.seed);
                self.failed += 1;
                self.in_a_row += 1;
            }
        }
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
        let commit = self.commit.clone().map_or_else(ledger::commit, Ok)?;
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
            let setup = self.setup.able_to(&cell.profile.faults);
            if let Some(line) = cell.done(known, &build.commit, &setup.conditions(&build.server_sha256)) {
                progress.lines.push(line.clone());
            } else if until.is_some_and(|until| clock::now() + load > until) || progress.in_a_row == FAILURES_MAX {
                progress.left += 1;
            } else {
                progress.note(cell, self.run_cell(cell, &setup, build).await);
            }
        }
        progress
    }

    /// One run, with its line in the ledger.
    async fn run_cell(&self, cell: &Cell, setup: &Setup, build: &Build) -> anyhow::Result<Line> {
        let Cell { workload, profile, seed } = cell;
        let faults = &profile.faults;
        println!("{workload} under {profile}");
        let results = with_workload!(*workload, W => run_one::<W>(setup, faults, *seed, Some(&build.commit)).await)?;
        if self.server_sha256()? != build.server_sha256 {
            bail!("the server's program is another one than at the beginning: the run goes into no ledger");
        }
        let line = Line {
            commit: build.commit.clone(),
            date: results.date,
            seed: *seed,
            workload: *workload,
            profile: profile.to_string(),
            conditions: Some(setup.conditions(&build.server_sha256)),
            faults: results.faults,
            seconds: results.seconds,
            operations: Outcomes::of(&results.operations),
            verdict: results.valid,
            history_sha256: results.history_sha256,
            explained: None,
        };
        ledger::append(&self.ledger, &line).with_context(|| self.ledger.display().to_string())?;
        Ok(line)
    }

    /// These runs, and all that the ledger has of this commit.
    fn print(&self, progress: &Progress, cells: usize, build: &Build) -> anyhow::Result<()> {
        let Build { commit, .. } = build;
        print!("{}", matrix::table(&progress.lines));
        println!("{} of {cells} runs are in the ledger for {commit}; {} are left", progress.lines.len(), progress.left);
        let ledger = ledger::read(&self.ledger).with_context(|| self.ledger.display().to_string())?;
        print!("{}", ledger::by_commit(ledger.lines.iter().filter(|line| line.commit == *commit)));
        Ok(())
    }
}
