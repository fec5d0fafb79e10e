//! Grudges: which node gets nothing from which other one. The shapes partitions have, as pure choices.
//!
//! A shape is one of the nodes that hold the default partition: its sides are made of these, and what is said of them here
//! (a majority, halves) counts these alone. The other nodes are then dealt to the sides, one after the other, so that
//! who asks through them is cut off too.
//!
//! Whole partitions are symmetric: a TCP connection needs both directions, so what matters is which nodes hear each
//! other. Only [`Shape::Asymmetric`] is one-way.
//!
//! Invariants, tested for all sizes:
//!
//! * Nobody is cut off from itself, and every grudge cuts holders off from each other.
//! * A node that holds nothing hears the same holders as one of them does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::backend::{Cut, Traffic, node_name};
use crate::cluster::status::Placement;
use crate::generator::Dice;

/// A ring of so many holders is a bridge: two of them do not hear each other.
const RING_OF_TWO_ENDS: usize = 3;

/// The shape of a partition of the nodes that hold the default partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// One apart from the others.
    One,
    /// Two halves. Of an odd number one half is the majority.
    Halves,
    /// Fewer than half, at random how many, apart from the others.
    Minority,
    /// Each hears a majority, no two of them the same one.
    MajorityRing,
    /// Two halves, and one that hears both.
    Bridge,
    /// The leader apart from the others.
    LeaderAlone,
    /// A few are not heard by the others, or do not hear them.
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

    /// The fewest holders that can be parted so.
    pub fn holders_min(self) -> usize {
        match self {
            Shape::One | Shape::Halves | Shape::LeaderAlone | Shape::Asymmetric => 2,
            Shape::Minority | Shape::MajorityRing | Shape::Bridge => 3,
        }
    }

    /// A grudge of this shape. How often the dice are rolled does not depend on who leads.
    ///
    /// # Errors
    /// There are too few holders, or nobody leads whom to part: in words.
    pub fn grudge(self, dice: &mut Dice, placement: &Placement) -> Result<Grudge, String> {
        let holders = placement.holders.len();
        if holders < self.holders_min() {
            let (name, least) = (self.name(), self.holders_min());
            return Err(format!("{name} needs at least {least} nodes that hold the default partition"));
        }
        let mut order: Vec<usize> = placement.holders.iter().copied().collect();
        dice.shuffle(&mut order);
        let (few, from_few) = (few(dice, holders), dice.flag());
        if self == Shape::LeaderAlone {
            let leader = placement.leader.ok_or("nobody is known to lead")?;
            let place = order.iter().position(|&node| node == leader).expect("who leads holds the partition");
            order.swap(0, place);
        }
        let sides = deal(self.sides(&order, few), placement.others(), dice);
        Ok(match sides.as_slice() {
            [few, many] if self == Shape::Asymmetric && from_few => Grudge::one_way(few, many),
            [few, many] if self == Shape::Asymmetric => Grudge::one_way(many, few),
            [left, right] => Grudge::between(left, right),
            ring => Grudge::ring(ring),
        })
    }

    /// The sides that holders in this order have: two, or more that are a ring. `few`: how many are few. Who bridges two
    /// sides is of neither.
    fn sides(self, order: &[usize], few: usize) -> Vec<Vec<usize>> {
        let in_two = |holders: &[usize], first: usize| vec![holders[..first].to_vec(), holders[first..].to_vec()];
        match self {
            Shape::One | Shape::LeaderAlone => in_two(order, 1),
            Shape::Halves => in_two(order, order.len() / 2),
            Shape::Minority | Shape::Asymmetric => in_two(order, few),
            Shape::MajorityRing if order.len() > RING_OF_TWO_ENDS => order.iter().map(|&node| vec![node]).collect(),
            Shape::MajorityRing | Shape::Bridge => in_two(&order[1..], order.len() / 2),
        }
    }
}

/// How many of `holders` are few: at least one, and no half if that can be.
fn few(dice: &mut Dice, holders: usize) -> usize {
    1 + dice.below((holders.saturating_sub(1) / 2).max(1) as u64) as usize
}

/// Deals other nodes to sides, in turn: of two nodes and two sides each gets one.
fn deal(mut sides: Vec<Vec<usize>>, mut others: Vec<usize>, dice: &mut Dice) -> Vec<Vec<usize>> {
    dice.shuffle(&mut others);
    let (first, count) = (dice.below(sides.len() as u64) as usize, sides.len());
    for (turn, node) in others.into_iter().enumerate() {
        sides[(first + turn) % count].push(node);
    }
    sides
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

    /// One node, and nobody else, gets nothing from any other of so many, nor they from it.
    pub fn alone(node: usize, nodes: usize) -> Grudge {
        let others: Vec<usize> = (0..nodes).filter(|&other| other != node).collect();
        Grudge::between(&[node], &others)
    }

    /// In a ring of sides, each hears as many neighbours on either side of it as make a majority of the sides with it.
    fn ring(sides: &[Vec<usize>]) -> Grudge {
        let reach = (sides.len() / 2).div_ceil(2);
        let mut grudge = Grudge::default();
        for (here, side) in sides.iter().enumerate() {
            for (there, other) in sides.iter().enumerate() {
                let apart = here.abs_diff(there);
                if apart.min(sides.len() - apart) > reach {
                    for &node in side {
                        grudge.0.entry(node).or_default().extend(other);
                    }
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
mod tests;
