//! The simulation's ledger: one line of JSON for each call that ran many seeds, in a file that is kept with the code.
//!
//! Invariants:
//!
//! * A line is added at the end, in one write; no line is ever changed.
//! * A last line that broke off does not join the next one.
//!
//! Left out: what single runs were; a seed says that, with the commit.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A call.
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
    let mut bytes = if before.last().is_none_or(|byte| *byte == b'\n') { Vec::new() } else { b"\n".to_vec() };
    serde_json::to_writer(&mut bytes, line)?;
    bytes.push(b'\n');
    OpenOptions::new().create(true).append(true).open(path)?.write_all(&bytes)
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
mod tests {
    use super::*;

    #[test]
    fn seeds_are_kept_as_stretches() {
        assert_eq!(stretches(&[1, 2, 3, 5, 7, 8]), [(1, 3), (5, 5), (7, 8)]);
        assert!(stretches(&[]).is_empty());
    }

    #[test]
    fn a_line_is_added_as_it_is_documented() {
        let line = Line {
            commit: "abc".into(),
            date: "2026-11-21T18:55:03Z".into(),
            from: 1,
            seeds: 4,
            green: vec![(1, 2)],
            unknown: vec![3],
            red: vec![4],
            simulated_hours: 0.5,
            real_hours: 0.25,
        };
        let text = concat!(
            r#"{"commit":"abc","date":"2026-11-21T18:55:03Z","from":1,"seeds":4,"green":[[1,2]],"unknown":[3],"#,
            r#""red":[4],"simulated_hours":0.5,"real_hours":0.25}"#
        );
        let path = std::env::temp_dir().join(format!("trefoil-sim-ledger-{}/of/runs.jsonl", std::process::id()));
        append(&path, &line).expect("written");
        append(&path, &line).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{text}\n{text}\n"));
        fs::write(&path, "{\"comm").expect("written");
        append(&path, &line).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{{\"comm\n{text}\n"));
        let made = path.ancestors().nth(2).expect("two folders were made");
        fs::remove_dir_all(made).expect("removed");
    }
}
