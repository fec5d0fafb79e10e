//! List-append: from transactions on lists to the anomalies that no strictly serializable store shows.
//!
//! The idea is Elle's (Kingsbury and Alvaro 2020). A read of a list shows who appended to it and in which order. From the
//! longest read of each list follow edges between transactions: *ww* to who appended next, *wr* from who appended last to
//! who read it, *rw* from who read to who appended next; *process* and *real time* edges lead from what had ended to what
//! began later. Each edge says "before", so a cycle is a proof that there is no order; its kinds of edges name the
//! anomaly. What needs no cycle is found directly in the reads. `record` checks and indexes the history, `inference` and
//! `order` make the `graph`, `cycle` searches it, `direct` looks at the reads, `explain` tells a cycle.
//!
//! Model: strict serializability. Any anomaly is `false`. `unknown` is a history in which no transaction's append was seen
//! by another; one in which some append that was surely done was read by no other transaction (`unseen`), as it may be
//! lost; and one that is not of this workload.
//!
//! Invariants:
//!
//! * `false` is a proof: there is no order of the transactions, each at one point between its call and its end, which
//!   explains all replies, with those of unknown outcome done or not, and the failed ones not.
//! * And there is one otherwise: an acknowledged append that nobody has read counts as after all that was read.
//! * `true` says more: had any append that was done been lost, a reply would be another. So a run ends with reads of all
//!   lists: they show each append, or prove it lost.
//! * How long it takes is bounded by the history's size and by a bound on steps; the bound costs names, never verdicts.
//!
//! Left out: weaker models (which of them an anomaly violates), and registers instead of lists.

mod anomaly;
mod cycle;
mod direct;
mod explain;
mod graph;
mod inference;
mod order;
#[cfg(test)]
mod random;
mod record;
#[cfg(test)]
mod tests;
mod unseen;

use anomaly::Anomaly;
use cycle::Cycle;
use graph::Graph;
use inference::{Inference, Versions};
use record::Record;
use unseen::unseen;

use super::evidence::Findings;
use super::{Valid, Verdict};
use crate::history::Operation;
use crate::workload::append::{Call, Reply};

const CHECKER: &str = "list-append (strict serializability)";

/// Components of the graph in which the worst cycle is looked for; the rest is counted.
const COMPONENTS_MAX: usize = 8;

/// Edges followed when looking for one class of cycles in one component.
const STEPS_MAX: u64 = 1_000_000;

/// Judges a history of transactions, in the order of their invocations.
pub fn check(transactions: &[Operation<Call, Reply>]) -> Verdict {
    match Record::new(transactions) {
        Ok(record) => judge(&record),
        Err(why) => Verdict::unknown(CHECKER, why),
    }
}

fn judge(record: &Record<'_>) -> Verdict {
    let versions = Versions::of(record);
    let inference = Inference::new(record, &versions);
    let graph = inference.graph();
    let mut findings = Findings::new();
    direct::look(record, &versions, &mut findings);
    let untold = cycles(record, &graph, &mut findings);
    if !findings.is_empty() {
        let mut lines = findings.lines();
        lines.extend((untold > 0).then(|| format!("and cycles among {untold} more groups of transactions")));
        return Verdict::invalid(CHECKER, lines);
    }
    let doubts = doubts(record, &graph, &inference.applied);
    let valid = if doubts.is_empty() { Valid::True } else { Valid::Unknown };
    Verdict { checker: CHECKER.into(), valid, evidence: doubts }
}

/// Why a history without anomalies proves nothing, or too little.
fn doubts(record: &Record<'_>, graph: &Graph, applied: &[bool]) -> Vec<String> {
    let mut never_read = Findings::new();
    for append in unseen(record, applied) {
        never_read.add("never read", || {
            let writer = explain::name(record.transaction(append.by));
            let line = format!("{} of list {}, appended by {writer}", append.value, append.list.0);
            explain::told(record, line, &[append.by])
        });
    }
    let is_seen = graph.edges().any(|edge| edge.why.is_seen());
    let nothing = (!is_seen).then(|| "no transaction has seen what another one appended".to_owned());
    nothing.into_iter().chain(never_read.lines()).collect()
}

/// The worst cycle of each component; how many components were not looked into.
fn cycles(record: &Record<'_>, graph: &Graph, findings: &mut Findings<Anomaly>) -> usize {
    let components = graph.components();
    for component in components.iter().take(COMPONENTS_MAX) {
        let cycle = Cycle::worst(graph, component, STEPS_MAX);
        findings.add(Anomaly::Cycle(cycle.class()), || explain::cycle(record, &cycle));
    }
    components.len().saturating_sub(COMPONENTS_MAX)
}
