//! Appends that were surely done, and that no other transaction has read: nothing says that they were kept.
//!
//! A transaction's own read of what it appended says what it was about to write, not what stands in the store. An append
//! without which a list was read later is an anomaly; these are the ones of a list that nobody has read again, so that
//! their places in its order are not known.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Node;
use super::record::{Read, Record};
use crate::workload::append::List;

/// A value that was appended to a list, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unseen {
    pub(super) list: List,
    pub(super) value: u64,
    pub(super) by: Node,
}

/// By list and value. `applied`: for each transaction, whether it surely took effect. For a history without anomalies:
/// there each read of a list is a beginning of its longest one.
pub(super) fn unseen(record: &Record<'_>, applied: &[bool]) -> Vec<Unseen> {
    let seen = seen_by_others(record);
    let appends =
        record.appends.iter().map(|((list, value), append)| Unseen { list: *list, value: *value, by: append.by });
    appends.filter(|append| applied[append.by.0] && !seen.contains(&(append.list, append.value))).collect()
}

/// The longest read of a list, and the longest of another transaction than that one.
#[derive(Default)]
struct Longest<'a> {
    first: Option<Read<'a>>,
    other: Option<Read<'a>>,
}

impl<'a> Longest<'a> {
    fn note(&mut self, read: Read<'a>) {
        let longer = |than: Option<Read<'a>>| than.is_none_or(|than| read.values.len() > than.values.len());
        let same = self.first.is_some_and(|first| first.by == read.by);
        if longer(self.first) {
            if !same {
                self.other = self.first;
            }
            self.first = Some(read);
        } else if !same && longer(self.other) {
            self.other = Some(read);
        }
    }
}

/// What was read by another transaction than the one that appended it. Shorter reads have nothing else.
fn seen_by_others(record: &Record<'_>) -> BTreeSet<(List, u64)> {
    let mut longest: BTreeMap<List, Longest<'_>> = BTreeMap::new();
    for read in &record.reads {
        longest.entry(read.list).or_default().note(*read);
    }
    let mut seen = BTreeSet::new();
    for read in longest.values().flat_map(|longest| longest.first.iter().chain(&longest.other)) {
        let is_others = |value: &&u64| record.append(read.list, **value).is_some_and(|append| append.by != read.by);
        seen.extend(read.values.iter().filter(is_others).map(|value| (read.list, *value)));
    }
    seen
}
