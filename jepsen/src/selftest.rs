//! Positive controls: planted bugs, by which checker of which tool each must be found, and what counts as found.
//!
//! A bug ([`Bug`]) is chosen when a program that was built for it starts (`kvd-planted`, `sim-planted`). The simulation has
//! a profile for each, a run that provokes it (`sim/src/profiles.rs`). A bug counts as **caught** when each of its
//! [`TRIALS`] was: on so many seeds the named checker calls the run invalid, and on the same seeds the program without
//! bugs is valid. Seeds on which a bug did not come to light are passed over, up to a bound. Pure; running is the
//! command's.
//!
//! Left out: bugs of the harness and of the checkers. What those do not see is for [`tamper`](crate::tamper) to show.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use trefoil_world::planted::Bug;

use crate::checker::{Valid, Verdict};
use crate::nemesis::FaultKind;
use crate::workload::Name;

/// What runs a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `sim-planted`, and `sim` on the same seed with the same profile, each with this workload.
    Simulation(Name),
    /// A run of `kvd-planted` and of `kvd`, as processes.
    Harness(Scene),
}

/// A run of processes on the loopback in which a bug comes to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    pub workload: Name,
    /// None: a quiet run.
    pub faults: &'static [FaultKind],
    pub nodes: usize,
    /// Of load.
    pub seconds: u64,
    /// Calls a second, of all workers together.
    pub rate: u64,
    pub workers: usize,
}

impl Scene {
    /// What `jepsen` is told for it, beside the seed, the program and the folder.
    pub fn words(&self) -> Vec<String> {
        let Scene { workload, faults, nodes, seconds, rate, workers } = self;
        let kinds: Vec<String> = faults.iter().map(FaultKind::to_string).collect();
        let faults = if kinds.is_empty() { "--no-faults".to_owned() } else { format!("--faults={}", kinds.join(",")) };
        let numbers =
            [("nodes", *nodes as u64), ("time-limit", *seconds), ("rate", *rate), ("concurrency", *workers as u64)];
        let numbers = numbers.map(|(flag, number)| format!("--{flag}={number}"));
        let fixed = ["test", "--backend=loopback"].map(str::to_owned);
        fixed.into_iter().chain([format!("--workload={workload}"), faults]).chain(numbers).collect()
    }
}

impl Tool {
    /// How many seeds are tried at most.
    pub fn seeds_max(self) -> u64 {
        match self {
            Tool::Simulation(_) => 60,
            Tool::Harness(_) => 6,
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tool::Simulation(_) => "simulation",
            Tool::Harness(_) => "harness",
        })
    }
}

/// Who must find a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    pub bug: Bug,
    pub tool: Tool,
    pub checker: &'static str,
}

const REVISIONS: &str = "linearizable registers (revisions)";
const SESSION: &str = "session";
const INVARIANTS: &str = "invariants";
/// Nodes that serve and must stay out are told of there.
const FAULTS: &str = "faults";
/// Of the simulation: a healed cluster must serve.
const LIVENESS: &str = "liveness";
/// The same of the harness, node by node.
const RECOVERY: &str = "recovery";
const LIST_APPEND: &str = "list-append (strict serializability)";
const SET_FULL: &str = "set-full (linearizability)";
const COUNTER_BOUNDS: &str = "counter (bounds)";
const COUNTER_ORDER: &str = "counter (linearizability)";
const BANK_SUM: &str = "bank (sum of all accounts)";
const BANK_ORDER: &str = "bank (revisions)";

/// Many swaps of few registers at once.
const SWAPS: Scene = Scene { workload: Name::Register, faults: &[], nodes: 3, seconds: 10, rate: 600, workers: 20 };

/// The same under faults of one kind, at a pace that leaves room for them.
const fn under(faults: &'static [FaultKind]) -> Scene {
    Scene { faults, seconds: 20, rate: 300, ..SWAPS }
}

const fn tested(bug: Bug, scene: Scene, checker: &'static str) -> Trial {
    Trial { bug, tool: Tool::Harness(scene), checker }
}

const fn simulated(bug: Bug, checker: &'static str) -> Trial {
    simulated_with(Name::Register, bug, checker)
}

const fn simulated_with(workload: Name, bug: Bug, checker: &'static str) -> Trial {
    Trial { bug, tool: Tool::Simulation(workload), checker }
}

/// Faults after which each process is the one that it was before, some in a row.
const HEALED: Scene = Scene { seconds: 40, ..under(&[FaultKind::Pause, FaultKind::Partition]) };

/// All trials. Those that name a checker of histories are run without a look at the disks where that would be first.
pub const TRIALS: [Trial; 28] = [
    simulated(Bug::AckBeforeSync, REVISIONS),
    tested(Bug::AckBeforeSync, under(&[FaultKind::PowerLoss]), REVISIONS),
    simulated(Bug::MarkBeforeSync, INVARIANTS),
    simulated(Bug::VoteNotPersisted, INVARIANTS),
    simulated(Bug::LocalReads, SESSION),
    tested(Bug::LocalReads, under(&[FaultKind::Partition]), REVISIONS),
    simulated(Bug::ReadIndexUnasked, SESSION),
    simulated(Bug::ReadBeforeApplied, SESSION),
    simulated(Bug::JoinRunningRound, SESSION),
    simulated(Bug::RoundsEndWithFailure, LIVENESS),
    tested(Bug::RoundsEndWithFailure, HEALED, RECOVERY),
    simulated(Bug::AppliedApart, INVARIANTS),
    simulated(Bug::ApplyBeforeEntry, INVARIANTS),
    simulated(Bug::OldRowsKept, SESSION),
    simulated(Bug::RequestTableLost, SESSION),
    simulated(Bug::VoteLostWithSnapshot, INVARIANTS),
    simulated(Bug::CompareOutsideApply, REVISIONS),
    tested(Bug::CompareOutsideApply, SWAPS, REVISIONS),
    // What others have changed in between is lost, whatever it is.
    simulated_with(Name::Append, Bug::CompareOutsideApply, LIST_APPEND),
    simulated_with(Name::Set, Bug::CompareOutsideApply, SET_FULL),
    simulated_with(Name::Counter, Bug::CompareOutsideApply, COUNTER_BOUNDS),
    simulated_with(Name::Counter, Bug::CompareOutsideApply, COUNTER_ORDER),
    simulated_with(Name::Bank, Bug::CompareOutsideApply, BANK_SUM),
    simulated_with(Name::Bank, Bug::CompareOutsideApply, BANK_ORDER),
    simulated(Bug::UnknownWriteRepeated, REVISIONS),
    simulated(Bug::StorageIdIgnored, INVARIANTS),
    simulated(Bug::StartCountIgnored, INVARIANTS),
    tested(Bug::StartCountIgnored, under(&[FaultKind::OldCopy]), FAULTS),
];

/// What a run has shown of itself: its report, or its `results.json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Shown {
    pub valid: Valid,
    pub verdicts: Vec<Verdict>,
}

impl Shown {
    /// Whether this checker calls it invalid.
    pub fn is_found_by(&self, checker: &str) -> bool {
        self.verdicts.iter().any(|verdict| verdict.checker == checker && verdict.valid == Valid::False)
    }

    /// Who calls it invalid.
    fn found_by(&self) -> String {
        let found = self.verdicts.iter().filter(|verdict| verdict.valid == Valid::False);
        let names: Vec<&str> = found.map(|verdict| verdict.checker.as_str()).collect();
        match names.is_empty() {
            true => "nobody".to_owned(),
            false => names.join(" and "),
        }
    }
}

/// How a trial goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub tried: u64,
    /// Seeds on which the bug was found, and the program without it is valid.
    pub caught: Vec<u64>,
    /// Seeds on which the program without the bug is invalid: that ends the trial.
    pub red: Vec<u64>,
    /// Of runs with the bug that do not count: who found it otherwise, and how often.
    pub otherwise: BTreeMap<String, u64>,
}

impl Progress {
    /// Whether the next seed is to be tried.
    pub fn goes_on(&self, tool: Tool, seeds: u64) -> bool {
        self.red.is_empty() && (self.caught.len() as u64) < seeds && self.tried < tool.seeds_max()
    }

    pub fn is_caught(&self, seeds: u64) -> bool {
        self.red.is_empty() && self.caught.len() as u64 >= seeds
    }

    /// Takes note of a run with the bug; nothing came of one that broke off. Whether it is worth one without.
    pub fn planted(&mut self, checker: &str, shown: Option<&Shown>) -> bool {
        self.tried += 1;
        match shown {
            Some(shown) if shown.is_found_by(checker) => return true,
            Some(shown) => *self.otherwise.entry(shown.found_by()).or_default() += 1,
            None => *self.otherwise.entry("a run that broke off".to_owned()).or_default() += 1,
        }
        false
    }

    /// Takes note of the run without the bug on the same seed.
    pub fn clean(&mut self, seed: u64, shown: Option<&Shown>) {
        match shown.map(|shown| shown.valid) {
            Some(Valid::True) => self.caught.push(seed),
            // It proves too little on this seed.
            Some(Valid::Unknown) => *self.otherwise.entry("an unknown without the bug".to_owned()).or_default() += 1,
            Some(Valid::False) | None => self.red.push(seed),
        }
    }

    /// For a person: where it stands.
    pub fn told(&self, seeds: u64) -> String {
        let numbers = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        match (self.red.is_empty(), self.is_caught(seeds)) {
            (false, _) => format!("red without the bug on seed {}", numbers(&self.red)),
            (true, true) => format!("caught on seeds {}", numbers(&self.caught)),
            (true, false) => {
                let otherwise = self.otherwise.iter().map(|(who, times)| format!("{who} {times} times"));
                let otherwise = otherwise.collect::<Vec<_>>().join(", ");
                let caught = self.caught.len();
                format!("NOT CAUGHT: on {caught} of {} seeds; else found by {otherwise}", self.tried)
            }
        }
    }
}

/// How many of these bugs were caught in all their trials, and how many there are.
pub fn score(trials: &[(Trial, Progress)], seeds: u64) -> (usize, usize) {
    let mut bugs: BTreeMap<Bug, bool> = BTreeMap::new();
    for (trial, progress) in trials {
        *bugs.entry(trial.bug).or_insert(true) &= progress.is_caught(seeds);
    }
    (bugs.values().filter(|caught| **caught).count(), bugs.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{bank, counter, list_append, revision, set_full};
    use crate::workload::bank::BANK;

    const SIMULATION: Tool = Tool::Simulation(Name::Register);

    fn shown(checker: &str, valid: Valid) -> Shown {
        let verdict = Verdict { checker: checker.into(), valid, evidence: Vec::new() };
        Shown { valid, verdicts: vec![Verdict::valid("nodes"), verdict] }
    }

    #[test]
    fn each_bug_has_a_trial_in_the_simulation() {
        for bug in Bug::ALL {
            let simulated = |trial: &Trial| trial.bug == bug && matches!(trial.tool, Tool::Simulation(_));
            assert!(TRIALS.iter().any(simulated), "{bug}");
        }
    }

    /// By the names that the checkers have themselves.
    #[test]
    fn each_of_these_checkers_has_a_bug_to_find() {
        let checkers = [
            (REVISIONS, revision::check(&[]).checker),
            (LIST_APPEND, list_append::check(&[]).checker),
            (SET_FULL, set_full::check(&[]).checker),
            (COUNTER_BOUNDS, counter::bounds(&[]).checker),
            (COUNTER_ORDER, counter::linearizable(&[]).checker),
            (BANK_SUM, bank::check(&[], &BANK).checker),
            (BANK_ORDER, bank::order::check(&[], &BANK).checker),
        ];
        for (name, checker) in checkers {
            assert_eq!(checker, name);
            assert!(TRIALS.iter().any(|trial| trial.checker == name), "{name}");
        }
    }

    #[test]
    fn a_scene_is_told_in_words() {
        let cases = [
            (SWAPS, "--no-faults --nodes=3 --time-limit=10 --rate=600 --concurrency=20"),
            (
                under(&[FaultKind::Amnesia, FaultKind::OldCopy]),
                "--faults=amnesia,old-copy --nodes=3 --time-limit=20 --rate=300 --concurrency=20",
            ),
        ];
        for (scene, expected) in cases {
            assert_eq!(scene.words().join(" "), format!("test --backend=loopback --workload=register {expected}"));
        }
    }

    #[test]
    fn a_bug_counts_when_its_checker_found_it_and_the_clean_run_is_valid() {
        let mut progress = Progress::default();
        assert!(!progress.planted(SESSION, Some(&shown(INVARIANTS, Valid::False))), "somebody else");
        assert!(!progress.planted(SESSION, Some(&shown(SESSION, Valid::Unknown))));
        assert!(!progress.planted(SESSION, None));
        assert!(progress.planted(SESSION, Some(&shown(SESSION, Valid::False))));
        progress.clean(4, Some(&shown(SESSION, Valid::Unknown)));
        assert!(progress.goes_on(SIMULATION, 1) && !progress.is_caught(1));
        assert!(progress.told(1).contains("invariants 1 times"), "{}", progress.told(1));
        progress.clean(5, Some(&shown(SESSION, Valid::True)));
        assert!(progress.is_caught(1) && !progress.goes_on(SIMULATION, 1));
        assert!(!progress.is_caught(2) && progress.goes_on(SIMULATION, 2));
        progress.clean(6, Some(&shown("nodes", Valid::False)));
        assert!(!progress.is_caught(1) && !progress.goes_on(SIMULATION, 9));
    }

    #[test]
    fn seeds_are_searched_up_to_a_bound() {
        for tool in [SIMULATION, Tool::Harness(SWAPS)] {
            let mut progress = Progress::default();
            while progress.goes_on(tool, 2) {
                assert!(!progress.planted(SESSION, Some(&shown(SESSION, Valid::True))));
            }
            assert_eq!(progress.tried, tool.seeds_max());
        }
    }

    #[test]
    fn a_bug_with_two_trials_must_be_caught_in_both() {
        let caught = Progress { caught: vec![1, 2], ..Progress::default() };
        let trial = |checker| simulated(Bug::LocalReads, checker);
        let other = simulated(Bug::AckBeforeSync, REVISIONS);
        let trials = [(trial(SESSION), caught.clone()), (trial(REVISIONS), Progress::default()), (other, caught)];
        assert_eq!(score(&trials, 2), (1, 2));
    }

    #[test]
    fn what_a_run_has_shown_is_read_from_more_than_it_needs() {
        let text = r#"{"seed":7,"valid":"false","verdicts":[{"checker":"session","valid":"false","evidence":["x"]}]}"#;
        let shown: Shown = serde_json::from_str(text).expect("a report");
        assert!(shown.is_found_by(SESSION) && !shown.is_found_by(INVARIANTS) && shown.valid == Valid::False);
    }
}
