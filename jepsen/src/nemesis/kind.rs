//! The kinds of faults there are: what they are called, and what each needs. One node, a minority and a majority are of
//! those that hold the default partition.
//!
//! Left out: whom one hits (`choice.rs`), and doing it (`force.rs`).

use std::fmt;
use std::str::FromStr;

use super::grudge::Shape;
use crate::coverage::Expected;

/// A node that is down for some seconds needs a snapshot, which is sent at a rate that can be watched: half a second for
/// 4 MB. While it is sent the log must not be cut again, or the node never catches up: there is a bound to the load.
const SNAPSHOT_FLAGS: [&str; 4] = ["--log-entries-kept", "500", "--bulk-bytes-per-second", "8388608"];

/// A kind of fault, as the command line has it (`kill`, `partition-halves`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// kill -9 to one node, a minority, a majority or the leader.
    Kill,
    /// kill -9 to all nodes at once: a loss of power that loses nothing the system has taken.
    KillAll,
    /// The same, and of what was not synced some is lost.
    PowerLoss,
    /// SIGSTOP to one node, a minority, a majority, the leader or all.
    Pause,
    /// A partition of any shape.
    Partition,
    PartitionOf(Shape),
    /// Between one node and the others all peer connections are cut; all other ports are open.
    PeerPortCut,
    /// All that one node, the leader or every node sends and is sent by the others comes late.
    SlowLinks,
    /// All that one node or the leader sends and is sent by the others comes as a drip.
    Drip,
    /// All connections between one node, or the leader, and the others are reset.
    Reset,
    /// The same, but the node is not told.
    HalfOpen,
    /// On one node or the leader each sync fails with EIO; the node must end at once.
    SyncError,
    /// The disk of one node or of the leader is full.
    DiskFull,
    /// A minority comes back with empty directories; it must stay out.
    Amnesia,
    /// A minority comes back without the end of its write-ahead log; it must refuse to start, or serve right.
    Truncation,
    /// A minority comes back with directories of an earlier time; it must stay out.
    OldCopy,
    /// A node that needs a snapshot, or the leader, is killed while the snapshot is sent.
    SnapshotUnderFire,
}

impl FaultKind {
    pub const ALL: [FaultKind; 23] = [
        FaultKind::Kill,
        FaultKind::KillAll,
        FaultKind::PowerLoss,
        FaultKind::Pause,
        FaultKind::Partition,
        FaultKind::PartitionOf(Shape::One),
        FaultKind::PartitionOf(Shape::Halves),
        FaultKind::PartitionOf(Shape::Minority),
        FaultKind::PartitionOf(Shape::MajorityRing),
        FaultKind::PartitionOf(Shape::Bridge),
        FaultKind::PartitionOf(Shape::LeaderAlone),
        FaultKind::PartitionOf(Shape::Asymmetric),
        FaultKind::PeerPortCut,
        FaultKind::SlowLinks,
        FaultKind::Drip,
        FaultKind::Reset,
        FaultKind::HalfOpen,
        FaultKind::SyncError,
        FaultKind::DiskFull,
        FaultKind::Amnesia,
        FaultKind::Truncation,
        FaultKind::OldCopy,
        FaultKind::SnapshotUnderFire,
    ];

    /// The one table of what is known of kinds.
    fn traits(self) -> Traits {
        match self {
            FaultKind::Kill | FaultKind::KillAll | FaultKind::Pause => Traits::of(Needs::Processes),
            FaultKind::Amnesia | FaultKind::Truncation | FaultKind::OldCopy => Traits::of(Needs::Processes),
            FaultKind::PowerLoss | FaultKind::SyncError | FaultKind::DiskFull => Traits::of(Needs::Shim),
            FaultKind::Partition | FaultKind::PartitionOf(_) | FaultKind::PeerPortCut => Traits::of(Needs::Links),
            FaultKind::SlowLinks | FaultKind::Drip => Traits::of(Needs::Proxies),
            FaultKind::Reset | FaultKind::HalfOpen => Traits::of(Needs::Proxies),
            FaultKind::SnapshotUnderFire => {
                Traits { needs: Needs::Processes, flags: &SNAPSHOT_FLAGS, expects: &[Expected::Snapshot] }
            }
        }
    }

    /// What it needs of the machine and of the nodes.
    pub fn needs(self) -> Needs {
        self.traits().needs
    }

    /// The flags without which it does not come about in a run of minutes, each with its value.
    pub fn flags(self) -> &'static [&'static str] {
        self.traits().flags
    }

    /// What must be seen to happen in a run for it to have been under such a fault.
    pub fn expects(self) -> &'static [Expected] {
        self.traits().expects
    }
}

/// What is known of a kind.
struct Traits {
    needs: Needs,
    flags: &'static [&'static str],
    expects: &'static [Expected],
}

impl Traits {
    /// Of a kind that comes about with any flags, and is seen by its own probe alone.
    fn of(needs: Needs) -> Traits {
        Traits { needs, flags: &[], expects: &[] }
    }
}

/// What a kind of fault needs. Every backend can start, kill and stop processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Processes,
    /// Something between the nodes that can cut them off from each other.
    Links,
    /// Proxies between the nodes.
    Proxies,
    /// The preload shim under the nodes.
    Shim,
}

impl Needs {
    /// Whether it is something between the nodes.
    pub fn network(self) -> bool {
        match self {
            Needs::Links | Needs::Proxies => true,
            Needs::Processes | Needs::Shim => false,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Kill => f.write_str("kill"),
            FaultKind::KillAll => f.write_str("kill-all"),
            FaultKind::PowerLoss => f.write_str("power-loss"),
            FaultKind::Pause => f.write_str("pause"),
            FaultKind::Partition => f.write_str("partition"),
            FaultKind::PartitionOf(shape) => write!(f, "partition-{}", shape.name()),
            FaultKind::PeerPortCut => f.write_str("peer-port-cut"),
            FaultKind::SlowLinks => f.write_str("slow-links"),
            FaultKind::Drip => f.write_str("drip"),
            FaultKind::Reset => f.write_str("reset"),
            FaultKind::HalfOpen => f.write_str("half-open"),
            FaultKind::SyncError => f.write_str("sync-error"),
            FaultKind::DiskFull => f.write_str("disk-full"),
            FaultKind::Amnesia => f.write_str("amnesia"),
            FaultKind::Truncation => f.write_str("truncation"),
            FaultKind::OldCopy => f.write_str("old-copy"),
            FaultKind::SnapshotUnderFire => f.write_str("snapshot-under-fire"),
        }
    }
}

/// A word that is no kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is no fault; there are: {known}")]
pub struct UnknownFault {
    word: String,
    known: String,
}

impl FromStr for FaultKind {
    type Err = UnknownFault;

    fn from_str(word: &str) -> Result<FaultKind, UnknownFault> {
        FaultKind::ALL.into_iter().find(|kind| kind.to_string() == word).ok_or_else(|| UnknownFault {
            word: word.to_owned(),
            known: FaultKind::ALL.map(|kind| kind.to_string()).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.to_string().parse::<FaultKind>(), Ok(kind));
        }
        let shapes = FaultKind::ALL.iter().filter(|kind| matches!(kind, FaultKind::PartitionOf(_)));
        assert_eq!(shapes.count(), Shape::ALL.len());
        let error = "snarf".parse::<FaultKind>().expect_err("no fault");
        assert!(error.to_string().contains("'snarf'") && error.to_string().contains("partition-halves"));
    }

    #[test]
    fn flags_come_with_their_values() {
        for kind in FaultKind::ALL {
            let mut pairs = kind.flags().chunks(2);
            assert!(pairs.all(|pair| pair.len() == 2 && pair[0].starts_with("--")), "{kind}");
        }
    }
}
