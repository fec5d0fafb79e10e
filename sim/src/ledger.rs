//! The simulation's ledger: a line of JSON for each stretch of seeds that was run, in a file that is kept with the code.
//!
//! A call that runs many seeds adds a line whenever a stretch of them is done, so that a call that is broken off loses a
//! stretch at most; the same call again goes on where the ledger ends ([`done`]). What a ledger comes to, and whether that
//! is what was promised, is `ledger/tally.rs`.
//!
//! Invariants:
//!
//! * A line is added at the end, in one write; no line is ever changed here.
//! * A last line that broke off (the call was killed while it was written) is none, and the next one takes its place.
//!
//! Left out: what single runs were; a seed says that, with the commit. And short runs, runs with a planted bug and runs
//! with a workload that was asked for: a line is of seeds as they are.

pub mod tally;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use trefoil_jepsen::ledger::is_dirty;

/// A stretch of seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Of the checkout, with `-dirty` behind it when tracked files were changed.
    pub commit: String,
    /// When it began, UTC.
    pub date: String,
    /// The first seed.
    pub from: u64,
    /// How many seeds there were.
    pub seeds: u64,
    /// Stretches of green seeds: the first and the last of each.
    pub green: Vec<(u64, u64)>,
    pub unknown: Vec<u64>,
    pub red: Vec<u64>,
    pub simulated_hours: f64,
    pub real_hours: f64,
    /// What became of the red seeds. A person adds it; no code does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<String>,
}

impl Line {
    /// The seeds that were green.
    pub fn green_seeds(&self) -> impl Iterator<Item = u64> {
        self.green.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The seeds that were red, and nobody has said why.
    pub fn open(&self) -> &[u64] {
        let explained = self.explained.as_deref().is_some_and(|why| !why.trim().is_empty());
        if explained { &[] } else { &self.red }
    }
}

/// What a ledger has of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub seeds: BTreeSet<u64>,
    /// Those of them that were unknown.
    pub unknown: BTreeSet<u64>,
    /// Those of them that were red, and nobody has said why.
    pub open: BTreeSet<u64>,
}

/// What these lines have of `commit`. Nothing of a changed checkout: it may have been changed again since.
pub fn done(lines: &[Line], commit: &str) -> Done {
    let mut done = Done::default();
    for line in lines.iter().filter(|line| line.commit == commit && !is_dirty(commit)) {
        done.seeds.extend(line.green_seeds().chain(line.unknown.iter().copied()).chain(line.red.iter().copied()));
        done.unknown.extend(&line.unknown);
        done.open.extend(line.open());
    }
    done
}

/// The lines of a ledger; none when there is no such file.
///
/// # Errors
/// It cannot be read, or a line that is whole is none: the error names it.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let bytes = bytes(path)?;
    let text = String::from_utf8_lossy(&bytes[..whole(&bytes)]);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| serde_json::from_str(line).map_err(|error| no_line(number, &error))).collect()
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
    let before = bytes(path)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if whole(&before) < before.len() {
        file.set_len(whole(&before) as u64)?;
    }
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    file.sync_all()
}

/// What is in the file; nothing when it is not there.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// How many bytes are lines that end.
fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Rising seeds as stretches of neighbours: the first and the last of each.
pub fn stretches(seeds: &[u64]) -> Vec<(u64, u64)> {
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for seed in seeds {
        match stretches.last_mut() {
            Some((_, last)) if *last + 1 == *seed => *last = *seed,
            Some(_) | None => stretches.push((*seed, *seed)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests;
