//! Bugs that are there on purpose, to show that they are found: positive controls for the simulation and the chaos
//! harness.
//!
//! The points in the code that could have one ask [`is`]. Without the feature `planted` that is a constant, so that the
//! compiler leaves nothing of them. With it, a program chooses one bug when it starts ([`plant`]): state of the process,
//! since a build with planted bugs serves no other purpose. Who must find which one is said in the chaos harness's
//! selftest.
//!
//! Invariants:
//!
//! * No program without the feature behaves otherwise for this file.
//! * A process has one bug at most, from its start on.
//!
//! Left out: faults of the world (disks that forget, directories that are put back), which are the simulation's and the
//! harness's.

use std::fmt;
use std::str::FromStr;

/// Whether this build has bugs to choose from.
pub const COMPILED_IN: bool = cfg!(feature = "planted");

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    AckBeforeSync,
    MarkBeforeSync,
    VoteNotPersisted,
    LocalReads,
    ReadIndexUnasked,
    ReadBeforeApplied,
    JoinRunningRound,
    RoundsEndWithFailure,
    AppliedApart,
    ApplyBeforeEntry,
    OldRowsKept,
    RequestTableLost,
    VoteLostWithSnapshot,
    CompareOutsideApply,
    UnknownWriteRepeated,
    StorageIdIgnored,
    StartCountIgnored,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 17] = [
        Bug::AckBeforeSync,
        Bug::MarkBeforeSync,
        Bug::VoteNotPersisted,
        Bug::LocalReads,
        Bug::ReadIndexUnasked,
        Bug::ReadBeforeApplied,
        Bug::JoinRunningRound,
        Bug::RoundsEndWithFailure,
        Bug::AppliedApart,
        Bug::ApplyBeforeEntry,
        Bug::OldRowsKept,
        Bug::RequestTableLost,
        Bug::VoteLostWithSnapshot,
        Bug::CompareOutsideApply,
        Bug::UnknownWriteRepeated,
        Bug::StorageIdIgnored,
        Bug::StartCountIgnored,
    ];

    /// As command lines and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "ack-before-sync",
            Bug::MarkBeforeSync => "mark-before-sync",
            Bug::VoteNotPersisted => "vote-not-persisted",
            Bug::LocalReads => "local-reads",
            Bug::ReadIndexUnasked => "read-index-unasked",
            Bug::ReadBeforeApplied => "read-before-applied",
            Bug::JoinRunningRound => "join-running-round",
            Bug::RoundsEndWithFailure => "rounds-end-with-failure",
            Bug::AppliedApart => "applied-apart",
            Bug::ApplyBeforeEntry => "apply-before-entry",
            Bug::OldRowsKept => "old-rows-kept",
            Bug::RequestTableLost => "request-table-lost",
            Bug::VoteLostWithSnapshot => "vote-lost-with-snapshot",
            Bug::CompareOutsideApply => "compare-outside-apply",
            Bug::UnknownWriteRepeated => "unknown-write-repeated",
            Bug::StorageIdIgnored => "storage-id-ignored",
            Bug::StartCountIgnored => "start-count-ignored",
        }
    }

    /// What is wrong, in one line.
    pub fn description(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "the writer calls back before it has synced",
            Bug::MarkBeforeSync => "the mark notes a position before it is synced",
            Bug::VoteNotPersisted => "votes are kept in memory only",
            Bug::LocalReads => "linearizable reads are answered from what is applied here, and nobody is asked",
            Bug::ReadIndexUnasked => "who takes itself for the leader gives read indexes without asking a quorum",
            Bug::ReadBeforeApplied => "a follower reads before it has applied what the leader's read index says",
            Bug::JoinRunningRound => "a read joins the round of questions that is under way",
            Bug::RoundsEndWithFailure => {
                "a leader that did not answer a question for a read index is never asked again"
            }
            Bug::AppliedApart => "the applied position is written before the data, in a batch of its own",
            Bug::ApplyBeforeEntry => "applies are written beside the writer's queue, and overtake their entries",
            Bug::OldRowsKept => "a snapshot's rows are written over the old ones, which are not removed",
            Bug::RequestTableLost => "snapshots leave out the kept replies of sessions",
            Bug::VoteLostWithSnapshot => "the switch to a snapshot removes the vote as well",
            Bug::CompareOutsideApply => "a transaction's compares are evaluated when it is proposed",
            Bug::UnknownWriteRepeated => "the client repeats a write outside of a session whose outcome is unknown",
            Bug::StorageIdIgnored => "an empty directory takes the place of the one that its name was founded with",
            Bug::StartCountIgnored => "an old copy of a directory is believed, whatever its peers have met since",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no bug's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchBug(String);

impl fmt::Display for NoSuchBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Bug::ALL.into_iter().map(Bug::name).collect();
        write!(f, "'{}' is none of {}", self.0, names.join(", "))
    }
}

impl std::error::Error for NoSuchBug {}

impl FromStr for Bug {
    type Err = NoSuchBug;

    fn from_str(name: &str) -> Result<Bug, NoSuchBug> {
        Bug::ALL.into_iter().find(|bug| bug.name() == name).ok_or_else(|| NoSuchBug(name.to_owned()))
    }
}

/// Whether this process has the bug.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Whether this process has the bug.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// Gives this process a bug, and the line that says so. Call it once, at the start.
#[cfg(feature = "planted")]
pub fn plant(bug: Bug) -> String {
    assert_eq!(PLANTED.set(bug), Ok(()), "a process has one bug");
    format!("PLANTED BUG: {bug}: {}", bug.description())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_bug_is_found_by_its_name() {
        let names: BTreeSet<&str> = Bug::ALL.into_iter().map(Bug::name).collect();
        assert_eq!(names.len(), Bug::ALL.len(), "each has a name of its own");
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse(), Ok(bug));
            assert!(!bug.description().contains('\n'), "{bug}: one line");
        }
        assert!("bug".parse::<Bug>().is_err_and(|error| error.to_string().contains("vote-not-persisted")));
    }

    #[test]
    fn a_process_has_none_unless_it_is_planted() {
        assert!(Bug::ALL.into_iter().all(|bug| !is(bug)));
    }
}
