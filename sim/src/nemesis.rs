//! Brings the planned faults about, heals them, and counts those that were seen in force.
//!
//! A fault on nodes is in force when it changed something about one of them; one on links when a packet met it; a slow
//! disk when something was written to it meanwhile. A fault nobody met proves nothing and is not counted.

use std::collections::BTreeMap;

use trefoil_jepsen::history::FaultPhase;

use crate::cluster::Cluster;
use crate::faults::{Down, Effect, Kind, Planned, Wanted};

/// A fault's step, for the history: its name, what became of it, and the details.
pub type Noted = (Kind, FaultPhase, String);

/// Faults in force and to come.
pub struct Nemesis {
    /// To come, the next one last.
    to_come: Vec<Planned>,
    active: Vec<Active>,
    wanted: Wanted,
    /// How often each kind was in force.
    in_force: BTreeMap<Kind, u64>,
    /// Nodes that run and whose wall clocks have jumped since somebody asked.
    jumped: Vec<usize>,
}

struct Active {
    planned: Planned,
    /// What had met it, or would have, before it began: packets of its links, writes to its disk.
    touched: u64,
    seen: bool,
}

impl Nemesis {
    /// `planned` is by when the faults begin.
    pub fn new(mut planned: Vec<Planned>) -> Nemesis {
        planned.reverse();
        let in_force = BTreeMap::new();
        Nemesis { to_come: planned, active: Vec::new(), wanted: Wanted::default(), in_force, jumped: Vec::new() }
    }

    /// How often each kind of fault was in force.
    pub fn in_force(&self) -> &BTreeMap<Kind, u64> {
        &self.in_force
    }

    /// The nodes whose wall clocks have jumped since the last call, while they ran.
    pub fn jumped(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.jumped)
    }

    /// Heals and injects what is due now. Gives what is to be noted.
    pub fn act(&mut self, cluster: &mut Cluster) -> Vec<Noted> {
        let now_ms = cluster.now_ms();
        let ends = self.active.iter().any(|active| active.planned.to_ms <= now_ms);
        let begins = self.to_come.last().is_some_and(|next| next.from_ms <= now_ms);
        if !ends && !begins {
            return Vec::new();
        }
        let mut noted = self.end(cluster, |planned| planned.to_ms <= now_ms);
        while let Some(next) = self.to_come.pop_if(|next| next.from_ms <= now_ms) {
            noted.extend(self.begin(cluster, next));
        }
        self.bring_about(cluster);
        noted
    }

    /// Heals everything, for good.
    pub fn heal_all(&mut self, cluster: &mut Cluster) -> Vec<Noted> {
        self.to_come.clear();
        let noted = self.end(cluster, |_| true);
        self.bring_about(cluster);
        noted
    }

    fn begin(&mut self, cluster: &mut Cluster, planned: Planned) -> Vec<Noted> {
        let seen = changes(&planned.effect, cluster);
        let touched = touched(&planned.effect, cluster);
        if let Effect::Jump { node, by_ms } = planned.effect {
            cluster.move_wall_clock(node, by_ms);
            self.jumped.extend(seen.then_some(node));
        }
        if let Effect::Replace { node, by } = planned.effect
            && seen
        {
            cluster.replace_directory(node, by);
        }
        let mut noted = vec![(planned.kind, FaultPhase::Injected, format!("{:?}", planned.effect))];
        if seen {
            *self.in_force.entry(planned.kind).or_default() += 1;
            noted.push((planned.kind, FaultPhase::InForce, String::new()));
        }
        self.active.push(Active { planned, touched, seen });
        noted
    }

    fn end(&mut self, cluster: &Cluster, over: impl Fn(&Planned) -> bool) -> Vec<Noted> {
        let (ended, active): (Vec<Active>, Vec<Active>) =
            std::mem::take(&mut self.active).into_iter().partition(|active| over(&active.planned));
        self.active = active;
        let mut noted = Vec::new();
        for Active { planned, touched: before, seen } in ended {
            // A loss of power takes what was written to a disk.
            let met = touched(&planned.effect, cluster).saturating_sub(before);
            if met > 0 && !seen {
                *self.in_force.entry(planned.kind).or_default() += 1;
                noted.push((planned.kind, FaultPhase::InForce, format!("met {met} times")));
            }
            noted.push((planned.kind, FaultPhase::Healed, String::new()));
        }
        noted
    }

    /// Makes the cluster as the faults in force want it.
    fn bring_about(&mut self, cluster: &mut Cluster) {
        let wanted = Wanted::of(self.active.iter().map(|active| &active.planned.effect));
        let before = std::mem::replace(&mut self.wanted, wanted);
        for way in before.links.keys().chain(self.wanted.links.keys()) {
            cluster.network.set_trouble(*way, self.wanted.links.get(way).copied().unwrap_or_default());
        }
        for node in 0..cluster.size() {
            let (still, stood) = (self.wanted.still.contains(&node), before.still.contains(&node));
            if still != stood {
                cluster.stand_still(node, still);
            }
            let slower = |wanted: &Wanted| wanted.slow_disks.get(&node).copied().unwrap_or(0);
            if slower(&self.wanted) != slower(&before) {
                cluster.slow_disk(node, slower(&self.wanted));
            }
            match (self.wanted.down.get(&node), cluster.down(node)) {
                (None, Some(_)) => cluster.start(node),
                (Some(Down::Killed), None) => cluster.kill(node),
                (Some(Down::Unpowered), None | Some(Down::Killed)) => cluster.cut_power(node),
                (None, None) | (Some(Down::Killed), Some(_)) | (Some(Down::Unpowered), Some(Down::Unpowered)) => {}
            }
        }
    }
}

/// Whether the fault's beginning changes something about a node.
fn changes(effect: &Effect, cluster: &Cluster) -> bool {
    match effect {
        Effect::Down { nodes, how } => nodes.iter().any(|node| cluster.down(*node) < Some(*how)),
        Effect::Still { node } | Effect::Jump { node, .. } => cluster.runs(*node),
        Effect::Replace { node, by } => cluster.may_replace(*node, *by),
        // Whether a packet, or a write, meets it will be seen.
        Effect::Cut { .. } | Effect::Slow { .. } | Effect::SlowDisk { .. } => false,
    }
}

/// How many packets the troubles of the fault's links have met; of a disk, how much was ever written to it.
fn touched(effect: &Effect, cluster: &Cluster) -> u64 {
    match effect {
        Effect::Cut { ways } | Effect::Slow { ways, .. } => ways.iter().map(|way| cluster.network.touched(*way)).sum(),
        // A malformed position is for the invariants to find.
        Effect::SlowDisk { node, .. } => cluster.disk(*node).0.position().unwrap_or(0),
        Effect::Down { .. } | Effect::Still { .. } | Effect::Jump { .. } | Effect::Replace { .. } => 0,
    }
}
