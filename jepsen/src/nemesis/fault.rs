//! Faults as pure choices: which kind there is, and whom it hits.
//!
//! Left out: doing it (`force.rs`).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::grudge::{Grudge, Shape, names};
use crate::backend::{Cut, Traffic};
use crate::generator::Dice;

/// A kind of fault, as the command line has it (`kill`, `partition-halves`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// kill -9 to one node, a minority, a majority or the leader.
    Kill,
    /// kill -9 to all nodes at once: a loss of power that loses nothing the system has taken.
    KillAll,
    /// SIGSTOP to one node, a minority, a majority, the leader or all.
    Pause,
    /// A partition of any shape.
    Partition,
    PartitionOf(Shape),
    /// Between one node and the others all peer connections are cut; all other ports are open.
    PeerPortCut,
}

impl FaultKind {
    pub const ALL: [FaultKind; 12] = [
        FaultKind::Kill,
        FaultKind::KillAll,
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
    ];

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
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Kill => f.write_str("kill"),
            FaultKind::KillAll => f.write_str("kill-all"),
            FaultKind::Pause => f.write_str("pause"),
            FaultKind::Partition => f.write_str("partition"),
            FaultKind::PartitionOf(shape) => write!(f, "partition-{}", shape.name()),
            FaultKind::PeerPortCut => f.write_str("peer-port-cut"),
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

/// A fault and whom it hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill { whom: Targets, nodes: BTreeSet<usize> },
    KillAll { nodes: BTreeSet<usize> },
    Pause { whom: Targets, nodes: BTreeSet<usize> },
    Partition { shape: Shape, grudge: Grudge },
    PeerPortCut { grudge: Grudge },
}

impl Fault {
    /// What it drops on the network; nothing for faults of processes.
    pub fn cuts(&self) -> Vec<Cut> {
        match self {
            Fault::Kill { .. } | Fault::KillAll { .. } | Fault::Pause { .. } => Vec::new(),
            Fault::Partition { grudge, .. } => grudge.cuts(Traffic::All),
            Fault::PeerPortCut { grudge } => grudge.cuts(Traffic::PeerPort),
        }
    }
}

impl fmt::Display for Fault {
    /// Whom it hits: `leader: n2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { whom, nodes } | Fault::Pause { whom, nodes } => {
                write!(f, "{}: {}", whom.name(), names(nodes))
            }
            Fault::KillAll { nodes } => f.write_str(&names(nodes)),
            Fault::Partition { shape, grudge } => write!(f, "{}: {grudge}", shape.name()),
            Fault::PeerPortCut { grudge } => write!(f, "{grudge}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kind chooses with many seeds.
    fn chosen(kind: FaultKind, nodes: usize, leader: Option<usize>) -> Vec<Fault> {
        (0..200).map(|seed| kind.choose(&mut Dice::new(seed), nodes, leader).expect("it is possible")).collect()
    }

    fn hit_by(fault: &Fault) -> (Option<Targets>, usize) {
        match fault {
            Fault::Kill { whom, nodes } | Fault::Pause { whom, nodes } => (Some(*whom), nodes.len()),
            Fault::KillAll { nodes } => (None, nodes.len()),
            Fault::Partition { .. } | Fault::PeerPortCut { .. } => panic!("{fault} hits no processes"),
        }
    }

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
    fn faults_of_processes_hit_as_many_as_they_say() {
        type Hits = BTreeSet<(Option<Targets>, usize)>;
        let hits = |kind, nodes, leader| -> Hits { chosen(kind, nodes, leader).iter().map(hit_by).collect() };
        let (one, two) = ((Some(Targets::One), 1), (Some(Targets::Minority), 2));
        let (three, led, all) = ((Some(Targets::Majority), 3), (Some(Targets::Leader), 1), (Some(Targets::All), 5));
        assert_eq!(hits(FaultKind::Kill, 5, Some(4)), Hits::from([one, two, three, led]));
        assert_eq!(hits(FaultKind::Kill, 5, None), Hits::from([one, two, three]));
        assert_eq!(hits(FaultKind::Pause, 5, Some(0)), Hits::from([one, two, three, led, all]));
        assert_eq!(hits(FaultKind::Kill, 3, None), Hits::from([one, (Some(Targets::Majority), 2)]));
        assert_eq!(hits(FaultKind::Kill, 1, None), Hits::from([one]));
        assert_eq!(hits(FaultKind::KillAll, 5, None), Hits::from([(None, 5)]));
    }

    #[test]
    fn the_leader_hit_is_the_leader() {
        for fault in chosen(FaultKind::Kill, 5, Some(3)) {
            if let Fault::Kill { whom: Targets::Leader, nodes } = fault {
                assert_eq!(nodes, BTreeSet::from([3]));
            }
        }
    }

    #[test]
    fn a_partition_of_any_shape_takes_every_shape_there_can_be() {
        let shapes = |nodes, leader| -> BTreeSet<Shape> {
            let shape = |fault: Fault| match fault {
                Fault::Partition { shape, .. } => shape,
                Fault::Kill { .. } | Fault::KillAll { .. } | Fault::Pause { .. } | Fault::PeerPortCut { .. } => {
                    panic!("{fault} is no partition")
                }
            };
            chosen(FaultKind::Partition, nodes, leader).into_iter().map(shape).collect()
        };
        assert_eq!(shapes(5, Some(1)), BTreeSet::from(Shape::ALL));
        let two = [Shape::One, Shape::Halves, Shape::Asymmetric];
        assert_eq!(shapes(2, None), BTreeSet::from(two));
        assert!(FaultKind::Partition.choose(&mut Dice::new(1), 1, Some(0)).is_err());
        assert!(FaultKind::PartitionOf(Shape::Bridge).choose(&mut Dice::new(1), 2, Some(0)).is_err());
    }

    #[test]
    fn a_cut_of_the_peer_port_is_of_both_directions_and_nothing_else() {
        for fault in chosen(FaultKind::PeerPortCut, 5, None) {
            let cuts = fault.cuts();
            assert_eq!(cuts.len(), 8);
            for Cut { from, to, traffic } in &cuts {
                assert_eq!(*traffic, Traffic::PeerPort);
                assert!(cuts.contains(&Cut { from: *to, to: *from, traffic: *traffic }), "{fault}");
            }
        }
    }

    #[test]
    fn the_same_seed_hits_the_same() {
        for kind in FaultKind::ALL {
            let fault = |seed| kind.choose(&mut Dice::new(seed), 5, Some(2));
            assert!((0..20).all(|seed| fault(seed) == fault(seed)), "{kind}");
        }
    }
}
