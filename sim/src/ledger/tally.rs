//! What a ledger comes to, and whether that is what was promised.
//!
//! Only green seeds of clean checkouts count, of them those since a commit if one is given, and one that was green twice on
//! a commit counts once. A red one is never passed over, whatever it was of: it is missed until its line says what became
//! of it. Unknown ones must be rare among those that count.
//!
//! Left out: which commits are since another one; git knows.

use std::collections::BTreeSet;
use std::fmt;

use trefoil_jepsen::ledger::is_dirty;

use super::Line;

/// Of so many seeds one may be unknown.
const UNKNOWN_ONE_IN: u64 = 20;

/// Why so many unknown seeds, of `seeds` in all, are too many; `None` when they are not.
pub fn too_many_unknown(unknown: u64, seeds: u64) -> Option<String> {
    let rare = unknown * UNKNOWN_ONE_IN <= seeds;
    (!rare).then(|| format!("too many unknown seeds: {unknown} of {seeds}, and at most 1 in {UNKNOWN_ONE_IN} may be"))
}

/// What a ledger must show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Promised {
    pub seeds_min: u64,
    /// Of simulated time.
    pub hours_min: f64,
    /// The newest commit that changed the program, and those since then: the beginnings of their names.
    pub last_commits: Vec<String>,
    pub last_seeds_min: u64,
}

/// What a ledger shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Green, per commit.
    pub seeds: u64,
    /// Of the green ones: their share of the hours of their lines.
    pub simulated_hours: f64,
    pub commits: usize,
    /// Green on the last commits.
    pub last_seeds: u64,
    pub unknown: u64,
    /// The commits and seeds that are red, of which nobody has said why.
    pub open: BTreeSet<(String, u64)>,
}

impl Tally {
    /// Adds the lines up. `last_commits`: as promised. `since`: the commits that count; `None`: all do.
    pub fn of(lines: &[Line], last_commits: &[String], since: Option<&BTreeSet<String>>) -> Tally {
        let mut tally = Tally::default();
        let mut counted: BTreeSet<(&str, u64)> = BTreeSet::new();
        for line in lines {
            tally.open.extend(line.open().iter().map(|seed| (line.commit.clone(), *seed)));
            if is_dirty(&line.commit) || since.is_some_and(|commits| !commits.contains(&line.commit)) {
                continue;
            }
            let fresh = line.green_seeds().filter(|seed| counted.insert((line.commit.as_str(), *seed))).count() as u64;
            tally.seeds += fresh;
            tally.simulated_hours += line.simulated_hours * fresh as f64 / line.seeds.max(1) as f64;
            tally.unknown += line.unknown.len() as u64;
            let is_last = last_commits.iter().any(|last| line.commit.starts_with(last.as_str()));
            tally.last_seeds += if is_last { fresh } else { 0 };
        }
        tally.commits = counted.iter().map(|(commit, _)| *commit).collect::<BTreeSet<&str>>().len();
        tally
    }

    /// Why too many of the seeds that count were unknown, if they were.
    pub fn too_many_unknown(&self) -> Option<String> {
        too_many_unknown(self.unknown, self.seeds + self.unknown)
    }

    /// What of this was promised and is not there, a line for a person each.
    pub fn missed(&self, promised: &Promised) -> Vec<String> {
        let Promised { seeds_min, hours_min, last_commits, last_seeds_min } = promised;
        let mut missed = Vec::new();
        if self.seeds < *seeds_min {
            missed.push(format!("{} green seeds, not {seeds_min}", self.seeds));
        }
        if self.simulated_hours < *hours_min {
            missed.push(format!("{:.2} simulated hours, not {hours_min}", self.simulated_hours));
        }
        if self.last_seeds < *last_seeds_min {
            let last = last_commits.join(", ");
            missed.push(format!("{} green seeds on the last commit ({last}), not {last_seeds_min}", self.last_seeds));
        }
        let open = self.open.iter().map(|(commit, seed)| {
            format!("seed {seed} is red on {commit}, and nothing in its line says what became of it")
        });
        missed.extend(open);
        missed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { seeds, simulated_hours, commits, last_seeds, unknown, open } = self;
        write!(
            f,
            "{seeds} green seeds on {commits} commits ({last_seeds} on the last one), {simulated_hours:.2} simulated \
             hours; {unknown} unknown, {} red and unexplained",
            open.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds `from` to `from + 99`, one of them unknown, in an hour of simulated time.
    fn line(commit: &str, from: u64) -> Line {
        Line {
            commit: commit.into(),
            date: "2026-11-21T18:55:03Z".into(),
            from,
            seeds: 100,
            green: vec![(from, from + 98)],
            unknown: vec![from + 99],
            red: Vec::new(),
            simulated_hours: 1.0,
            real_hours: 0.1,
            explained: None,
        }
    }

    fn promised() -> Promised {
        Promised { seeds_min: 396, hours_min: 3.9, last_commits: vec!["def".into()], last_seeds_min: 198 }
    }

    fn enough() -> Vec<Line> {
        vec![line("abc1", 1), line("abc1", 101), line("def2", 1), line("def2", 101)]
    }

    #[test]
    fn what_is_missed_is_named() {
        /// What is changed in the lines that are enough, and what is missed then.
        type Case = (fn(&mut Vec<Line>), &'static [&'static str]);
        let cases: [Case; 7] = [
            (|_| {}, &[]),
            (|lines| lines[3].from = 7, &[]),
            (|lines| lines.truncate(3), &["297 green seeds, not 396", "2.97 simulated", "99 green seeds on the last"]),
            (|lines| lines[1] = lines[0].clone(), &["297 green seeds, not 396", "2.97 simulated"]),
            (
                |lines| lines[3].commit = "def2-dirty".into(),
                &["297 green seeds, not 396", "2.97 simulated", "99 green seeds on the last"],
            ),
            (
                |lines| (lines[0].red, lines[0].commit) = (vec![5, 6], "abc1-dirty".into()),
                &["297 green", "2.97 simulated", "seed 5 is red on abc1-dirty", "seed 6 is red"],
            ),
            (|lines| (lines[0].red, lines[0].explained) = (vec![500], Some("fixed in def2".into())), &[]),
        ];
        for (place, (change, expected)) in cases.into_iter().enumerate() {
            let mut lines = enough();
            change(&mut lines);
            let missed = Tally::of(&lines, &promised().last_commits, None).missed(&promised());
            assert_eq!(missed.len(), expected.len(), "case {place}: {missed:#?}");
            for words in expected {
                assert!(missed.iter().any(|missed| missed.starts_with(words)), "case {place}: {words} of {missed:#?}");
            }
        }
    }

    #[test]
    fn only_what_is_since_a_commit_counts() {
        /// The commits that count; the green seeds, those on the last commit, how many commits, the unknown ones.
        type Case = (Option<&'static [&'static str]>, [u64; 4]);
        let red = Line { red: vec![5], ..line("abc1", 201) };
        let lines = [enough(), vec![red, line("def2-dirty", 301)]].concat();
        let cases: [Case; 6] = [
            (None, [495, 198, 2, 5]),
            (Some(&["abc1", "def2"]), [495, 198, 2, 5]),
            (Some(&["def2"]), [198, 198, 1, 2]),
            (Some(&["abc1", "0ther"]), [297, 0, 1, 3]),
            (Some(&["def"]), [0, 0, 0, 0]),
            (Some(&[]), [0, 0, 0, 0]),
        ];
        for (since, expected) in cases {
            let commits: Option<BTreeSet<String>> =
                since.map(|commits| commits.iter().map(|&commit| commit.to_owned()).collect());
            let tally = Tally::of(&lines, &promised().last_commits, commits.as_ref());
            assert_eq!([tally.seeds, tally.last_seeds, tally.commits as u64, tally.unknown], expected, "{since:?}");
            assert!((tally.simulated_hours - expected[0] as f64 / 100.0).abs() < 1e-9, "{since:?}");
            assert_eq!(tally.open, BTreeSet::from([("abc1".to_owned(), 5)]), "a red one is never passed over");
        }
    }

    #[test]
    fn unknown_seeds_have_to_be_rare() {
        for (unknown, seeds, rare) in [(0, 0, true), (1, 19, false), (1, 20, true), (10, 200, true), (11, 200, false)] {
            assert_eq!(too_many_unknown(unknown, seeds).is_none(), rare, "{unknown} of {seeds}");
        }
        let all_unknown = Line { green: Vec::new(), unknown: (1..=100).collect(), ..line("abc1", 1) };
        let of = |lines: &[Line]| Tally::of(lines, &[], None).too_many_unknown();
        assert_eq!(of(&enough()), None);
        assert!(of(&[enough(), vec![all_unknown]].concat()).is_some_and(|why| why.contains("104 of 500")));
    }

    #[test]
    fn a_tally_says_what_it_counts() {
        let tally = Tally::of(&enough(), &["def".to_owned()], None);
        let said = "396 green seeds on 2 commits (198 on the last one), 3.96 simulated hours; 4 unknown, 0 red and \
                    unexplained";
        assert_eq!(tally.to_string(), said);
    }
}
