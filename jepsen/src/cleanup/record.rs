//! Records of runs: a folder each, locked by its harness, with the processes it has started.
//!
//! They are where the system keeps what does not outlive it, in a folder of this user's alone ([`place`]). Whoever makes
//! or judges records holds the lock of that folder ([`Records`]): so a record that is seen is locked, or its harness is
//! dead.
//!
//! Invariants:
//!
//! * A record is locked before anybody else can see it, and until it is removed.
//! * Programs that the harness starts do not inherit the lock.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::ProcessId;
use crate::backend::RunId;

const FOLDER: &str = "trefoil-jepsen";
const FILE: &str = "state.json";
/// For its owner, and for nobody else.
const PRIVATE: u32 = 0o700;

/// Where the records of this user's runs are.
pub fn place() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|runtime| runtime.is_dir());
    place_of(user(), runtime.as_deref(), &env::temp_dir())
}

/// `runtime`: the user's folder for what does not outlive the system, if there is one.
pub(super) fn place_of(user: u32, runtime: Option<&Path>, temporary: &Path) -> PathBuf {
    match (user, runtime) {
        (0, _) => Path::new("/run").join(FOLDER),
        (_, Some(runtime)) => runtime.join(FOLDER),
        (_, None) => temporary.join(format!("{FOLDER}-{user}")),
    }
}

fn user() -> u32 {
    // SAFETY: it reads no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}

/// What a harness notes of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Its pid, for a person who reads the record: nothing goes by it.
    pub(super) harness: u32,
    pub(super) processes: Vec<ProcessId>,
}

/// A claimed run; given up when dropped.
#[derive(Debug)]
pub(crate) struct RunRecord {
    folder: PathBuf,
    state: State,
    /// Its folder, locked; closed after that is removed.
    _lock: File,
}

impl RunRecord {
    /// Claims a run for this process. `None`: it has been claimed. Blocks while somebody sweeps.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(crate) fn claim(run: &RunId) -> anyhow::Result<Option<RunRecord>> {
        Records::lock(&place())?.claim(run)
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

/// What became of the harness of a run.
#[derive(Debug)]
pub(super) enum Finding {
    UnderWay,
    Died(Found),
    /// It ended just now, and has removed its record.
    Gone,
}

/// What a dead harness has left.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) folder: PathBuf,
    /// What it had started.
    pub(super) processes: Vec<ProcessId>,
    /// Now ours.
    _lock: File,
}

/// All records of a user, locked: nobody else makes or judges one meanwhile. A harness that ends removes its own.
#[derive(Debug)]
pub(super) struct Records {
    root: PathBuf,
    _lock: File,
}

impl Records {
    /// Waits for the lock. Makes the folder if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or is not a folder of this user's alone: then what it holds cannot be believed.
    pub(super) fn lock(root: &Path) -> anyhow::Result<Records> {
        let told = || format!("the records of runs, {}", root.display());
        match DirBuilder::new().mode(PRIVATE).create(root) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).with_context(told),
            Ok(()) | Err(_) => {}
        }
        let lock = open(root).with_context(told)?;
        let metadata = lock.metadata().with_context(told)?;
        let private = metadata.uid() == user() && metadata.mode() & 0o077 == 0;
        ensure!(private, "{} is not a folder of this user's alone", root.display());
        lock.lock().with_context(told)?;
        Ok(Records { root: root.to_owned(), _lock: lock })
    }

    /// See [`RunRecord::claim`].
    pub(super) fn claim(&self, run: &RunId) -> anyhow::Result<Option<RunRecord>> {
        let folder = self.folder(run);
        match DirBuilder::new().mode(PRIVATE).create(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
        }
        let lock = open(&folder).with_context(|| folder.display().to_string())?;
        lock.try_lock().with_context(|| format!("cannot lock {}", folder.display()))?;
        let state = State { harness: std::process::id(), processes: Vec::new() };
        let record = RunRecord { folder, state, _lock: lock };
        record.write()?;
        Ok(Some(record))
    }

    pub(super) fn runs(&self) -> anyhow::Result<BTreeSet<RunId>> {
        let mut runs = BTreeSet::new();
        for entry in fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))? {
            let name = entry?.file_name();
            // Namespaces have names of several parts, records have not.
            runs.extend(name.to_str().and_then(RunId::of_name).filter(|run| run.to_string().as_str() == name));
        }
        Ok(runs)
    }

    pub(super) fn has(&self, run: &RunId) -> bool {
        self.folder(run).exists()
    }

    /// What became of a run that has a record, or had one.
    ///
    /// # Errors
    /// There is no saying.
    pub(super) fn find(&self, run: &RunId) -> anyhow::Result<Finding> {
        let folder = self.folder(run);
        let told = || folder.display().to_string();
        let lock = match open(&folder) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Finding::Gone),
            Err(error) => return Err(error).with_context(told),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Finding::UnderWay),
            Err(TryLockError::Error(error)) => return Err(error).with_context(told),
        }
        // Its harness may have removed it before it gave up the lock.
        if !folder.exists() {
            return Ok(Finding::Gone);
        }
        let processes = processes(&folder)?;
        Ok(Finding::Died(Found { folder, processes, _lock: lock }))
    }

    fn folder(&self, run: &RunId) -> PathBuf {
        self.root.join(run.to_string())
    }
}

/// Opens a folder, and nothing else: no link to one.
fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(folder)
}

/// What a record says was started.
fn processes(folder: &Path) -> anyhow::Result<Vec<ProcessId>> {
    match fs::read(folder.join(FILE)) {
        Ok(json) => {
            let state: State = serde_json::from_slice(&json).context("its record cannot be read, left alone")?;
            Ok(state.processes)
        }
        // Its harness died before it had noted anything, and so before it had made anything.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("its record cannot be read, left alone"),
    }
}
