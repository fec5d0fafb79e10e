//! Alarms: what nodes have found out themselves, and an admin is to look at. Nodes compare their replicas every few
//! seconds of a run (`cluster/program.rs`).
//!
//! They stand in what nodes say of themselves, for a while at least, and are collected as they are seen. An alarm for which
//! a fault accounts is none of the harness' business: that a disk is full, of a node whose disk has failed; that a
//! directory was replaced, of a node whose directory was. Any other one is a finding, whatever the history says.
//!
//! A fault accounts for alarms from when it was ordered until the run ends: nobody says when one must be over. Of alarms of
//! one node about the same, the first one is kept.

use std::collections::BTreeMap;

use trefoil_client::NodeStatus;
use trefoil_world::clock;

use crate::backend::node_name;
use crate::cluster::Struck;

/// What nodes say of themselves when they refuse puts.
const DISK: &str = "bytes of disk are free";
/// What they say of a name under which another directory has come; the name stands before it.
const REPLACED: &str = " came back with another directory";
/// What a comparison says of a replica; the partition stands before it, and ends with a colon.
const DIFFERS: &str = " differs at revision ";

/// What an alarm is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The disk of the node that raises it.
    Disk,
    /// The directory of the node of this name.
    Directory(String),
    /// The replicas of this partition.
    Content(String),
    /// What is not known here, as the whole line has it.
    Other(String),
}

impl Subject {
    fn of(line: &str) -> Subject {
        if let Some((name, _)) = line.split_once(REPLACED) {
            return Subject::Directory(name.to_owned());
        }
        match line.split_once(": ") {
            Some((partition, rest)) if rest.contains(DIFFERS) => Subject::Content(partition.to_owned()),
            Some(_) | None if line.contains(DISK) => Subject::Disk,
            Some(_) | None => Subject::Other(line.to_owned()),
        }
    }
}

/// The first of a node's alarms about the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raised {
    seen: clock::Instant,
    line: String,
}

/// All that were seen, by the places of the nodes that raise them.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms(BTreeMap<(usize, Subject), Raised>);

impl Alarms {
    /// Takes note of what a node has said of itself just now.
    pub(super) fn see(&mut self, node: usize, status: &NodeStatus, now: clock::Instant) {
        for line in &status.alarms {
            let raised = || Raised { seen: now, line: line.clone() };
            self.0.entry((node, Subject::of(line))).or_insert_with(raised);
        }
    }

    /// A line for each for which no fault accounts. `struck`: what faults have done, by the names of the nodes.
    pub(super) fn findings(&self, struck: &BTreeMap<String, Struck>) -> Vec<String> {
        let by_then = |at: Option<clock::Instant>, seen: clock::Instant| at.is_some_and(|at| at <= seen);
        let of = |name: &str| struck.get(name).copied().unwrap_or_default();
        let accounted = |node: usize, subject: &Subject, seen: clock::Instant| match subject {
            Subject::Disk => by_then(of(&node_name(node)).disk, seen),
            Subject::Directory(name) => by_then(of(name).directory, seen),
            Subject::Content(_) | Subject::Other(_) => false,
        };
        let left = self.0.iter().filter(|((node, subject), raised)| !accounted(*node, subject, raised.seen));
        let line = |((node, _), raised): (&(usize, Subject), &Raised)| {
            format!("{} raised an alarm for which no fault accounts: {}", node_name(*node), raised.line)
        };
        left.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::status::tests::status;

    const FULL: &str = "only 7 bytes of disk are free: puts are refused";
    const STRANGER: &str = "n2 came back with another directory, storage id 1f; run: kvctl node replace n2";
    const DIFFERENT: &str = "partition 1/0: r2 on n2 differs at revision 9: 3 keys with sum 0000000000000001, \
                             the leader has 3 with 0000000000000002";

    #[test]
    fn an_alarm_is_about_something() {
        let partition = "partition 1/0".to_owned();
        for (line, subject) in [
            (FULL, Subject::Disk),
            (STRANGER, Subject::Directory("n2".into())),
            (DIFFERENT, Subject::Content(partition)),
            ("memberID:7 alarm:NOSPACE ", Subject::Other("memberID:7 alarm:NOSPACE ".into())),
            ("disk: on fire", Subject::Other("disk: on fire".into())),
        ] {
            assert_eq!(Subject::of(line), subject, "{line}");
        }
    }

    #[tokio::test]
    async fn what_no_fault_accounts_for_is_a_finding() {
        let began = clock::now();
        let (early, late) = (Some(began + Duration::from_secs(1)), Some(began + Duration::from_secs(3)));
        let seen = began + Duration::from_secs(2);
        let disk = |at| Struck { disk: at, directory: None };
        let directory = |at| Struck { disk: None, directory: at };
        // The node that raises an alarm, the alarm, who was struck, how, and whether that accounts for it.
        let cases = [
            (0, FULL, "n1", disk(early), true),
            (0, FULL, "n1", disk(late), false),
            (0, FULL, "n1", disk(None), false),
            (0, FULL, "n2", disk(early), false),
            (0, FULL, "n1", directory(early), false),
            (0, STRANGER, "n2", directory(early), true),
            (0, STRANGER, "n2", directory(late), false),
            (0, STRANGER, "n1", directory(early), false),
            (0, STRANGER, "n2", disk(early), false),
            (0, DIFFERENT, "n2", Struck { disk: early, directory: early }, false),
            (0, "something else", "n1", Struck { disk: early, directory: early }, false),
        ];
        for (node, line, name, struck, accounted) in cases {
            let mut alarms = Alarms::default();
            alarms.see(node, &raising(&[line]), seen);
            let found = alarms.findings(&BTreeMap::from([(name.to_owned(), struck)]));
            let expected = format!("n1 raised an alarm for which no fault accounts: {line}");
            let expected = if accounted { Vec::new() } else { vec![expected] };
            assert_eq!(found, expected, "{name}: {struck:?}");
        }
    }

    #[tokio::test]
    async fn the_first_alarm_about_the_same_is_kept() {
        let mut alarms = Alarms::default();
        let later = DIFFERENT.replace("revision 9", "revision 12");
        let other = DIFFERENT.replace("1/0", "2/0");
        let rounds: [&[&str]; 3] = [&[DIFFERENT], &[later.as_str(), other.as_str()], &[]];
        for lines in rounds {
            alarms.see(2, &raising(lines), clock::now());
        }
        let found = alarms.findings(&BTreeMap::new());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with(DIFFERENT) && found[1].ends_with(&other), "{found:?}");
        assert!(found.iter().all(|line| line.starts_with("n3 raised ")), "{found:?}");
    }

    fn raising(lines: &[&str]) -> NodeStatus {
        NodeStatus { alarms: lines.iter().map(|line| (*line).to_owned()).collect(), ..status(1, (1, 1)) }
    }
}
