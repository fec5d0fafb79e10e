//! What a ledger must show: hours, operations, faults in force, the last commit's share, and no verdict that is left open.
//!
//! Only lines that [count](Line::counts) are added up, of them those since a commit if one is given. A run that is false is
//! never passed over, whatever it was of: it is missed until its line says where it is explained.
//!
//! Left out: which commits are since another one; git knows.

use std::collections::{BTreeMap, BTreeSet};

use super::{Line, Sum};
use crate::nemesis::FaultKind;

/// Of so many runs one may be unknown, and in one the harness may fail.
const RUNS_PER_UNKNOWN: u64 = 20;
/// Of a profile with fewer runs as many may be unknown.
const UNKNOWN_OF_FEW_MAX: u64 = 2;
const MINUTE_SECONDS: f64 = 60.0;

// What is said of this structure in a doc comment would be the command line's help.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Bounds {
    /// Hours of runs
    #[arg(long, default_value_t = 0)]
    pub hours_min: u64,
    /// Operations, whatever came of them
    #[arg(long, default_value_t = 0)]
    pub operations_min: u64,
    /// How often each kind of fault was in force; `partition`, which is one of the others each time, need not be
    #[arg(long, default_value_t = 0)]
    pub in_force_min: u64,
    /// Minutes of runs on the last commit
    #[arg(long, default_value_t = 0)]
    pub last_commit_minutes_min: u64,
    /// The last commit [default: the one that is checked out]
    #[arg(long)]
    pub last_commit: Option<String>,
    /// Only runs of this commit, and of those since then that what is checked out holds, count
    #[arg(long)]
    pub since: Option<String>,
}

/// Whether a line's commit is one of these; `None`: all are.
pub fn is_since(line: &Line, commits: Option<&BTreeSet<String>>) -> bool {
    commits.is_none_or(|commits| commits.contains(&line.commit))
}

impl Bounds {
    /// What the lines do not show, a line for a person each; none when they show all. `commits`: those that count; `None`:
    /// all do.
    pub fn missed(&self, lines: &[Line], commits: Option<&BTreeSet<String>>) -> Vec<String> {
        let of_trefoil = |line: &&Line| line.is_of_trefoil() && is_since(line, commits);
        let known: Vec<&Line> = lines.iter().filter(of_trefoil).collect();
        let counted: Vec<&Line> = known.iter().copied().filter(|line| line.counts()).collect();
        let sum = Sum::of(known.iter().copied());
        let mut missed = Vec::new();
        if sum.hours() < self.hours_min as f64 {
            missed.push(format!("{:.2} hours of runs, not {}", sum.hours(), self.hours_min));
        }
        if sum.operations.all() < self.operations_min {
            missed.push(format!("{} operations, not {}", sum.operations.all(), self.operations_min));
        }
        missed.extend(self.rare(&sum));
        missed.extend(self.short_of_last_commit(&counted));
        missed.extend(too_many("are unknown", sum.unknown, sum.runs()));
        missed.extend(too_many_of_a_profile(&counted));
        missed.extend(too_many("failed in the harness", sum.failed, sum.runs() + sum.failed));
        missed.extend(lines.iter().filter(|line| line.is_open()).map(unexplained));
        missed
    }

    fn rare(&self, sum: &Sum) -> Vec<String> {
        let kinds = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Partition);
        let times = kinds.map(|kind| kind.to_string()).map(|kind| (sum.faults.get(&kind).copied().unwrap_or(0), kind));
        let rare = times.filter(|(times, _)| *times < self.in_force_min);
        rare.map(|(times, kind)| format!("{kind} was in force {times} times, not {}", self.in_force_min)).collect()
    }

    fn short_of_last_commit(&self, counted: &[&Line]) -> Option<String> {
        let last = self.last_commit.as_ref()?;
        let of_last = counted.iter().copied().filter(|line| line.commit == *last);
        let (minutes, min) = (Sum::of(of_last).seconds / MINUTE_SECONDS, self.last_commit_minutes_min);
        (minutes < min as f64).then(|| format!("{minutes:.1} minutes of runs on {last}, not {min}"))
    }
}

/// What so many of these runs are, when that is too many.
fn too_many(what: &str, times: u64, runs: u64) -> Option<String> {
    (times * RUNS_PER_UNKNOWN > runs)
        .then(|| format!("{times} of {runs} runs {what}, more than 1 in {RUNS_PER_UNKNOWN}"))
}

/// A profile that seldom shows anything must not hide behind the others. One with few runs may be unlucky.
fn too_many_of_a_profile(counted: &[&Line]) -> Vec<String> {
    let mut profiles: BTreeMap<&str, Sum> = BTreeMap::new();
    for &line in counted {
        profiles.entry(line.profile.as_str()).or_default().add(line);
    }
    let judged = |sum: &Sum| sum.runs() >= RUNS_PER_UNKNOWN || sum.unknown > UNKNOWN_OF_FEW_MAX;
    let judged = profiles.iter().filter(|(_, sum)| judged(sum));
    judged
        .filter_map(|(profile, sum)| too_many(&format!("under {profile} are unknown"), sum.unknown, sum.runs()))
        .collect()
}

fn unexplained(line: &Line) -> String {
    let Line { date, workload, profile, seed, commit, .. } = line;
    format!("{workload} under {profile}, seed {seed}, of {date} on {commit} is false, and nothing explains it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Valid;
    use crate::ledger::Outcomes;
    use crate::ledger::tests::line;

    fn every_fault(times: u64) -> BTreeMap<String, u64> {
        let kinds = FaultKind::ALL.iter().filter(|kind| **kind != FaultKind::Partition);
        kinds.map(|kind| (kind.to_string(), times)).collect()
    }

    /// Twenty runs of ten minutes, each with 50 000 operations and every fault once.
    fn enough() -> Vec<Line> {
        let operations = Outcomes { ok: 49_000, fail: 900, info: 100 };
        let run = |seed| Line { seconds: 600.0, operations, faults: every_fault(1), ..line(seed, Valid::True) };
        (0..20).map(run).collect()
    }

    fn failed() -> Line {
        Line { failed: Some("worker 1: panicked".into()), ..line(50, Valid::Unknown) }
    }

    fn bounds() -> Bounds {
        Bounds {
            hours_min: 3,
            operations_min: 1_000_000,
            in_force_min: 20,
            last_commit_minutes_min: 60,
            last_commit: Some("abc".into()),
            since: None,
        }
    }

    /// What is changed in the lines that are enough, and what is missed then.
    #[test]
    fn what_is_missed_is_named() {
        type Change = fn(&mut Vec<Line>);
        let cases: [(Change, &[&str]); 14] = [
            (|_| {}, &[]),
            (|lines| lines[0].verdict = Valid::Unknown, &[]),
            (
                |lines| lines[..2].iter_mut().for_each(|line| line.verdict = Valid::Unknown),
                &["2 of 20 runs are unknown"],
            ),
            (|lines| lines[3].verdict = Valid::False, &["append under kill+pause, seed 3"]),
            (|lines| (lines[3].verdict, lines[3].explained) = (Valid::False, Some("issue 7".into())), &[]),
            (|lines| lines.iter_mut().for_each(|line| line.seconds = 500.0), &["2.78 hours"]),
            (|lines| lines[0].operations.ok -= 1, &["999999 operations"]),
            (
                |lines| lines[0].faults = BTreeMap::from([("kill".into(), 1)]),
                &["kill-all was in force 19 times", "snapshot-under-fire was in force 19"],
            ),
            (
                |lines| lines[5..].iter_mut().for_each(|line| line.commit = "def".into()),
                &["50.0 minutes of runs on abc"],
            ),
            (
                |lines| lines[..2].iter_mut().for_each(|line| line.verdict = Valid::Unknown),
                &["2 of 20 runs under kill+pause are unknown"],
            ),
            (
                |lines| {
                    lines.extend((20..40).map(|seed| Line { profile: "pause".into(), ..line(seed, Valid::True) }));
                    lines[..2].iter_mut().for_each(|line| line.verdict = Valid::Unknown);
                },
                &["2 of 20 runs under kill+pause are unknown"],
            ),
            (|lines| lines.push(failed()), &[]),
            (|lines| lines.extend([failed(), failed()]), &["2 of 22 runs failed in the harness"]),
            (
                |lines| lines.iter_mut().for_each(|line| line.commit = "abc-dirty".into()),
                &["0.00 hours", "0 operations", "kill was in force 0 times", "0.0 minutes"],
            ),
        ];
        for (place, (change, expected)) in cases.into_iter().enumerate() {
            let mut lines = enough();
            change(&mut lines);
            let missed = bounds().missed(&lines, None);
            assert_eq!(missed.is_empty(), expected.is_empty(), "case {place}: {missed:#?}");
            for words in expected {
                assert!(missed.iter().any(|missed| missed.starts_with(words)), "case {place}: {words} of {missed:#?}");
            }
        }
    }

    /// How many runs a profile has, how many of them are unknown, and whether that is too many.
    #[test]
    fn each_profile_is_judged_when_it_has_enough() {
        for (runs, unknown, missed) in [(19, 2, false), (19, 3, true), (20, 1, false), (20, 2, true), (40, 2, false)] {
            let verdict = |seed| if seed < unknown { Valid::Unknown } else { Valid::True };
            let lines: Vec<Line> = (0..runs).map(|seed| line(seed, verdict(seed))).collect();
            let counted: Vec<&Line> = lines.iter().collect();
            assert_eq!(!too_many_of_a_profile(&counted).is_empty(), missed, "{unknown} of {runs}");
        }
    }

    #[test]
    fn only_what_is_since_a_commit_counts() {
        let mut lines = enough();
        lines[0].commit = "def".into();
        let cases: [(&[&str], bool); 3] = [(&["abc", "def"], false), (&["abc"], true), (&[], true)];
        for (commits, missed) in cases {
            let commits: BTreeSet<String> = commits.iter().map(|&commit| commit.to_owned()).collect();
            assert_eq!(!bounds().missed(&lines, Some(&commits)).is_empty(), missed, "{commits:?}");
        }
    }

    #[test]
    fn a_false_run_is_not_passed_over_because_it_does_not_count() {
        let dirty = Line { commit: "abc-dirty".into(), ..line(1, Valid::False) };
        let old = Line { conditions: None, ..line(2, Valid::False) };
        assert_eq!(Bounds::default().missed(&[dirty, old], Some(&BTreeSet::new())).len(), 2);
        assert!(Bounds::default().missed(&[], None).is_empty());
    }
}
