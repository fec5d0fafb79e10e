//! `jepsen test-all`: workloads by profiles of faults by seeds, each a run; which of them are still to be done.
//!
//! A [`Cell`] is one run to be. Seeds change last: a matrix that is cut short has had all workloads and profiles with
//! its first seed. A cell whose run stands in the ledger, for the same commit, is not run again: so a matrix can be
//! broken off and taken up. Pure; who runs the cells is the command.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::str::FromStr;

use crate::checker::Valid;
use crate::ledger::{Line, Outcomes};
use crate::nemesis::{FaultKind, UnknownFault};
use crate::workload::Name;

/// Profiles that are run when none are asked for.
pub const PROFILES: [&str; 7] = [
    "none",
    "kill+pause",
    "partition",
    "power-loss",
    "sync-error+disk-full",
    "amnesia+old-copy+truncation",
    "kill+pause+partition+power-loss",
];

/// The kinds of faults of a run: joined by `+`, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub faults: Vec<FaultKind>,
}

impl FromStr for Profile {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Profile, UnknownFault> {
        match text {
            "none" => Ok(Profile { faults: Vec::new() }),
            kinds => Ok(Profile { faults: kinds.split('+').map(FaultKind::from_str).collect::<Result<_, _>>()? }),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.faults.iter().map(FaultKind::to_string).collect();
        match kinds.is_empty() {
            true => f.pad("none"),
            false => f.pad(&kinds.join("+")),
        }
    }
}

/// One run to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub workload: Name,
    pub profile: Profile,
    pub seed: u64,
}

impl Cell {
    /// Whether a line of the ledger is of this run at this commit.
    fn is_of(&self, line: &Line, commit: &str) -> bool {
        line.commit == commit
            && line.seed == self.seed
            && line.workload == self.workload
            && line.profile == self.profile.to_string()
    }

    /// Its last line in the ledger: how it ended, if it was run at this commit.
    pub fn done<'a>(&self, ledger: &'a [Line], commit: &str) -> Option<&'a Line> {
        ledger.iter().rev().find(|line| self.is_of(line, commit))
    }
}

/// All cells, in the order in which they are run.
pub fn cells(workloads: &[Name], profiles: &[Profile], seeds: &[u64]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &seed in seeds {
        for profile in profiles {
            cells.extend(workloads.iter().map(|&workload| Cell { workload, profile: profile.clone(), seed }));
        }
    }
    cells
}

/// The worst of the runs; `unknown` when there is none.
pub fn worst(lines: &[Line]) -> Valid {
    lines.iter().map(|line| line.verdict).max().unwrap_or(Valid::Unknown)
}

/// What came of the runs of one workload under one profile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    /// Runs that were true, unknown, false.
    runs: [u64; 3],
    seconds: f64,
    operations: Outcomes,
    in_force: u64,
}

impl Sum {
    fn add(&mut self, line: &Line) {
        let place = match line.verdict {
            Valid::True => 0,
            Valid::Unknown => 1,
            Valid::False => 2,
        };
        self.runs[place] += 1;
        self.seconds += line.seconds;
        self.operations = self.operations.plus(line.operations);
        self.in_force += line.faults.values().sum::<u64>();
    }

    fn row(&self, workload: &str, profile: &str) -> String {
        let Sum { runs: [valid, unknown, invalid], seconds, operations: Outcomes { ok, fail, info }, in_force } = self;
        format!(
            "{workload:<13} {profile:<32} {valid:>5} {unknown:>7} {invalid:>5} {seconds:>8.0} {ok:>9} {fail:>8} \
             {info:>7} {in_force:>6}\n"
        )
    }
}

/// A table of these runs: a row for each workload under each profile, and their sum.
pub fn table(lines: &[Line]) -> String {
    let mut sums: BTreeMap<(Name, &str), Sum> = BTreeMap::new();
    let mut all = Sum::default();
    for line in lines {
        sums.entry((line.workload, line.profile.as_str())).or_default().add(line);
        all.add(line);
    }
    let mut table = String::new();
    let columns = ["workload", "profile", "true", "unknown", "false", "seconds", "ok", "fail", "info", "faults"];
    let [workload, profile, valid, unknown, invalid, seconds, ok, fail, info, in_force] = columns;
    writeln!(
        table,
        "{workload:<13} {profile:<32} {valid:>5} {unknown:>7} {invalid:>5} {seconds:>8} {ok:>9} {fail:>8} {info:>7} \
         {in_force:>6}"
    )
    .expect("a string takes all");
    for ((workload, profile), sum) in &sums {
        table += &sum.row(workload.as_str(), profile);
    }
    table + &all.row("all", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::line;

    fn profile(text: &str) -> Profile {
        text.parse().expect("a profile")
    }

    #[test]
    fn profiles_are_read_as_they_are_written() {
        for text in PROFILES {
            assert_eq!(profile(text).to_string(), text);
        }
        assert_eq!(profile("kill+pause").faults, [FaultKind::Kill, FaultKind::Pause]);
        for text in ["", "kill+", "snarf", "none+kill"] {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
    }

    #[test]
    fn seeds_change_last() {
        let cells = cells(&[Name::Set, Name::Append], &[profile("none"), profile("kill")], &[1, 2]);
        let told: Vec<String> =
            cells.iter().map(|cell| format!("{} {} {}", cell.seed, cell.profile, cell.workload)).collect();
        let first = ["1 none set", "1 none append", "1 kill set", "1 kill append"];
        let second = ["2 none set", "2 none append", "2 kill set", "2 kill append"];
        assert_eq!(told, [first, second].concat());
    }

    #[test]
    fn what_stands_in_the_ledger_is_done() {
        let ledger = [line(1, Valid::Unknown), line(1, Valid::True), line(2, Valid::False)];
        let cell = |seed, kinds: &str| Cell { workload: Name::Append, profile: profile(kinds), seed };
        let verdict = |cell: Cell, commit: &str| cell.done(&ledger, commit).map(|line| line.verdict);
        assert_eq!(verdict(cell(1, "kill+pause"), "abc"), Some(Valid::True), "the last one counts");
        assert_eq!(verdict(cell(2, "kill+pause"), "abc"), Some(Valid::False));
        assert_eq!(verdict(cell(3, "kill+pause"), "abc"), None);
        assert_eq!(verdict(cell(1, "kill"), "abc"), None);
        assert_eq!(verdict(cell(1, "kill+pause"), "abc-dirty"), None);
        assert_eq!(verdict(Cell { workload: Name::Set, ..cell(1, "kill+pause") }, "abc"), None);
    }

    #[test]
    fn a_table_sums_up() {
        let set = Line { workload: Name::Set, ..line(3, Valid::True) };
        let lines = [line(1, Valid::True), set, line(2, Valid::False)];
        let table = table(&lines);
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_ascii_whitespace().collect()).collect();
        assert_eq!(rows[1], ["append", "kill+pause", "1", "0", "1", "121", "20", "2", "4", "4"]);
        assert_eq!(rows[2], ["set", "kill+pause", "1", "0", "0", "60", "10", "1", "2", "2"]);
        assert_eq!(rows[3], ["all", "2", "0", "1", "181", "30", "3", "6", "6"]);
        assert_eq!(rows.len(), 4);
        assert_eq!((worst(&lines), worst(&lines[..2]), worst(&[])), (Valid::False, Valid::True, Valid::Unknown));
    }
}
