//! Whom a fault of a kind hits, and how hard: pure choices of a seed, of where the default partition is and of who leads.
//!
//! Victims are nodes that hold the default partition: all that is judged is there, and one, a minority or a majority of
//! them is what the names say. Other nodes are hit with them by what hits all nodes, and are parted with them by
//! partitions (`grudge.rs`); never alone, since that would prove nothing.
//!
//! Invariants:
//!
//! * Whether it is known who leads changes no choice but that of a leader. In its place one of the others is hit.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::{Fault, Targets, Victim};
use super::grudge::{Grudge, Shape};
use super::kind::FaultKind;
use crate::backend::{Break, Weather};
use crate::cluster::Replacement;
use crate::cluster::status::Placement;
use crate::generator::Dice;

/// Of fewer holders none can be taken away so that the others are a majority.
const MAJORITY_LEFT_MIN: usize = 3;
/// A minority of fewer is one node, which is called so.
const MINORITY_MIN: usize = 2;
const ONE_OR_LEADER: [Targets; 2] = [Targets::One, Targets::Leader];
/// How late things come: from within a heartbeat to most of an election's time.
const DELAYS_MS: [u64; 3] = [20, 100, 400];
/// Bytes a second: hardly enough for heartbeats, and for a little more.
const DRIPS: [u64; 2] = [500, 3000];
/// What a full disk still takes: nothing, less than a page, some seconds of load.
const SPACES_LEFT: [u64; 4] = [0, 1000, 20_000, 200_000];

impl FaultKind {
    /// Whom a fault of this kind hits.
    ///
    /// # Errors
    /// There are too few nodes for it, or nobody leads whom it is to hit: in words.
    pub fn choose(self, dice: &mut Dice, placement: &Placement) -> Result<Fault, String> {
        // How often the first are rolled depends on how many nodes there are, so the others are apart.
        let (mut whom, mut how) = (dice.split(), dice.split());
        match self {
            FaultKind::Kill => {
                let possible = [Targets::One, Targets::Minority, Targets::Majority, Targets::Leader];
                let (whom, nodes) = hit(&possible, &mut whom, placement);
                Ok(Fault::Kill { whom, nodes })
            }
            FaultKind::KillAll => Ok(Fault::KillAll { nodes: (0..placement.nodes).collect() }),
            FaultKind::PowerLoss => Ok(Fault::PowerLoss { nodes: (0..placement.nodes).collect(), seed: how.roll() }),
            FaultKind::Pause => {
                let possible = [Targets::One, Targets::Minority, Targets::Majority, Targets::Leader, Targets::All];
                let (whom, nodes) = hit(&possible, &mut whom, placement);
                Ok(Fault::Pause { whom, nodes })
            }
            FaultKind::Partition => partition(any_shape(&mut how, placement), &mut whom, placement),
            FaultKind::PartitionOf(shape) => partition(shape, &mut whom, placement),
            FaultKind::PeerPortCut => peer_port_cut(&mut whom, placement),
            FaultKind::SlowLinks => {
                let (whom, nodes) = hit(&[Targets::One, Targets::Leader, Targets::All], &mut whom, placement);
                let delay = Duration::from_millis(*how.pick(&DELAYS_MS));
                let jitter = delay.mul_f64(how.below(100) as f64 / 100.0);
                Ok(Fault::Weather { weather: Weather::Slow { delay, jitter, seed: how.roll() }, whom, nodes })
            }
            FaultKind::Drip => {
                let (whom, nodes) = hit(&ONE_OR_LEADER, &mut whom, placement);
                let weather = Weather::Drip { bytes_per_second: *how.pick(&DRIPS) };
                Ok(Fault::Weather { weather, whom, nodes })
            }
            FaultKind::Reset => Ok(broken(Break::Reset, &mut whom, placement)),
            FaultKind::HalfOpen => Ok(broken(Break::HalfOpen, &mut whom, placement)),
            FaultKind::SyncError => {
                let (whom, nodes) = hit(&ONE_OR_LEADER, &mut whom, placement);
                Ok(Fault::SyncError { whom, nodes })
            }
            FaultKind::DiskFull => {
                let (whom, nodes) = hit(&ONE_OR_LEADER, &mut whom, placement);
                Ok(Fault::DiskFull { whom, nodes, bytes: *how.pick(&SPACES_LEFT) })
            }
            FaultKind::Amnesia => replaced(Replacement::Nothing, (&mut whom, &mut how), placement),
            FaultKind::Truncation => replaced(Replacement::Cut, (&mut whom, &mut how), placement),
            FaultKind::OldCopy => replaced(Replacement::OldCopy, (&mut whom, &mut how), placement),
            FaultKind::SnapshotUnderFire => snapshot(&mut how, placement),
        }
    }
}

impl Targets {
    /// Whether so many holders can be hit so.
    fn is_possible(self, placement: &Placement) -> bool {
        match self {
            Targets::One | Targets::Leader | Targets::All => true,
            Targets::Minority => minority(placement) >= MINORITY_MIN,
            Targets::Majority => placement.majority() < placement.holders.len(),
        }
    }

    /// Nodes to hit. Of a leader that is not known any holder takes the place.
    fn nodes(self, dice: &mut Dice, placement: &Placement) -> BTreeSet<usize> {
        let mut order: Vec<usize> = placement.holders.iter().copied().collect();
        dice.shuffle(&mut order);
        let count = match self {
            Targets::One | Targets::Leader => 1,
            Targets::Minority => MINORITY_MIN + dice.below((minority(placement) - MINORITY_MIN + 1) as u64) as usize,
            Targets::Majority => placement.majority(),
            Targets::All => return (0..placement.nodes).collect(),
        };
        order.into_iter().take(count).collect()
    }
}

/// The most holders that are fewer than half of them.
fn minority(placement: &Placement) -> usize {
    placement.holders.len().saturating_sub(1) / 2
}

/// Hits one of `whom`, among which is [`Targets::One`].
fn hit(whom: &[Targets], dice: &mut Dice, placement: &Placement) -> (Targets, BTreeSet<usize>) {
    let possible: Vec<Targets> = whom.iter().copied().filter(|whom| whom.is_possible(placement)).collect();
    let whom = *dice.pick(&possible);
    let nodes = whom.nodes(dice, placement);
    match (whom == Targets::Leader, placement.leader) {
        (true, Some(leader)) => (whom, BTreeSet::from([leader])),
        (true, None) => (Targets::One, nodes),
        (false, _) => (whom, nodes),
    }
}

/// Any shape that so many holders can have.
fn any_shape(dice: &mut Dice, placement: &Placement) -> Shape {
    let enough = |shape: &Shape| placement.holders.len() >= shape.holders_min();
    let possible: Vec<Shape> = Shape::ALL.into_iter().filter(enough).collect();
    let drawn = if possible.is_empty() { Shape::One } else { *dice.pick(&possible) };
    if drawn == Shape::LeaderAlone && placement.leader.is_none() { Shape::One } else { drawn }
}

fn partition(shape: Shape, dice: &mut Dice, placement: &Placement) -> Result<Fault, String> {
    Ok(Fault::Partition { shape, grudge: shape.grudge(dice, placement)? })
}

fn peer_port_cut(dice: &mut Dice, placement: &Placement) -> Result<Fault, String> {
    if placement.nodes < 2 {
        return Err("needs at least 2 nodes".to_owned());
    }
    let node = *Targets::One.nodes(dice, placement).first().expect("there is a holder");
    Ok(Fault::PeerPortCut { grudge: Grudge::alone(node, placement.nodes) })
}

fn broken(how: Break, dice: &mut Dice, placement: &Placement) -> Fault {
    let (whom, nodes) = hit(&ONE_OR_LEADER, dice, placement);
    Fault::Broken { how, whom, nodes }
}

fn replaced(by: Replacement, (whom, how): (&mut Dice, &mut Dice), placement: &Placement) -> Result<Fault, String> {
    a_majority_is_left(placement)?;
    let (whom, nodes) = hit(&[Targets::One, Targets::Minority], whom, placement);
    Ok(Fault::Replaced { by, whom, nodes, seed: how.roll() })
}

fn snapshot(dice: &mut Dice, placement: &Placement) -> Result<Fault, String> {
    a_majority_is_left(placement)?;
    placement.leader.ok_or("nobody is known to lead")?;
    let victim = if dice.flag() { Victim::Receiver } else { Victim::Sender };
    Ok(Fault::SnapshotUnderFire { victim, seed: dice.roll() })
}

/// # Errors
/// None is when one is taken away.
fn a_majority_is_left(placement: &Placement) -> Result<(), String> {
    match placement.holders.len() < MAJORITY_LEFT_MIN {
        true => Err(format!("needs at least {MAJORITY_LEFT_MIN} nodes that hold the default partition")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
