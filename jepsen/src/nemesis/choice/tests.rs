//! Whom each kind of fault hits, over many seeds.

use super::*;
use crate::backend::{Cut, Traffic};

/// Of five nodes the first so many hold the partition.
fn of_five(holders: usize, leader: Option<usize>) -> Placement {
    Placement { nodes: 5, holders: (0..holders).collect(), leader }
}

/// What a kind chooses with many seeds, when all nodes hold the partition.
fn chosen(kind: FaultKind, nodes: usize, leader: Option<usize>) -> Vec<Fault> {
    chosen_in(kind, &Placement::unknown(nodes, leader))
}

fn chosen_in(kind: FaultKind, placement: &Placement) -> Vec<Fault> {
    (0..200).map(|seed| kind.choose(&mut Dice::new(seed), placement).expect("it is possible")).collect()
}

/// The nodes that a fault hits; of a cut those of the smaller side of holders.
fn victims(fault: &Fault, placement: &Placement) -> BTreeSet<usize> {
    match fault {
        Fault::Kill { nodes, .. }
        | Fault::Pause { nodes, .. }
        | Fault::SyncError { nodes, .. }
        | Fault::DiskFull { nodes, .. }
        | Fault::Weather { nodes, .. }
        | Fault::Broken { nodes, .. }
        | Fault::Replaced { nodes, .. }
        | Fault::KillAll { nodes }
        | Fault::PowerLoss { nodes, .. } => nodes.clone(),
        Fault::PeerPortCut { .. } => {
            let cuts = fault.cuts();
            (0..placement.nodes).filter(|node| cuts.iter().filter(|cut| cut.to == *node).count() > 1).collect()
        }
        Fault::Partition { .. } | Fault::SnapshotUnderFire { .. } => panic!("{fault} hits no set of nodes"),
    }
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
        assert!(kind.choose(&mut Dice::new(1), &Placement::unknown(2, Some(0))).is_err());
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
    let (one, two) = (Placement::unknown(1, Some(0)), Placement::unknown(2, Some(0)));
    for kind in [FaultKind::Partition, FaultKind::PeerPortCut] {
        assert!(kind.choose(&mut Dice::new(1), &one).is_err());
    }
    assert!(FaultKind::PartitionOf(Shape::Bridge).choose(&mut Dice::new(1), &two).is_err());
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
        let placement = Placement::unknown(nodes, leader);
        assert!(FaultKind::SnapshotUnderFire.choose(&mut Dice::new(1), &placement).is_err());
    }
}

#[test]
fn victims_hold_the_partition() {
    for (holders, majority) in [(3, 2), (4, 3), (5, 3)] {
        let placement = of_five(holders, Some(1));
        for kind in FaultKind::ALL {
            if matches!(kind, FaultKind::Partition | FaultKind::PartitionOf(_) | FaultKind::SnapshotUnderFire) {
                continue;
            }
            let mut hit = BTreeSet::new();
            for victims in chosen_in(kind, &placement).iter().map(|fault| victims(fault, &placement)) {
                let all = victims.len() == placement.nodes;
                assert!(all || victims.is_subset(&placement.holders), "{kind} of {holders}: {victims:?}");
                hit.extend(victims);
            }
            assert!(hit.is_superset(&placement.holders), "{kind}: each holder has its turn: {hit:?}");
        }
        let kills = chosen_in(FaultKind::Kill, &placement);
        let counts: BTreeSet<usize> = kills.iter().map(|fault| hit_by(fault).1).collect();
        let minorities = if holders == 5 { vec![1, 2] } else { vec![1] };
        assert_eq!(counts, minorities.into_iter().chain([majority]).collect::<BTreeSet<usize>>(), "{holders}");
    }
}

#[test]
fn who_leads_changes_no_choice_but_that_of_a_leader() {
    for (kind, seed) in FaultKind::ALL.into_iter().flat_map(|kind| (0..50).map(move |seed| (kind, seed))) {
        let choose = |leader| {
            let mut dice = Dice::new(seed);
            let fault = kind.choose(&mut dice, &of_five(3, leader));
            (fault, dice.roll())
        };
        let ((unknown, after_unknown), (first, after_first), (last, after_last)) =
            (choose(None), choose(Some(0)), choose(Some(2)));
        assert!(after_unknown == after_first && after_first == after_last, "{kind}: the dice go on alike");
        // Who was chosen as the leader differs, and is the one.
        match first == last {
            true => assert!(unknown == first || kind == FaultKind::SnapshotUnderFire, "{kind}: {unknown:?}, {first:?}"),
            false => assert!(for_leader(&first) && for_leader(&last), "{kind}: {first:?}, {last:?}"),
        }
    }
}

fn for_leader(fault: &Result<Fault, String>) -> bool {
    match fault {
        Ok(Fault::Partition { shape, .. }) => *shape == Shape::LeaderAlone,
        Ok(fault) => hit_by(fault).0 == Some(Targets::Leader),
        Err(_) => false,
    }
}

#[test]
fn the_same_seed_hits_the_same() {
    for kind in FaultKind::ALL {
        let fault = |seed| kind.choose(&mut Dice::new(seed), &of_five(3, Some(2)));
        assert!((0..20).all(|seed| fault(seed) == fault(seed)), "{kind}");
    }
}
