//! The ledger: one line of JSON for each run, in a file that is kept with the code.
//!
//! `sum.rs` adds up many lines, `bounds.rs` says what they must come to.
//!
//! Invariants:
//!
//! * A line is added at the end, in one write, under a lock of the file; no line is ever changed here.
//! * A last line that broke off (the harness was killed, or the machine went down, while it was written) is none: who
//!   reads is told of it, and the next line takes its place. One that only lacks its line feed is a line.
//! * A run in which the harness failed has a line too: it shows nothing but that.
//!
//! Left out: whether the server that ran was built from the commit: the ledger says which checkout the run was started
//! in, and which program ran.

mod bounds;
mod sum;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

pub use bounds::{Bounds, is_since};
pub use sum::{Sum, by_commit};

use crate::checker::Valid;
use crate::coverage::Expected;
use crate::target::Target;
use crate::workload::Name;

/// What stands behind a commit when tracked files were changed.
const DIRTY: &str = "-dirty";
/// All but documents, as git has it: what can change how a program behaves.
const CODE: [&str; 3] = [":(top)", ":(exclude,top)docs", ":(exclude,top)*.md"];

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Of the checkout ([`commit`]), with `-dirty` behind it when tracked files were changed.
    pub commit: String,
    /// When it began, UTC.
    pub date: String,
    pub seed: u64,
    pub workload: Name,
    /// The faults asked for, by the profile's name.
    pub profile: String,
    /// Absent in lines of older builds.
    #[serde(flatten)]
    pub conditions: Option<Conditions>,
    /// How often each fault was in force.
    pub faults: BTreeMap<String, u64>,
    /// How often a fault came to be in force while another one was. Lines of older builds do not say it.
    #[serde(default)]
    pub pairs: u64,
    /// From the first event to the last one.
    pub seconds: f64,
    pub operations: Outcomes,
    pub verdict: Valid,
    /// Of `history.jsonl`.
    pub history_sha256: String,
    /// How the harness failed, if it did: then the line counts for nothing, and nothing that may have been measured needs
    /// to be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Where it says what became of a run that is false. A person adds it; no code does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<String>,
}

/// What a run is of, beside its commit, workload, profile and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    pub target: Target,
    /// Of its program.
    pub server_sha256: String,
    /// Where its nodes are.
    pub backend: String,
    pub nodes: usize,
    /// Calls a second, of all workers together.
    pub rate: f64,
    /// How many workers.
    pub concurrency: usize,
    /// Seconds of load.
    pub time_limit: u64,
    /// How many faults there were at a time at most. Lines of older builds do not say it.
    #[serde(default = "one")]
    pub at_once: usize,
    /// What had to be seen to happen, beside what the faults take.
    pub expect: Vec<Expected>,
}

/// Older builds had no more.
fn one() -> usize {
    1
}

/// Operations by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    pub ok: u64,
    pub fail: u64,
    pub info: u64,
}

impl Line {
    /// Whether it shows something of this repository's server as of a commit: it says under which conditions it ran, that
    /// the server was Trefoil, the checkout was clean, and the harness did not fail.
    pub fn counts(&self) -> bool {
        self.failed.is_none() && self.is_of_trefoil()
    }

    /// Whether it would [count](Line::counts) if the harness had not failed.
    pub fn is_of_trefoil(&self) -> bool {
        !is_dirty(&self.commit)
            && self.conditions.as_ref().is_some_and(|conditions| conditions.target == Target::Trefoil)
    }

    /// Whether it is false, and nobody has said why.
    pub fn is_open(&self) -> bool {
        let explained = self.explained.as_deref().is_some_and(|why| !why.trim().is_empty());
        self.verdict == Valid::False && !explained
    }
}

impl Outcomes {
    /// Of all kinds together; of each kind those that ended ok, as failed, as unknown.
    pub fn of(kinds: &BTreeMap<String, [u64; 3]>) -> Outcomes {
        let sum = |place: usize| kinds.values().map(|counts| counts[place]).sum();
        Outcomes { ok: sum(0), fail: sum(1), info: sum(2) }
    }

    pub fn plus(self, other: Outcomes) -> Outcomes {
        Outcomes { ok: self.ok + other.ok, fail: self.fail + other.fail, info: self.info + other.info }
    }

    /// Whatever came of them.
    pub fn all(self) -> u64 {
        self.ok + self.fail + self.info
    }
}

/// What a ledger's file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    pub lines: Vec<Line>,
    /// The number of the last line when it broke off, and so is none.
    pub torn: Option<usize>,
}

impl Ledger {
    /// For a person: that its last line broke off, if it did.
    pub fn warning(&self) -> Option<String> {
        let number = self.torn?;
        Some(format!("line {number} broke off when it was written, and is none: the next one will take its place"))
    }
}

/// The ledger in a file; it is empty when there is no such file.
///
/// # Errors
/// It cannot be read, or a line that is whole is none: the error names it.
pub fn read(path: &Path) -> io::Result<Ledger> {
    match fs::read(path) {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ledger::default()),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> io::Result<Ledger> {
    let (whole, rest) = bytes.split_at(whole_lines(bytes));
    let mut ledger = Ledger::default();
    for (number, line) in (1..).zip(whole.split(|byte| *byte == b'\n')).filter(|(_, line)| !is_blank(line)) {
        ledger.lines.push(serde_json::from_slice(line).map_err(|error| no_line(number, &error))?);
    }
    if !is_blank(rest) {
        match serde_json::from_slice(rest) {
            Ok(line) => ledger.lines.push(line),
            Err(_) => ledger.torn = Some(whole.split(|byte| *byte == b'\n').count()),
        }
    }
    Ok(ledger)
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// How many bytes are lines that end.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn no_line(number: usize, error: &serde_json::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("line {number} of the ledger is none: {error}"))
}

/// Adds a line; makes the file and its folder if they are not there. It is on disk when this returns.
///
/// # Errors
/// It could not be written.
pub fn append(path: &Path, line: &Line) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    file.lock()?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    let (kept, mut bytes) = joint(&before);
    serde_json::to_writer(&mut bytes, line)?;
    bytes.push(b'\n');
    if kept < before.len() {
        file.set_len(kept as u64)?;
    }
    file.write_all(&bytes)?;
    file.sync_all()
}

/// How much of a file stays when a line is added, and what comes before that line.
fn joint(before: &[u8]) -> (usize, Vec<u8>) {
    let whole = whole_lines(before);
    match serde_json::from_slice::<Line>(&before[whole..]) {
        Ok(_) => (before.len(), b"\n".to_vec()),
        Err(_) => (whole, Vec::new()),
    }
}

/// Whether tracked files were changed in the checkout that a commit was read of.
pub fn is_dirty(commit: &str) -> bool {
    commit.ends_with(DIRTY)
}

/// The commit of the checkout this is run in: the last one that changed anything but documents (`docs`, and all `.md`), with
/// `-dirty` behind it when other tracked files are changed. So a ledger that is committed is still one of what is
/// checked out.
///
/// # Errors
/// There is no git, or no checkout.
pub fn commit() -> anyhow::Result<String> {
    commit_of(Path::new(".")).context("which commit this is of is not known; say --commit")
}

fn commit_of(checkout: &Path) -> anyhow::Result<String> {
    let commit = last_of_code(checkout, "HEAD")?;
    ensure!(!commit.is_empty(), "no commit of this checkout holds anything but documents");
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(checkout, &[status.as_slice(), CODE.as_slice()].concat())?;
    let dirty = if changed.is_empty() { "" } else { DIRTY };
    Ok(format!("{commit}{dirty}"))
}

/// The last commit at or before `commit` that changed anything but documents: but for these both hold the same. Empty when
/// there is none.
fn last_of_code(checkout: &Path, commit: &str) -> anyhow::Result<String> {
    let last = ["rev-list", "-1", commit, "--"];
    git(checkout, &[last.as_slice(), CODE.as_slice()].concat())
}

/// A commit that a person named, by the name that lines have of it: its whole one, if the checkout this is run in has it;
/// else as it was named. What says that files were changed stays.
pub fn named(commit: &str) -> String {
    named_of(Path::new("."), commit)
}

fn named_of(checkout: &Path, named: &str) -> String {
    let commit = named.strip_suffix(DIRTY).unwrap_or(named);
    let dirty = &named[commit.len()..];
    full_name(checkout, commit).map_or_else(|_| named.to_owned(), |commit| format!("{commit}{dirty}"))
}

fn full_name(checkout: &Path, commit: &str) -> anyhow::Result<String> {
    git(checkout, &["rev-parse", "--verify", &format!("{commit}^{{commit}}")])
}

/// The commits that hold what one holds, documents aside, and are held by what is checked out: the last one at or before it that
/// changed anything but documents, which is what lines name, and all that hold that one.
///
/// # Errors
/// There is no git, no such commit, or what is checked out does not hold it.
pub fn commits_since(first: &str) -> anyhow::Result<BTreeSet<String>> {
    commits_since_of(Path::new("."), first)
}

fn commits_since_of(checkout: &Path, first: &str) -> anyhow::Result<BTreeSet<String>> {
    let name = full_name(checkout, first)?;
    git(checkout, &["merge-base", "--is-ancestor", &name, "HEAD"])
        .with_context(|| format!("what is checked out does not hold {first}"))?;
    let code = Some(last_of_code(checkout, &name)?).filter(|code| !code.is_empty()).unwrap_or(name);
    let later = git(checkout, &["rev-list", "--ancestry-path", &format!("{code}..HEAD")])?;
    Ok(later.lines().map(str::to_owned).chain([code]).collect())
}

fn git(checkout: &Path, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").arg("-C").arg(checkout).args(words).output().context("cannot run git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {}: {} {}", words.join(" "), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
