//! The shapes of partitions, for clusters of which all nodes hold the partition, and for some of which not all do.

use super::*;

const SIZES: std::ops::RangeInclusive<usize> = 1..=9;
const SEEDS: std::ops::Range<u64> = 0..100;
const NODES: usize = 5;

/// Of so many nodes these hold the partition, and one of them leads, as `dice` have it.
fn placement(nodes: usize, holders: usize, dice: &mut Dice) -> Placement {
    let mut order: Vec<usize> = (0..nodes).collect();
    dice.shuffle(&mut order);
    let leader = order.first().copied();
    Placement { nodes, holders: order.into_iter().take(holders).collect(), leader }
}

/// Those `node` exchanges packets with, itself included.
fn hears(grudge: &Grudge, node: usize, nodes: usize) -> BTreeSet<usize> {
    (0..nodes).filter(|&other| !grudge.refuses(node, other) && !grudge.refuses(other, node)).collect()
}

/// The holders among those `node` exchanges packets with.
fn heard(grudge: &Grudge, node: usize, placement: &Placement) -> BTreeSet<usize> {
    hears(grudge, node, placement.nodes).intersection(&placement.holders).copied().collect()
}

/// All grudges of a shape, each with its number of nodes, all of which hold the partition.
fn grudges(shape: Shape) -> Vec<(usize, Grudge)> {
    let of_size = |nodes| grudges_of(shape, nodes, nodes).into_iter().map(move |(_, grudge)| (nodes, grudge));
    SIZES.filter(|&nodes| nodes >= shape.holders_min()).flat_map(of_size).collect()
}

/// Those of so many nodes, of which so many hold the partition.
fn grudges_of(shape: Shape, nodes: usize, holders: usize) -> Vec<(Placement, Grudge)> {
    let grudge = |mut dice: Dice| {
        let placement = placement(nodes, holders, &mut dice);
        let grudge = shape.grudge(&mut dice, &placement).expect("enough holders, and a leader");
        (placement, grudge)
    };
    SEEDS.map(Dice::new).map(grudge).collect()
}

/// How many nodes each side of a two-sided partition has, the smaller one first.
fn sides(grudge: &Grudge, nodes: usize) -> (usize, usize) {
    let side = hears(grudge, 0, nodes);
    for node in 0..nodes {
        let same = hears(grudge, node, nodes) == side;
        assert_eq!(same, side.contains(&node), "{grudge} has more than two sides");
    }
    (side.len().min(nodes - side.len()), side.len().max(nodes - side.len()))
}

/// How many holders each holder exchanges packets with, itself included, the fewest first.
fn counts(grudge: &Grudge, placement: &Placement) -> Vec<usize> {
    let mut counts: Vec<usize> = placement.holders.iter().map(|&node| heard(grudge, node, placement).len()).collect();
    counts.sort_unstable();
    counts
}

/// Shape, how many of five nodes hold the partition, and what [`counts`] are then possible.
type Case = (Shape, usize, &'static [&'static [usize]]);

const OF_FIVE: [Case; 21] = [
    (Shape::One, 3, &[&[1, 2, 2]]),
    (Shape::One, 4, &[&[1, 3, 3, 3]]),
    (Shape::One, 5, &[&[1, 4, 4, 4, 4]]),
    (Shape::Halves, 3, &[&[1, 2, 2]]),
    (Shape::Halves, 4, &[&[2, 2, 2, 2]]),
    (Shape::Halves, 5, &[&[2, 2, 3, 3, 3]]),
    (Shape::Minority, 3, &[&[1, 2, 2]]),
    (Shape::Minority, 4, &[&[1, 3, 3, 3]]),
    (Shape::Minority, 5, &[&[1, 4, 4, 4, 4], &[2, 2, 3, 3, 3]]),
    (Shape::MajorityRing, 3, &[&[2, 2, 3]]),
    (Shape::MajorityRing, 4, &[&[3, 3, 3, 3]]),
    (Shape::MajorityRing, 5, &[&[3, 3, 3, 3, 3]]),
    (Shape::Bridge, 3, &[&[2, 2, 3]]),
    (Shape::Bridge, 4, &[&[2, 3, 3, 4]]),
    (Shape::Bridge, 5, &[&[3, 3, 3, 3, 5]]),
    (Shape::LeaderAlone, 3, &[&[1, 2, 2]]),
    (Shape::LeaderAlone, 4, &[&[1, 3, 3, 3]]),
    (Shape::LeaderAlone, 5, &[&[1, 4, 4, 4, 4]]),
    // One way is enough for two not to exchange anything.
    (Shape::Asymmetric, 3, &[&[1, 2, 2]]),
    (Shape::Asymmetric, 4, &[&[1, 3, 3, 3]]),
    (Shape::Asymmetric, 5, &[&[1, 4, 4, 4, 4], &[2, 2, 3, 3, 3]]),
];

#[test]
fn a_shape_is_one_of_the_holders() {
    for (shape, holders, expected) in OF_FIVE {
        let grudges = grudges_of(shape, NODES, holders);
        let seen: BTreeSet<Vec<usize>> = grudges.iter().map(|(placement, grudge)| counts(grudge, placement)).collect();
        let expected: BTreeSet<Vec<usize>> = expected.iter().map(|counts| counts.to_vec()).collect();
        assert_eq!(seen, expected, "{shape:?} of {holders}");
    }
}

#[test]
fn who_holds_nothing_is_on_a_side_and_not_always_on_the_same() {
    for (shape, holders, _) in OF_FIVE {
        let (mut cut_off, grudges) = (BTreeSet::new(), grudges_of(shape, NODES, holders));
        for (placement, grudge) in &grudges {
            let others = placement.others();
            for &node in &others {
                let side = heard(grudge, node, placement);
                assert!(side.len() < holders, "{shape:?}: n{} is cut off from nobody: {grudge}", node + 1);
                let like = |&holder: &usize| side == heard(grudge, holder, placement);
                assert!(placement.holders.iter().any(like), "{shape:?}: {grudge}");
                cut_off.extend(placement.leader.map(|leader| side.contains(&leader)));
            }
            if let [one, other] = others[..] {
                assert_ne!(heard(grudge, one, placement), heard(grudge, other, placement), "{shape:?}: {grudge}");
            }
        }
        let expected = if holders < NODES { BTreeSet::from([false, true]) } else { BTreeSet::new() };
        assert_eq!(cut_off, expected, "{shape:?} of {holders}: some come to the leader, and some do not");
    }
}

#[test]
fn every_grudge_cuts_something_and_nobody_off_from_itself() {
    for shape in Shape::ALL {
        for (nodes, grudge) in grudges(shape) {
            let cuts = grudge.cuts(Traffic::All);
            assert!(!cuts.is_empty(), "{shape:?} of {nodes}");
            for cut in cuts {
                assert!(cut.from != cut.to && cut.from < nodes && cut.to < nodes, "{shape:?}: {grudge}");
                assert!(grudge.refuses(cut.to, cut.from));
                let back = grudge.refuses(cut.from, cut.to);
                assert_eq!(back, shape != Shape::Asymmetric, "{shape:?}: {grudge}");
            }
        }
    }
}

#[test]
fn two_sided_shapes_have_sides_of_their_sizes() {
    for (nodes, grudge) in grudges(Shape::One) {
        assert_eq!(sides(&grudge, nodes).0, 1, "{grudge}");
    }
    for (nodes, grudge) in grudges(Shape::Halves) {
        assert_eq!(sides(&grudge, nodes), (nodes / 2, nodes.div_ceil(2)), "{grudge}");
    }
    for (nodes, grudge) in grudges(Shape::Minority) {
        assert!(sides(&grudge, nodes).0 * 2 < nodes, "{grudge}");
    }
}

#[test]
fn in_a_majority_ring_everybody_hears_a_majority_of_its_own() {
    for (nodes, grudge) in grudges(Shape::MajorityRing) {
        let heard: BTreeSet<BTreeSet<usize>> = (0..nodes).map(|node| hears(&grudge, node, nodes)).collect();
        assert_eq!(heard.len(), nodes, "two nodes hear the same: {grudge}");
        for side in &heard {
            assert!(side.len() * 2 > nodes, "{grudge}");
        }
        let all = heard.iter().filter(|side| side.len() == nodes).count();
        assert_eq!(all, usize::from(nodes == RING_OF_TWO_ENDS), "{grudge}");
    }
}

#[test]
fn only_the_bridge_hears_both_halves() {
    for (nodes, grudge) in grudges(Shape::Bridge) {
        let bridges: Vec<usize> = (0..nodes).filter(|&node| hears(&grudge, node, nodes).len() == nodes).collect();
        assert_eq!(bridges.len(), 1, "{grudge}");
        for node in (0..nodes).filter(|node| !bridges.contains(node)) {
            let side = hears(&grudge, node, nodes).len() - 1;
            assert!([(nodes - 1) / 2, nodes / 2].contains(&side), "{grudge}");
        }
    }
}

#[test]
fn a_lone_leader_hears_no_other_holder_and_needs_to_be_known() {
    for holders in [3, 4, 5] {
        for (placement, grudge) in grudges_of(Shape::LeaderAlone, NODES, holders) {
            let leader = placement.leader.expect("one leads");
            assert_eq!(heard(&grudge, leader, &placement), BTreeSet::from([leader]), "{grudge}");
            let unknown = Placement { leader: None, ..placement };
            assert!(Shape::LeaderAlone.grudge(&mut Dice::new(1), &unknown).is_err());
        }
    }
}

#[test]
fn asymmetric_cuts_go_from_few_and_to_few() {
    for (nodes, holders) in [(3, 3), (9, 9), (5, 3)] {
        let mut from_few = BTreeSet::new();
        for (placement, grudge) in grudges_of(Shape::Asymmetric, nodes, holders) {
            let from: BTreeSet<usize> = grudge.cuts(Traffic::All).iter().map(|cut| cut.from).collect();
            let to: BTreeSet<usize> = grudge.cuts(Traffic::All).iter().map(|cut| cut.to).collect();
            assert!(from.is_disjoint(&to) && from.len() + to.len() == nodes, "{grudge}");
            let held = |side: &BTreeSet<usize>| side.intersection(&placement.holders).count();
            from_few.insert(held(&from) < held(&to));
        }
        assert_eq!(from_few, BTreeSet::from([false, true]));
    }
}

#[test]
fn one_alone_hears_nobody_and_the_others_hear_each_other() {
    for nodes in 2..=9 {
        for node in 0..nodes {
            let grudge = Grudge::alone(node, nodes);
            assert_eq!(hears(&grudge, node, nodes), BTreeSet::from([node]));
            assert_eq!(sides(&grudge, nodes), (1, nodes - 1));
        }
    }
}

#[test]
fn too_few_holders_are_no_partition() {
    for shape in Shape::ALL {
        let few = placement(NODES, shape.holders_min() - 1, &mut Dice::new(1));
        assert!(shape.grudge(&mut Dice::new(1), &few).is_err(), "{shape:?}");
    }
}
