//! MVCC's tests, by subject. Here is what they share: the store under test, and short ways to write operations.

mod cached;
mod compaction;
mod limits;
mod model;
mod random;
mod rules;

use bytes::Bytes;
use trefoil_causality::Revision;

use super::*;
use crate::command::{DeleteOp, KeyRange, Op, PutOp, RangeEnd, RangeOp, RangeReply, Reply, Txn};
use crate::engine::memory::MemoryEngine;
use crate::engine::{Durability, Engine, Order, Span, Visit};
use crate::key::ChangeId;
use crate::record::{ChangeRecord, index_alive};

const STORE: StoreNumber = StoreNumber(5);

/// A change, its key, and whether it left the key alive.
type Changes = Vec<(ChangeId, Bytes, bool)>;

/// The code under test, on the memory engine.
struct Store {
    engine: MemoryEngine,
    head: Head,
    /// The floor of the last scrub.
    scrubbed: Revision,
}

impl Store {
    fn new() -> Store {
        Store { engine: MemoryEngine::new(), head: Head::empty(), scrubbed: Revision(0) }
    }

    fn run(&mut self, op: &Op) -> Result<Reply, Refusal> {
        self.run_within(op, u64::MAX)
    }

    fn run_within(&mut self, op: &Op, walk_max: u64) -> Result<Reply, Refusal> {
        let before = self.head;
        let mut view = Overlay::new(&self.engine);
        let result = execute_within(&mut view, STORE, &mut self.head, op, walk_max).expect("memory does not fail");
        assert_eq!(view.is_empty(), self.head == before, "rows and head change together");
        assert!(result.is_ok() || view.is_empty(), "a refused operation has written");
        self.head.store(&mut view, STORE);
        let batch = view.into_batch();
        self.engine.write(&batch, Durability::NoSync).expect("memory does not fail");
        assert_eq!(Head::load(&self.engine, STORE), Ok(self.head));
        result
    }

    fn range(&self, op: &RangeOp) -> Result<RangeReply, Refusal> {
        range(&self.engine, STORE, &self.head, op, usize::MAX).expect("memory does not fail")
    }

    fn content(&self, revision: u64) -> Result<Content, Refusal> {
        let (mut content, mut next) = (Content::default(), Some(Bytes::new()));
        while let Some(from) = next {
            let part = content_part_at(&self.engine, STORE, &self.head, Revision(revision), &from, 2);
            let (part, rest) = part.expect("memory does not fail")?;
            (content, next) = (content.and(part), rest);
        }
        Ok(content)
    }

    fn scrub(&mut self, max_rows: usize) {
        let Some(floor) = self.head.floor else { return };
        let mut from = Some(self.scrubbed);
        while let Some(revision) = from {
            let step = scrub(&self.engine, STORE, floor, revision, max_rows).expect("memory does not fail");
            self.engine.write(&step.0, Durability::NoSync).expect("memory does not fail");
            from = step.1;
        }
        self.scrubbed = floor;
    }

    /// The rows of the `changes` family, and those of the `index` family in the same order.
    fn history(&self) -> (Changes, Changes) {
        let (mut changes, mut index) = (Changes::new(), Changes::new());
        let all = key::store(STORE);
        self.rows(Family::Changes, &all, &mut |row, value| {
            let record = ChangeRecord::decode(Bytes::copy_from_slice(value)).expect("a change row");
            let (key, alive) = match record {
                ChangeRecord::Put { key, .. } => (key, true),
                ChangeRecord::Delete { key } => (key, false),
            };
            changes.push((key::decode_change(row).expect("a change key"), key, alive));
        });
        self.rows(Family::Index, &all, &mut |row, value| {
            let (key, id) = key::decode_index(row).expect("an index key");
            index.push((id, key.into(), index_alive(value).expect("an index row")));
        });
        index.sort();
        (changes, index)
    }

    fn rows(&self, family: Family, span: &Span, show: &mut dyn FnMut(&[u8], &[u8])) {
        let shown = self.engine.scan(family, span, Order::Ascending, &mut |row, value| {
            show(row, value);
            Visit::Next
        });
        shown.expect("memory does not fail");
    }
}

fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put(PutOp { key: key.into(), value: Some(value.into()), lease: Some(0), previous: false })
}

fn keep(key: &'static str) -> Op {
    Op::Put(PutOp { key: key.into(), value: None, lease: Some(0), previous: false })
}

fn delete(key: &'static str) -> Op {
    Op::Delete(DeleteOp { range: KeyRange::single(key), previous: false })
}

fn txn(success: Vec<Op>) -> Op {
    Op::Txn(Txn { success, ..Txn::default() })
}

fn put_of(key: String, bytes: usize) -> Op {
    Op::Put(PutOp { key: key.into(), value: Some(vec![7; bytes].into()), lease: Some(0), previous: false })
}

fn txn_of(success: Vec<Op>) -> Op {
    Op::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() })
}

/// All keys of these tests.
fn everything() -> KeyRange {
    KeyRange { key: Bytes::from_static(&[0]), end: RangeEnd::Last }
}
