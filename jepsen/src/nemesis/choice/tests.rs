//! Whom each kind of fault hits, over many seeds.

use super::*;
use crate::backend::{Cut, Traffic};

/// What a kind chooses with many seeds.
fn chosen(kind: FaultKind, nodes: usize, leader: Option<usize>) -> Vec<Fault> {
    (0..200).map(|seed| kind.choose(&mut Dice::new(seed), nodes, leader).expect("it is possible")).collect()
}

fn hit_by(fault: &Fault) -> (Option<Targets>, usize) {
    match fault {
        Fault::Kill { whom, nodes }
        | Fault::Pause { whom, nodes }
        | Fault::SyncError { whom, nodes }
        | Fault::DiskFull { whom, nodes, .. }
        | Fault::Weather { whom, nodes, .. }
        | Fault::Broken { whom, nodes, .. }
        | Fault::Replaced { whom, nodes, .. } => (Some(*whom), nodes.len()),
        Fault::KillAll { nodes } | Fault::PowerLoss { nodes, .. } => (None, nodes.len()),
        Fault::Partition { .. } | Fault::PeerPortCut { .. } | Fault::SnapshotUnderFire { .. } => {
            panic!("{fault} hits no set of nodes")
        }
    }
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
    assert_eq!(hits(FaultKind::PowerLoss, 5, None), Hits::from([(None, 5)]));
    assert_eq!(hits(FaultKind::SyncError, 5, Some(4)), Hits::from([one, led]));
    assert_eq!(hits(FaultKind::DiskFull, 5, None), Hits::from([one]));
    assert_eq!(hits(FaultKind::SlowLinks, 5, Some(4)), Hits::from([one, led, all]));
    for kind in [FaultKind::Drip, FaultKind::Reset, FaultKind::HalfOpen] {
        assert_eq!(hits(kind, 5, Some(4)), Hits::from([one, led]));
    }
    for kind in [FaultKind::Amnesia, FaultKind::Truncation, FaultKind::OldCopy] {
        assert_eq!(hits(kind, 5, Some(4)), Hits::from([one, two]), "a majority is left");
        assert_eq!(hits(kind, 3, Some(1)), Hits::from([one]));
        assert!(kind.choose(&mut Dice::new(1), 2, Some(0)).is_err());
    }
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
            other => panic!("{other} is no partition"),
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
fn during_a_snapshot_either_side_is_killed() {
    let victim = |fault: Fault| match fault {
        Fault::SnapshotUnderFire { victim, .. } => victim,
        other => panic!("{other} is another one"),
    };
    let victims: BTreeSet<Victim> = chosen(FaultKind::SnapshotUnderFire, 3, Some(1)).into_iter().map(victim).collect();
    assert_eq!(victims, BTreeSet::from([Victim::Receiver, Victim::Sender]));
    for (nodes, leader) in [(2, Some(1)), (5, None)] {
        assert!(FaultKind::SnapshotUnderFire.choose(&mut Dice::new(1), nodes, leader).is_err());
    }
}

#[test]
fn the_same_seed_hits_the_same() {
    for kind in FaultKind::ALL {
        let fault = |seed| kind.choose(&mut Dice::new(seed), 5, Some(2));
        assert!((0..20).all(|seed| fault(seed) == fault(seed)), "{kind}");
    }
}
