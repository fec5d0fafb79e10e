//! List-append: from transactions on lists to the anomalies that no strictly serializable store shows.
//!
//! The idea is Elle's (Kingsbury and Alvaro 2020). A read of a list shows who appended to it and in which order. From the
//! longest read of each list follow edges between transactions: *ww* to who appended next, *wr* from who appended last to
//! who read it, *rw* from who read to who appended next; *process* and *real time* edges lead from what had ended to what
//! began later. Each edge says "before", so a cycle is a proof that there is no order; its kinds of edges name the
//! anomaly. What needs no cycle is found directly in the reads. `record` checks and indexes the history, `inference` and
//! `order` make the `graph`, `cycle` searches it, `direct` looks at the reads, `explain` tells a cycle.
//!
//! Model: strict serializability. Any anomaly is `false`. A history in which no transaction's append was seen by another
//! is `unknown`, and so is one that is not of this workload.
//!
//! Invariants:
//!
//! * `false` is a proof: there is no order of the transactions, each at one point between its call and its end, which
//!   explains all replies, with those of unknown outcome done or not, and the failed ones not.
//! * And there is one otherwise: an acknowledged append that nobody has read counts as after all that was read. What the
//!   history does not tell (a list nobody reads again) is not found: a run ends with reads of all lists.
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

use anomaly::Anomaly;
use cycle::Cycle;
use graph::Graph;
use inference::Versions;
use record::Record;

use super::Verdict;
use super::evidence::Findings;
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
    let graph = inference::graph(record, &versions);
    let mut findings = Findings::new();
    direct::look(record, &versions, &mut findings);
    let untold = cycles(record, &graph, &mut findings);
    if !findings.is_empty() {
        let mut lines = findings.lines();
        lines.extend((untold > 0).then(|| format!("and cycles among {untold} more groups of transactions")));
        return Verdict::invalid(CHECKER, lines);
    }
    match graph.edges().any(|edge| edge.why.is_seen()) {
        true => Verdict::valid(CHECKER),
        false => Verdict::unknown(CHECKER, "no transaction has seen what another one appended"),
    }
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
