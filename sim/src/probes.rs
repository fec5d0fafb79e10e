//! Probes: rare states, and how often a run has reached each of them.
//!
//! A fault in force says what was done to the cluster; a probe says what the cluster came to. One that no run reaches is
//! listed as such: what it stands for is not tested. Pure; whoever sees a state counts it here (`cluster.rs` what
//! becomes of machines, `invariants.rs` what disks show, `lib.rs` what clients and nodes say).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A state that few runs reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rare {
    /// A partition has a leader in one more term than its first one.
    LeaderChange,
    /// In one term votes went to two candidates.
    RivalCandidates,
    /// A replica was so far behind that it took a snapshot.
    SnapshotReceived,
    /// A replica's log lost, or had replaced, an entry at its end.
    LogTruncated,
    /// A loss of power left a slot of the mark torn.
    TornMark,
    /// A loss of power took batches that were not synced.
    UnsyncedLost,
    /// A node with another directory than its own was running, and said that it stays out.
    StayedOut,
    /// The wall clock of a node that led a partition jumped.
    LeaderClockJump,
    /// A client does not know what became of its write.
    UnknownWrite,
    /// A node forwarded a request: those that nodes say of their last lives.
    Forward,
    /// No node ran.
    WholeClusterDown,
    /// A partition changed its leader while a session was watched.
    SessionLeaderChange,
    /// A read with a context was answered by another node than the one that had given the context.
    ContextElsewhere,
    /// A node compacted history: those that nodes say of their last lives.
    Compacted,
    /// A replica took a snapshot of compacted history.
    SnapshotCompacted,
}

impl Rare {
    pub const ALL: [Rare; 15] = [
        Rare::LeaderChange,
        Rare::RivalCandidates,
        Rare::SnapshotReceived,
        Rare::LogTruncated,
        Rare::TornMark,
        Rare::UnsyncedLost,
        Rare::StayedOut,
        Rare::LeaderClockJump,
        Rare::UnknownWrite,
        Rare::Forward,
        Rare::WholeClusterDown,
        Rare::SessionLeaderChange,
        Rare::ContextElsewhere,
        Rare::Compacted,
        Rare::SnapshotCompacted,
    ];

    /// As summaries have it.
    pub fn name(self) -> &'static str {
        match self {
            Rare::LeaderChange => "leader-change",
            Rare::RivalCandidates => "rival-candidates",
            Rare::SnapshotReceived => "snapshot-received",
            Rare::LogTruncated => "log-truncated",
            Rare::TornMark => "torn-mark",
            Rare::UnsyncedLost => "unsynced-lost",
            Rare::StayedOut => "stayed-out",
            Rare::LeaderClockJump => "leader-clock-jump",
            Rare::UnknownWrite => "unknown-write",
            Rare::Forward => "forward",
            Rare::WholeClusterDown => "whole-cluster-down",
            Rare::SessionLeaderChange => "session-leader-change",
            Rare::ContextElsewhere => "context-elsewhere",
            Rare::Compacted => "compacted",
            Rare::SnapshotCompacted => "snapshot-compacted",
        }
    }
}

impl fmt::Display for Rare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often each rare state was reached; one that was not reached has no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Probes(BTreeMap<Rare, u64>);

impl Probes {
    /// It was reached so often; not at all is fine.
    pub fn count(&mut self, rare: Rare, times: u64) {
        if times > 0 {
            *self.0.entry(rare).or_default() += times;
        }
    }

    /// Adds what others have seen.
    pub fn add(&mut self, others: &Probes) {
        others.0.iter().for_each(|(rare, times)| self.count(*rare, *times));
    }

    /// How often it was reached.
    pub fn times(&self, rare: Rare) -> u64 {
        self.0.get(&rare).copied().unwrap_or(0)
    }

    /// Those that were never reached.
    pub fn never_reached(&self) -> Vec<Rare> {
        Rare::ALL.into_iter().filter(|rare| self.times(*rare) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_reached_is_summed_and_the_rest_is_named() {
        let (mut one, mut other) = (Probes::default(), Probes::default());
        one.count(Rare::TornMark, 2);
        other.count(Rare::TornMark, 3);
        other.count(Rare::Forward, 0);
        one.add(&other);
        assert_eq!((one.times(Rare::TornMark), one.times(Rare::Forward)), (5, 0));
        let never: BTreeSet<Rare> = one.never_reached().into_iter().collect();
        assert_eq!(never.len(), Rare::ALL.len() - 1);
        assert!(!never.contains(&Rare::TornMark));
    }

    #[test]
    fn names_are_those_of_the_report() {
        for rare in Rare::ALL {
            let mut probes = Probes::default();
            probes.count(rare, 1);
            let text = serde_json::to_string(&probes).expect("plain data");
            assert_eq!(text, format!("{{\"{rare}\":1}}"));
            assert_eq!(serde_json::from_str::<Probes>(&text).expect("as written"), probes);
        }
    }
}
