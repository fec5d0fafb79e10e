//! Which faults come when: a schedule drawn from the seed, and what a set of faults in force makes of the cluster.
//!
//! Pure. Faults may overlap; what they want together is worked out anew whenever one begins or ends ([`Wanted::of`]),
//! so that the end of one never heals another. Bringing it about is `nemesis.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use trefoil_jepsen::generator::Dice;

use crate::network::{HostId, Trouble, Way};
use crate::parameters::FaultParameters;

/// How far apart a node's starts are before an old copy of it is put back: all others have met it in between.
const STARTS_APART_MS: u64 = 4_000;
/// How long after its end a node is started again then.
const RESTARTED_IN_MS: u64 = 300;
/// No fault begins later than so long before the end: what is healed at once is met by nothing.
const BEFORE_END_MS: u64 = 500;
/// How long the first fault of a kind that something has to meet lasts at least: on a connection that is idle each side
/// says something every second, by a clock that may be slow.
const MET_IN_MS: u64 = 1_500;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node's process is killed.
    Kill,
    /// A node's machine loses its power.
    PowerLoss,
    /// All machines of the cluster lose their power at once.
    WholePowerLoss,
    /// A node's process stands still.
    Pause,
    /// From one machine to another nothing arrives.
    CutOneWay,
    /// Between two nodes nothing arrives.
    CutPair,
    /// Between a node and all others, clients too, nothing arrives.
    Isolate,
    /// Nothing arrives at a node.
    Deaf,
    /// The nodes are in two parts; clients reach both.
    Halves,
    /// Clients do not reach some nodes.
    CutClients,
    /// What a node says arrives late.
    Slow,
    /// A node's wall clock jumps, for good.
    ClockJump,
    /// Each sync of a node's disk takes longer.
    SlowDisk,
    /// A node comes back with an empty directory, once in a run.
    Wipe,
    /// A node comes back with a copy of its directory from before its last two starts, once in a run.
    OldCopy,
}

impl Kind {
    /// What seeds choose their few from. Slow disks come beside them (`parameters.rs`); the others leave a cluster with a
    /// node less for good.
    pub const ALL: [Kind; 12] = [
        Kind::Kill,
        Kind::PowerLoss,
        Kind::WholePowerLoss,
        Kind::Pause,
        Kind::CutOneWay,
        Kind::CutPair,
        Kind::Isolate,
        Kind::Deaf,
        Kind::Halves,
        Kind::CutClients,
        Kind::Slow,
        Kind::ClockJump,
    ];

    /// As reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::PowerLoss => "power-loss",
            Kind::WholePowerLoss => "whole-power-loss",
            Kind::Pause => "pause",
            Kind::CutOneWay => "cut-one-way",
            Kind::CutPair => "cut-pair",
            Kind::Isolate => "isolate",
            Kind::Deaf => "deaf",
            Kind::Halves => "halves",
            Kind::CutClients => "cut-clients",
            Kind::Slow => "slow",
            Kind::ClockJump => "clock-jump",
            Kind::SlowDisk => "slow-disk",
            Kind::Wipe => "wipe",
            Kind::OldCopy => "old-copy",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a node is not running. The later one is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Down {
    Killed,
    Unpowered,
}

/// What a fault does while it is in force. Replaced is a directory whose node is down, and finds another one when it is
/// started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Down { nodes: Vec<usize>, how: Down },
    Still { node: usize },
    Cut { ways: Vec<Way> },
    Slow { ways: Vec<Way>, by_ms: u64 },
    Jump { node: usize, by_ms: i64 },
    SlowDisk { node: usize, by_ms: u64 },
    Replace { node: usize, by: Directory },
}

/// A directory that is put in the place of a node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    Empty,
    /// As the node left it at the end of its first life.
    OldCopy,
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub kind: Kind,
    pub effect: Effect,
    pub from_ms: u64,
    /// Healed at this time.
    pub to_ms: u64,
}

/// The faults of a run of `nodes` nodes, by when they begin; the last one is healed by `end_ms`. One that could not come
/// into force, since of the nodes that it is for none is as it must be then, is left out.
pub fn schedule(parameters: &FaultParameters, nodes: usize, end_ms: u64, mut dice: Dice) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut from_ms = parameters.from_ms + dice.below(parameters.pause_ms);
    let (once, kinds): (Vec<Kind>, Vec<Kind>) =
        parameters.kinds.iter().copied().partition(|kind| replaces(*kind).is_some());
    for by in once.into_iter().filter_map(replaces) {
        planned.extend(replacement(by, from_ms, dice.below(nodes as u64) as usize));
    }
    while from_ms + BEFORE_END_MS <= end_ms && !kinds.is_empty() {
        let kind = *dice.pick(&kinds);
        let effect = effect(kind, nodes, &mut dice);
        let lasts_ms = 50 + dice.below(parameters.lasts_ms);
        if may_come_into_force(&effect, from_ms, &planned) {
            let is_first = planned.iter().all(|before| before.kind != kind);
            let least_ms = if is_first && has_to_be_met(&effect) { MET_IN_MS } else { 0 };
            planned.push(Planned { kind, effect, from_ms, to_ms: (from_ms + lasts_ms.max(least_ms)).min(end_ms) });
        }
        from_ms += 100 + dice.below(parameters.pause_ms);
    }
    planned.sort_by_key(|planned| planned.from_ms);
    planned
}

/// Whether a fault that begins then, after these, changes something about a node, or is where somebody speaks or writes.
fn may_come_into_force(effect: &Effect, at_ms: u64, before: &[Planned]) -> bool {
    // What ends at this moment is healed only after the new one was looked at.
    let there = before.iter().filter(|planned| planned.from_ms <= at_ms && at_ms <= planned.to_ms);
    let wanted = Wanted::of(there.map(|planned| &planned.effect));
    let works = |node: &usize| !wanted.down.contains_key(node) && !wanted.still.contains(node);
    match effect {
        Effect::Down { nodes, how } => nodes.iter().any(|node| wanted.down.get(node) < Some(how)),
        Effect::Still { node } | Effect::Jump { node, .. } => !wanted.down.contains_key(node),
        Effect::Cut { ways } | Effect::Slow { ways, .. } => ways.iter().any(|(from, _)| works(&from.0)),
        Effect::SlowDisk { node, .. } => works(node),
        Effect::Replace { .. } => true,
    }
}

/// Whether something has to meet the fault for it to be in force; others are when they begin.
fn has_to_be_met(effect: &Effect) -> bool {
    match effect {
        Effect::Cut { .. } | Effect::Slow { .. } | Effect::SlowDisk { .. } => true,
        Effect::Down { .. } | Effect::Still { .. } | Effect::Jump { .. } | Effect::Replace { .. } => false,
    }
}

/// What takes the place of a node's directory in faults of this kind.
fn replaces(kind: Kind) -> Option<Directory> {
    match kind {
        Kind::Wipe => Some(Directory::Empty),
        Kind::OldCopy => Some(Directory::OldCopy),
        Kind::Kill
        | Kind::PowerLoss
        | Kind::WholePowerLoss
        | Kind::Pause
        | Kind::CutOneWay
        | Kind::CutPair
        | Kind::Isolate
        | Kind::Deaf
        | Kind::Halves
        | Kind::CutClients
        | Kind::Slow
        | Kind::ClockJump
        | Kind::SlowDisk => None,
    }
}

/// A node's directory is replaced. An old copy has to be old first: the node is started twice before.
fn replacement(by: Directory, from_ms: u64, node: usize) -> Vec<Planned> {
    let at = |place: u64| from_ms + place * STARTS_APART_MS;
    let down = |kind, effect, at_ms| Planned { kind, effect, from_ms: at_ms, to_ms: at_ms + RESTARTED_IN_MS };
    let kill = |place| down(Kind::Kill, Effect::Down { nodes: vec![node], how: Down::Killed }, at(place));
    match by {
        Directory::Empty => vec![down(Kind::Wipe, Effect::Replace { node, by }, at(0))],
        Directory::OldCopy => vec![kill(0), kill(1), down(Kind::OldCopy, Effect::Replace { node, by }, at(2))],
    }
}

fn effect(kind: Kind, nodes: usize, dice: &mut Dice) -> Effect {
    let clients = HostId(nodes);
    let node = dice.below(nodes as u64) as usize;
    let other = (node + 1 + dice.below(nodes as u64 - 1) as usize) % nodes;
    let (one, two) = (HostId(node), HostId(other));
    match kind {
        Kind::Kill => Effect::Down { nodes: vec![node], how: Down::Killed },
        Kind::PowerLoss => Effect::Down { nodes: vec![node], how: Down::Unpowered },
        Kind::WholePowerLoss => Effect::Down { nodes: (0..nodes).collect(), how: Down::Unpowered },
        Kind::Pause => Effect::Still { node },
        Kind::CutOneWay => Effect::Cut { ways: vec![(one, two)] },
        Kind::CutPair => Effect::Cut { ways: vec![(one, two), (two, one)] },
        Kind::Isolate => Effect::Cut { ways: both_ways(&[one], &others(one, nodes + 1)) },
        Kind::Deaf => Effect::Cut { ways: others(one, nodes).into_iter().map(|from| (from, one)).collect() },
        Kind::Halves => {
            let (left, right) = halves(nodes, dice);
            Effect::Cut { ways: both_ways(&left, &right) }
        }
        Kind::CutClients => Effect::Cut { ways: both_ways(&[clients], &halves(nodes, dice).0) },
        Kind::Slow => {
            let ways = others(one, nodes + 1).into_iter().map(|to| (one, to)).collect();
            Effect::Slow { ways, by_ms: 20 + dice.below(400) }
        }
        Kind::ClockJump => Effect::Jump { node, by_ms: dice.below(120_001) as i64 - 60_000 },
        Kind::SlowDisk => Effect::SlowDisk { node, by_ms: *dice.pick(&[100, 400, 1_500]) },
        Kind::Wipe => Effect::Replace { node, by: Directory::Empty },
        Kind::OldCopy => Effect::Replace { node, by: Directory::OldCopy },
    }
}

fn others(one: HostId, hosts: usize) -> Vec<HostId> {
    (0..hosts).map(HostId).filter(|host| *host != one).collect()
}

fn both_ways(left: &[HostId], right: &[HostId]) -> Vec<Way> {
    let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other)));
    pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

/// Two parts, of which neither is empty.
fn halves(nodes: usize, dice: &mut Dice) -> (Vec<HostId>, Vec<HostId>) {
    let mut left: Vec<HostId> = (0..nodes).map(HostId).collect();
    dice.shuffle(&mut left);
    let right = left.split_off(1 + dice.below(nodes as u64 - 1) as usize);
    (left, right)
}

/// How the cluster should be. What is not named is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub down: BTreeMap<usize, Down>,
    pub still: BTreeSet<usize>,
    pub links: BTreeMap<Way, Trouble>,
    /// How much longer a sync of this node's disk takes.
    pub slow_disks: BTreeMap<usize, u64>,
}

impl Wanted {
    /// What these faults, all in force, make of the cluster.
    pub fn of<'a>(in_force: impl IntoIterator<Item = &'a Effect>) -> Wanted {
        let mut wanted = Wanted::default();
        for effect in in_force {
            match effect {
                Effect::Down { nodes, how } => {
                    for node in nodes {
                        let worst = wanted.down.entry(*node).or_insert(*how);
                        *worst = (*worst).max(*how);
                    }
                }
                // The directory is replaced once, when the fault begins.
                Effect::Replace { node, by: _ } => {
                    wanted.down.entry(*node).or_insert(Down::Killed);
                }
                Effect::Still { node } => {
                    wanted.still.insert(*node);
                }
                Effect::Cut { ways } => {
                    ways.iter().for_each(|way| wanted.links.entry(*way).or_default().cut = true);
                }
                Effect::Slow { ways, by_ms } => {
                    ways.iter().for_each(|way| wanted.links.entry(*way).or_default().slower_ms += by_ms);
                }
                Effect::SlowDisk { node, by_ms } => {
                    *wanted.slow_disks.entry(*node).or_default() += by_ms;
                }
                // It is done once, when the fault begins.
                Effect::Jump { .. } => {}
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: usize = 5;

    fn all(kinds: &[Kind]) -> Vec<Planned> {
        let parameters = FaultParameters { kinds: kinds.to_vec(), from_ms: 1000, lasts_ms: 3000, pause_ms: 1000 };
        (0..20).flat_map(|seed| schedule(&parameters, NODES, 60_000, Dice::new(seed))).collect()
    }

    #[test]
    fn faults_come_in_time_and_name_who_is_there() {
        for planned in all(&Kind::ALL).into_iter().chain(all(&[Kind::SlowDisk])) {
            assert!(1000 <= planned.from_ms && planned.from_ms < planned.to_ms && planned.to_ms <= 60_000);
            let hosts: Vec<usize> = match planned.effect {
                Effect::Down { nodes, .. } => nodes,
                Effect::Still { node }
                | Effect::Jump { node, .. }
                | Effect::SlowDisk { node, .. }
                | Effect::Replace { node, .. } => vec![node],
                Effect::Cut { ways } | Effect::Slow { ways, .. } => {
                    assert!(
                        !ways.is_empty()
                            && ways.iter().all(|(from, to)| from != to && from.0 <= NODES && to.0 <= NODES)
                    );
                    continue;
                }
            };
            assert!(!hosts.is_empty() && hosts.iter().all(|node| *node < NODES), "{hosts:?}");
        }
    }

    #[test]
    fn every_kind_comes() {
        let kinds: BTreeSet<Kind> = all(&Kind::ALL).iter().map(|planned| planned.kind).collect();
        assert_eq!(kinds, BTreeSet::from(Kind::ALL));
        assert!(all(&[Kind::Deaf]).iter().all(|planned| planned.kind == Kind::Deaf));
    }

    #[test]
    fn what_could_not_come_into_force_is_left_out() {
        let (from_ms, to_ms) = (1000, 2000);
        let killed = Effect::Down { nodes: vec![0], how: Down::Killed };
        let still = Effect::Still { node: 1 };
        let before = [(Kind::Kill, killed.clone()), (Kind::Pause, still.clone())].map(|(kind, effect)| Planned {
            kind,
            effect,
            from_ms,
            to_ms,
        });
        let cut = |from, to| Effect::Cut { ways: vec![(HostId(from), HostId(to))] };
        let slow_disk = |node| Effect::SlowDisk { node, by_ms: 100 };
        for (effect, expected) in [
            (killed, false),
            (Effect::Down { nodes: vec![0], how: Down::Unpowered }, true),
            (Effect::Down { nodes: vec![0, 1], how: Down::Killed }, true),
            (Effect::Still { node: 0 }, false),
            (still, true),
            (Effect::Jump { node: 0, by_ms: 5 }, false),
            (cut(0, 2), false),
            (cut(1, 2), false),
            (cut(2, 0), true),
            (cut(NODES, 0), true),
            (slow_disk(0), false),
            (slow_disk(2), true),
        ] {
            for at_ms in [from_ms, to_ms] {
                assert_eq!(may_come_into_force(&effect, at_ms, &before), expected, "{effect:?} at {at_ms}");
            }
            assert!(may_come_into_force(&effect, to_ms + 1, &before), "{effect:?}");
        }
    }

    #[test]
    fn faults_that_overlap_leave_each_other_something() {
        let kinds = vec![Kind::Kill, Kind::WholePowerLoss, Kind::Pause, Kind::CutOneWay];
        let parameters = FaultParameters { kinds, from_ms: 0, lasts_ms: 6_000, pause_ms: 500 };
        for seed in 0..20 {
            let planned = schedule(&parameters, NODES, 30_000, Dice::new(seed));
            for (place, one) in planned.iter().enumerate() {
                assert!(may_come_into_force(&one.effect, one.from_ms, &planned[..place]), "{one:?}");
            }
            let first = planned.iter().find(|planned| planned.kind == Kind::CutOneWay).expect("one at least");
            assert!(first.to_ms - first.from_ms >= MET_IN_MS || first.to_ms == 30_000, "{first:?}");
            assert!(planned.iter().all(|planned| planned.from_ms + BEFORE_END_MS <= 30_000), "{planned:?}");
        }
    }

    #[test]
    fn a_directory_is_replaced_once_and_by_a_copy_that_is_old() {
        for (kind, kills) in [(Kind::Wipe, 0), (Kind::OldCopy, 2)] {
            let parameters = FaultParameters { kinds: vec![kind], from_ms: 1000, lasts_ms: 3000, pause_ms: 1000 };
            let planned = schedule(&parameters, NODES, 60_000, Dice::new(1));
            let (last, before) = planned.split_last().expect("one at least");
            let Effect::Replace { node, .. } = last.effect else { panic!("{last:?}") };
            let killed = Effect::Down { nodes: vec![node], how: Down::Killed };
            assert_eq!((last.kind, before.len()), (kind, kills));
            assert!(before.iter().all(|planned| planned.effect == killed && planned.to_ms < last.from_ms));
        }
    }

    #[test]
    fn the_end_of_one_fault_does_not_heal_another() {
        let way = (HostId(0), HostId(1));
        let kill = Effect::Down { nodes: vec![0], how: Down::Killed };
        let power = Effect::Down { nodes: vec![0, 1], how: Down::Unpowered };
        let cut = Effect::Cut { ways: vec![way] };
        let slow = Effect::Slow { ways: vec![way], by_ms: 5 };
        let slow_disk = Effect::SlowDisk { node: 2, by_ms: 100 };
        let both = Wanted::of([&power, &kill, &cut, &slow, &slow, &slow_disk, &slow_disk]);
        assert_eq!(both.down, BTreeMap::from([(0, Down::Unpowered), (1, Down::Unpowered)]));
        assert_eq!(both.links, BTreeMap::from([(way, Trouble { cut: true, slower_ms: 10 })]));
        assert_eq!(both.slow_disks, BTreeMap::from([(2, 200)]));
        let less = Wanted::of([&kill, &slow, &slow_disk]);
        assert_eq!(less.slow_disks, BTreeMap::from([(2, 100)]));
        assert_eq!(less.down, BTreeMap::from([(0, Down::Killed)]));
        assert_eq!(less.links, BTreeMap::from([(way, Trouble { cut: false, slower_ms: 5 })]));
        assert_eq!(Wanted::of([]), Wanted::default());
    }
}
