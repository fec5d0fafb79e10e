//! Anomalies that reads show by themselves, without a cycle.
//!
//! What concerns single values is looked for in the longest read of each list and in those that are no beginning of it:
//! the others have nothing else. Where a read ends is looked at in all of them.
//!
//! Left out: whether a failed transaction took effect that nobody has read.

use std::collections::{BTreeMap, BTreeSet};

use super::anomaly::Anomaly;
use super::explain::{name, told};
use super::graph::Node;
use super::inference::Versions;
use super::record::{Append, Read, Record, appends};
use crate::checker::evidence::{Findings, numbers};
use crate::history::Outcome;
use crate::workload::append::{Call, List, Reply, Step};

pub(super) fn look(record: &Record<'_>, versions: &Versions<'_>, findings: &mut Findings<Anomaly>) {
    for read in versions.all() {
        values(record, read, findings);
    }
    for read in &record.reads {
        ends_amid(record, read, findings);
    }
    for stray in &versions.stray {
        incompatible(record, versions, stray, findings);
    }
    for (node, call, reply) in record.acknowledged() {
        Own::new(record, node).follow(call, reply, findings);
    }
    lost_updates(record, findings);
}

fn values(record: &Record<'_>, read: &Read<'_>, findings: &mut Findings<Anomaly>) {
    let reader = name(record.transaction(read.by));
    let list = read.list.0;
    let mut seen = BTreeSet::new();
    let mut passed = BTreeMap::new();
    for value in read.values {
        if !seen.insert(*value) {
            let line = || format!("{reader} has read {value} more than once in list {list}");
            findings.add(Anomaly::DuplicateElements, || told(record, line(), &[read.by]));
        } else if let Some(append) = record.append(read.list, *value) {
            value_of(record, read, (*value, append), &mut passed, findings);
        } else {
            let line = || format!("{reader} has read {value} in list {list}, to which nobody appended it");
            findings.add(Anomaly::Unwritten, || told(record, line(), &[read.by]));
        }
    }
}

/// `passed`: how many appends of each transaction the read has before this value.
fn value_of(
    record: &Record<'_>,
    read: &Read<'_>,
    (value, append): (u64, Append),
    passed: &mut BTreeMap<Node, usize>,
    findings: &mut Findings<Anomaly>,
) {
    let writer = record.transaction(append.by);
    let tell = |what: String| {
        let reader = name(record.transaction(read.by));
        told(record, format!("{reader} has read {value} in list {}, {what}", read.list.0), &[append.by, read.by])
    };
    if let Outcome::Fail(why) = &writer.outcome {
        findings.add(Anomaly::G1a, || tell(format!("which {} appended and which failed: {why}", name(writer))));
    }
    let before = passed.entry(append.by).or_default();
    if *before != append.place {
        findings.add(Anomaly::TornAppend, || tell(format!("without what {} appended before it", name(writer))));
    }
    *before += 1;
}

/// A read ends with what another transaction appended, but not with the last that it did.
fn ends_amid(record: &Record<'_>, read: &Read<'_>, findings: &mut Findings<Anomaly>) {
    let Some(last) = read.values.last() else { return };
    let Some(append) = record.append(read.list, *last) else { return };
    if append.by != read.by && append.place + 1 != append.of {
        findings.add(Anomaly::G1b, || {
            let (reader, writer) = (name(record.transaction(read.by)), name(record.transaction(append.by)));
            let list = read.list.0;
            let line = format!("{reader} has read list {list} up to {last}, after which {writer} appended more to it");
            told(record, line, &[append.by, read.by])
        });
    }
}

fn incompatible(record: &Record<'_>, versions: &Versions<'_>, stray: &Read<'_>, findings: &mut Findings<Anomaly>) {
    let longest = versions.longest(stray.list).expect("a list that was read has a longest read");
    findings.add(Anomaly::IncompatibleOrder, || {
        let place = stray.values.iter().zip(longest.values).take_while(|(one, other)| one == other).count();
        let [one, other] = [stray, &longest].map(|read| (name(record.transaction(read.by)), read.values[place]));
        let list = stray.list.0;
        let line = format!(
            "in list {list}, {} has read {} where {} has read {}, after {place} others",
            one.0, one.1, other.0, other.1
        );
        told(record, line, &[stray.by, longest.by])
    });
}

/// What a transaction knows of the lists from its own steps.
struct Own<'r, 'a> {
    record: &'r Record<'a>,
    node: Node,
    /// Each list as it must be, once it was read.
    known: BTreeMap<List, Vec<u64>>,
    appended: BTreeMap<List, Vec<u64>>,
}

impl<'r, 'a> Own<'r, 'a> {
    fn new(record: &'r Record<'a>, node: Node) -> Own<'r, 'a> {
        Own { record, node, known: BTreeMap::new(), appended: BTreeMap::new() }
    }

    fn follow(mut self, call: &Call, reply: &Reply, findings: &mut Findings<Anomaly>) {
        for (step, read) in call.steps.iter().zip(&reply.read) {
            match step {
                Step::Append { list, value } => self.append(*list, *value),
                Step::Read { list } => {
                    let values = read.as_deref().unwrap_or_default();
                    if let Some(expected) = self.contradicted(*list, values) {
                        findings.add(Anomaly::Internal, || self.tell(*list, values, &expected));
                    }
                    self.known.insert(*list, values.to_vec());
                }
            }
        }
    }

    fn append(&mut self, list: List, value: u64) {
        self.appended.entry(list).or_default().push(value);
        if let Some(known) = self.known.get_mut(&list) {
            known.push(value);
        }
    }

    /// What a read should have shown, when it has not.
    fn contradicted(&self, list: List, values: &[u64]) -> Option<String> {
        let appended = self.appended.get(&list).map(Vec::as_slice).unwrap_or_default();
        let is_own = |value: &u64| self.record.append(list, *value).is_some_and(|append| append.by == self.node);
        let too_early = values.iter().find(|value| is_own(value) && !appended.contains(value));
        match self.known.get(&list) {
            Some(known) if known.as_slice() != values => Some(numbers(known)),
            None if !values.ends_with(appended) => Some(format!("something that ends with {}", numbers(appended))),
            Some(_) | None => too_early.map(|value| format!("something without {value}, which it appended later")),
        }
    }

    fn tell(&self, list: List, values: &[u64], expected: &str) -> Vec<String> {
        let reader = name(self.record.transaction(self.node));
        let seen = numbers(values);
        let line = format!("{reader} has read list {} as {seen}, but by its own steps it is {expected}", list.0);
        told(self.record, line, &[self.node])
    }
}

fn lost_updates(record: &Record<'_>, findings: &mut Findings<Anomaly>) {
    // By list and version; the length comes first for the sake of the comparisons.
    let mut updates: BTreeMap<(List, usize, &[u64]), Vec<Node>> = BTreeMap::new();
    for (node, call, reply) in record.acknowledged() {
        let lists: BTreeSet<List> = appends(call).map(|(list, _)| list).collect();
        for list in lists {
            if let Some(values) = read_at_first(call, reply, list) {
                updates.entry((list, values.len(), values)).or_default().push(node);
            }
        }
    }
    for ((list, _, values), nodes) in updates.iter().filter(|(_, nodes)| nodes.len() > 1) {
        findings.add(Anomaly::LostUpdate, || {
            let (count, list, version) = (nodes.len(), list.0, numbers(values));
            let line = format!("{count} transactions have each read list {list} as {version}, then appended to it");
            told(record, line, nodes)
        });
    }
}

/// What a transaction has read of a list, if it read it before appending to it.
fn read_at_first<'a>(call: &Call, reply: &'a Reply, list: List) -> Option<&'a [u64]> {
    let mut of_list = call.steps.iter().zip(&reply.read).filter(|(step, _)| step.list() == list);
    of_list.next().and_then(|(_, read)| read.as_deref())
}
