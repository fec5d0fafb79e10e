//! Grudges: which node gets nothing from which other one. The shapes partitions have, as pure choices.
//!
//! Whole partitions are symmetric: a TCP connection needs both directions, so what matters is which nodes hear each
//! other. Only [`Shape::Asymmetric`] is one-way.
//!
//! Invariants, tested for all sizes:
//!
//! * Nobody is cut off from itself, and every grudge cuts something.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::backend::{Cut, Traffic, node_name};
use crate::generator::Dice;

/// The shape of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// One node alone.
    One,
    /// Two halves. Of an odd number of nodes one half is the majority.
    Halves,
    /// Fewer than half of the nodes, at random how many, apart from the others.
    Minority,
    /// Every node hears a majority, no two of them the same one.
    MajorityRing,
    /// Two halves, and one node that hears both.
    Bridge,
    /// The leader alone.
    LeaderAlone,
    /// A few nodes are not heard by the others, or do not hear them.
    Asymmetric,
}

impl Shape {
    pub const ALL: [Shape; 7] = [
        Shape::One,
        Shape::Halves,
        Shape::Minority,
        Shape::MajorityRing,
        Shape::Bridge,
        Shape::LeaderAlone,
        Shape::Asymmetric,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Shape::One => "one",
            Shape::Halves => "halves",
            Shape::Minority => "minority",
            Shape::MajorityRing => "majority-ring",
            Shape::Bridge => "bridge",
            Shape::LeaderAlone => "leader-alone",
            Shape::Asymmetric => "asymmetric",
        }
    }

    /// The fewest nodes that can be parted so. Of three nodes in a ring each hears all.
    pub fn nodes_min(self) -> usize {
        match self {
            Shape::One | Shape::Halves | Shape::LeaderAlone | Shape::Asymmetric => 2,
            Shape::Minority | Shape::Bridge => 3,
            Shape::MajorityRing => 4,
        }
    }

    /// A grudge of this shape.
    ///
    /// # Errors
    /// There are too few nodes, or nobody leads whom to part: in words.
    pub fn grudge(self, dice: &mut Dice, nodes: usize, leader: Option<usize>) -> Result<Grudge, String> {
        if nodes < self.nodes_min() {
            return Err(format!("{} needs at least {} nodes", self.name(), self.nodes_min()));
        }
        let mut order: Vec<usize> = (0..nodes).collect();
        dice.shuffle(&mut order);
        Ok(match self {
            Shape::One => Grudge::between(&order[..1], &order[1..]),
            Shape::Halves => Grudge::between(&order[..nodes / 2], &order[nodes / 2..]),
            Shape::Minority => {
                let (few, many) = order.split_at(few(dice, nodes));
                Grudge::between(few, many)
            }
            Shape::MajorityRing => Grudge::ring(&order),
            Shape::Bridge => {
                let (left, right) = order[1..].split_at(nodes / 2);
                Grudge::between(left, right)
            }
            Shape::LeaderAlone => {
                let leader = leader.ok_or("nobody is known to lead")?;
                assert!(leader < nodes, "node {leader} leads {nodes} nodes");
                order.retain(|&node| node != leader);
                Grudge::between(&[leader], &order)
            }
            Shape::Asymmetric => {
                let (few, many) = order.split_at(few(dice, nodes));
                if dice.flag() { Grudge::one_way(few, many) } else { Grudge::one_way(many, few) }
            }
        })
    }
}

/// How many of `nodes` are few: at least one, and no half if that can be.
fn few(dice: &mut Dice, nodes: usize) -> usize {
    1 + dice.below((nodes.saturating_sub(1) / 2).max(1) as u64) as usize
}

/// For each node those it gets nothing from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grudge(BTreeMap<usize, BTreeSet<usize>>);

impl Grudge {
    /// Nobody of `left` and nobody of `right` get anything from each other.
    pub fn between(left: &[usize], right: &[usize]) -> Grudge {
        let mut grudge = Grudge::one_way(left, right);
        for (node, refused) in Grudge::one_way(right, left).0 {
            grudge.0.entry(node).or_default().extend(refused);
        }
        grudge
    }

    /// Nobody of `to` gets anything from anybody of `from`.
    pub fn one_way(from: &[usize], to: &[usize]) -> Grudge {
        assert!(from.iter().all(|node| !to.contains(node)), "no node is cut off from itself");
        Grudge(to.iter().map(|&node| (node, from.iter().copied().collect())).collect())
    }

    /// In a ring of this order, each node hears as many neighbours on either side as make a majority with it.
    fn ring(order: &[usize]) -> Grudge {
        let nodes = order.len();
        let reach = (nodes / 2).div_ceil(2);
        let mut grudge = Grudge::default();
        for (here, &node) in order.iter().enumerate() {
            for (there, &other) in order.iter().enumerate() {
                let apart = here.abs_diff(there);
                if apart.min(nodes - apart) > reach {
                    grudge.0.entry(node).or_default().insert(other);
                }
            }
        }
        grudge
    }

    /// Whether `node` gets nothing from `from`.
    pub fn refuses(&self, node: usize, from: usize) -> bool {
        self.0.get(&node).is_some_and(|refused| refused.contains(&from))
    }

    /// What has to be dropped of `traffic` for it.
    pub fn cuts(&self, traffic: Traffic) -> Vec<Cut> {
        let cuts = |(&to, refused): (&usize, &BTreeSet<usize>)| -> Vec<Cut> {
            refused.iter().map(|&from| Cut { from, to, traffic }).collect()
        };
        self.0.iter().flat_map(cuts).collect()
    }
}

impl fmt::Display for Grudge {
    /// `n1 gets nothing from n2 n3; …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (&node, refused)) in self.0.iter().enumerate() {
            let before = if place == 0 { "" } else { "; " };
            write!(f, "{before}{} gets nothing from {}", node_name(node), names(refused))?;
        }
        Ok(())
    }
}

/// `n1 n3`.
pub(super) fn names(nodes: &BTreeSet<usize>) -> String {
    nodes.iter().map(|&node| node_name(node)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: std::ops::RangeInclusive<usize> = 1..=9;
    const SEEDS: std::ops::Range<u64> = 0..100;

    /// Those `node` exchanges packets with, itself included.
    fn hears(grudge: &Grudge, node: usize, nodes: usize) -> BTreeSet<usize> {
        (0..nodes).filter(|&other| !grudge.refuses(node, other) && !grudge.refuses(other, node)).collect()
    }

    /// All grudges of a shape, each with its number of nodes.
    fn grudges(shape: Shape) -> Vec<(usize, Grudge)> {
        let mut all = Vec::new();
        for nodes in SIZES.filter(|&nodes| nodes >= shape.nodes_min()) {
            for mut dice in SEEDS.map(Dice::new) {
                let leader = dice.below(nodes as u64) as usize;
                all.push((nodes, shape.grudge(&mut dice, nodes, Some(leader)).expect("enough nodes, and a leader")));
            }
        }
        all
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
    fn a_minority_has_every_size_it_can_have() {
        let five = grudges(Shape::Minority).into_iter().filter(|(nodes, _)| *nodes == 5);
        let sizes: BTreeSet<usize> = five.map(|(nodes, grudge)| sides(&grudge, nodes).0).collect();
        assert_eq!(sizes, BTreeSet::from([1, 2]));
    }

    #[test]
    fn in_a_majority_ring_everybody_hears_a_majority_of_its_own() {
        for (nodes, grudge) in grudges(Shape::MajorityRing) {
            let heard: BTreeSet<BTreeSet<usize>> = (0..nodes).map(|node| hears(&grudge, node, nodes)).collect();
            assert_eq!(heard.len(), nodes, "two nodes hear the same: {grudge}");
            for side in heard {
                assert!(side.len() * 2 > nodes && side.len() < nodes, "{grudge}");
            }
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
    fn a_lone_leader_hears_nobody_and_needs_to_be_known() {
        for nodes in 2..=9 {
            for leader in 0..nodes {
                let grudge = Shape::LeaderAlone.grudge(&mut Dice::new(1), nodes, Some(leader)).expect("a leader");
                assert_eq!(hears(&grudge, leader, nodes), BTreeSet::from([leader]));
                assert_eq!(sides(&grudge, nodes), (1, nodes - 1));
            }
            assert!(Shape::LeaderAlone.grudge(&mut Dice::new(1), nodes, None).is_err());
        }
    }

    #[test]
    fn asymmetric_cuts_go_from_few_and_to_few() {
        let mut from_few = BTreeSet::new();
        for (nodes, grudge) in grudges(Shape::Asymmetric).into_iter().filter(|(nodes, _)| *nodes >= 3) {
            let from: BTreeSet<usize> = grudge.cuts(Traffic::All).iter().map(|cut| cut.from).collect();
            let to: BTreeSet<usize> = grudge.cuts(Traffic::All).iter().map(|cut| cut.to).collect();
            assert!(from.is_disjoint(&to) && from.len() + to.len() == nodes, "{grudge}");
            from_few.insert(from.len() < to.len());
        }
        assert_eq!(from_few, BTreeSet::from([false, true]));
    }

    #[test]
    fn too_few_nodes_are_no_partition() {
        for shape in Shape::ALL {
            assert!(shape.grudge(&mut Dice::new(1), shape.nodes_min() - 1, Some(0)).is_err(), "{shape:?}");
        }
    }
}
