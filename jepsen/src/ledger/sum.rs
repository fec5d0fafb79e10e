//! Many lines of a ledger, added up.

use std::collections::BTreeMap;
use std::fmt;

use super::{Line, Outcomes};
use crate::checker::Valid;

const HOUR_SECONDS: f64 = 3600.0;

/// Runs together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// Runs by verdict.
    pub valid: u64,
    pub unknown: u64,
    pub invalid: u64,
    /// Runs in which the harness failed: they are in none of the other numbers.
    pub failed: u64,
    /// From the first event of each to its last one.
    pub seconds: f64,
    pub operations: Outcomes,
    /// How often each fault was in force.
    pub faults: BTreeMap<String, u64>,
    /// How often a fault came to be in force while another one was.
    pub pairs: u64,
}

impl Sum {
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Sum {
        let mut sum = Sum::default();
        for line in lines {
            sum.add(line);
        }
        sum
    }

    pub fn add(&mut self, line: &Line) {
        if line.failed.is_some() {
            self.failed += 1;
            return;
        }
        match line.verdict {
            Valid::True => self.valid += 1,
            Valid::Unknown => self.unknown += 1,
            Valid::False => self.invalid += 1,
        }
        self.seconds += line.seconds;
        self.operations = self.operations.plus(line.operations);
        self.pairs += line.pairs;
        for (fault, times) in &line.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
    }

    /// Without those in which the harness failed.
    pub fn runs(&self) -> u64 {
        self.valid + self.unknown + self.invalid
    }

    pub fn hours(&self) -> f64 {
        self.seconds / HOUR_SECONDS
    }

    /// How often a fault of any kind was in force.
    pub fn in_force(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Sum {
    /// Some lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { valid, unknown, invalid, failed, operations, .. } = self;
        let Outcomes { ok, fail, info } = operations;
        writeln!(
            f,
            "  runs        {} in {:.2} hours: {valid} true, {unknown} unknown, {invalid} false",
            self.runs(),
            self.hours()
        )?;
        if *failed > 0 {
            writeln!(f, "  failed      {failed} runs, in the harness: they count for nothing")?;
        }
        writeln!(f, "  operations  {}: {ok} ok, {fail} failed, {info} unknown", operations.all())?;
        writeln!(f, "  in force    {} faults, {} of them beside another one", self.in_force(), self.pairs)?;
        self.faults.iter().try_for_each(|(fault, times)| writeln!(f, "    {fault:<26} {times:>6}"))
    }
}

/// For a person: the sum of each commit and target, in the order in which they came first.
pub fn by_commit<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    let mut sums: Vec<(String, Sum)> = Vec::new();
    for line in lines {
        let target = line.conditions.as_ref().map_or("an unnamed target", |known| known.target.as_str());
        let title = format!("{} of {target}", line.commit);
        match sums.iter_mut().find(|(known, _)| *known == title) {
            Some((_, sum)) => sum.add(line),
            None => sums.push((title, Sum::of([line]))),
        }
    }
    sums.iter().map(|(title, sum)| format!("{title}\n{sum}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Conditions;
    use crate::ledger::tests::{conditions, line};
    use crate::target::Target;

    #[test]
    fn lines_add_up() {
        let more =
            Line { faults: BTreeMap::from([("kill".into(), 1), ("pause".into(), 5)]), ..line(2, Valid::Unknown) };
        let sum = Sum::of([&line(1, Valid::True), &more, &line(3, Valid::False)]);
        assert_eq!((sum.valid, sum.unknown, sum.invalid, sum.runs()), (1, 1, 1, 3));
        assert_eq!((sum.operations.all(), sum.in_force()), (39, 10));
        let faults: BTreeMap<String, u64> = BTreeMap::from([("kill".into(), 5), ("pause".into(), 5)]);
        assert_eq!(sum.faults, faults);
        assert!((sum.hours() - 3.0 * 60.4 / 3600.0).abs() < 1e-9);
        let told = sum.to_string();
        for words in
            ["3 in 0.05 hours: 1 true, 1 unknown, 1 false", "39: 30 ok, 3 failed, 6 unknown", "10 faults, 3 of them"]
        {
            assert!(told.contains(words), "{told}");
        }
        assert!(told.lines().any(|line| line.split_ascii_whitespace().eq(["pause", "5"])), "{told}");
    }

    #[test]
    fn a_run_in_which_the_harness_failed_is_told_and_adds_nothing() {
        let failed = Line { failed: Some("worker 1: panicked".into()), ..line(2, Valid::False) };
        let (one, sum) = (Sum::of([&line(1, Valid::True)]), Sum::of([&line(1, Valid::True), &failed]));
        assert_eq!(sum, Sum { failed: 1, ..one.clone() });
        assert!(sum.to_string().contains("failed      1 runs") && !one.to_string().contains("failed      "), "{sum}");
    }

    #[test]
    fn each_commit_and_target_has_its_sum() {
        let other = Line { commit: "def".into(), ..line(2, Valid::True) };
        let etcd = Conditions { target: Target::Etcd, ..conditions() };
        let etcd = Line { conditions: Some(etcd), ..line(3, Valid::False) };
        let old = Line { conditions: None, ..line(4, Valid::True) };
        let told = by_commit(&[other, line(1, Valid::True), etcd, old, line(5, Valid::True)]);
        let titles: Vec<&str> = told.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(titles, ["def of trefoil", "abc of trefoil", "abc of etcd", "abc of an unnamed target"]);
        assert!(told.contains("2 in 0.03 hours: 2 true"), "{told}");
    }
}
