//! Cycles and transactions, told to a person: each edge a line that says which transactions, which list and which values.
//!
//! A transaction's name is its place in the history: `T4` was asked for at event 4.

use super::cycle::Cycle;
use super::graph::{Edge, Node, Why};
use super::record::{Record, Transaction};
use crate::checker::evidence::{named, numbers};
use crate::history::Outcome;
use crate::workload::append::{List, Step};

/// Transactions that are shown in full in one finding; of the others the history tells.
const TRANSACTIONS_MAX: usize = 8;

pub(super) fn name(transaction: &Transaction) -> String {
    format!("T{}", transaction.index)
}

/// A finding: what it is, then the transactions it is about.
pub(super) fn told(record: &Record<'_>, line: String, nodes: &[Node]) -> Vec<String> {
    std::iter::once(line).chain(in_full(record, nodes)).collect()
}

pub(super) fn cycle(record: &Record<'_>, cycle: &Cycle) -> Vec<String> {
    let edges = cycle.edges();
    let mut nodes: Vec<Node> = edges.iter().map(|edge| edge.from).collect();
    nodes.sort();
    let mut lines = vec![format!("{} transactions, each before the next and the last before the first", nodes.len())];
    lines.extend(edges.iter().map(|edge| because(record, edge)));
    lines.extend(in_full(record, &nodes));
    lines
}

/// `T0 before T2 (wr): T2 has read list 1 up to 3, which T0 appended`
fn because(record: &Record<'_>, edge: &Edge) -> String {
    let (from, to) = (record.transaction(edge.from), record.transaction(edge.to));
    let (one, other) = (name(from), name(to));
    match edge.why {
        Why::Ww { list: List(list), earlier, later } => {
            format!("{one} before {other} (ww): in list {list}, {later} of {other} comes next after {earlier} of {one}")
        }
        Why::WwUnread { list: List(list), earlier, later } => {
            let what = format!("{earlier} of {one} is the last that was read, {later} of {other} is still to come");
            format!("{one} before {other} (ww): in list {list}, {what}")
        }
        Why::Wr { list: List(list), value } => {
            format!("{one} before {other} (wr): {other} has read list {list} up to {value}, which {one} appended")
        }
        Why::Rw { list: List(list), last, without } => {
            let state = last.map_or("when it was empty".into(), |last| format!("up to {last}"));
            format!("{one} before {other} (rw): {one} has read list {list} {state}, without {without} of {other}")
        }
        Why::Process => format!("{one} before {other} (process): {} asked for {one} first", from.process),
        Why::Realtime => {
            let ended = from.completed.map_or(0, |end| end.0);
            format!("{one} before {other} (real time): {one} ended at {ended} ns, {other} began at {} ns", to.invoked.0)
        }
    }
}

/// `T4 is event 4 (p1, 10 to 20 ns): append 3 to list 1; read list 2: [1 2]`
fn in_full(record: &Record<'_>, nodes: &[Node]) -> impl Iterator<Item = String> {
    nodes.iter().take(TRANSACTIONS_MAX).map(move |node| {
        let transaction = record.transaction(*node);
        format!("{} is {}: {}", name(transaction), named(transaction), steps(transaction).join("; "))
    })
}

fn steps(transaction: &Transaction) -> Vec<String> {
    let all = transaction.call.steps.iter();
    match &transaction.outcome {
        Outcome::Ok(reply) => all.zip(&reply.read).map(|(asked, read)| step(asked, read.as_deref())).collect(),
        Outcome::Fail(_) | Outcome::Info(_) => all.map(|asked| step(asked, None)).collect(),
    }
}

fn step(asked: &Step, read: Option<&[u64]>) -> String {
    match (asked, read) {
        (Step::Append { list, value }, _) => format!("append {value} to list {}", list.0),
        (Step::Read { list }, Some(values)) => format!("read list {}: {}", list.0, numbers(values)),
        (Step::Read { list }, None) => format!("read list {}", list.0),
    }
}
