//! The ledger: one line of JSON for each run that counts, in a file that is kept with the code.
//!
//! Invariants:
//!
//! * A line is added at the end, in one write; no line is ever changed.
//! * A last line that broke off (the machine went down while it was written) is none, and the next one does not join
//!   it.
//!
//! Left out: whether the servers that ran were built from the commit: the ledger says which checkout the run was
//! started in.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::checker::Valid;
use crate::workload::Name;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Of the checkout, with `-dirty` behind it when tracked files were changed.
    pub commit: String,
    /// When it began, UTC.
    pub date: String,
    pub seed: u64,
    pub workload: Name,
    /// The faults asked for, by the profile's name.
    pub profile: String,
    /// How often each fault was in force.
    pub faults: BTreeMap<String, u64>,
    /// From the first event to the last one.
    pub seconds: f64,
    pub operations: Outcomes,
    pub verdict: Valid,
    /// Of `history.jsonl`.
    pub history_sha256: String,
}

/// Operations by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    pub ok: u64,
    pub fail: u64,
    pub info: u64,
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
}

/// The lines of a ledger; none when there is no such file.
///
/// # Errors
/// It cannot be read, or a line is none: the error names it.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = (1..).zip(whole.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| serde_json::from_str(line).map_err(|error| no_line(number, &error))).collect()
}

fn no_line(number: usize, error: &serde_json::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("line {number} of the ledger is none: {error}"))
}

/// Adds a line; makes the file and its folder if they are not there.
///
/// # Errors
/// It could not be written.
pub fn append(path: &Path, line: &Line) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let before = match fs::read(path) {
        Ok(before) => before,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let whole = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if whole < before.len() {
        file.set_len(whole as u64)?;
    }
    file.write_all(&bytes)
}

/// The commit of the checkout this is run in, with `-dirty` behind it when tracked files are changed. The ledger
/// itself does not count: it changes with each run.
///
/// # Errors
/// There is no git, or no checkout.
pub fn commit() -> anyhow::Result<String> {
    let head = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":(exclude,top)docs/chaos"])?;
    let dirty = if changed.is_empty() { "" } else { "-dirty" };
    Ok(format!("{head}{dirty}"))
}

fn git(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").args(words).output().context("cannot run git; say --commit")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {}: {}; say --commit", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn line(seed: u64, verdict: Valid) -> Line {
        Line {
            commit: "abc".into(),
            date: "2026-11-21T18:55:03Z".into(),
            seed,
            workload: Name::Append,
            profile: "kill+pause".into(),
            faults: BTreeMap::from([("kill".into(), 2)]),
            seconds: 60.4,
            operations: Outcomes { ok: 10, fail: 1, info: 2 },
            verdict,
            history_sha256: "00ff".into(),
        }
    }

    #[test]
    fn a_line_is_json_as_it_is_documented() {
        let text = serde_json::to_string(&line(7, Valid::True)).expect("it is plain data");
        let expected = r#"{"commit":"abc","date":"2026-11-21T18:55:03Z","seed":7,"workload":"append",
            "profile":"kill+pause","faults":{"kill":2},"seconds":60.4,"operations":{"ok":10,"fail":1,"info":2},
            "verdict":"true","history_sha256":"00ff"}"#;
        assert_eq!(text, expected.split_ascii_whitespace().collect::<String>());
    }

    #[test]
    fn lines_are_read_as_they_were_added() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docs/chaos/ledger.jsonl");
        assert!(read(&path).expect("nothing is there").is_empty());
        for seed in [1, 2] {
            append(&path, &line(seed, Valid::Unknown)).expect("written");
        }
        let two = [line(1, Valid::Unknown), line(2, Valid::Unknown)];
        assert_eq!(read(&path).expect("lines"), two);
        let whole = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, format!("{whole}{{\"commit\":\"a")).expect("written");
        assert_eq!(read(&path).expect("what broke off is none"), two);
        append(&path, &line(3, Valid::False)).expect("written");
        assert_eq!(read(&path).expect("lines").len(), 3);
        fs::write(&path, format!("{whole}{{}}\n")).expect("written");
        assert!(read(&path).is_err_and(|error| error.to_string().contains("line 3")));
    }

    #[test]
    fn outcomes_are_of_all_kinds() {
        let kinds = BTreeMap::from([("read".to_owned(), [1, 2, 3]), ("write".to_owned(), [10, 20, 30])]);
        assert_eq!(Outcomes::of(&kinds), Outcomes { ok: 11, fail: 22, info: 33 });
        assert_eq!(Outcomes::of(&kinds).plus(Outcomes { ok: 1, fail: 1, info: 1 }).info, 34);
    }
}
