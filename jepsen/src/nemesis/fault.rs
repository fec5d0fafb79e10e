//! Faults as pure choices: which kind there is, and whom it hits.
//!
//! Left out: doing it (`force.rs`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::grudge::{Grudge, Shape, names};
use crate::backend::{Break, Cut, Traffic, Weather};
use crate::cluster::Replacement;
use crate::coverage::Expected;
use crate::generator::Dice;

/// Of fewer nodes none can be taken away so that the others are a majority.
const MAJORITY_LEFT_MIN: usize = 3;
/// How late things come: from within a heartbeat to most of an election's time.
const DELAYS_MS: [u64; 3] = [20, 100, 400];
/// Bytes a second: hardly enough for heartbeats, and for a little more.
const DRIPS: [u64; 2] = [500, 3000];
/// What a full disk still takes: nothing, less than a page, some seconds of load.
const SPACES_LEFT: [u64; 4] = [0, 1000, 20_000, 200_000];
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

    /// What it needs of the machine and of the nodes.
    pub fn needs(self) -> Needs {
        match self {
            FaultKind::Kill | FaultKind::KillAll | FaultKind::Pause => Needs::Processes,
            FaultKind::Partition | FaultKind::PartitionOf(_) | FaultKind::PeerPortCut => Needs::Links,
            FaultKind::SlowLinks | FaultKind::Drip | FaultKind::Reset | FaultKind::HalfOpen => Needs::Proxies,
            FaultKind::PowerLoss | FaultKind::SyncError | FaultKind::DiskFull => Needs::Shim,
            FaultKind::Amnesia | FaultKind::Truncation | FaultKind::OldCopy => Needs::Processes,
            FaultKind::SnapshotUnderFire => Needs::Processes,
        }
    }

    /// The flags without which it does not come about in a run of minutes.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            FaultKind::SnapshotUnderFire => &SNAPSHOT_FLAGS,
            FaultKind::Kill
            | FaultKind::KillAll
            | FaultKind::PowerLoss
            | FaultKind::Pause
            | FaultKind::Partition
            | FaultKind::PartitionOf(_)
            | FaultKind::PeerPortCut
            | FaultKind::SlowLinks
            | FaultKind::Drip
            | FaultKind::Reset
            | FaultKind::HalfOpen
            | FaultKind::SyncError
            | FaultKind::DiskFull
            | FaultKind::Amnesia
            | FaultKind::Truncation
            | FaultKind::OldCopy => &[],
        }
    }

    /// What must be seen to happen in a run for it to have been under such a fault.
    pub fn expects(self) -> &'static [Expected] {
        match self {
            FaultKind::SnapshotUnderFire => &[Expected::Snapshot],
            FaultKind::Kill
            | FaultKind::KillAll
            | FaultKind::PowerLoss
            | FaultKind::Pause
            | FaultKind::Partition
            | FaultKind::PartitionOf(_)
            | FaultKind::PeerPortCut
            | FaultKind::SlowLinks
            | FaultKind::Drip
            | FaultKind::Reset
            | FaultKind::HalfOpen
            | FaultKind::SyncError
            | FaultKind::DiskFull
            | FaultKind::Amnesia
            | FaultKind::Truncation
            | FaultKind::OldCopy => &[],
        }
    }

    /// Whom a fault of this kind hits in a cluster of so many nodes, of which `leader` leads.
    ///
    /// # Errors
    /// There are too few nodes for it, or nobody leads whom it is to hit: in words.
    pub fn choose(self, dice: &mut Dice, nodes: usize, leader: Option<usize>) -> Result<Fault, String> {
        match self {
            FaultKind::Kill => {
                let whom = [Targets::One, Targets::Minority, Targets::Majority, Targets::Leader];
                let (whom, nodes) = hit(&whom, dice, nodes, leader)?;
                Ok(Fault::Kill { whom, nodes })
            }
            FaultKind::KillAll => Ok(Fault::KillAll { nodes: (0..nodes).collect() }),
            FaultKind::PowerLoss => Ok(Fault::PowerLoss { nodes: (0..nodes).collect(), seed: dice.roll() }),
            FaultKind::Pause => {
                let whom = [Targets::One, Targets::Minority, Targets::Majority, Targets::Leader, Targets::All];
                let (whom, nodes) = hit(&whom, dice, nodes, leader)?;
                Ok(Fault::Pause { whom, nodes })
            }
            FaultKind::Partition => {
                let possible = |&shape: &Shape| (shape != Shape::LeaderAlone || leader.is_some()).then_some(shape);
                let possible: Vec<Shape> = Shape::ALL.iter().filter_map(possible).collect();
                partition(&possible, dice, nodes, leader)
            }
            FaultKind::PartitionOf(shape) => partition(&[shape], dice, nodes, leader),
            FaultKind::PeerPortCut => {
                let grudge = Shape::One.grudge(dice, nodes, leader)?;
                Ok(Fault::PeerPortCut { grudge })
            }
            FaultKind::SlowLinks => {
                let (whom, nodes) = hit(&[Targets::One, Targets::Leader, Targets::All], dice, nodes, leader)?;
                let delay = Duration::from_millis(*dice.pick(&DELAYS_MS));
                let jitter = delay.mul_f64(dice.below(100) as f64 / 100.0);
                Ok(Fault::Weather { weather: Weather::Slow { delay, jitter, seed: dice.roll() }, whom, nodes })
            }
            FaultKind::Drip => {
                let (whom, nodes) = hit(&[Targets::One, Targets::Leader], dice, nodes, leader)?;
                let weather = Weather::Drip { bytes_per_second: *dice.pick(&DRIPS) };
                Ok(Fault::Weather { weather, whom, nodes })
            }
            FaultKind::Reset => broken(Break::Reset, dice, nodes, leader),
            FaultKind::HalfOpen => broken(Break::HalfOpen, dice, nodes, leader),
            FaultKind::SyncError => {
                let (whom, nodes) = hit(&[Targets::One, Targets::Leader], dice, nodes, leader)?;
                Ok(Fault::SyncError { whom, nodes })
            }
            FaultKind::DiskFull => {
                let (whom, nodes) = hit(&[Targets::One, Targets::Leader], dice, nodes, leader)?;
                Ok(Fault::DiskFull { whom, nodes, bytes: *dice.pick(&SPACES_LEFT) })
            }
            FaultKind::Amnesia => replaced(Replacement::Nothing, dice, nodes),
            FaultKind::Truncation => replaced(Replacement::Cut, dice, nodes),
            FaultKind::OldCopy => replaced(Replacement::OldCopy, dice, nodes),
            FaultKind::SnapshotUnderFire => snapshot(dice, nodes, leader),
        }
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

/// Which nodes a fault of processes hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Targets {
    One,
    /// Fewer than half, but more than one.
    Minority,
    /// The fewest that are more than half, but not all.
    Majority,
    Leader,
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

    /// Nodes to hit. `None`: a cluster of so many has none such, or nobody leads.
    fn nodes(self, dice: &mut Dice, nodes: usize, leader: Option<usize>) -> Option<BTreeSet<usize>> {
        let (minority, majority) = (nodes.saturating_sub(1) / 2, nodes / 2 + 1);
        let count = match self {
            Targets::One => 1,
            Targets::Minority if minority >= 2 => 2 + dice.below(minority as u64 - 1) as usize,
            Targets::Majority if majority < nodes => majority,
            Targets::Minority | Targets::Majority => return None,
            Targets::Leader => return leader.map(|leader| BTreeSet::from([leader])),
            Targets::All => nodes,
        };
        let mut order: Vec<usize> = (0..nodes).collect();
        dice.shuffle(&mut order);
        Some(order.into_iter().take(count).collect())
    }
}

fn hit(
    whom: &[Targets],
    dice: &mut Dice,
    nodes: usize,
    leader: Option<usize>,
) -> Result<(Targets, BTreeSet<usize>), String> {
    let chosen = |&whom: &Targets| Some((whom, whom.nodes(dice, nodes, leader)?));
    let mut possible: Vec<(Targets, BTreeSet<usize>)> = whom.iter().filter_map(chosen).collect();
    if possible.is_empty() {
        return Err("there is no node to hit".to_owned());
    }
    Ok(possible.swap_remove(dice.below(possible.len() as u64) as usize))
}

fn partition(shapes: &[Shape], dice: &mut Dice, nodes: usize, leader: Option<usize>) -> Result<Fault, String> {
    let enough: Vec<Shape> = shapes.iter().copied().filter(|shape| nodes >= shape.nodes_min()).collect();
    if enough.is_empty() {
        let least = shapes.iter().map(|shape| shape.nodes_min()).min().unwrap_or_default();
        return Err(format!("needs at least {least} nodes"));
    }
    let shape = *dice.pick(&enough);
    Ok(Fault::Partition { shape, grudge: shape.grudge(dice, nodes, leader)? })
}

fn broken(how: Break, dice: &mut Dice, nodes: usize, leader: Option<usize>) -> Result<Fault, String> {
    let (whom, nodes) = hit(&[Targets::One, Targets::Leader], dice, nodes, leader)?;
    Ok(Fault::Broken { how, whom, nodes })
}

fn replaced(by: Replacement, dice: &mut Dice, nodes: usize) -> Result<Fault, String> {
    if nodes < MAJORITY_LEFT_MIN {
        return Err(format!("needs at least {MAJORITY_LEFT_MIN} nodes"));
    }
    let (whom, nodes) = hit(&[Targets::One, Targets::Minority], dice, nodes, None)?;
    Ok(Fault::Replaced { by, whom, nodes, seed: dice.roll() })
}

fn snapshot(dice: &mut Dice, nodes: usize, leader: Option<usize>) -> Result<Fault, String> {
    if nodes < MAJORITY_LEFT_MIN {
        return Err(format!("needs at least {MAJORITY_LEFT_MIN} nodes"));
    }
    leader.ok_or("nobody is known to lead")?;
    let victim = if dice.flag() { Victim::Receiver } else { Victim::Sender };
    Ok(Fault::SnapshotUnderFire { victim, seed: dice.roll() })
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

#[cfg(test)]
mod tests;
