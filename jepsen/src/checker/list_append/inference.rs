//! From reads to edges: the versions of each list, who surely took effect, and who comes before whom.
//!
//! A list only grows, so its longest read shows its versions up to there: each beginning of it. A read that is none of
//! these contradicts it, and no edge is made of it.
//!
//! Invariants:
//!
//! * An edge is made only of what was read, and says what holds in every order that explains it.
//! * A transaction took effect if it was acknowledged, or if any of its appends was read, by anyone: then all of it did.
//!   What it appended and nobody has read comes after all that was.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, Node, Why};
use super::order;
use super::record::{Read, Record};
use crate::history::Outcome;
use crate::workload::append::List;

/// What the lists went through, as far as it was read.
pub(super) struct Versions<'a> {
    /// Of each list the longest read, and of several the first.
    longest: BTreeMap<List, Read<'a>>,
    /// Reads that are no beginning of it.
    pub(super) stray: Vec<Read<'a>>,
}

impl<'a> Versions<'a> {
    pub(super) fn of(record: &Record<'a>) -> Versions<'a> {
        let mut longest: BTreeMap<List, Read<'a>> = BTreeMap::new();
        for read in &record.reads {
            let best = longest.entry(read.list).or_insert(*read);
            if read.values.len() > best.values.len() {
                *best = *read;
            }
        }
        let is_stray = |read: &&Read<'a>| !longest[&read.list].values.starts_with(read.values);
        let stray = record.reads.iter().filter(is_stray).copied().collect();
        Versions { longest, stray }
    }

    pub(super) fn longest(&self, list: List) -> Option<Read<'a>> {
        self.longest.get(&list).copied()
    }

    /// Reads that together have all that was read.
    pub(super) fn all(&self) -> impl Iterator<Item = &Read<'a>> {
        self.longest.values().chain(&self.stray)
    }
}

/// What follows from the reads of a history.
pub(super) struct Inference<'r, 'a> {
    record: &'r Record<'a>,
    /// Of each list the longest read, without those that have a value twice: they tell no order.
    orders: BTreeMap<List, &'a [u64]>,
    /// For each transaction, whether it surely took effect.
    pub(super) applied: Vec<bool>,
    /// Of each list what was surely appended, but never read, and by whom.
    unread: BTreeMap<List, Vec<(u64, Node)>>,
}

impl<'r, 'a> Inference<'r, 'a> {
    pub(super) fn new(record: &'r Record<'a>, versions: &Versions<'a>) -> Inference<'r, 'a> {
        let read: BTreeSet<(List, u64)> =
            versions.all().flat_map(|read| read.values.iter().map(move |value| (read.list, *value))).collect();
        let mut applied: Vec<bool> =
            record.transactions.iter().map(|transaction| matches!(transaction.outcome, Outcome::Ok(_))).collect();
        for append in read.iter().filter_map(|(list, value)| record.append(*list, *value)) {
            applied[append.by.0] = true;
        }
        let mut unread: BTreeMap<List, Vec<(u64, Node)>> = BTreeMap::new();
        for ((list, value), append) in &record.appends {
            if applied[append.by.0] && !read.contains(&(*list, *value)) {
                unread.entry(*list).or_default().push((*value, append.by));
            }
        }
        let orders = versions.longest.iter().filter(|(_, read)| !has_twice(read.values));
        let orders = orders.map(|(list, read)| (*list, read.values)).collect();
        Inference { record, orders, applied, unread }
    }

    /// All that says which transaction comes before which.
    pub(super) fn graph(&self) -> Graph {
        let mut graph = Graph::new(self.record.transactions.len());
        for (list, values) in &self.orders {
            self.ww(*list, values, &mut graph);
        }
        for read in &self.record.reads {
            self.wr_and_rw(read, &mut graph);
        }
        order::process(self.record.transactions, &self.applied, &mut graph);
        order::realtime(self.record.transactions, &self.applied, &mut graph);
        graph
    }

    fn unread(&self, list: List) -> &[(u64, Node)] {
        self.unread.get(&list).map(Vec::as_slice).unwrap_or_default()
    }

    fn ww(&self, list: List, values: &[u64], graph: &mut Graph) {
        let by = |value| self.record.append(list, value).map(|append| append.by);
        for pair in values.windows(2) {
            if let (Some(from), Some(to)) = (by(pair[0]), by(pair[1])) {
                graph.add(from, to, Why::Ww { list, earlier: pair[0], later: pair[1] });
            }
        }
        if let Some((earlier, from)) = values.last().and_then(|last| Some((*last, by(*last)?))) {
            for (later, to) in self.unread(list) {
                graph.add(from, *to, Why::WwUnread { list, earlier, later: *later });
            }
        }
    }

    fn wr_and_rw(&self, read: &Read<'a>, graph: &mut Graph) {
        let Some(order) = self.orders.get(&read.list).filter(|order| order.starts_with(read.values)) else { return };
        let list = read.list;
        let last = read.values.last().copied();
        let writer = last.and_then(|value| self.record.append(list, value)).map(|append| append.by);
        if writer == Some(read.by) {
            // Its own append: the ww edges to and from it say all that the read does.
            return;
        }
        if let (Some(value), Some(writer)) = (last, writer) {
            graph.add(writer, read.by, Why::Wr { list, value });
        }
        match order.get(read.values.len()) {
            Some(next) => {
                if let Some(append) = self.record.append(list, *next) {
                    graph.add(read.by, append.by, Why::Rw { list, last, without: *next });
                }
            }
            None => {
                for (value, by) in self.unread(list) {
                    graph.add(read.by, *by, Why::Rw { list, last, without: *value });
                }
            }
        }
    }
}

fn has_twice(values: &[u64]) -> bool {
    let mut seen = BTreeSet::new();
    !values.iter().all(|value| seen.insert(*value))
}
