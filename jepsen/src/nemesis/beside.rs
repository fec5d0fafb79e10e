//! Which faults can be in force at the same time, and the choice of one that goes beside others. Pure.
//!
//! A fault goes beside another one when neither undoes the other, and when its own probe still tells whether it is there:
//! what a node that is down does not do proves nothing of a line to it, and a disk that nobody writes to does not fail.
//! Both together may well take the majority away: all is healed together.
//!
//! Invariants:
//!
//! * No node is taken down, stopped, or has its disk or directory changed by two faults.
//! * A partition that comes second parts holders that run.
//!
//! Left out: a fault of directories, a cut of peer ports or a snapshot under fire that comes second. Those take nodes down
//! and start them again, or are seen by what all the others do.

use std::collections::BTreeSet;

use super::fault::Fault;
use super::grudge::Grudge;
use super::kind::FaultKind;
use crate::backend::{Break, Traffic};
use crate::cluster::status::Placement;
use crate::generator::Dice;

/// How often whom a kind hits is chosen anew, until it goes beside the others.
const CHOICES: u32 = 8;
/// Of so many first faults of a kind one goes with another kind, if any does.
const FIRST_FAULTS: u64 = 16;

/// The last of these kinds of which a fault goes beside those in force, and the fault. No kind is in force twice.
pub(super) fn choose(
    kinds: &[FaultKind],
    in_force: &[(FaultKind, Fault)],
    dice: &Dice,
    placement: &Placement,
) -> Option<(FaultKind, Fault)> {
    kinds.iter().rev().find_map(|kind| Some((*kind, choose_of(*kind, in_force, dice.clone(), placement)?)))
}

fn choose_of(kind: FaultKind, in_force: &[(FaultKind, Fault)], mut dice: Dice, placement: &Placement) -> Option<Fault> {
    let fits =
        |fault: &Fault| in_force.iter().all(|(active, other)| *active != kind && goes_beside(fault, other, placement));
    (0..CHOICES).find_map(|_| kind.choose(&mut dice.split(), placement).ok().filter(&fits))
}

/// Whether a fault of one of these kinds can be in force beside one of another kind, when the default partition is so placed.
pub(super) fn can_pair(kinds: &[FaultKind], placement: &Placement) -> bool {
    let goes_with_another = |kind: FaultKind, mut dice: Dice| {
        let first = kind.choose(&mut dice, placement).ok();
        first.is_some_and(|first| choose(kinds, &[(kind, first)], &dice, placement).is_some())
    };
    (0..FIRST_FAULTS).any(|seed| kinds.iter().any(|kind| goes_with_another(*kind, Dice::new(seed))))
}

/// What a fault touches, and is seen by.
enum Measure<'a> {
    /// Processes of these nodes are gone, or stopped.
    Down(&'a BTreeSet<usize>),
    /// Their disks fail once they sync, and they end then.
    Disk(&'a BTreeSet<usize>),
    /// Their disks are full, and they may end or go on: who leads then refuses all writes.
    Full(&'a BTreeSet<usize>),
    /// They came back with other directories, and may serve, stay out or have ended.
    Directory(&'a BTreeSet<usize>),
    /// All that passes between nodes.
    Parted(&'a Grudge),
    /// Attempts to connect to peer ports.
    PeerPort,
    /// How long what comes by takes, on the lines of these nodes.
    Late(&'a BTreeSet<usize>),
    /// Connections of these nodes. They make new ones.
    Broken(&'a BTreeSet<usize>),
    /// The same, but they are not told, and find out in their own time.
    HalfOpen(&'a BTreeSet<usize>),
    /// A snapshot on its way. Whom it takes down is not known before.
    Transfer,
}

impl Measure<'_> {
    fn of(fault: &Fault) -> Measure<'_> {
        match fault {
            Fault::Kill { nodes, .. }
            | Fault::KillAll { nodes }
            | Fault::PowerLoss { nodes, .. }
            | Fault::Pause { nodes, .. } => Measure::Down(nodes),
            Fault::SyncError { nodes, .. } => Measure::Disk(nodes),
            Fault::DiskFull { nodes, .. } => Measure::Full(nodes),
            Fault::Replaced { nodes, .. } => Measure::Directory(nodes),
            Fault::Partition { grudge, .. } => Measure::Parted(grudge),
            Fault::PeerPortCut { .. } => Measure::PeerPort,
            Fault::Weather { nodes, .. } => Measure::Late(nodes),
            Fault::Broken { how: Break::Reset, nodes, .. } => Measure::Broken(nodes),
            Fault::Broken { how: Break::HalfOpen, nodes, .. } => Measure::HalfOpen(nodes),
            Fault::SnapshotUnderFire { .. } => Measure::Transfer,
        }
    }
}

/// Whether `next` can be put in force, and seen, while `active` is.
pub(super) fn goes_beside(next: &Fault, active: &Fault, placement: &Placement) -> bool {
    use Measure::{Broken, Directory, Disk, Down, Full, HalfOpen, Late, Parted, PeerPort, Transfer};
    let active = Measure::of(active);
    match Measure::of(next) {
        Down(nodes) => match active {
            Down(hit) | Disk(hit) | Full(hit) | Directory(hit) => nodes.is_disjoint(hit),
            Parted(_) | PeerPort | Late(_) | Broken(_) | HalfOpen(_) => true,
            Transfer => false,
        },
        Disk(nodes) | Full(nodes) => match active {
            Down(hit) | Disk(hit) | Directory(hit) => nodes.is_disjoint(hit) && goes_on_without(hit, placement),
            Full(hit) => nodes.is_disjoint(hit) && goes_on_without(hit, placement) && others_are_led(hit, placement),
            // Who is not heard may have nothing to write.
            Parted(_) | PeerPort | Late(_) | Broken(_) | HalfOpen(_) | Transfer => false,
        },
        Parted(grudge) => match active {
            Down(hit) | Disk(hit) | Full(hit) | Directory(hit) => parts_others(grudge, hit, placement),
            Broken(_) => true,
            // What passes is measured within a time; and who says that a connection is lost may mean one that is half open.
            Parted(_) | PeerPort | Late(_) | HalfOpen(_) | Transfer => false,
        },
        Late(nodes) => match active {
            Down(hit) | Disk(hit) | Full(hit) | Directory(hit) => {
                nodes.is_disjoint(hit) && goes_on_without(hit, placement)
            }
            Broken(hit) | HalfOpen(hit) => nodes.is_disjoint(hit),
            Parted(_) | PeerPort | Late(_) | Transfer => false,
        },
        Broken(nodes) | HalfOpen(nodes) => match active {
            Down(hit) | Disk(hit) | Full(hit) | Directory(hit) => {
                nodes.is_disjoint(hit) && goes_on_without(hit, placement)
            }
            Late(_) => true,
            Parted(_) | PeerPort | Broken(_) | HalfOpen(_) | Transfer => false,
        },
        Directory(_) | PeerPort | Transfer => false,
    }
}

/// Whether somebody is known to lead who is not among these: what nobody else proposes, nobody writes.
fn others_are_led(hit: &BTreeSet<usize>, placement: &Placement) -> bool {
    placement.leader.is_some_and(|leader| !hit.contains(&leader))
}

/// Whether a majority of the holders is not among these.
fn goes_on_without(hit: &BTreeSet<usize>, placement: &Placement) -> bool {
    placement.holders.difference(hit).count() >= placement.majority()
}

/// Whether two holders, none of which is among `hit`, are cut off from each other.
fn parts_others(grudge: &Grudge, hit: &BTreeSet<usize>, placement: &Placement) -> bool {
    let runs = |node: usize| placement.holders.contains(&node) && !hit.contains(&node);
    grudge.cuts(Traffic::All).iter().any(|cut| runs(cut.from) && runs(cut.to))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::Weather;
    use crate::cluster::Replacement;
    use crate::nemesis::{Shape, Targets, Victim};

    /// Of five nodes the first three hold the partition, or all do.
    fn of_five(holders: usize) -> Placement {
        Placement { nodes: 5, holders: (0..holders).collect(), leader: Some(0) }
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

    fn power_loss() -> Fault {
        Fault::PowerLoss { nodes: (0..5).collect(), seed: 1 }
    }

    fn sync_error(nodes: &[usize]) -> Fault {
        Fault::SyncError { whom: Targets::One, nodes: set(nodes) }
    }

    fn amnesia(nodes: &[usize]) -> Fault {
        Fault::Replaced { by: Replacement::Nothing, whom: Targets::One, nodes: set(nodes), seed: 1 }
    }

    fn parted(left: &[usize], right: &[usize]) -> Fault {
        Fault::Partition { shape: Shape::Halves, grudge: Grudge::between(left, right) }
    }

    fn port_cut(node: usize) -> Fault {
        Fault::PeerPortCut { grudge: Grudge::alone(node, 5) }
    }

    fn slow(nodes: &[usize]) -> Fault {
        let (delay, jitter) = (Duration::from_millis(100), Duration::ZERO);
        Fault::Weather { weather: Weather::Slow { delay, jitter, seed: 1 }, whom: Targets::One, nodes: set(nodes) }
    }

    fn reset(nodes: &[usize]) -> Fault {
        Fault::Broken { how: Break::Reset, whom: Targets::One, nodes: set(nodes) }
    }

    fn half_open(nodes: &[usize]) -> Fault {
        Fault::Broken { how: Break::HalfOpen, whom: Targets::One, nodes: set(nodes) }
    }

    fn disk_full(nodes: &[usize]) -> Fault {
        Fault::DiskFull { whom: Targets::One, nodes: set(nodes), bytes: 0 }
    }

    fn snapshot() -> Fault {
        Fault::SnapshotUnderFire { victim: Victim::Receiver, seed: 1 }
    }

    #[test]
    fn faults_go_beside_each_other_where_both_are_seen() {
        // What is in force, what comes, and whether it goes beside the former when three nodes hold the partition.
        let cases = [
            (parted(&[0], &[1, 2, 3, 4]), kill(&[0]), true),
            (parted(&[0], &[1, 2, 3, 4]), pause(&[1, 2]), true),
            (parted(&[0], &[1, 2, 3, 4]), power_loss(), true),
            (port_cut(1), kill(&[1]), true),
            (slow(&[0]), kill(&[0]), true),
            (reset(&[0]), power_loss(), true),
            (kill(&[0]), pause(&[1, 2]), true),
            (amnesia(&[0]), pause(&[1]), true),
            (sync_error(&[0]), kill(&[1]), true),
            (kill(&[0]), sync_error(&[1]), true),
            (sync_error(&[2]), sync_error(&[1]), true),
            (kill(&[0]), slow(&[1]), true),
            (slow(&[0]), reset(&[0]), true),
            (slow(&[0]), half_open(&[0]), true),
            (reset(&[0]), parted(&[0], &[1, 2]), true),
            (sync_error(&[0]), disk_full(&[1]), true),
            (disk_full(&[1]), sync_error(&[0]), true),
            (disk_full(&[0]), kill(&[1]), true),
            (disk_full(&[0]), slow(&[1]), true),
            // One would undo the other.
            (pause(&[0]), kill(&[0, 1]), false),
            (kill(&[0]), pause(&[0]), false),
            (pause(&[0]), power_loss(), false),
            (amnesia(&[0]), power_loss(), false),
            (sync_error(&[0]), kill(&[0]), false),
            (kill(&[0]), amnesia(&[1]), false),
            // Some have too little left to be seen by.
            (kill(&[0, 1]), sync_error(&[2]), false),
            (kill(&[0, 1]), slow(&[2]), false),
            (parted(&[0], &[1, 2]), sync_error(&[0]), false),
            (parted(&[0], &[1, 2]), slow(&[0]), false),
            (disk_full(&[0]), sync_error(&[1]), false),
            (disk_full(&[0]), disk_full(&[1]), false),
            // Nobody could tell which of the two it was.
            (parted(&[0], &[1, 2]), parted(&[1], &[0, 2]), false),
            (parted(&[0], &[1, 2]), port_cut(0), false),
            (slow(&[0]), slow(&[1]), false),
            (reset(&[0]), reset(&[1]), false),
            (reset(&[0]), half_open(&[1]), false),
            (half_open(&[0]), parted(&[1], &[0, 2]), false),
            (slow(&[0]), parted(&[0], &[1, 2]), false),
            (kill(&[0]), port_cut(1), false),
            (snapshot(), kill(&[0]), false),
            (kill(&[0]), snapshot(), false),
        ];
        for (active, next, expected) in cases {
            assert_eq!(goes_beside(&next, &active, &of_five(3)), expected, "{next:?} beside {active:?}");
        }
    }

    #[test]
    fn beside_a_full_disk_another_one_fails_only_when_somebody_else_is_known_to_lead() {
        for (leader, expected) in [(Some(0), false), (Some(1), true), (Some(2), true), (None, false)] {
            let placement = Placement { leader, ..of_five(3) };
            assert_eq!(goes_beside(&sync_error(&[1]), &disk_full(&[0]), &placement), expected, "{leader:?} leads");
            assert!(goes_beside(&disk_full(&[1]), &sync_error(&[0]), &placement), "{leader:?} leads");
        }
    }

    #[test]
    fn kinds_pair_when_some_of_their_faults_do() {
        use FaultKind::{
            Amnesia, Drip, HalfOpen, Kill, KillAll, Partition, PartitionOf, Pause, PeerPortCut, PowerLoss,
        };
        use FaultKind::{DiskFull, OldCopy, Reset, SlowLinks, SnapshotUnderFire, SyncError, Truncation};
        let cases: [(&[FaultKind], bool); 20] = [
            (&[], false),
            (&[Kill], false),
            (&[Kill, Kill], false),
            (&[Kill, Pause], true),
            (&[Kill, KillAll], false),
            (&[Pause, KillAll], false),
            (&[KillAll, PowerLoss], false),
            (&[Partition, PowerLoss], true),
            (&[PartitionOf(Shape::Bridge), Pause], true),
            (&[PartitionOf(Shape::One), PartitionOf(Shape::Halves)], false),
            (&[PeerPortCut, Partition], false),
            (&[PeerPortCut, KillAll], true),
            (&[SyncError, DiskFull], true),
            (&[SlowLinks, Drip], false),
            (&[SlowLinks, Reset], true),
            (&[HalfOpen, Partition], false),
            (&[Amnesia, OldCopy, Truncation], false),
            (&[Truncation, Kill], true),
            (&[SnapshotUnderFire, Kill], false),
            (&[SnapshotUnderFire, Kill, Pause], true),
        ];
        for (kinds, expected) in cases {
            assert_eq!(can_pair(kinds, &of_five(3)), expected, "{kinds:?}");
        }
        let alone = Placement::unknown(1, Some(0));
        assert!(!can_pair(&[Kill, Pause], &alone), "one node is not hit twice");
    }

    #[test]
    fn a_partition_parts_holders_that_run() {
        // Who is down, the sides, and whether that parts holders that run: of three, and of five.
        let cases = [
            (vec![0], vec![1], vec![0, 2, 3, 4], [true, true]),
            (vec![0], vec![0], vec![1, 2, 3, 4], [false, false]),
            (vec![0], vec![0, 3], vec![1, 2, 4], [false, true]),
            (vec![0, 1], vec![2, 3], vec![0, 1, 4], [false, true]),
            (vec![0, 1, 2, 3, 4], vec![0], vec![1, 2, 3, 4], [false, false]),
        ];
        for (down, left, right, parts) in cases {
            for (holders, expected) in [3, 5].into_iter().zip(parts) {
                let fits = goes_beside(&parted(&left, &right), &pause(&down), &of_five(holders));
                assert_eq!(fits, expected, "{left:?} {right:?}, {down:?} are down, {holders} hold it");
            }
        }
    }

    #[test]
    fn what_is_chosen_goes_beside_what_is_in_force_and_comes_from_the_seed() {
        let (kinds, placement) = ([FaultKind::PowerLoss, FaultKind::Kill, FaultKind::Partition], of_five(3));
        let in_force = |fault: Fault| [(FaultKind::Pause, fault)];
        let chosen = |seed, fault: &Fault| choose(&kinds, &in_force(fault.clone()), &Dice::new(seed), &placement);
        let mut pairs = 0;
        for seed in 0..100 {
            for fault in [pause(&[1]), pause(&[0, 1]), pause(&[0, 1, 2, 3, 4])] {
                let found = chosen(seed, &fault);
                assert_eq!(found, chosen(seed, &fault));
                let fits = |(_, next): &(FaultKind, Fault)| goes_beside(next, &fault, &placement);
                assert!(found.as_ref().is_none_or(fits), "{found:?} beside {fault:?}");
                pairs += usize::from(found.is_some());
            }
        }
        assert!((100..=200).contains(&pairs), "of all nodes none is left to be hit: {pairs}");
        let same = [(FaultKind::Kill, kill(&[0]))];
        assert_eq!(choose(&[FaultKind::Kill], &same, &Dice::new(1), &placement), None, "no kind is in force twice");
    }
}
