//! What a run leaves behind when its harness dies, and removing it.
//!
//! Before a run makes or starts anything it claims the folder `/tmp/tfj-<run>` and writes into it a record: which
//! process the harness is, and later which processes it has started. A process is told by its pid and the time it
//! started, so that a pid that was given to another process is never taken for it. [`sweep`] goes through these
//! folders: of a run whose harness is gone it kills the processes, removes the namespaces, and at last the folder.
//!
//! Invariants:
//!
//! * Nothing of a run whose harness lives is touched.
//! * Only folders of this user are believed: anybody may write to `/tmp`.
//! * One sweep at a time, by a lock on `/tmp` itself.
//!
//! Left out: the run's data and logs, which are its results. Processes also die with the thread that started them
//! (`cluster.rs`); this is for those of which the kernel was not told in time, and for namespaces.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::backend::{RunId, is_root, namespaces};

const ROOT: &str = "/tmp";
const FILE: &str = "state.json";
/// How long a killed process may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// One process of this machine since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: u32,
    /// When it started, in clock ticks since the machine did.
    started: u64,
}

impl ProcessId {
    /// The process that has this pid now; none when it has ended, waited for or not.
    pub(crate) fn of(pid: u32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The fields stand behind the name, which stands in parentheses and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ended = matches!(*fields.first()?, "Z" | "X");
        let started = fields.get(19)?.parse().ok()?;
        (!ended).then_some(ProcessId { pid, started })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn lives(&self) -> bool {
        ProcessId::of(self.pid) == Some(*self)
    }

    /// kill -9, and waits until it is gone.
    fn kill(self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).context("a pid beyond those of Linux")?;
        // SAFETY: kill touches no memory of ours.
        if self.lives() && unsafe { libc::kill(pid, libc::SIGKILL) } != 0 {
            let error = io::Error::last_os_error();
            ensure!(!self.lives(), "cannot kill pid {pid}: {error}");
        }
        for _ in 0..GONE_MAX.as_millis() / POLL.as_millis() {
            if !self.lives() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        anyhow::bail!("pid {pid} is not gone {GONE_MAX:?} after it was killed")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    harness: ProcessId,
    processes: Vec<ProcessId>,
}

/// A claimed run; given up when dropped.
#[derive(Debug)]
pub(crate) struct RunRecord {
    folder: PathBuf,
    state: State,
}

impl RunRecord {
    /// Claims a run for this process. `None`: it has been claimed.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(crate) fn claim(run: &RunId) -> anyhow::Result<Option<RunRecord>> {
        let harness = ProcessId::of(std::process::id()).context("/proc does not know this process")?;
        RunRecord::claim_in(Path::new(ROOT), run, harness)
    }

    fn claim_in(root: &Path, run: &RunId, harness: ProcessId) -> anyhow::Result<Option<RunRecord>> {
        let folder = root.join(run.to_string());
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
        }
        let record = RunRecord { folder, state: State { harness, processes: Vec::new() } };
        record.write()?;
        Ok(Some(record))
    }

    /// The run's own folder, for what goes with the run.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes a process that must not outlive the run.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(crate) fn add(&mut self, process: ProcessId) -> anyhow::Result<()> {
        self.state.processes.retain(ProcessId::lives);
        self.state.processes.push(process);
        self.write()
    }

    /// Whole or not at all: a harness may die at any time.
    fn write(&self) -> anyhow::Result<()> {
        let (new, file) = (self.folder.join("state.json.new"), self.folder.join(FILE));
        let json = serde_json::to_vec(&self.state)?;
        let written = fs::write(&new, json).and_then(|()| fs::rename(&new, &file));
        written.with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Drop for RunRecord {
    fn drop(&mut self) {
        // A sweep removes what cannot be removed now.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes what dead runs have left, and prints what was found.
///
/// # Errors
/// Something could not be removed.
pub fn run() -> anyhow::Result<()> {
    let said = sweep()?;
    for line in &said {
        println!("{line}");
    }
    if said.is_empty() {
        println!("nothing was left");
    }
    Ok(())
}

/// Removes what dead runs have left: what was found, a line each.
///
/// # Errors
/// Something could not be removed.
pub fn sweep() -> anyhow::Result<Vec<String>> {
    let root = Path::new(ROOT);
    let lock = File::open(root).and_then(|root| root.lock().map(|()| root));
    let lock = lock.with_context(|| format!("cannot lock {ROOT}"))?;
    let mut said = sweep_runs(root)?;
    if is_root() {
        said.extend(sweep_orphans(root)?);
    }
    drop(lock);
    Ok(said)
}

/// What became of the harness of a run's folder.
enum Finding {
    UnderWay(ProcessId),
    Died(State),
    /// There is no saying.
    Strange(String),
}

fn sweep_runs(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut said = Vec::new();
    for run in runs(root)? {
        let folder = root.join(run.to_string());
        said.push(match find(&folder) {
            Finding::UnderWay(harness) => format!("{run}: under way (pid {}), left alone", harness.pid),
            Finding::Strange(why) => format!("{run}: {} left alone: {why}", folder.display()),
            Finding::Died(state) => {
                bury(&run, &folder, &state).with_context(|| run.to_string())?;
                format!("{run}: its harness (pid {}) has died, removed", state.harness.pid)
            }
        });
    }
    Ok(said)
}

fn runs(root: &Path) -> anyhow::Result<BTreeSet<RunId>> {
    let mut runs = BTreeSet::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let name = entry?.file_name();
        // Namespaces have names of several parts, folders have not.
        runs.extend(name.to_str().and_then(RunId::of_name).filter(|run| run.to_string().as_str() == name));
    }
    Ok(runs)
}

fn find(folder: &Path) -> Finding {
    match state(folder) {
        Ok(state) if state.harness.lives() => Finding::UnderWay(state.harness),
        Ok(state) => Finding::Died(state),
        Err(error) => Finding::Strange(format!("{error:#}")),
    }
}

fn state(folder: &Path) -> anyhow::Result<State> {
    let metadata = fs::symlink_metadata(folder)?;
    // SAFETY: it reads no memory of ours and cannot fail.
    let me = unsafe { libc::geteuid() };
    ensure!(metadata.is_dir() && metadata.uid() == me, "it is not a folder of this user");
    let json = fs::read(folder.join(FILE)).context("it holds no record")?;
    serde_json::from_slice(&json).context("its record cannot be read")
}

/// The folder goes last: as long as it is there, the rest is found again.
fn bury(run: &RunId, folder: &Path, state: &State) -> anyhow::Result<()> {
    for process in &state.processes {
        process.kill()?;
    }
    if is_root() {
        clear_namespaces(run)?;
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Namespaces of runs that have no folder: a folder is there before them and after them.
fn sweep_orphans(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut runs: BTreeSet<RunId> = namespaces::existing()?.iter().filter_map(|name| RunId::of_name(name)).collect();
    runs.retain(|run| !root.join(run.to_string()).exists());
    for run in &runs {
        clear_namespaces(run)?;
    }
    Ok(runs.iter().map(|run| format!("{run}: namespaces without a run, removed")).collect())
}

/// All that runs in a run's namespaces is the run's.
fn clear_namespaces(run: &RunId) -> anyhow::Result<()> {
    for process in namespaces::processes(run)?.into_iter().filter_map(ProcessId::of) {
        process.kill()?;
    }
    namespaces::remove(run)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().expect("a process")
    }

    fn id(child: &Child) -> ProcessId {
        ProcessId::of(child.id()).expect("it runs")
    }

    fn run(name: &str) -> RunId {
        RunId::parse(name).expect("a name")
    }

    /// A folder as a harness leaves it that dies without dropping anything.
    fn leave(root: &Path, name: &str, harness: ProcessId, process: ProcessId) {
        let mut record = RunRecord::claim_in(root, &run(name), harness).expect("written").expect("unclaimed");
        record.add(process).expect("written");
        std::mem::forget(record);
    }

    #[test]
    fn only_the_processes_of_dead_runs_are_killed() {
        let root = tempfile::tempdir().expect("a folder");
        let (mut of_dead, mut of_living, mut harness) = (sleeper(), sleeper(), sleeper());
        let dead_harness = id(&harness);
        harness.kill().expect("killed");
        harness.wait().expect("waited for");
        let reused = ProcessId { started: id(&of_living).started + 1, ..id(&of_living) };
        leave(root.path(), "deada", dead_harness, id(&of_dead));
        leave(root.path(), "deadb", dead_harness, reused);
        leave(root.path(), "living", ProcessId::of(std::process::id()).expect("this one runs"), id(&of_living));
        fs::create_dir(root.path().join("tfj-strange")).expect("made");

        let said = sweep_runs(root.path()).expect("swept");

        assert_eq!(said.iter().filter(|line| line.ends_with("removed")).count(), 2, "{said:#?}");
        assert_eq!(said.iter().filter(|line| line.contains("left alone")).count(), 2, "{said:#?}");
        assert!(of_dead.wait().expect("waited for").code().is_none(), "it was ended by a signal");
        assert!(id(&of_living).lives());
        assert_eq!(runs(root.path()).expect("read"), BTreeSet::from([run("living"), run("strange")]));
        of_living.kill().expect("killed");
        of_living.wait().expect("waited for");
    }

    #[test]
    fn a_run_is_claimed_once_until_it_is_dropped() {
        let root = tempfile::tempdir().expect("a folder");
        let me = ProcessId::of(std::process::id()).expect("this one runs");
        let claim = || RunRecord::claim_in(root.path(), &run("a"), me).expect("written");
        let first = claim();
        assert!(first.is_some() && claim().is_none());
        drop(first);
        assert!(claim().is_some());
    }
}
