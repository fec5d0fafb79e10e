//! `jepsen selftest`: plants each bug and looks who finds it.
//!
//! Each run is a process of its own: the simulation's of a seed, or this program's own `test` of a cluster. A simulation
//! prints its report, a test leaves its results in a folder.
//!
//! Invariant: a run that is given up, for an interrupt or because it hangs, may take down what it has made before it is
//! killed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use trefoil_world::planted::Bug;
use trefoil_world::{clock, task};

use crate::checker::Valid;
use crate::selftest::{Progress, Scene, Shown, TRIALS, Tool, Trial, score};
use crate::workload::Name;

/// What the line of a simulation's output begins with that has its report.
const REPORT: &str = "report: ";
/// How `kvd-planted` is told its bug when somebody else writes its arguments.
const PLANTED_BUG: &str = "PLANTED_BUG";
/// What takes longer has hung.
const RUN_MAX: Duration = Duration::from_secs(300);
/// How long a run that is given up may take to take down what it has made.
const TAKEN_DOWN_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub struct SelfTest {
    /// These bugs, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    bug: Vec<Bug>,
    /// On how many seeds each must be found
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Runs at a time, of simulations and then of clusters
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
            TRIALS.iter().filter(wanted).copied().partition(|trial| matches!(trial.tool, Tool::Simulation(_)));
        println!("{:<24} {:<10} {:<36} ", "bug", "tool", "must be found by");
        let mut done = Vec::new();
        // Not together: simulations take all the time there is, and clusters have bounds in real time.
        for trials in [simulated, tested] {
            let run = |trial: Trial| {
                let programs = &programs;
                async move { anyhow::Ok((trial, programs.search(&trial, self.seeds).await?)) }
            };
            let mut ended = stream::iter(trials.into_iter().map(run)).buffered(usize::from(self.jobs));
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
            Tool::Simulation(workload) => self.simulate(trial.bug, workload, seed, planted).await,
            Tool::Harness(scene) => self.test(trial.bug, scene, seed, planted).await,
        }
    }

    async fn simulate(&self, bug: Bug, workload: Name, seed: u64, planted: bool) -> anyhow::Result<Option<Shown>> {
        let (program, flag) = if planted { (&self.sim_planted, "--bug") } else { (&self.sim, "--provoke") };
        let mut command = Command::new(program);
        command.args(["--seed", &seed.to_string(), flag, bug.name(), "--workload", workload.as_str()]);
        let Some(output) = ended(program, command).await? else { return Ok(None) };
        let text = String::from_utf8_lossy(&output.stdout);
        let report = text.lines().rev().find_map(|line| line.strip_prefix(REPORT));
        Ok(report.and_then(|report| serde_json::from_str(report).ok()))
    }

    async fn test(&self, bug: Bug, scene: Scene, seed: u64, planted: bool) -> anyhow::Result<Option<Shown>> {
        let kvd = if planted { &self.kvd_planted } else { &self.kvd };
        let out = self.out.join(format!("selftest-{bug}-{seed}-{}", clock::wall_ms()));
        let flags: [(&str, &OsStr); 2] = [("--kvd", kvd.as_os_str()), ("--out", out.as_os_str())];
        let flags = flags.into_iter().flat_map(|(flag, value)| [OsString::from(flag), value.to_owned()]);
        let mut command = Command::new(&self.jepsen);
        command.args(scene.words()).args(["--seed", &seed.to_string()]).args(flags).env_remove(PLANTED_BUG);
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

/// What comes of a program that ends in time. Otherwise, and when this is dropped, the program is given up.
async fn ended(program: &Path, mut command: Command) -> anyhow::Result<Option<Output>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: an interrupt at the terminal comes to it through this program, once.
    command.process_group(0);
    let told = || format!("cannot run {}", program.display());
    let mut running = Running(command.spawn().with_context(told)?);
    // Tasks of their own: what it says while it is given up must be taken too.
    let stdout = task::spawn(all_of(running.0.stdout.take()));
    let stderr = task::spawn(all_of(running.0.stderr.take()));
    let Ok(status) = clock::timeout(RUN_MAX, running.0.wait()).await else { return Ok(None) };
    let status = status.with_context(told)?;
    Ok(Some(Output { status, stdout: stdout.await?, stderr: stderr.await? }))
}

/// What comes through a pipe, up to its end or to where it cannot be read.
async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is there.
        let _ = pipe.read_to_end(&mut bytes).await;
    }
    bytes
}

/// A program under way. One that is dropped before it has ended is told to, and killed when it does not in
/// [`TAKEN_DOWN_MAX`]; that blocks.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        for _ in 0..TAKEN_DOWN_MAX.as_millis() / POLL.as_millis() {
            match self.0.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // It may have ended just now.
        let _ = self.0.start_kill();
    }
}

/// The results of the one run below a folder.
fn results(out: &Path) -> Option<Shown> {
    let folder = fs::read_dir(out).ok()?.next()?.ok()?.path();
    serde_json::from_slice(&fs::read(folder.join("results.json")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::Test;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        test: Test,
    }

    #[test]
    fn each_scene_is_a_run_as_the_command_line_has_it() {
        for trial in TRIALS {
            let Tool::Harness(scene) = trial.tool else { continue };
            let args = Args::try_parse_from(scene.words()).expect("these are arguments");
            let told = format!("{:?}", args.test);
            let faults = format!("no_faults: {}", scene.faults.is_empty());
            let limit = format!("time_limit: {}", scene.seconds);
            assert!(told.contains(&faults) && told.contains(&limit), "{}: {told}", trial.bug);
            assert!(scene.faults.iter().all(|kind| told.contains(&format!("{kind:?}"))), "{}: {told}", trial.bug);
        }
    }

    async fn until_there(file: &Path) {
        while !file.exists() {
            clock::sleep(POLL).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_given_up_takes_down_what_it_has_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let (began, down) = (folder.path().join("began"), folder.path().join("down"));
        let goes_on = "trap 'echo down > down; exit 0' TERM; echo began > began; while :; do sleep 0.02; done";
        let mut command = Command::new("sh");
        command.args(["-c", goes_on]).current_dir(folder.path());
        tokio::select! {
            _ = ended(Path::new("sh"), command) => panic!("it goes on for ever"),
            () = until_there(&began) => {}
        }
        assert!(down.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_ends_by_itself_is_heard() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let output = ended(Path::new("sh"), command).await.expect("it runs").expect("it ends");
        let said = (output.status.code(), output.stdout.as_slice(), output.stderr.as_slice());
        assert_eq!(said, (Some(3), b"one\n".as_slice(), b"two\n".as_slice()));
    }
}
