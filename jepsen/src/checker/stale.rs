//! Reads that carry a context never go back.
//!
//! A read with a context sees at least what the context had seen. So along the reads of one process, each of which carries
//! the context of the one before it, the revision that was looked at never falls, whichever replica answered.
//!
//! Left out: what such a read returns at its revision, which is checked as for any other read.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::Process;

const CHECKER: &str = "reads with a context never go back";

/// Processes whose first step back is shown; the rest is counted.
const SHOWN_MAX: usize = 5;

/// `seen`: who looked at which revision, in the order of replies.
pub fn never_back(seen: &[(Process, u64)]) -> Verdict {
    if seen.is_empty() {
        return Verdict::unknown(CHECKER, "there was no read with a context");
    }
    let mut highest: BTreeMap<Process, u64> = BTreeMap::new();
    let mut back: BTreeMap<Process, String> = BTreeMap::new();
    for &(process, revision) in seen {
        let known = highest.entry(process).or_insert(revision);
        if revision < *known {
            let line = format!("{process} looked at revision {revision} after revision {known}");
            back.entry(process).or_insert(line);
        }
        *known = revision.max(*known);
    }
    match back.len() {
        0 => Verdict::valid(CHECKER),
        count => {
            let mut evidence: Vec<String> = back.into_values().take(SHOWN_MAX).collect();
            if count > SHOWN_MAX {
                evidence.push(format!("and {} more processes", count - SHOWN_MAX));
            }
            Verdict::invalid(CHECKER, evidence)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Valid;

    #[test]
    fn going_back_is_per_process() {
        /// What processes saw, the verdict, and its evidence.
        type Case = (&'static [(u64, u64)], Valid, &'static [&'static str]);
        let cases: [Case; 5] = [
            (&[], Valid::Unknown, &["there was no read with a context"]),
            (&[(0, 5), (0, 5), (0, 7)], Valid::True, &[]),
            (&[(0, 5), (1, 3), (0, 6), (1, 3)], Valid::True, &[]),
            (&[(0, 5), (0, 4)], Valid::False, &["p0 looked at revision 4 after revision 5"]),
            (&[(1, 9), (0, 5), (1, 8), (1, 7)], Valid::False, &["p1 looked at revision 8 after revision 9"]),
        ];
        for (seen, valid, evidence) in cases {
            let reads: Vec<(Process, u64)> = seen.iter().map(|&(process, at)| (Process(process), at)).collect();
            let verdict = never_back(&reads);
            assert_eq!(verdict.valid, valid, "{seen:?}");
            assert_eq!(verdict.evidence, evidence, "{seen:?}");
        }
    }

    #[test]
    fn many_processes_are_counted() {
        let reads: Vec<(Process, u64)> =
            (0..7).flat_map(|process| [(Process(process), 2), (Process(process), 1)]).collect();
        let verdict = never_back(&reads);
        assert_eq!(verdict.evidence.len(), SHOWN_MAX + 1);
        assert_eq!(verdict.evidence.last().map(String::as_str), Some("and 2 more processes"));
    }
}
