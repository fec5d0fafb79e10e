//! Histories by hand: every anomaly by its name, and what is none.
//!
//! A line is one transaction: process, times of its call and its end, what came of it, its steps. `a1.5` appends 5 to
//! list 1, `r1=5,6` has read it, `r1=` has read it as empty, `r1` has no reply.

use super::check;
use super::record::Transaction;
use crate::checker::Valid;
use crate::history::{Nanos, Outcome, Process};
use crate::workload::append::{Call, List, Reply, Step};

struct Scenario {
    name: &'static str,
    /// All that is found.
    anomalies: &'static [&'static str],
    history: &'static [&'static str],
}

const BAD: &[Scenario] = &[
    Scenario {
        name: "a value from nowhere",
        anomalies: &["unwritten"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok r1=1,7"],
    },
    Scenario {
        name: "a value from another list",
        anomalies: &["unwritten"],
        history: &["p0 0-9 ok a1.1 a2.7", "p1 0-9 ok r1=1,7"],
    },
    Scenario {
        name: "a value twice",
        anomalies: &["duplicate-elements"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok a1.2", "p2 0-9 ok r1=1,2,1"],
    },
    Scenario {
        name: "aborted read",
        anomalies: &["G1a"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 fail a1.2", "p2 0-9 ok r1=1,2"],
    },
    Scenario {
        name: "intermediate read",
        anomalies: &["G1b", "G-single"],
        history: &["p0 0-9 ok a1.1 a1.2", "p1 0-9 ok r1=1", "p2 0-9 ok r1=1,2"],
    },
    Scenario {
        name: "intermediate read of what has no known outcome",
        anomalies: &["G1b", "G-single"],
        history: &["p0 0-9 info a1.1 a1.2", "p1 0-9 ok r1=1"],
    },
    Scenario {
        name: "a later append without the earlier one",
        anomalies: &["torn-append", "G-single"],
        history: &["p0 0-9 ok a1.1 a1.2", "p1 0-9 ok r1=2"],
    },
    Scenario {
        name: "appends in another order",
        anomalies: &["G1b", "torn-append"],
        history: &["p0 0-9 ok a1.1 a1.2", "p1 0-9 ok r1=2,1"],
    },
    Scenario {
        name: "appends in another order, and another one's after them",
        anomalies: &["torn-append"],
        history: &["p0 0-9 ok a1.1 a1.2", "p1 0-9 ok a1.3", "p2 0-9 ok r1=2,1,3"],
    },
    Scenario {
        name: "a list changes under a transaction",
        anomalies: &["internal", "G-single"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok r1= r1=1"],
    },
    Scenario {
        name: "a transaction misses its own append",
        anomalies: &["internal"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok r1=1 a1.2 r1=1"],
    },
    Scenario {
        name: "a transaction misses its own append, which it made blindly",
        anomalies: &["internal"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok a1.2 r1=1"],
    },
    Scenario {
        name: "a transaction sees its own append too early",
        anomalies: &["internal"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok r1=1,2 a1.2"],
    },
    Scenario {
        name: "two orders of one list",
        anomalies: &["incompatible-order"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok a1.2", "p2 0-9 ok r1=1,2", "p3 0-9 ok r1=2,1"],
    },
    Scenario {
        name: "lost update",
        anomalies: &["lost-update", "G-single"],
        history: &["p0 0-9 ok r1= a1.1", "p1 0-9 ok r1= a1.2", "p2 0-9 ok r1=1,2"],
    },
    Scenario {
        name: "write cycle",
        anomalies: &["G0"],
        history: &["p0 0-9 ok a1.1 a2.1", "p1 0-9 ok a1.2 a2.2", "p2 0-9 ok r1=1,2", "p3 0-9 ok r2=2,1"],
    },
    Scenario {
        name: "write cycle with a process",
        anomalies: &["G0-process"],
        history: &["p0 0-5 ok a1.1", "p0 5-9 ok a1.2", "p1 0-20 ok r1=2,1"],
    },
    Scenario {
        name: "write cycle with real time",
        anomalies: &["G0-realtime"],
        history: &["p0 0-5 ok a1.1", "p1 6-9 ok a1.2", "p2 0-20 ok r1=2,1"],
    },
    Scenario {
        name: "circular information flow",
        anomalies: &["G1c"],
        history: &["p0 0-9 ok a1.1 r2=1", "p1 0-9 ok a2.1 r1=1"],
    },
    Scenario {
        name: "a read of what the process appends later",
        anomalies: &["G1c-process"],
        history: &["p0 0-5 ok r1=1", "p0 6-9 ok a1.1"],
    },
    Scenario {
        name: "a read of what is appended later",
        anomalies: &["G1c-realtime"],
        history: &["p0 0-5 ok r1=1", "p1 6-9 info a1.1"],
    },
    Scenario { name: "read skew", anomalies: &["G-single"], history: &["p0 0-9 ok r1= r2=1", "p1 0-9 ok a1.1 a2.1"] },
    Scenario {
        name: "read skew, from what has no known outcome",
        anomalies: &["G-single"],
        history: &["p0 0-9 ok r1= r2=1", "p1 0-9 info a1.1 a2.1"],
    },
    Scenario {
        name: "a process does not see its own append",
        anomalies: &["G-single-process"],
        history: &["p0 0-5 ok a1.1", "p0 6-9 ok r1=", "p1 0-20 ok r1=1"],
    },
    Scenario {
        name: "stale read",
        anomalies: &["G-single-realtime"],
        history: &["p0 0-5 ok a1.1", "p1 6-9 ok r1=", "p2 0-20 ok r1=1"],
    },
    Scenario {
        name: "an acknowledged append that nobody ever sees",
        anomalies: &["G-single-realtime"],
        history: &["p0 0-5 ok a1.1", "p1 6-9 ok a1.2", "p2 20-29 ok r1=1"],
    },
    Scenario {
        name: "an acknowledged append to a list that stays empty",
        anomalies: &["G-single-realtime"],
        history: &["p0 0-5 ok a1.1", "p1 6-9 ok r1="],
    },
    Scenario {
        name: "half of what has no known outcome is lost",
        anomalies: &["G-single-realtime"],
        history: &["p0 0-5 info a1.1 a2.1", "p1 6-9 ok r1=1", "p2 20-29 ok r2="],
    },
    Scenario {
        name: "long fork",
        anomalies: &["G-nonadjacent"],
        history: &["p0 0-9 ok a1.1", "p1 0-9 ok a2.1", "p2 0-9 ok r1=1 r2=", "p3 0-9 ok r1= r2=1"],
    },
    Scenario {
        name: "long fork within a process",
        anomalies: &["G-nonadjacent-process"],
        history: &["p0 0-5 ok a2.1", "p0 6-20 ok r1=", "p1 0-20 ok a1.1", "p2 0-20 ok r1=1 r2="],
    },
    Scenario {
        name: "long fork in real time",
        anomalies: &["G-nonadjacent-realtime"],
        history: &["p0 0-5 ok a2.1", "p3 6-20 ok r1=", "p1 0-20 ok a1.1", "p2 0-20 ok r1=1 r2="],
    },
    Scenario { name: "write skew", anomalies: &["G2-item"], history: &["p0 0-9 ok r1= a2.1", "p1 0-9 ok r2= a1.1"] },
    Scenario {
        name: "write skew within a process",
        anomalies: &["G2-item-process"],
        history: &["p0 0-5 ok a2.1", "p0 6-20 ok r1=", "p1 0-20 ok a1.1 r2="],
    },
    Scenario {
        name: "write skew in real time",
        anomalies: &["G2-item-realtime"],
        history: &["p0 0-5 ok a2.1", "p2 6-20 ok r1=", "p1 0-20 ok a1.1 r2="],
    },
];

const GOOD: &[Scenario] = &[
    Scenario {
        name: "one after another",
        anomalies: &[],
        history: &["p0 0-1 ok a1.1", "p1 2-3 ok r1=1 a1.2 r1=1,2", "p0 4-5 ok a1.3", "p1 6-7 ok r1=1,2,3"],
    },
    Scenario {
        name: "a transaction reads amid its own appends",
        anomalies: &[],
        history: &["p0 0-9 ok a1.1 r1=1 a1.2 r1=1,2", "p1 0-9 ok r1=1,2"],
    },
    Scenario {
        name: "at the same time, in either order",
        anomalies: &[],
        history: &["p0 0-5 ok a1.1", "p1 5-9 ok r1=", "p2 0-9 ok r1=1"],
    },
    Scenario {
        name: "what has no known outcome is done long after",
        anomalies: &[],
        history: &["p0 0-1 info a1.1", "p1 2-3 ok r1=", "p2 40-41 ok r1=1", "p1 50-51 ok r1=1"],
    },
    Scenario {
        name: "what has no known outcome is never done, and what failed neither",
        anomalies: &[],
        history: &["p0 0-1 info a1.1", "p1 0-1 fail a1.2", "p2 2-3 ok a1.3", "p3 4-5 ok r1=3"],
    },
    Scenario {
        name: "each append is read by another transaction, of its own process or not",
        anomalies: &[],
        history: &["p0 0-1 ok a1.1 r1=1 a2.1", "p0 2-3 ok r1=1", "p1 2-3 info a1.2 a2.2", "p2 2-9 ok r2=1"],
    },
];

/// Appends that were surely done, and that no other transaction has read. Here `anomalies` are their names.
const MAY_BE_LOST: &[Scenario] = &[
    Scenario {
        name: "appends that nobody reads again",
        anomalies: &["2 of list 1, appended by T2", "3 of list 1, appended by T3"],
        history: &["p0 0-1 ok a1.1", "p1 2-3 ok r1=1", "p2 4-5 ok a1.2", "p3 6-7 ok a1.3"],
    },
    Scenario {
        name: "the only later read began before the append had ended",
        anomalies: &["2 of list 1, appended by T1"],
        history: &["p0 0-1 ok a1.1", "p2 2-5 ok a1.2", "p1 5-9 ok r1=1"],
    },
    Scenario {
        name: "later reads are of other lists",
        anomalies: &["2 of list 1, appended by T2"],
        history: &["p0 0-1 ok a1.1 a2.1", "p1 2-3 ok r1=1 r2=1", "p0 4-5 ok a1.2", "p1 6-7 ok r2=1"],
    },
    Scenario {
        name: "a list that nobody ever reads",
        anomalies: &["7 of list 2, appended by T0"],
        history: &["p0 0-1 ok a1.1 a2.7", "p1 2-3 ok r1=1"],
    },
    Scenario {
        name: "read by the transaction that appended it",
        anomalies: &["2 of list 1, appended by T1"],
        history: &["p0 0-1 ok a1.1", "p1 2-3 ok a1.2 r1=1,2"],
    },
    Scenario {
        name: "of two appends of one transaction the second, which a read may have come before",
        anomalies: &["1 of list 2, appended by T0"],
        history: &["p0 0-1 ok a1.1 a2.1", "p1 0-9 ok r1=1", "p2 0-9 ok r2="],
    },
    Scenario {
        name: "of what has no known outcome the half that nobody read",
        anomalies: &["1 of list 2, appended by T0"],
        history: &["p0 0-1 info a1.1 a2.1", "p1 2-3 ok r1=1"],
    },
];

const TELLS_NOTHING: &[Scenario] = &[
    Scenario { name: "no transactions", anomalies: &[], history: &[] },
    Scenario { name: "no reads", anomalies: &[], history: &["p0 0-1 ok a1.1", "p1 0-1 ok a1.2"] },
    Scenario {
        name: "nothing to read",
        anomalies: &[],
        history: &["p0 0-1 ok r1=", "p1 2-3 info a1.2", "p2 4-5 ok r1="],
    },
    Scenario { name: "only one's own", anomalies: &[], history: &["p0 0-1 ok a1.1 r1=1"] },
    Scenario { name: "a value appended twice", anomalies: &[], history: &["p0 0-1 ok a1.1", "p1 2-3 fail a1.1"] },
    Scenario { name: "a read without a reply", anomalies: &[], history: &["p0 0-1 ok a1.1", "p1 2-3 ok r1"] },
];

fn transactions(history: &[&str]) -> Vec<Transaction> {
    let mut all: Vec<Transaction> = history.iter().map(|line| transaction(line)).collect();
    all.sort_by_key(|transaction| transaction.invoked);
    for (place, transaction) in all.iter_mut().enumerate() {
        transaction.index = place;
    }
    all
}

fn transaction(line: &str) -> Transaction {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [process, times, outcome, steps @ ..] = words.as_slice() else { panic!("{line} is no transaction") };
    let (invoked, ended) = times.split_once('-').expect("two times");
    let (steps, read): (Vec<Step>, Vec<Option<Vec<u64>>>) = steps.iter().map(|word| step(word)).unzip();
    let outcome = match *outcome {
        "ok" => Outcome::Ok(Reply { read }),
        "fail" => Outcome::Fail("refused".into()),
        "info" => Outcome::Info("timeout".into()),
        other => panic!("{other} is no outcome"),
    };
    Transaction {
        index: 0,
        process: Process(number(process.trim_start_matches('p'))),
        call: Call { steps },
        invoked: Nanos(number(invoked)),
        completed: (!matches!(outcome, Outcome::Info(_))).then(|| Nanos(number(ended))),
        outcome,
    }
}

fn step(word: &str) -> (Step, Option<Vec<u64>>) {
    if let Some((list, value)) = word.strip_prefix('a').and_then(|rest| rest.split_once('.')) {
        return (Step::Append { list: List(number(list)), value: number(value) }, None);
    }
    let rest = word.strip_prefix('r').expect("an append or a read");
    let (list, read) = match rest.split_once('=') {
        Some((list, values)) => (list, Some(values.split(',').filter(|value| !value.is_empty()).map(number).collect())),
        None => (rest, None),
    };
    (Step::Read { list: List(number(list)) }, read)
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

/// The names in front of the findings.
fn names(evidence: &[String]) -> Vec<&str> {
    let first_lines = evidence.iter().filter(|line| !line.starts_with(' '));
    let mut names: Vec<&str> = first_lines.filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    names.dedup();
    names
}

#[test]
fn every_anomaly_is_found_by_its_name() {
    for Scenario { name, anomalies, history } in BAD {
        let verdict = check(&transactions(history));
        assert_eq!(names(&verdict.evidence), *anomalies, "{name}: {:#?}", verdict.evidence);
        assert_eq!(verdict.valid, Valid::False, "{name}");
    }
}

#[test]
fn what_an_order_explains_is_true() {
    for Scenario { name, history, .. } in GOOD {
        let verdict = check(&transactions(history));
        assert_eq!((verdict.valid, verdict.evidence), (Valid::True, vec![]), "{name}");
    }
}

#[test]
fn what_tells_nothing_is_unknown() {
    for Scenario { name, history, .. } in TELLS_NOTHING {
        let verdict = check(&transactions(history));
        assert_eq!(verdict.valid, Valid::Unknown, "{name}");
        assert!(!verdict.evidence.is_empty(), "{name}");
    }
}

#[test]
fn an_append_that_may_be_lost_is_named() {
    for Scenario { name, anomalies, history } in MAY_BE_LOST {
        let verdict = check(&transactions(history));
        assert_eq!(verdict.valid, Valid::Unknown, "{name}");
        let named: Vec<&str> = verdict.evidence.iter().filter_map(|line| line.strip_prefix("never read: ")).collect();
        assert_eq!(named, *anomalies, "{name}: {:#?}", verdict.evidence);
    }
}

/// A read of all lists at the end decides: what it shows was kept, what it lacks was lost.
#[test]
fn a_last_read_shows_what_was_kept_or_proves_it_lost() {
    let run = ["p0 0-1 ok a1.1", "p1 2-3 ok r1=1", "p2 4-5 ok a1.2"];
    for (last, valid) in [("p3 8-9 ok r1=1,2", Valid::True), ("p3 8-9 ok r1=1", Valid::False)] {
        let history = [run.as_slice(), &[last]].concat();
        assert_eq!(check(&transactions(&history)).valid, valid, "{last}");
    }
}

#[test]
fn a_cycle_is_told_edge_by_edge() {
    let history = ["p0 0-5 ok a1.1", "p1 6-9 ok r1=", "p2 0-20 ok r1=1"];
    let told = [
        "G-single-realtime: 2 transactions, each before the next and the last before the first",
        "  T2 before T0 (rw): T2 has read list 1 when it was empty, without 1 of T0",
        "  T0 before T2 (real time): T0 ended at 5 ns, T2 began at 6 ns",
        "  T0 is event 0 (p0, 0 to 5 ns): append 1 to list 1",
        "  T2 is event 2 (p1, 6 to 9 ns): read list 1: []",
    ];
    assert_eq!(check(&transactions(&history)).evidence, told);
}

#[test]
fn many_groups_with_cycles_are_counted() {
    // Each list has a stale read of its own, each after the one before.
    let line = |list: u64| {
        let (begin, reader) = (100 * list, list + 20);
        let append = format!("p{list} {begin}-{} ok a{list}.1", begin + 5);
        [append, format!("p{reader} {}-{} ok r{list}=", begin + 6, begin + 9)]
    };
    let lines: Vec<String> = (0..20).flat_map(line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let verdict = check(&transactions(&lines));
    assert_eq!(verdict.valid, Valid::False);
    let counted: Vec<&String> = verdict.evidence.iter().filter(|line| line.contains(" more")).collect();
    assert_eq!(counted, ["G-single-realtime: and 5 more", "and cycles among 12 more groups of transactions"]);
}
