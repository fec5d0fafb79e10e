//! Evidence: what checkers found, told to a person: the first few findings of each kind, the rest counted.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::history::{Operation, Outcome};

/// Findings of one kind that are told; the rest is counted.
const TOLD_MAX: usize = 3;

/// Numbers of a list that are shown: its last ones.
const NUMBERS_MAX: usize = 12;

/// Findings by kind; the kinds' order is that of the evidence.
pub(crate) struct Findings<K> {
    by_kind: BTreeMap<K, Told>,
}

#[derive(Default)]
struct Told {
    count: usize,
    lines: Vec<String>,
}

impl<K: Ord + Display> Findings<K> {
    pub(crate) fn new() -> Findings<K> {
        Findings { by_kind: BTreeMap::new() }
    }

    /// `tell`: the finding's lines, the first of which gets the kind's name in front.
    pub(crate) fn add(&mut self, kind: K, tell: impl FnOnce() -> Vec<String>) {
        let name = kind.to_string();
        let told = self.by_kind.entry(kind).or_default();
        told.count += 1;
        if told.count <= TOLD_MAX {
            let mut lines = tell().into_iter();
            told.lines.extend(lines.next().map(|line| format!("{name}: {line}")));
            told.lines.extend(lines.map(|line| format!("  {line}")));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    pub(crate) fn lines(self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, told) in self.by_kind {
            lines.extend(told.lines);
            if told.count > TOLD_MAX {
                lines.push(format!("{kind}: and {} more", told.count - TOLD_MAX));
            }
        }
        lines
    }
}

/// Which operation it is, and when it was under way: `event 4 (p1, 10 to 20 ns)`.
pub(crate) fn named<C, R>(operation: &Operation<C, R>) -> String {
    let Operation { index, process, invoked, completed, outcome, .. } = operation;
    let until = match (outcome, completed) {
        (Outcome::Ok(_), Some(end)) => format!("{} to {} ns", invoked.0, end.0),
        (Outcome::Fail(_), Some(end)) => format!("{} to {} ns, failed", invoked.0, end.0),
        (Outcome::Info(_), _) | (Outcome::Ok(_) | Outcome::Fail(_), None) => {
            format!("from {} ns, outcome unknown", invoked.0)
        }
    };
    format!("event {index} ({process}, {until})")
}

/// `[1 2 3]`, of a long list its end.
pub(crate) fn numbers(all: &[u64]) -> String {
    let shown = &all[all.len().saturating_sub(NUMBERS_MAX)..];
    let words: Vec<String> = shown.iter().map(u64::to_string).collect();
    match shown.len() == all.len() {
        true => format!("[{}]", words.join(" ")),
        false => format!("[… {}] ({} in all)", words.join(" "), all.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_kind_are_told_and_the_rest_counted() {
        let mut findings = Findings::new();
        for number in 0..5 {
            findings.add("lost", || vec![number.to_string(), "why".into()]);
        }
        let told = ["lost: 0", "  why", "lost: 1", "  why", "lost: 2", "  why", "lost: and 2 more"];
        assert_eq!(findings.lines(), told);
    }

    #[test]
    fn of_a_long_list_the_end_is_shown() {
        assert_eq!(numbers(&[1, 2]), "[1 2]");
        let long: Vec<u64> = (1..=14).collect();
        assert_eq!(numbers(&long), "[… 3 4 5 6 7 8 9 10 11 12 13 14] (14 in all)");
    }
}
