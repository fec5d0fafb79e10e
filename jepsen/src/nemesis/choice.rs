//! Whom a fault of a kind hits, and how hard: pure choices of a seed, the number of nodes and who leads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::{Fault, Targets, Victim};
use super::grudge::Shape;
use super::kind::FaultKind;
use crate::backend::{Break, Weather};
use crate::cluster::Replacement;
use crate::generator::Dice;

/// Of fewer nodes none can be taken away so that the others are a majority.
const MAJORITY_LEFT_MIN: usize = 3;
/// How late things come: from within a heartbeat to most of an election's time.
const DELAYS_MS: [u64; 3] = [20, 100, 400];
/// Bytes a second: hardly enough for heartbeats, and for a little more.
const DRIPS: [u64; 2] = [500, 3000];
/// What a full disk still takes: nothing, less than a page, some seconds of load.
const SPACES_LEFT: [u64; 4] = [0, 1000, 20_000, 200_000];

impl FaultKind {
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

impl Targets {
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

#[cfg(test)]
mod tests;
