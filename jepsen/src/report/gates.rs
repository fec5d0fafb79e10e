//! Coverage gates, one by one: what had to happen for the run to prove anything, and how often it was seen.

use std::collections::{BTreeMap, BTreeSet};

use super::html::count;
use crate::coverage::{Expected, Observed};

/// What must have happened for a run to prove anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    pub name: String,
    pub met: bool,
    pub seen: String,
}

impl Gate {
    fn of(name: String, times: u64) -> Gate {
        Gate { name, met: times > 0, seen: format!("{} times", count(times)) }
    }
}

/// The gates of a run: each kind of call succeeded, each fault asked for was in force, all that was expected was seen.
/// `counts`: per kind of call, how many ended ok, as failed, as unknown.
pub fn gates(
    counts: &BTreeMap<String, [u64; 3]>,
    (asked_for, in_force): (&[String], &BTreeMap<String, u64>),
    (expected, observed): (&[Expected], &Observed),
) -> Vec<Gate> {
    let asked_for: BTreeSet<&String> = asked_for.iter().collect();
    let times = |fault: &String| in_force.get(fault).copied().unwrap_or_default();
    let kinds = counts.iter().map(|(kind, [ok, ..])| Gate::of(format!("{kind} succeeded"), *ok));
    let faults = asked_for.into_iter().map(|fault| Gate::of(format!("{fault} in force"), times(fault)));
    let seen = expected.iter().map(|what| Gate::of(what.to_string(), observed.times(*what)));
    kinds.chain(faults).chain(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_a_gate_not_met() {
        let counts = BTreeMap::from([("add".to_owned(), [2000, 0, 0]), ("read".to_owned(), [0, 5, 5])]);
        let asked_for = ["pause", "kill", "kill"].map(str::to_owned);
        let in_force = BTreeMap::from([("kill".to_owned(), 2)]);
        let gates = gates(&counts, (&asked_for, &in_force), (&[Expected::Snapshot], &Observed::default()));
        let told: Vec<_> = gates.iter().map(|gate| (gate.name.as_str(), gate.met, gate.seen.as_str())).collect();
        let expected = [
            ("add succeeded", true, "2\u{202f}000 times"),
            ("read succeeded", false, "0 times"),
            ("kill in force", true, "2 times"),
            ("pause in force", false, "0 times"),
            ("snapshot", false, "0 times"),
        ];
        assert_eq!(told, expected);
    }
}
