//! Which faults take the lead from whoever has it: the default partition then has another leader, or the same one in a
//! later term.
//!
//! Only what does so for sure, if it lasts for an election: where replicas are is not known here, so of those that go on
//! without the leader all must hear each other, whichever they are.

use std::collections::BTreeSet;

use super::fault::{Fault, Victim};
use super::grudge::Grudge;

/// Of fewer nodes there is no majority without the leader.
const NODES_MIN: usize = 3;

/// Whether a fault in force takes the lead from the node `leader` of so many. Nothing is known when nobody is known to
/// lead.
pub(super) fn unseats(fault: &Fault, nodes: usize, leader: Option<usize>) -> bool {
    let Some(leader) = leader else { return false };
    match fault {
        // Its process ends.
        Fault::Kill { nodes: hit, .. }
        | Fault::KillAll { nodes: hit }
        | Fault::PowerLoss { nodes: hit, .. }
        | Fault::SyncError { nodes: hit, .. }
        | Fault::Replaced { nodes: hit, .. } => hit.contains(&leader),
        Fault::SnapshotUnderFire { victim: Victim::Sender, .. } => true,
        // It goes on, or will, and the others elect one meanwhile.
        Fault::Pause { nodes: hit, .. } => nodes >= NODES_MIN && *hit == BTreeSet::from([leader]),
        Fault::Partition { grudge, .. } | Fault::PeerPortCut { grudge } => {
            nodes >= NODES_MIN && leaves_alone(grudge, leader, nodes)
        }
        // It may well keep it.
        Fault::Weather { .. } | Fault::Broken { .. } | Fault::DiskFull { .. } => false,
        Fault::SnapshotUnderFire { victim: Victim::Receiver, .. } => false,
    }
}

/// Whether this node is cut off from all others, and nobody else from anybody.
fn leaves_alone(grudge: &Grudge, alone: usize, nodes: usize) -> bool {
    (0..nodes).all(|node| {
        (0..nodes).filter(|&other| other != node).all(|other| {
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

    const NODES: usize = 5;
    const LEADER: usize = 2;

    fn hit(nodes: &[usize]) -> (Targets, BTreeSet<usize>) {
        (Targets::One, nodes.iter().copied().collect())
    }

    #[test]
    fn who_is_gone_leads_no_more_and_who_is_silent_does_not_either() {
        let kill = |nodes: &[usize]| {
            let (whom, nodes) = hit(nodes);
            Fault::Kill { whom, nodes }
        };
        let pause = |nodes: &[usize]| {
            let (whom, nodes) = hit(nodes);
            Fault::Pause { whom, nodes }
        };
        let cut = |left: &[usize], right: &[usize]| Fault::PeerPortCut { grudge: Grudge::between(left, right) };
        let one_way = Fault::PeerPortCut { grudge: Grudge::one_way(&[2], &[0, 1, 3, 4]) };
        let snapshot = |victim| Fault::SnapshotUnderFire { victim, seed: 1 };
        let cases = [
            (kill(&[2]), true),
            (kill(&[0, 2, 4]), true),
            (kill(&[0, 1]), false),
            (Fault::KillAll { nodes: (0..NODES).collect() }, true),
            (Fault::PowerLoss { nodes: (0..NODES).collect(), seed: 1 }, true),
            (pause(&[2]), true),
            // The others may be too few to elect one, and all go on at once.
            (pause(&[1, 2]), false),
            (pause(&[1]), false),
            (cut(&[2], &[0, 1, 3, 4]), true),
            (cut(&[1], &[0, 2, 3, 4]), false),
            // The other half of the replicas may be on its side.
            (cut(&[1, 2], &[0, 3, 4]), false),
            (one_way, false),
            (snapshot(Victim::Sender), true),
            (snapshot(Victim::Receiver), false),
        ];
        for (fault, expected) in cases {
            assert_eq!(unseats(&fault, NODES, Some(LEADER)), expected, "{fault:?}");
            assert!(!unseats(&fault, NODES, None), "{fault:?}");
        }
        assert!(
            !unseats(&pause(&[2]), 2, Some(2)) && !unseats(&cut(&[2], &[0]), 2, Some(2)),
            "one alone elects nobody"
        );
    }

    #[test]
    fn kinds_that_are_for_it_always_do() {
        for kind in [FaultKind::KillAll, FaultKind::PowerLoss, FaultKind::PartitionOf(Shape::LeaderAlone)] {
            for seed in 0..20 {
                let fault = kind.choose(&mut Dice::new(seed), NODES, Some(LEADER)).expect("there is a leader");
                assert!(unseats(&fault, NODES, Some(LEADER)), "{fault:?}");
            }
        }
    }
}
