//! Faults as values: what is done, and to whom.
//!
//! Left out: choosing one (`choice.rs`), and doing it (`force.rs`).

use std::collections::BTreeSet;
use std::fmt;

use super::grudge::{Grudge, Shape, names};
use crate::backend::{Break, Cut, Traffic, Weather};
use crate::cluster::Replacement;

/// Which nodes a fault of processes hits: of those that hold the default partition, but for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Targets {
    One,
    /// Fewer than half, but more than one.
    Minority,
    /// The fewest that are more than half, but not all.
    Majority,
    Leader,
    /// All nodes, whatever they hold.
    All,
}

impl Targets {
    fn name(self) -> &'static str {
        match self {
            Targets::One => "one",
            Targets::Minority => "minority",
            Targets::Majority => "majority",
            Targets::Leader => "leader",
            Targets::All => "all",
        }
    }
}

/// Who is killed during a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Receiver,
    /// The leader.
    Sender,
}

/// A fault and whom it hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill {
        whom: Targets,
        nodes: BTreeSet<usize>,
    },
    KillAll {
        nodes: BTreeSet<usize>,
    },
    /// `seed` chooses what is lost.
    PowerLoss {
        nodes: BTreeSet<usize>,
        seed: u64,
    },
    Pause {
        whom: Targets,
        nodes: BTreeSet<usize>,
    },
    Partition {
        shape: Shape,
        grudge: Grudge,
    },
    PeerPortCut {
        grudge: Grudge,
    },
    /// Of all lines of these nodes.
    Weather {
        weather: Weather,
        whom: Targets,
        nodes: BTreeSet<usize>,
    },
    /// All connections of these nodes.
    Broken {
        how: Break,
        whom: Targets,
        nodes: BTreeSet<usize>,
    },
    SyncError {
        whom: Targets,
        nodes: BTreeSet<usize>,
    },
    /// `bytes` are left.
    DiskFull {
        whom: Targets,
        nodes: BTreeSet<usize>,
        bytes: u64,
    },
    /// `seed` chooses how much is cut.
    Replaced {
        by: Replacement,
        whom: Targets,
        nodes: BTreeSet<usize>,
        seed: u64,
    },
    /// `seed` chooses the receiver, among those that hold the default partition, and how far the snapshot gets.
    SnapshotUnderFire {
        victim: Victim,
        seed: u64,
    },
}

impl Fault {
    /// What it drops on the network.
    pub fn cuts(&self) -> Vec<Cut> {
        match self {
            Fault::Kill { .. } | Fault::KillAll { .. } | Fault::PowerLoss { .. } | Fault::Pause { .. } => Vec::new(),
            Fault::SyncError { .. } | Fault::DiskFull { .. } => Vec::new(),
            Fault::Weather { .. } | Fault::Broken { .. } => Vec::new(),
            Fault::Replaced { .. } | Fault::SnapshotUnderFire { .. } => Vec::new(),
            Fault::Partition { grudge, .. } => grudge.cuts(Traffic::All),
            Fault::PeerPortCut { grudge } => grudge.cuts(Traffic::PeerPort),
        }
    }
}

impl fmt::Display for Fault {
    /// Whom it hits: `leader: n2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { whom, nodes }
            | Fault::Pause { whom, nodes }
            | Fault::SyncError { whom, nodes }
            | Fault::Broken { whom, nodes, .. }
            | Fault::Replaced { whom, nodes, .. } => write!(f, "{}: {}", whom.name(), names(nodes)),
            Fault::KillAll { nodes } | Fault::PowerLoss { nodes, .. } => f.write_str(&names(nodes)),
            Fault::Partition { shape, grudge } => write!(f, "{}: {grudge}", shape.name()),
            Fault::PeerPortCut { grudge } => write!(f, "{grudge}"),
            Fault::Weather { weather: Weather::Slow { delay, jitter, .. }, whom, nodes } => {
                let most = *delay + *jitter;
                write!(f, "{}: {}, {delay:?} to {most:?} late", whom.name(), names(nodes))
            }
            Fault::Weather { weather: Weather::Drip { bytes_per_second }, whom, nodes } => {
                write!(f, "{}: {}, {bytes_per_second} bytes a second", whom.name(), names(nodes))
            }
            Fault::DiskFull { whom, nodes, bytes } => {
                write!(f, "{}: {}, {bytes} bytes left", whom.name(), names(nodes))
            }
            Fault::SnapshotUnderFire { victim: Victim::Receiver, .. } => f.write_str("receiver"),
            Fault::SnapshotUnderFire { victim: Victim::Sender, .. } => f.write_str("sender"),
        }
    }
}
