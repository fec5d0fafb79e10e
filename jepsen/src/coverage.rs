//! Coverage: what happened in a run, counted, and whether it is enough to prove anything.
//!
//! What had to happen is a list of [`Gate`]s: each kind of call succeeded often enough ([`successes`]), each fault that was
//! asked for was in force ([`faults`]), two were at once where that was asked for ([`at_once`]), and what the run is for was
//! seen ([`events`]). A run with a gate that is not met is
//! `unknown`, never `true`; verdict and report are both made of the same gates. Pure, and the same for the harness and
//! the simulation.
//!
//! A run is for a leader change when it was told so, and when its faults had another node lead often enough ([`expected`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use trefoil_client::{NodeId, NodeStatus, PartitionId};

use crate::checker::{Valid, Verdict};
use crate::history::{Event, FaultPhase, Operation, Outcome, Process, What};
use crate::workload::Workload;

const CHECKER: &str = "coverage";
/// Of so many faults that have another node lead, at least one is long enough: the end of the load may cut the
/// last one short.
const UNSEATED_MIN: u64 = 2;
/// The process of the last calls, when all faults are healed: above all that ask under load.
pub const LAST_PROCESS: Process = Process(1 << 40);

/// What had to happen for a run to prove anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    pub name: String,
    /// How often it had to happen.
    pub wanted: u64,
    /// How often it was seen.
    pub seen: u64,
}

impl Gate {
    pub fn is_met(&self) -> bool {
        self.seen >= self.wanted
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} times, at least {} wanted", self.name, self.seen, self.wanted)
    }
}

/// How often a kind of call must have succeeded for a run to prove anything about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// At least so often,
    pub times: u64,
    /// and at least so many of a hundred that were asked.
    pub percent: u64,
}

impl Floor {
    /// Of a run against processes: 20 s at 200 calls a second meet it under any fault (`tests`).
    pub const RUN: Floor = Floor { times: 10, percent: 1 };
    /// Of a seed of the simulation: runs are short, and it is all of them together that prove something.
    pub const SEED: Floor = Floor { times: 1, percent: 0 };

    fn of(self, asked: u64) -> u64 {
        self.times.max((asked * self.percent).div_ceil(100))
    }
}

/// What was asked under load. The last calls are not: they are insisted on, and prove nothing of the load.
fn under_load<C, R>(operations: &[Operation<C, R>]) -> impl Iterator<Item = &Operation<C, R>> {
    operations.iter().filter(|operation| operation.process < LAST_PROCESS)
}

/// Per kind of call: how many ended ok, as failed, as unknown. Kinds that were never asked are there too. An answered
/// call counts as [`Workload::kind_of_success`] says. The last calls do not count.
pub fn counted<W: Workload>(operations: &[Operation<W::Call, W::Reply>]) -> BTreeMap<String, [u64; 3]> {
    let mut counts: BTreeMap<String, [u64; 3]> = W::KINDS.iter().map(|kind| ((*kind).to_owned(), [0; 3])).collect();
    for operation in under_load(operations) {
        let (kind, place) = match &operation.outcome {
            Outcome::Ok(reply) => (W::kind_of_success(&operation.call, reply), 0),
            Outcome::Fail(_) => (W::kind(&operation.call), 1),
            Outcome::Info(_) => (W::kind(&operation.call), 2),
        };
        counts.entry(kind.to_owned()).or_default()[place] += 1;
    }
    counts
}

/// For each kind of call: whether it succeeded often enough.
pub fn successes<W: Workload>(operations: &[Operation<W::Call, W::Reply>], floor: Floor) -> Vec<Gate> {
    let mut kinds: BTreeMap<&str, (u64, u64)> = W::KINDS.iter().map(|kind| (*kind, (0, 0))).collect();
    for Operation { call, outcome, .. } in under_load(operations) {
        let kind = W::kind(call);
        let (asked, done) = kinds.entry(kind).or_default();
        *asked += 1;
        match outcome {
            Outcome::Ok(reply) => *done += u64::from(W::kind_of_success(call, reply) == kind),
            Outcome::Fail(_) | Outcome::Info(_) => {}
        }
    }
    let gate = |(kind, (asked, seen)): (&str, (u64, u64))| Gate {
        name: format!("{kind} succeeded"),
        wanted: floor.of(asked),
        seen,
    };
    kinds.into_iter().map(gate).collect()
}

/// What was noted of faults while there was load: before the last call but for those of [`LAST_PROCESS`].
fn faults_under_load<C, R>(history: &[Event<C, R>]) -> impl Iterator<Item = (&str, FaultPhase)> {
    let load = |event: &Event<C, R>| matches!(&event.what, What::Invoke { process, .. } if *process < LAST_PROCESS);
    let ended = history.iter().rposition(load).unwrap_or(0);
    history[..ended].iter().filter_map(|event| match &event.what {
        What::Fault { name, phase, .. } => Some((name.as_str(), *phase)),
        What::Invoke { .. } | What::Ok { .. } | What::Fail { .. } | What::Info { .. } => None,
    })
}

/// How often each fault was in force under load.
pub fn in_force<C, R>(history: &[Event<C, R>]) -> BTreeMap<String, u64> {
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for (name, _) in faults_under_load(history).filter(|(_, phase)| *phase == FaultPhase::InForce) {
        *faults.entry(name.to_owned()).or_default() += 1;
    }
    faults
}

/// How often a fault came to be in force under load while another one was, which it is until something else is noted of it.
pub fn pairs<C, R>(history: &[Event<C, R>]) -> u64 {
    let (mut there, mut pairs): (BTreeSet<&str>, u64) = (BTreeSet::new(), 0);
    for (name, phase) in faults_under_load(history) {
        match phase {
            FaultPhase::InForce => {
                pairs += u64::from(there.iter().any(|other| *other != name));
                there.insert(name);
            }
            FaultPhase::Injected | FaultPhase::Healed | FaultPhase::Unsupported => {
                there.remove(name);
            }
        }
    }
    pairs
}

/// What a run can be for, beside its calls and faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// The default partition was led by another node than before
    LeaderChange,
    /// A node installed a snapshot of the default partition
    Snapshot,
    /// History of the default partition was compacted. A client beside the load has it compacted, and reads what is left
    Compaction,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expected::LeaderChange => "leader change",
            Expected::Snapshot => "snapshot",
            Expected::Compaction => "compaction",
        })
    }
}

/// What nodes have said of themselves in the course of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Who said to lead the default partition, by term, in the order in which they were seen.
    leaders: BTreeMap<u64, Vec<NodeId>>,
    /// By node and number of its start, at which it begins to count anew.
    snapshots: BTreeMap<(NodeId, u64), Snapshots>,
    /// The revisions up to which history of the default partition was said to be compacted.
    compacted: BTreeSet<u64>,
}

/// How many snapshots of the default partition a node has said, at most, to have built and installed since a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Snapshots {
    built: u64,
    installed: u64,
}

impl Observed {
    /// Takes note of how a node is.
    pub fn see(&mut self, status: &NodeStatus) {
        for replica in status.replicas.iter().filter(|replica| replica.partition == PartitionId::DEFAULT) {
            if replica.leader.is_some_and(|(_, leader)| leader == status.node) {
                let leaders = self.leaders.entry(replica.term).or_default();
                if !leaders.contains(&status.node) {
                    leaders.push(status.node);
                }
            }
            self.compacted.extend(Some(replica.compacted_revision.0).filter(|revision| *revision > 0));
            let highest = self.snapshots.entry((status.node, status.start_count)).or_default();
            highest.built = replica.snapshots_built.max(highest.built);
            highest.installed = replica.snapshots_installed.max(highest.installed);
        }
    }

    /// How often it was seen to have happened.
    pub fn times(&self, what: Expected) -> u64 {
        match what {
            Expected::LeaderChange => self.leader_changes(),
            Expected::Snapshot => self.snapshots.values().map(|snapshots| snapshots.installed).sum(),
            Expected::Compaction => self.compacted.len() as u64,
        }
    }

    /// How many snapshots of the default partition were built.
    pub fn snapshots_built(&self) -> u64 {
        self.snapshots.values().map(|snapshots| snapshots.built).sum()
    }

    /// How often a term was another node's than the one before it in which somebody was seen to lead. A node that leads
    /// again in a later term is no change.
    fn leader_changes(&self) -> u64 {
        let first: Vec<NodeId> = self.leaders.values().filter_map(|leaders| leaders.first().copied()).collect();
        first.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
    }

    /// The terms in which more than one node said to lead the default partition, a line each. Means nothing of a store
    /// whose nodes do not tell term and leader of the same moment.
    pub fn split_terms(&self) -> Vec<String> {
        let split = self.leaders.iter().filter(|(_, leaders)| leaders.len() > 1);
        let line = |(term, leaders): (&u64, &Vec<NodeId>)| {
            let leaders: Vec<String> = leaders.iter().map(|leader| leader.0.to_string()).collect();
            format!("in term {term} more than one node said to lead: those with the numbers {}", leaders.join(", "))
        };
        split.map(line).collect()
    }
}

/// A fault that was asked for, and the names under which it is noted when it is in force: a partition of any shape is
/// noted by the shape it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedFor {
    pub name: String,
    pub noted_as: Vec<String>,
}

/// For each fault that was asked for: whether it was in force at least once. `in_force`: see [`in_force`].
pub fn faults(asked_for: &[AskedFor], in_force: &BTreeMap<String, u64>) -> Vec<Gate> {
    let each_once: BTreeSet<&AskedFor> = asked_for.iter().collect();
    let gate = |asked: &AskedFor| {
        let seen = asked.noted_as.iter().filter_map(|name| in_force.get(name)).sum();
        Gate { name: format!("{} in force", asked.name), wanted: 1, seen }
    };
    each_once.into_iter().map(gate).collect()
}

/// Whether two faults were in force at once. `pairs`: see [`pairs`].
pub fn at_once(pairs: u64) -> Gate {
    Gate { name: "two faults in force at once".into(), wanted: 1, seen: pairs }
}

/// What must be seen in a run, each once. `asked_for`: whatever happens. `unseated`: how often a fault in force has had
/// another node lead the default partition.
pub fn expected(asked_for: &[Expected], unseated: u64) -> Vec<Expected> {
    let by_faults = (unseated >= UNSEATED_MIN).then_some(Expected::LeaderChange);
    let all: BTreeSet<Expected> = asked_for.iter().copied().chain(by_faults).collect();
    all.into_iter().collect()
}

/// For each of these: whether it was seen.
pub fn events(expected: &[Expected], observed: &Observed) -> Vec<Gate> {
    let gate = |what: &Expected| Gate { name: what.to_string(), wanted: 1, seen: observed.times(*what) };
    expected.iter().map(gate).collect()
}

/// `true` when all gates are met, else `unknown`.
pub fn verdict(gates: &[Gate]) -> Verdict {
    let missing: Vec<String> = gates.iter().filter(|gate| !gate.is_met()).map(Gate::to_string).collect();
    match missing.is_empty() {
        true => Verdict::valid(CHECKER),
        false => Verdict { checker: CHECKER.into(), valid: Valid::Unknown, evidence: missing },
    }
}

/// `true` when nothing was found, else `false`: for what is a finding by itself, as a node that ended.
pub fn nothing_found(checker: &str, findings: &[String]) -> Verdict {
    match findings.is_empty() {
        true => Verdict::valid(checker),
        false => Verdict::invalid(checker, findings.to_vec()),
    }
}

#[cfg(test)]
mod tests;
