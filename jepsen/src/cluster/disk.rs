//! The preload shim as the harness has it: where it is, what it tells of a node's disk, and what it is told.
//!
//! A node that is started under the shim has a **sidecar**, a folder beside its data directory with the shim's journal,
//! its control file and what it keeps (`shim/src/format.rs`). The journal goes on through all starts of the node; before
//! each one it is written anew, shorter, and without a last record that a kill has torn, and what is kept and of no more
//! use is removed.
//!
//! Left out: what the journal means, which is `cluster/power.rs`'s.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{CStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use format::{CONTROL, DIRECTORY_VARIABLE, JOURNAL, KEPT, SIDECAR_VARIABLE, WORDS};

#[path = "../../shim/src/format.rs"]
pub(crate) mod format;

pub(crate) use format::{Unmodelled, Word};

use super::power::{Disk, Synced};

/// What cargo calls the shim.
const FILE: &str = "libtrefoil_jepsen_shim.so";
const PRELOAD: &str = "LD_PRELOAD";
/// How many files the shim may keep from one start of a node to the next.
const KEPT_MAX: u64 = 10_000;

/// The preload shim, as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shim(PathBuf);

impl Shim {
    /// The shim at `given`, or else the one beside this program.
    ///
    /// # Errors
    /// There is none.
    pub fn find(given: Option<&Path>) -> anyhow::Result<Shim> {
        let Some(given) = given else { return beside_this_program() };
        let path = given.canonicalize().with_context(|| format!("there is no preload shim {}", given.display()))?;
        Ok(Shim(path))
    }

    /// Tries whether it loads into a program: `program --version` is run under it. `folder` is made for that, and
    /// removed. Blocks, for some milliseconds.
    ///
    /// # Errors
    /// It does not: the program is linked statically, or this is not its machine's shim.
    pub fn loads_into(&self, program: &Path, folder: &Path) -> anyhow::Result<()> {
        let sidecar = Sidecar::create(folder.to_owned())?;
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let ran = command.envs(sidecar.environment(self, folder)).status();
        let attached = sidecar.word(Word::Attached);
        let removed = fs::remove_dir_all(folder);
        ran.with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(attached? > 0, "the preload shim does not load into {}", program.display());
        removed.with_context(|| format!("cannot remove {}", folder.display()))
    }
}

/// Beside the program in `target/release`; one folder above that of a test.
fn beside_this_program() -> anyhow::Result<Shim> {
    let program = env::current_exe().context("this program does not know where it is")?;
    let folders = program.ancestors().skip(1).take(2);
    match folders.map(|folder| folder.join(FILE)).find(|path| path.is_file()) {
        Some(path) => Ok(Shim(path)),
        None => bail!("there is no preload shim ({FILE}) beside {}: build the whole workspace", program.display()),
    }
}

/// What the shim and the harness share about one node.
#[derive(Clone, Debug)]
pub(crate) struct Sidecar {
    folder: PathBuf,
}

impl Sidecar {
    /// Makes it, in a folder of its own.
    pub(crate) fn create(folder: PathBuf) -> anyhow::Result<Sidecar> {
        let sidecar = Sidecar { folder };
        let made = fs::create_dir(&sidecar.folder)
            .and_then(|()| fs::create_dir(sidecar.kept()))
            .and_then(|()| File::create(sidecar.folder.join(JOURNAL)))
            .and_then(|_| fs::write(sidecar.folder.join(CONTROL), [0; WORDS * Word::BYTES]));
        made.with_context(|| format!("cannot make {}", sidecar.folder.display()))?;
        sidecar.set(Word::KeptMax, KEPT_MAX)?;
        Ok(sidecar)
    }

    fn kept(&self) -> PathBuf {
        self.folder.join(KEPT)
    }

    /// What a process needs in its environment to be watched. Both paths are absolute and without links.
    pub(crate) fn environment(&self, shim: &Shim, directory: &Path) -> [(OsString, OsString); 3] {
        let name = |name: &CStr| OsString::from(name.to_str().expect("names of variables are ASCII"));
        [
            (PRELOAD.into(), shim.0.clone().into()),
            (name(SIDECAR_VARIABLE), self.folder.clone().into()),
            (name(DIRECTORY_VARIABLE), directory.into()),
        ]
    }

    /// What the journal says. No watched process may run.
    pub(crate) fn synced(&self) -> anyhow::Result<Synced> {
        let path = self.folder.join(JOURNAL);
        let journal = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Synced::read(&journal).with_context(|| path.display().to_string())
    }

    /// What a node has in its data directory, and what was kept of it. No watched process may run.
    pub(crate) fn disk(&self, directory: &Path) -> anyhow::Result<Disk> {
        Disk::read(directory, &self.kept()).with_context(|| format!("cannot read {}", directory.display()))
    }

    /// Has the journal say this, and nothing else. No watched process may run.
    pub(crate) fn rewrite(&self, synced: &Synced) -> anyhow::Result<()> {
        let (new, path) = (self.folder.join("journal.new"), self.folder.join(JOURNAL));
        let written = fs::write(&new, synced.records()).and_then(|()| fs::rename(&new, &path));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        self.keep_only(&synced.kept()).with_context(|| format!("cannot empty {}", self.kept().display()))?;
        self.set(Word::KeptMax, self.word(Word::Kept)? + KEPT_MAX)
    }

    fn keep_only(&self, numbers: &BTreeSet<u64>) -> io::Result<()> {
        let names: BTreeSet<OsString> = numbers.iter().map(|number| number.to_string().into()).collect();
        for entry in fs::read_dir(self.kept())? {
            let entry = entry?;
            if !names.contains(&entry.file_name()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub(crate) fn word(&self, word: Word) -> anyhow::Result<u64> {
        self.word_at(word as usize)
    }

    /// What was done, since the sidecar was made, that the model of a loss of power does not know, and how often.
    pub(crate) fn unmodelled(&self) -> anyhow::Result<Vec<(Unmodelled, u64)>> {
        let mut counts = Vec::new();
        for what in Unmodelled::ALL {
            counts.push((what, self.word_at(what.place())?));
        }
        counts.retain(|(_, times)| *times > 0);
        Ok(counts)
    }

    fn word_at(&self, place: usize) -> anyhow::Result<u64> {
        let mut bytes = [0; Word::BYTES];
        self.control()?.read_exact_at(&mut bytes, offset(place)).context("cannot read the shim's control file")?;
        Ok(u64::from_ne_bytes(bytes))
    }

    pub(crate) fn set(&self, word: Word, value: u64) -> anyhow::Result<()> {
        let written = self.control()?.write_all_at(&value.to_ne_bytes(), offset(word as usize));
        written.context("cannot write the shim's control file")
    }

    /// Opened anew each time: the shim has mapped it, which needs no descriptor.
    fn control(&self) -> anyhow::Result<File> {
        let path = self.folder.join(CONTROL);
        let open = OpenOptions::new().read(true).write(true).open(&path);
        open.with_context(|| format!("cannot open {}", path.display()))
    }
}

fn offset(place: usize) -> u64 {
    (place * Word::BYTES) as u64
}

#[cfg(test)]
pub(super) mod tests;
