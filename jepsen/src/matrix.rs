//! `jepsen test-all`: workloads by profiles of faults by seeds, each a run; which of them are still to be done.
//!
//! A [`Cell`] is one run to be. Their order is fixed, and goes along the diagonals of the matrix: of one that is cut short
//! the first runs, as many as there are workloads or profiles, whichever are more, have had all of both. Seeds change
//! last. A cell whose run stands in the ledger, for the same commit and under the same conditions, is not run again: so a
//! matrix can be broken off and taken up. Pure; who runs the cells is the command.
//!
//! Invariants:
//!
//! * What was run on a checkout with changed files is never taken as done: nobody can say what it was of. Nor is a run in
//!   which the harness failed.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::str::FromStr;

use crate::checker::Valid;
use crate::ledger::{Conditions, Line, Outcomes, Sum, is_dirty};
use crate::nemesis::{FaultKind, UnknownFault};
use crate::workload::Name;

/// Profiles that are run when none are asked for: every kind of fault is in one of them. Those of one profile are few
/// enough for each to be in force in a run of a minute, and kinds are mixed so that in most profiles some go beside
/// each other.
pub const PROFILES: [&str; 10] = [
    "none",
    "kill+pause+truncation",
    "power-loss+kill-all+partition-one",
    "partition-halves+partition-minority+partition-leader-alone+kill",
    "partition-majority-ring+partition-bridge+peer-port-cut+pause",
    "slow-links+drip+reset+half-open",
    "sync-error+disk-full+kill",
    "amnesia+old-copy+partition-asymmetric",
    "snapshot-under-fire",
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
    /// Whether a line of the ledger is of this run.
    fn is_of(&self, line: &Line, commit: &str, conditions: &Conditions) -> bool {
        line.commit == commit
            && line.seed == self.seed
            && line.workload == self.workload
            && line.profile == self.profile.to_string()
            && line.conditions.as_ref() == Some(conditions)
            && line.failed.is_none()
    }

    /// Its last line in the ledger: how it ended, if it was run at this commit under these conditions.
    pub fn done<'a>(&self, ledger: &'a [Line], commit: &str, conditions: &Conditions) -> Option<&'a Line> {
        let done = ledger.iter().rev().find(|line| self.is_of(line, commit, conditions));
        done.filter(|_| !is_dirty(commit))
    }
}

/// All cells, in the order in which they are run.
pub fn cells(workloads: &[Name], profiles: &[Profile], seeds: &[u64]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &seed in seeds {
        for (workload, profile) in along_diagonals(workloads.len(), profiles.len()) {
            cells.push(Cell { workload: workloads[workload], profile: profiles[profile].clone(), seed });
        }
    }
    cells
}

/// The places of a matrix, each once: every stretch of as many as its longer side has all rows and all columns.
fn along_diagonals(rows: usize, columns: usize) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for shift in 0..rows.min(columns) {
        for place in 0..rows.max(columns) {
            let (row, column) = if rows < columns { (place + shift, place) } else { (place, place + shift) };
            places.push((row % rows, column % columns));
        }
    }
    places
}

/// The worst of the runs; `unknown` when there is none. Of those in which the harness failed only a counter-example stands.
pub fn worst(lines: &[Line]) -> Valid {
    let judged = lines.iter().filter(|line| line.failed.is_none() || line.verdict == Valid::False);
    judged.map(|line| line.verdict).max().unwrap_or(Valid::Unknown)
}

/// A table of these runs: a row for each workload under each profile, and their sum.
pub fn table(lines: &[Line]) -> String {
    let mut sums: BTreeMap<(Name, &str), Sum> = BTreeMap::new();
    for line in lines {
        sums.entry((line.workload, line.profile.as_str())).or_default().add(line);
    }
    let mut table = String::new();
    let columns =
        ["workload", "true", "unknown", "false", "failed", "seconds", "ok", "fail", "info", "faults", "profile"];
    let [workload, valid, unknown, invalid, failed, seconds, ok, fail, info, in_force, profile] = columns;
    writeln!(
        table,
        "{workload:<13} {valid:>5} {unknown:>7} {invalid:>5} {failed:>6} {seconds:>8} {ok:>9} {fail:>8} {info:>7} {in_force:>6} \
         {profile}"
    )
    .expect("a string takes all");
    for ((workload, profile), sum) in &sums {
        table += &row(workload.as_str(), profile, sum);
    }
    table + &row("all", "", &Sum::of(lines))
}

fn row(workload: &str, profile: &str, sum: &Sum) -> String {
    let Sum { valid, unknown, invalid, failed, seconds, operations: Outcomes { ok, fail, info }, .. } = sum;
    let in_force = sum.in_force();
    format!(
        "{workload:<13} {valid:>5} {unknown:>7} {invalid:>5} {failed:>6} {seconds:>8.0} {ok:>9} {fail:>8} {info:>7} {in_force:>6} \
         {profile}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cluster::status::Placement;
    use crate::ledger::tests::{conditions, line};
    use crate::nemesis::Nemesis;
    use crate::target::Target;

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
    fn every_kind_of_fault_is_in_a_profile() {
        let faults: BTreeSet<FaultKind> = PROFILES.iter().flat_map(|text| profile(text).faults).collect();
        assert_eq!(faults, BTreeSet::from(FaultKind::ALL));
    }

    #[test]
    fn in_most_profiles_faults_go_beside_each_other() {
        let placement = Placement { nodes: 5, holders: (0..3).collect(), leader: None };
        let pairs = |text: &&str| Nemesis::new(&profile(text).faults, 1).can_pair(&placement);
        let (with, without): (Vec<&str>, Vec<&str>) = PROFILES.into_iter().partition(pairs);
        assert_eq!((with.len(), without), (8, vec!["none", "snapshot-under-fire"]));
    }

    #[test]
    fn seeds_change_last() {
        let cells = cells(&[Name::Set, Name::Append], &[profile("none"), profile("kill")], &[1, 2]);
        let told: Vec<String> =
            cells.iter().map(|cell| format!("{} {} {}", cell.seed, cell.profile, cell.workload)).collect();
        let first = ["1 none set", "1 kill append", "1 kill set", "1 none append"];
        let second = ["2 none set", "2 kill append", "2 kill set", "2 none append"];
        assert_eq!(told, [first, second].concat());
    }

    #[test]
    fn a_matrix_that_is_cut_short_has_had_all() {
        for (rows, columns) in [(1, 1), (6, 10), (10, 6), (4, 4), (2, 4), (1, 5), (0, 3), (3, 0)] {
            let places = along_diagonals(rows, columns);
            let differ: BTreeSet<(usize, usize)> = places.iter().copied().collect();
            assert_eq!((places.len(), differ.len()), (rows * columns, rows * columns), "{rows} by {columns}");
            for stretch in places.chunks(rows.max(columns)) {
                let in_rows: BTreeSet<usize> = stretch.iter().map(|(row, _)| *row).collect();
                let in_columns: BTreeSet<usize> = stretch.iter().map(|(_, column)| *column).collect();
                assert_eq!((in_rows.len(), in_columns.len()), (rows, columns), "{rows} by {columns}");
            }
        }
    }

    #[test]
    fn what_stands_in_the_ledger_is_done() {
        let ledger = [line(1, Valid::Unknown), line(1, Valid::True), line(2, Valid::False)];
        let cell = |seed, kinds: &str| Cell { workload: Name::Append, profile: profile(kinds), seed };
        let verdict = |cell: Cell| cell.done(&ledger, "abc", &conditions()).map(|line| line.verdict);
        assert_eq!(verdict(cell(1, "kill+pause")), Some(Valid::True), "the last one counts");
        assert_eq!(verdict(cell(2, "kill+pause")), Some(Valid::False));
        assert_eq!(verdict(cell(3, "kill+pause")), None);
        assert_eq!(verdict(cell(1, "kill")), None);
        assert_eq!(verdict(Cell { workload: Name::Set, ..cell(1, "kill+pause") }), None);
    }

    #[test]
    fn what_ran_otherwise_is_not_done() {
        let cell = Cell { workload: Name::Append, profile: profile("kill+pause"), seed: 1 };
        let of = |commit: &str, conditions| Line { commit: commit.into(), conditions, ..line(1, Valid::True) };
        let other = |change: fn(&mut Conditions)| {
            let mut changed = conditions();
            change(&mut changed);
            of("abc", Some(changed))
        };
        assert!(cell.done(&[of("abc", Some(conditions()))], "abc", &conditions()).is_some());
        let others = [
            of("def", Some(conditions())),
            of("abc", None),
            other(|one| one.target = Target::Etcd),
            other(|one| one.server_sha256 = "22dd".into()),
            other(|one| one.backend = "loopback".into()),
            other(|one| one.nodes = 3),
            other(|one| one.rate = 100.0),
            other(|one| one.concurrency = 5),
            other(|one| one.time_limit = 10),
            other(|one| one.at_once = 2),
            other(|one| one.expect.clear()),
            Line { failed: Some("worker 1: panicked".into()), ..of("abc", Some(conditions())) },
        ];
        for line in others {
            assert_eq!(cell.done(std::slice::from_ref(&line), "abc", &conditions()), None, "{line:?}");
        }
        let dirty = of("abc-dirty", Some(conditions()));
        assert_eq!(cell.done(&[dirty], "abc-dirty", &conditions()), None, "nobody knows what was changed");
    }

    #[test]
    fn a_table_sums_up() {
        let set = Line { workload: Name::Set, ..line(3, Valid::True) };
        let failed = Line { failed: Some("worker 1: panicked".into()), ..line(4, Valid::Unknown) };
        let lines = [line(1, Valid::True), set, failed, line(2, Valid::False)];
        let table = table(&lines);
        let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_ascii_whitespace().collect()).collect();
        assert_eq!(rows[1], ["append", "1", "0", "1", "1", "121", "20", "2", "4", "4", "kill+pause"]);
        assert_eq!(rows[2], ["set", "1", "0", "0", "0", "60", "10", "1", "2", "2", "kill+pause"]);
        assert_eq!(rows[3], ["all", "2", "0", "1", "1", "181", "30", "3", "6", "6"]);
        assert_eq!(rows.len(), 4);
        assert_eq!((worst(&lines), worst(&lines[..3]), worst(&[])), (Valid::False, Valid::True, Valid::Unknown));
    }
}
