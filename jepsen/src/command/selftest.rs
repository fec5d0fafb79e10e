//! `jepsen selftest`: plants each bug and looks who finds it.
//!
//! Each run is a process of its own: the simulation's of a seed, or this program's own `test` of a cluster. A simulation
//! prints its report, a test leaves its results in a folder.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use tokio::process::Command;
use trefoil_world::clock;
use trefoil_world::planted::Bug;

use crate::checker::Valid;
use crate::selftest::{Progress, Shown, TRIALS, Tool, Trial, score};

/// What the line of a simulation's output begins with that has its report.
const REPORT: &str = "report: ";
/// How `kvd-planted` is told its bug when somebody else writes its arguments.
const PLANTED_BUG: &str = "PLANTED_BUG";
/// What takes longer has hung.
const RUN_MAX: Duration = Duration::from_secs(300);
/// A test's load: many swaps of few registers at once.
const LOAD: [&str; 13] = [
    "test",
    "--workload",
    "register",
    "--backend",
    "loopback",
    "--no-faults",
    "--nodes",
    "3",
    "--time-limit",
    "10",
    "--rate",
    "600",
    "--concurrency=20",
];

#[derive(Debug, clap::Args)]
pub struct SelfTest {
    /// These bugs, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    bug: Vec<Bug>,
    /// On how many seeds each must be found
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Simulations at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// [default: the one beside this program, as all of these]
    #[arg(long)]
    kvd: Option<PathBuf>,
    #[arg(long)]
    kvd_planted: Option<PathBuf>,
    #[arg(long)]
    sim: Option<PathBuf>,
    #[arg(long)]
    sim_planted: Option<PathBuf>,
    /// Where runs of clusters leave their folders
    #[arg(long, default_value = "chaos-runs")]
    out: PathBuf,
}

/// The programs, with bugs and without.
struct Programs {
    jepsen: PathBuf,
    kvd: PathBuf,
    kvd_planted: PathBuf,
    sim: PathBuf,
    sim_planted: PathBuf,
    out: PathBuf,
}

impl SelfTest {
    /// Runs all trials. True when every bug was caught and no run without a bug was red.
    ///
    /// # Errors
    /// A program is missing or cannot be started.
    pub async fn run(&self) -> anyhow::Result<Valid> {
        let programs = self.programs()?;
        let wanted = |trial: &&Trial| self.bug.is_empty() || self.bug.contains(&trial.bug);
        let (simulated, tested): (Vec<Trial>, Vec<Trial>) =
            TRIALS.iter().filter(wanted).copied().partition(|trial| trial.tool == Tool::Simulation);
        println!("{:<24} {:<10} {:<36} ", "bug", "tool", "must be found by");
        let mut done = Vec::new();
        // Tests share the loopback: one at a time.
        for (trials, at_a_time) in [(simulated, usize::from(self.jobs)), (tested, 1)] {
            let run = |trial: Trial| {
                let programs = &programs;
                async move { anyhow::Ok((trial, programs.search(&trial, self.seeds).await?)) }
            };
            let mut ended = stream::iter(trials.into_iter().map(run)).buffered(at_a_time);
            while let Some(ended) = ended.next().await {
                let (trial, progress) = ended?;
                let Trial { bug, tool, checker } = trial;
                println!("{bug:<24} {tool:<10} {checker:<36} {}", progress.told(self.seeds));
                done.push((trial, progress));
            }
        }
        let (caught, total) = score(&done, self.seeds);
        println!("caught {caught} / total {total}");
        Ok(if caught == total { Valid::True } else { Valid::False })
    }

    fn programs(&self) -> anyhow::Result<Programs> {
        let jepsen = std::env::current_exe().context("this program's own path")?;
        let find = |given: &Option<PathBuf>, name: &str| -> anyhow::Result<PathBuf> {
            let path = given.clone().unwrap_or_else(|| jepsen.with_file_name(name));
            ensure!(path.exists(), "there is no {}; `make planted` builds it", path.display());
            Ok(path)
        };
        Ok(Programs {
            kvd: find(&self.kvd, "kvd")?,
            kvd_planted: find(&self.kvd_planted, "kvd-planted")?,
            sim: find(&self.sim, "sim")?,
            sim_planted: find(&self.sim_planted, "sim-planted")?,
            out: self.out.clone(),
            jepsen,
        })
    }
}

impl Programs {
    async fn search(&self, trial: &Trial, seeds: u64) -> anyhow::Result<Progress> {
        let mut progress = Progress::default();
        for seed in 1.. {
            if !progress.goes_on(trial.tool, seeds) {
                break;
            }
            let shown = self.run(trial, seed, true).await?;
            if progress.planted(trial.checker, shown.as_ref()) {
                progress.clean(seed, self.run(trial, seed, false).await?.as_ref());
            }
        }
        Ok(progress)
    }

    /// What a run has shown; nothing when it broke off or hung.
    async fn run(&self, trial: &Trial, seed: u64, planted: bool) -> anyhow::Result<Option<Shown>> {
        match trial.tool {
            Tool::Simulation => self.simulate(trial.bug, seed, planted).await,
            Tool::Harness => self.test(trial.bug, seed, planted).await,
        }
    }

    async fn simulate(&self, bug: Bug, seed: u64, planted: bool) -> anyhow::Result<Option<Shown>> {
        let (program, flag) = if planted { (&self.sim_planted, "--bug") } else { (&self.sim, "--provoke") };
        let mut command = Command::new(program);
        command.args(["--seed", &seed.to_string(), flag, bug.name()]);
        let Some(output) = ended(program, command).await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&output.stdout);
        let report = text.lines().rev().find_map(|line| line.strip_prefix(REPORT));
        Ok(report.and_then(|report| serde_json::from_str(report).ok()))
    }

    async fn test(&self, bug: Bug, seed: u64, planted: bool) -> anyhow::Result<Option<Shown>> {
        let kvd = if planted { &self.kvd_planted } else { &self.kvd };
        let out = self.out.join(format!("selftest-{bug}-{seed}-{}", clock::wall_ms()));
        let flags: [(&str, &OsStr); 2] = [("--kvd", kvd.as_os_str()), ("--out", out.as_os_str())];
        let flags = flags.into_iter().flat_map(|(flag, value)| [OsString::from(flag), value.to_owned()]);
        let mut command = Command::new(&self.jepsen);
        command.args(LOAD).args(["--seed", &seed.to_string()]).args(flags).env_remove(PLANTED_BUG);
        if planted {
            command.env(PLANTED_BUG, bug.name());
        }
        let output = ended(&self.jepsen, command).await?;
        let results = results(&out);
        if let (None, Some(output)) = (&results, output) {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(results)
    }
}

/// What comes of a program that ends in time.
async fn ended(program: &Path, mut command: Command) -> anyhow::Result<Option<Output>> {
    let ending = command.kill_on_drop(true).output();
    match clock::timeout(RUN_MAX, ending).await {
        Ok(output) => output.map(Some).with_context(|| format!("cannot run {}", program.display())),
        Err(_) => Ok(None),
    }
}

/// The results of the one run below a folder.
fn results(out: &Path) -> Option<Shown> {
    let folder = fs::read_dir(out).ok()?.next()?.ok()?.path();
    serde_json::from_slice(&fs::read(folder.join("results.json")).ok()?).ok()
}
