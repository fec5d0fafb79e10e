//! Which faults have another node lead the default partition.
//!
//! Only what does so for sure, if it lasts for an election: the leader is gone or silent, and of the nodes that hold the
//! partition a majority goes on without it, each of which hears the others. When no majority is left the same node may
//! lead again once all is healed.

use std::collections::BTreeSet;

use super::fault::{Fault, Victim};
use super::grudge::Grudge;
use crate::cluster::Replacement;
use crate::cluster::status::Placement;

/// Of fewer holders there is no majority without the leader.
const HOLDERS_MIN: usize = 3;

/// Whether a fault in force has another node lead than the one that does. Nothing is known when nobody is known to lead.
pub(super) fn unseats(fault: &Fault, placement: &Placement) -> bool {
    let Some(leader) = placement.leader else { return false };
    let enough = placement.holders.len() >= HOLDERS_MIN;
    match fault {
        Fault::Kill { nodes: hit, .. }
        | Fault::KillAll { nodes: hit }
        | Fault::PowerLoss { nodes: hit, .. }
        | Fault::SyncError { nodes: hit, .. }
        | Fault::Pause { nodes: hit, .. } => a_majority_goes_on(hit, leader, placement),
        Fault::Replaced { by: Replacement::Nothing | Replacement::OldCopy, nodes: hit, .. } => {
            a_majority_goes_on(hit, leader, placement)
        }
        Fault::SnapshotUnderFire { victim: Victim::Sender, .. } => enough,
        Fault::Partition { grudge, .. } | Fault::PeerPortCut { grudge } => {
            enough && leaves_alone(grudge, leader, placement)
        }
        // It may be back at once,
        Fault::Replaced { by: Replacement::Cut, .. } => false,
        // or may well keep it.
        Fault::Weather { .. } | Fault::Broken { .. } | Fault::DiskFull { .. } => false,
        Fault::SnapshotUnderFire { victim: Victim::Receiver, .. } => false,
    }
}

/// Whether the leader is among these nodes, and a majority of the holders is not.
fn a_majority_goes_on(hit: &BTreeSet<usize>, leader: usize, placement: &Placement) -> bool {
    hit.contains(&leader) && placement.holders.difference(hit).count() >= placement.majority()
}

/// Whether this holder is cut off from all others, and none of those from another one.
fn leaves_alone(grudge: &Grudge, alone: usize, placement: &Placement) -> bool {
    placement.holders.iter().all(|&node| {
        placement.holders.iter().filter(|&&other| other != node).all(|&other| {
            let expected = node == alone || other == alone;
            grudge.refuses(node, other) == expected
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Dice;
    use crate::nemesis::{FaultKind, Shape, Targets};

    const LEADER: usize = 2;

    /// Of five nodes these hold the partition.
    fn of_five(holders: &[usize]) -> Placement {
        Placement { nodes: 5, holders: holders.iter().copied().collect(), leader: Some(LEADER) }
    }

    fn set(nodes: &[usize]) -> BTreeSet<usize> {
        nodes.iter().copied().collect()
    }

    fn kill(nodes: &[usize]) -> Fault {
        Fault::Kill { whom: Targets::One, nodes: set(nodes) }
    }

    fn pause(nodes: &[usize]) -> Fault {
        Fault::Pause { whom: Targets::One, nodes: set(nodes) }
    }

    fn replaced(by: Replacement) -> Fault {
        Fault::Replaced { by, whom: Targets::One, nodes: set(&[LEADER]), seed: 1 }
    }

    #[test]
    fn another_one_leads_where_a_majority_goes_on_without_the_leader() {
        let cut = |left: &[usize], right: &[usize]| Fault::PeerPortCut { grudge: Grudge::between(left, right) };
        let one_way = Fault::PeerPortCut { grudge: Grudge::one_way(&[2], &[0, 1, 3, 4]) };
        let snapshot = |victim| Fault::SnapshotUnderFire { victim, seed: 1 };
        // With all nodes holding the partition, and with the first three.
        let cases = [
            (kill(&[2]), true, true),
            (kill(&[0, 2]), true, false),
            (kill(&[0, 2, 4]), false, false),
            (kill(&[2, 3, 4]), false, true),
            (kill(&[0, 1]), false, false),
            (Fault::KillAll { nodes: (0..5).collect() }, false, false),
            (Fault::PowerLoss { nodes: (0..5).collect(), seed: 1 }, false, false),
            (pause(&[2]), true, true),
            (pause(&[1, 2]), true, false),
            (pause(&[1]), false, false),
            (cut(&[2], &[0, 1, 3, 4]), true, true),
            (cut(&[1], &[0, 2, 3, 4]), false, false),
            // Who holds nothing may be on the leader's side.
            (cut(&[2, 4], &[0, 1, 3]), false, true),
            (cut(&[1, 2], &[0, 3, 4]), false, false),
            (one_way, false, false),
            (snapshot(Victim::Sender), true, true),
            (snapshot(Victim::Receiver), false, false),
            (replaced(Replacement::Nothing), true, true),
            (replaced(Replacement::Cut), false, false),
        ];
        for (fault, of_all, of_three) in cases {
            for (holders, expected) in [(&[0, 1, 2, 3, 4][..], of_all), (&[0, 1, 2][..], of_three)] {
                let placement = of_five(holders);
                assert_eq!(unseats(&fault, &placement), expected, "{fault:?}, held by {holders:?}");
                assert!(!unseats(&fault, &Placement { leader: None, ..placement }), "{fault:?}");
            }
        }
        let two = Placement::unknown(LEADER + 1, Some(LEADER));
        let two = Placement { holders: set(&[0, LEADER]), ..two };
        for fault in [pause(&[LEADER]), cut(&[LEADER], &[0, 1]), snapshot(Victim::Sender)] {
            assert!(!unseats(&fault, &two), "one alone elects nobody: {fault:?}");
        }
    }

    #[test]
    fn a_leader_that_is_parted_is_no_leader_for_long() {
        for seed in 0..20 {
            let (kind, placement) = (FaultKind::PartitionOf(Shape::LeaderAlone), of_five(&[0, 2, 3]));
            let fault = kind.choose(&mut Dice::new(seed), &placement).expect("there is a leader");
            assert!(unseats(&fault, &placement), "{fault:?}");
        }
    }
}
