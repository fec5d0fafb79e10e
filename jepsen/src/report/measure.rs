//! Counts and quantiles of a run's operations.

use std::collections::BTreeMap;

use super::{Ended, Operation};

/// What became of the operations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) ok: u64,
    pub(super) fail: u64,
    pub(super) info: u64,
    /// Of those that ended as ok, in nanoseconds, from the shortest.
    took: Vec<u64>,
}

impl Counts {
    /// By kind.
    pub(super) fn by_kind(operations: &[Operation]) -> BTreeMap<&'static str, Counts> {
        let mut kinds: BTreeMap<&'static str, Counts> = BTreeMap::new();
        for operation in operations {
            kinds.entry(operation.kind).or_default().add(operation);
        }
        kinds.values_mut().for_each(|counts| counts.took.sort_unstable());
        kinds
    }

    /// Of all kinds together.
    pub(super) fn all(operations: &[Operation]) -> Counts {
        let mut counts = Counts::default();
        operations.iter().for_each(|operation| counts.add(operation));
        counts.took.sort_unstable();
        counts
    }

    fn add(&mut self, operation: &Operation) {
        match operation.outcome {
            Ended::Ok => self.ok += 1,
            Ended::Fail => self.fail += 1,
            Ended::Info => self.info += 1,
        }
        if let (Ended::Ok, Some((end, _))) = (operation.outcome, operation.ended) {
            self.took.push(end.0.saturating_sub(operation.invoked.0));
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.ok + self.fail + self.info
    }

    /// How long at most this share of those that ended as ok took (nearest rank); `None` when there are none.
    pub(super) fn quantile(&self, permille: usize) -> Option<u64> {
        let rank = (self.took.len() * permille).div_ceil(1000).max(1);
        self.took.get(rank - 1).copied()
    }
}
