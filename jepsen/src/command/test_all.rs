//! `jepsen test-all`: a matrix of runs, each with a line in the ledger.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use trefoil_world::clock;

use super::test::{Setup, run_one};
use crate::checker::Valid;
use crate::ledger::{self, Line, Outcomes};
use crate::matrix::{self, Cell, Profile};
use crate::with_workload;
use crate::workload::Name;

#[derive(Debug, clap::Args)]
pub struct TestAll {
    /// Separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<Name>,
    /// Kinds of faults joined by '+', or 'none'; separated by commas
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
    /// Runs that stand in it, for this commit, are not run again
    #[arg(long, default_value = "docs/chaos/ledger.jsonl")]
    ledger: PathBuf,
    /// What is run [default: the commit that is checked out]
    #[arg(long)]
    commit: Option<String>,
    #[command(flatten)]
    setup: Setup,
}

impl TestAll {
    /// Runs what does not stand in the ledger yet. The worst of all, those that do among them.
    ///
    /// # Errors
    /// The harness itself failed in some of the runs, after all others were run.
    pub async fn run(&self) -> anyhow::Result<Valid> {
        let commit = self.commit.clone().map_or_else(ledger::commit, Ok)?;
        let workloads = if self.workloads.is_empty() { Name::ALL.to_vec() } else { self.workloads.clone() };
        let seeds: Vec<u64> = (0..self.seeds).map(|number| self.first_seed.wrapping_add(number)).collect();
        let cells = matrix::cells(&workloads, &self.profiles, &seeds);
        let known = ledger::read(&self.ledger).with_context(|| self.ledger.display().to_string())?;
        let until = self.minutes.map(|minutes| clock::now() + Duration::from_secs(60 * u64::from(minutes)));
        let load = Duration::from_secs(self.setup.time_limit);
        let (mut lines, mut left, mut failed) = (Vec::new(), 0, 0);
        for cell in &cells {
            if let Some(line) = cell.done(&known, &commit) {
                lines.push(line.clone());
            } else if until.is_some_and(|until| clock::now() + load > until) {
                left += 1;
            } else {
                match self.run_cell(cell, &commit).await {
                    Ok(line) => lines.push(line),
                    Err(error) => {
                        eprintln!("jepsen: {} under {}, seed {}: {error:#}", cell.workload, cell.profile, cell.seed);
                        failed += 1;
                    }
                }
            }
        }
        print!("{}", matrix::table(&lines));
        println!("{} of {} runs are in the ledger for {commit}; {left} are left", lines.len(), cells.len());
        ensure!(failed == 0, "the harness failed in {failed} runs");
        Ok(matrix::worst(&lines))
    }

    /// One run, with its line in the ledger.
    async fn run_cell(&self, cell: &Cell, commit: &str) -> anyhow::Result<Line> {
        let Cell { workload, profile, seed } = cell;
        let (setup, faults) = (&self.setup, &profile.faults);
        println!("{workload} under {profile}");
        let results = with_workload!(*workload, W => run_one::<W>(setup, faults, *seed, Some(commit)).await)?;
        let line = Line {
            commit: commit.to_owned(),
            date: results.date,
            seed: *seed,
            workload: *workload,
            profile: profile.to_string(),
            faults: results.faults,
            seconds: results.seconds,
            operations: Outcomes::of(&results.operations),
            verdict: results.valid,
            history_sha256: results.history_sha256,
        };
        ledger::append(&self.ledger, &line).with_context(|| self.ledger.display().to_string())?;
        Ok(line)
    }
}
