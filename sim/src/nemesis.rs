//! Brings the planned faults about, heals them, and counts those that were seen in force.
//!
//! A fault on nodes is in force when it changed something about one of them; one on links when a packet met it; a slow
//! disk when something was written to it meanwhile. A fault nobody met proves nothing and is not counted. A run in which
//! the faults that have begun were not in force shows too little ([`Nemesis::gates`]).

use std::collections::BTreeMap;

use trefoil_jepsen::coverage::Gate;
use trefoil_jepsen::history::FaultPhase;

use crate::cluster::Cluster;
use crate::faults::{Down, Effect, Kind, Planned, Wanted};

/// How often faults of one kind may begin before one of them must have been in force.
const IN_VAIN_MAX: u64 = 1;

/// A fault's step, for the history: its name, what became of it, and the details.
pub type Noted = (Kind, FaultPhase, String);

/// Faults in force and to come.
pub struct Nemesis {
    /// To come, the next one last.
    to_come: Vec<Planned>,
    active: Vec<Active>,
    wanted: Wanted,
    /// How often faults of each kind have begun.
    begun: BTreeMap<Kind, u64>,
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
        Nemesis {
            to_come: planned,
            active: Vec::new(),
            wanted: Wanted::default(),
            begun: BTreeMap::new(),
            in_force: BTreeMap::new(),
            jumped: Vec::new(),
        }
    }

    /// How often each kind of fault was in force.
    pub fn in_force(&self) -> &BTreeMap<Kind, u64> {
        &self.in_force
    }

    /// The kinds of faults that have begun and were never in force.
    pub fn in_vain(&self) -> Vec<Kind> {
        self.begun.keys().copied().filter(|kind| !self.in_force.contains_key(kind)).collect()
    }

    /// What must have been in force for the run to prove anything: of the kinds that have begun one, and each of those that
    /// have begun more than once.
    pub fn gates(&self) -> Vec<Gate> {
        gates(&self.begun, &self.in_force)
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
        *self.begun.entry(planned.kind).or_default() += 1;
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

fn gates(begun: &BTreeMap<Kind, u64>, in_force: &BTreeMap<Kind, u64>) -> Vec<Gate> {
    let seen = |kind: &Kind| in_force.get(kind).copied().unwrap_or(0);
    let gate = |name: String, seen: u64| Gate { name, wanted: 1, seen };
    let any: u64 = begun.keys().map(seen).sum();
    let mut gates = Vec::new();
    if !begun.is_empty() {
        gates.push(gate("a fault in force".to_owned(), any));
    }
    let often = begun.iter().filter(|(_, times)| **times > IN_VAIN_MAX);
    gates.extend(often.map(|(kind, _)| gate(format!("{kind} in force"), seen(kind))));
    gates
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_were_not_in_force_are_missed() {
        /// What has begun and what was in force, each how often, and which gates are not met.
        type Case = (&'static [(Kind, u64)], &'static [(Kind, u64)], &'static [&'static str]);
        let cases: [Case; 6] = [
            (&[], &[], &[]),
            (&[(Kind::Kill, 1)], &[(Kind::Kill, 1)], &[]),
            (&[(Kind::Kill, 1)], &[], &["a fault in force"]),
            (&[(Kind::Kill, 3), (Kind::Slow, 1)], &[(Kind::Kill, 1)], &[]),
            (&[(Kind::Kill, 1), (Kind::Slow, 2)], &[(Kind::Kill, 1)], &["slow in force"]),
            (&[(Kind::Slow, 2)], &[], &["a fault in force", "slow in force"]),
        ];
        let kinds = |list: &[(Kind, u64)]| list.iter().copied().collect::<BTreeMap<Kind, u64>>();
        for (begun, in_force, expected) in cases {
            let gates = gates(&kinds(begun), &kinds(in_force));
            let missed: Vec<&str> = gates.iter().filter(|gate| !gate.is_met()).map(|gate| gate.name.as_str()).collect();
            assert_eq!(missed, expected, "{begun:?}, {in_force:?}");
        }
    }
}
