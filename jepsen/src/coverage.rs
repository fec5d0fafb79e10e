//! Coverage: what happened in a run, counted, and whether it is enough to prove anything.
//!
//! A run in which too little happened is `unknown`, never `true`: some kind of call that never succeeded, a fault that
//! was asked for and never in force, an event that the run is for and that nobody saw. Pure, and the same for the harness
//! and the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use trefoil_client::{NodeId, NodeStatus, PartitionId};

use crate::checker::Verdict;
use crate::history::{Event, FaultPhase, Operation, Outcome, Process, What};
use crate::workload::Workload;

const CHECKER: &str = "coverage";
/// The process of the last calls, when all faults are healed: above all that ask under load.
pub const LAST_PROCESS: Process = Process(1 << 40);

/// Per kind of call: how many ended ok, as failed, as unknown. Kinds that were never asked are there too. The last calls
/// do not count: they are insisted on, and prove nothing of the load.
pub fn counted<W: Workload>(operations: &[Operation<W::Call, W::Reply>]) -> BTreeMap<String, [u64; 3]> {
    let mut counts: BTreeMap<String, [u64; 3]> = W::KINDS.iter().map(|kind| ((*kind).to_owned(), [0; 3])).collect();
    for operation in operations.iter().filter(|operation| operation.process < LAST_PROCESS) {
        let place = match operation.outcome {
            Outcome::Ok(_) => 0,
            Outcome::Fail(_) => 1,
            Outcome::Info(_) => 2,
        };
        counts.entry(W::kind(&operation.call).to_owned()).or_default()[place] += 1;
    }
    counts
}

/// How often each fault was in force while there was load: before the last call but for those of [`LAST_PROCESS`].
pub fn in_force<C, R>(history: &[Event<C, R>]) -> BTreeMap<String, u64> {
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    let load = |event: &Event<C, R>| matches!(&event.what, What::Invoke { process, .. } if *process < LAST_PROCESS);
    let ended = history.iter().rposition(load).unwrap_or(0);
    for event in &history[..ended] {
        if let What::Fault { name, phase: FaultPhase::InForce, .. } = &event.what {
            *faults.entry(name.clone()).or_default() += 1;
        }
    }
    faults
}

/// What a run can be for, beside its calls and faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// The default partition had more than one leader, one after the other
    LeaderChange,
    /// A node built or installed a snapshot
    Snapshot,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expected::LeaderChange => "leader change",
            Expected::Snapshot => "snapshot",
        })
    }
}

/// What nodes have said of themselves in the course of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Who said to lead the default partition, by term.
    leaders: BTreeMap<u64, NodeId>,
    /// How many snapshots a node has said to have built and installed since a start, at most; by node and number of the
    /// start, at which it begins to count anew.
    snapshots: BTreeMap<(NodeId, u64), u64>,
}

impl Observed {
    /// Takes note of how a node is.
    pub fn see(&mut self, status: &NodeStatus) {
        for replica in status.replicas.iter().filter(|replica| replica.partition == PartitionId::DEFAULT) {
            if replica.leader.is_some_and(|(_, leader)| leader == status.node) {
                self.leaders.insert(replica.term, status.node);
            }
        }
        let snapshots = status.replicas.iter().map(|replica| replica.snapshots_built + replica.snapshots_installed);
        let highest = self.snapshots.entry((status.node, status.start_count)).or_default();
        *highest = snapshots.sum::<u64>().max(*highest);
    }

    /// How often it was seen to have happened.
    pub fn times(&self, what: Expected) -> u64 {
        match what {
            Expected::LeaderChange => (self.leaders.len() as u64).saturating_sub(1),
            Expected::Snapshot => self.snapshots.values().sum(),
        }
    }
}

/// The kinds of calls of which none succeeded.
pub fn unsuccessful(counts: &BTreeMap<String, [u64; 3]>) -> Vec<String> {
    let without = counts.iter().filter(|(_, [ok, ..])| *ok == 0);
    without.map(|(kind, _)| format!("no {kind} succeeded")).collect()
}

/// The faults asked for that were never in force.
pub fn without_force(asked_for: &[String], in_force: &BTreeMap<String, u64>) -> Vec<String> {
    let asked_for: BTreeSet<&String> = asked_for.iter().collect();
    let missing = asked_for.into_iter().filter(|fault| in_force.get(*fault).is_none_or(|times| *times == 0));
    missing.map(|fault| format!("{fault} was never in force")).collect()
}

/// What was expected and not seen.
pub fn unseen(expected: &[Expected], observed: &Observed) -> Vec<String> {
    let missing = expected.iter().filter(|what| observed.times(**what) == 0);
    missing.map(|what| format!("no {what} was seen")).collect()
}

/// `true` when nothing is missing, else `unknown`.
pub fn verdict(missing: Vec<String>) -> Verdict {
    match missing.is_empty() {
        true => Verdict::valid(CHECKER),
        false => Verdict::unknown(CHECKER, missing.join("; ")),
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
mod tests {
    use super::*;
    use crate::checker::Valid;
    use crate::history::Nanos;
    use crate::workload::set::{Call, Reply, Set};

    fn asked(call: Call, outcome: Outcome<Reply>) -> Operation<Call, Reply> {
        let (invoked, completed) = (Nanos(0), Some(Nanos(1)));
        Operation { index: 0, process: Process(0), call, invoked, completed, outcome }
    }

    fn fault(name: &str, phase: FaultPhase) -> Event<Call, Reply> {
        Event { time: Nanos(0), what: What::Fault { name: name.into(), phase, detail: String::new() } }
    }

    fn invoke(process: Process) -> Event<Call, Reply> {
        Event { time: Nanos(0), what: What::Invoke { process, call: Call::Read } }
    }

    #[test]
    fn a_kind_that_never_succeeded_is_missing() {
        let counts = counted::<Set>(&[
            asked(Call::Add { element: 1 }, Outcome::Ok(Reply::Add)),
            asked(Call::Add { element: 2 }, Outcome::Info("timeout".into())),
            asked(Call::Read, Outcome::Fail("refused".into())),
            Operation { process: LAST_PROCESS, ..asked(Call::Read, Outcome::Fail("refused".into())) },
        ]);
        assert_eq!(counts, BTreeMap::from([("add".to_owned(), [1, 0, 1]), ("read".to_owned(), [0, 1, 0])]));
        assert_eq!(unsuccessful(&counts), ["no read succeeded"]);
        assert_eq!(unsuccessful(&counted::<Set>(&[])).len(), 2);
    }

    #[test]
    fn a_fault_counts_when_it_was_in_force_under_load() {
        let history = [
            fault("kill", FaultPhase::Injected),
            fault("pause", FaultPhase::Injected),
            fault("pause", FaultPhase::InForce),
            fault("pause", FaultPhase::InForce),
            invoke(Process(3)),
            fault("kill", FaultPhase::InForce),
            invoke(LAST_PROCESS),
        ];
        let counts = in_force(&history);
        assert_eq!(counts, BTreeMap::from([("pause".to_owned(), 2)]));
        let asked_for = ["kill", "pause"].map(str::to_owned);
        assert_eq!(without_force(&asked_for, &counts), ["kill was never in force"]);
    }

    #[test]
    fn what_is_missing_is_unknown_and_what_was_found_is_false() {
        let both = [Expected::LeaderChange, Expected::Snapshot];
        assert_eq!(unseen(&both, &Observed::default()), ["no leader change was seen", "no snapshot was seen"]);
        let led = |terms: &[u64]| terms.iter().map(|term| (*term, NodeId(1))).collect();
        let observed = Observed { leaders: led(&[3, 5]), snapshots: BTreeMap::from([((NodeId(1), 1), 2)]) };
        assert_eq!(both.map(|what| observed.times(what)), [1, 2]);
        assert_eq!(Observed { leaders: led(&[3]), ..Observed::default() }.times(Expected::LeaderChange), 0);
        assert_eq!(verdict(Vec::new()).valid, Valid::True);
        assert_eq!(verdict(unseen(&both, &Observed::default())).valid, Valid::Unknown);
        assert_eq!(nothing_found("crashes", &[]).valid, Valid::True);
        assert_eq!(nothing_found("crashes", &["n1 ended".into()]).valid, Valid::False);
    }
}
