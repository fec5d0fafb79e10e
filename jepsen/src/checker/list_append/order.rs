//! Orders that need no list: that of a process, and that of real time.
//!
//! Equal times count as at the same time. Of the real time edges only those are made from which the others follow: from
//! what had ended to what begins, unless something began and ended in between.

use std::collections::BTreeMap;

use super::graph::{Graph, Node, Why};
use super::record::Transaction;
use crate::history::{Nanos, Outcome, Process};

/// `applied`: which transactions to look at.
pub(super) fn process(transactions: &[Transaction], applied: &[bool], graph: &mut Graph) {
    let mut last: BTreeMap<Process, Node> = BTreeMap::new();
    for node in nodes(applied) {
        if let Some(before) = last.insert(transactions[node.0].process, node) {
            graph.add(before, node, Why::Process);
        }
    }
}

/// Of equal times the beginnings come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Began,
    Ended,
}

/// `applied`: which transactions to look at. One of unknown outcome never ends.
pub(super) fn realtime(transactions: &[Transaction], applied: &[bool], graph: &mut Graph) {
    let mut marks: Vec<(Nanos, Mark, Node)> = Vec::new();
    for node in nodes(applied) {
        marks.push((transactions[node.0].invoked, Mark::Began, node));
        marks.extend(end(&transactions[node.0]).map(|end| (end, Mark::Ended, node)));
    }
    marks.sort_unstable();
    // Those ended after which none has begun and ended; and for each transaction, those when it began.
    let mut ended: Vec<Node> = Vec::new();
    let mut before: BTreeMap<Node, Vec<Node>> = BTreeMap::new();
    for (_, mark, node) in marks {
        match mark {
            Mark::Began => {
                for earlier in &ended {
                    graph.add(*earlier, node, Why::Realtime);
                }
                before.insert(node, ended.clone());
            }
            Mark::Ended => {
                let implied = before.remove(&node).unwrap_or_default();
                ended.retain(|earlier| !implied.contains(earlier));
                ended.push(node);
            }
        }
    }
}

fn nodes(applied: &[bool]) -> impl Iterator<Item = Node> {
    applied.iter().enumerate().filter(|(_, applied)| **applied).map(|(place, _)| Node(place))
}

fn end(transaction: &Transaction) -> Option<Nanos> {
    match transaction.outcome {
        Outcome::Ok(_) => transaction.completed,
        Outcome::Fail(_) | Outcome::Info(_) => None,
    }
}
