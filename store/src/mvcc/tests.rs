//! Leader-mode rules against a model that keeps every state whole.
//!
//! The model is a list of maps, one per revision, and a list of all changes. It shares no code with what it checks
//! but the command types. Random commands run on both; then every readable revision is read in every way, before and
//! after scrubs.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use trefoil_causality::Revision;

use super::content::past_part;
use super::*;
use crate::command::{
    Compare, DeleteOp, KeyRange, Op, Pair, PutOp, RangeEnd, RangeOp, RangeReply, Relation, Reply, Target, Txn,
};
use crate::engine::memory::MemoryEngine;
use crate::engine::{Durability, Engine, Order, Span, Visit};
use crate::key::ChangeId;
use crate::record::{ChangeRecord, index_alive};

const STORE: StoreNumber = StoreNumber(5);
/// Prefixes of each other, zero bytes, and the highest byte.
const KEYS: [&[u8]; 5] = [b"a", b"a\0", b"a\0\0", b"ab", b"\xff"];

type State = BTreeMap<Bytes, Pair>;
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
        let before = self.head;
        let mut view = Overlay::new(&self.engine);
        let result = execute(&mut view, STORE, &mut self.head, op).expect("memory does not fail");
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

/// All states there ever were.
struct Model {
    /// The state at each revision.
    states: Vec<State>,
    /// The content sum at each revision, as the code under test had it then.
    sums: Vec<u64>,
    changes: Changes,
    floor: Option<u64>,
}

impl Model {
    fn new() -> Model {
        Model { states: vec![State::new(); 2], sums: vec![0; 2], changes: Changes::new(), floor: None }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn newest(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    fn readable(&self, asked: u64) -> Result<&State, Refusal> {
        if asked > self.revision() {
            return Err(Refusal::FutureRevision { asked, newest: self.revision() });
        }
        match self.floor {
            Some(floor) if asked < floor => Err(Refusal::Compacted { asked, floor }),
            Some(_) | None => Ok(&self.states[asked as usize]),
        }
    }

    fn compact(&mut self, asked: u64) -> Result<(), Refusal> {
        match self.floor {
            Some(floor) if asked <= floor => return Err(Refusal::Compacted { asked, floor }),
            Some(_) | None => {}
        }
        self.readable(asked)?;
        self.floor = Some(asked);
        Ok(())
    }

    fn run(&mut self, op: &Op) -> Result<Reply, Refusal> {
        let mut trial = Trial {
            model: &*self,
            state: self.newest().clone(),
            changes: Vec::new(),
            put_refusal: lone_put_refusal(op),
            range_refusal: None,
        };
        let reply = trial.step(op);
        let Trial { model: _, state, changes, put_refusal, range_refusal } = trial;
        if let Some(refusal) = put_refusal.or(range_refusal) {
            return Err(refusal);
        }
        if !changes.is_empty() {
            let revision = Revision(self.states.len() as u64);
            let numbered = (0..).zip(changes);
            self.changes.extend(numbered.map(|(sub, (key, alive))| (ChangeId { revision, sub }, key, alive)));
            self.states.push(state);
        }
        Ok(reply)
    }

    /// What a scrub at `floor` leaves.
    fn retained(&self, floor: Revision) -> Changes {
        let stays = |place: usize, (id, key, alive): &(ChangeId, Bytes, bool)| {
            let later = &self.changes[place + 1..];
            let superseded = later.iter().any(|(other, of, _)| of == key && other.revision <= floor);
            id.revision > floor || (!superseded && (*alive || id.revision == floor))
        };
        let changes = self.changes.iter().enumerate();
        changes.filter(|(place, change)| stays(*place, change)).map(|(_, change)| change.clone()).collect()
    }
}

/// A put on its own looks for its lease before its key (recorded from etcd); within a transaction, after it.
fn lone_put_refusal(op: &Op) -> Option<Refusal> {
    match op {
        Op::Put(PutOp { lease: Some(lease @ 1..), .. }) => Some(Refusal::LeaseNotFound { lease: *lease }),
        Op::Put(_) | Op::Range(_) | Op::Delete(_) | Op::Txn(_) => None,
    }
}

/// One operation on a copy of the newest state.
struct Trial<'m> {
    model: &'m Model,
    state: State,
    changes: Vec<(Bytes, bool)>,
    put_refusal: Option<Refusal>,
    range_refusal: Option<Refusal>,
}

impl Trial<'_> {
    fn step(&mut self, op: &Op) -> Reply {
        match op {
            Op::Range(op) => Reply::Range(self.range(op)),
            Op::Put(op) => self.put(op),
            Op::Delete(op) => self.delete(op),
            Op::Txn(txn) => {
                let succeeded = txn.compares.iter().all(|compare| holds(self.model.newest(), compare));
                let ops = if succeeded { &txn.success } else { &txn.failure };
                Reply::Txn { succeeded, replies: ops.iter().map(|op| self.step(op)).collect() }
            }
        }
    }

    fn range(&mut self, op: &RangeOp) -> RangeReply {
        let model = self.model;
        match op.revision.map(|revision| model.readable(revision.0)) {
            None => answer(&self.state, op),
            Some(Ok(state)) => answer(state, op),
            Some(Err(refusal)) => {
                self.range_refusal.get_or_insert(refusal);
                RangeReply::default()
            }
        }
    }

    fn put(&mut self, op: &PutOp) -> Reply {
        let old = self.state.get(&op.key).cloned();
        let there = old.is_some() && self.model.newest().contains_key(&op.key);
        if (op.value.is_none() || op.lease.is_none()) && !there {
            self.put_refusal.get_or_insert(Refusal::KeyNotFound);
        } else if let Some(lease @ 1..) = op.lease {
            self.put_refusal.get_or_insert(Refusal::LeaseNotFound { lease });
        }
        let revision = Revision(self.model.revision() + 1);
        let mut new = old.clone().unwrap_or(Pair {
            key: op.key.clone(),
            value: Bytes::new(),
            create_revision: revision,
            mod_revision: revision,
            version: 0,
            lease: 0,
        });
        new.version += 1;
        new.mod_revision = revision;
        if let Some(value) = &op.value {
            new.value = value.clone();
        }
        self.state.insert(op.key.clone(), new);
        self.changes.push((op.key.clone(), true));
        Reply::Put { previous: old.filter(|_| op.previous) }
    }

    fn delete(&mut self, op: &DeleteOp) -> Reply {
        let gone = inside(&self.state, &op.range);
        for pair in &gone {
            self.state.remove(&pair.key);
            self.changes.push((pair.key.clone(), false));
        }
        let deleted = gone.len() as u64;
        Reply::Delete { deleted, previous: if op.previous { gone } else { Vec::new() } }
    }
}

fn inside(state: &State, range: &KeyRange) -> Vec<Pair> {
    let holds = |key: &Bytes| match &range.end {
        RangeEnd::Single => *key == range.key,
        RangeEnd::Before(end) => *key >= range.key && key < end,
        RangeEnd::Last => *key >= range.key,
    };
    state.values().filter(|pair| holds(&pair.key)).cloned().collect()
}

fn answer(state: &State, op: &RangeOp) -> RangeReply {
    let mut pairs = inside(state, &op.range);
    let count = pairs.len() as u64;
    if op.descending {
        pairs.reverse();
    }
    if op.keys_only {
        pairs.iter_mut().for_each(|pair| pair.value.clear());
    }
    let most = op.limit.unwrap_or(u64::MAX);
    pairs.truncate(if op.count_only { 0 } else { usize::try_from(most).unwrap_or(usize::MAX) });
    let counted = op.count || op.count_only;
    RangeReply { pairs, more: !op.count_only && count > most, count: counted.then_some(count) }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let found = inside(state, &compare.range);
    match found.is_empty() {
        true => holds_for(compare, None),
        false => found.iter().all(|pair| holds_for(compare, Some(pair))),
    }
}

fn holds_for(compare: &Compare, pair: Option<&Pair>) -> bool {
    let is = match (&compare.target, pair) {
        (Target::Value(with), Some(pair)) => pair.value.cmp(with),
        (Target::Value(_), None) => return false,
        (Target::Version(with), Some(pair)) => pair.version.cmp(with),
        (Target::CreateRevision(with), Some(pair)) => pair.create_revision.0.cmp(with),
        (Target::ModRevision(with), Some(pair)) => pair.mod_revision.0.cmp(with),
        (Target::Lease(with), Some(pair)) => pair.lease.cmp(with),
        (
            Target::Version(with) | Target::CreateRevision(with) | Target::ModRevision(with) | Target::Lease(with),
            None,
        ) => 0u64.cmp(with),
    };
    match compare.relation {
        Relation::Equal => is.is_eq(),
        Relation::NotEqual => is.is_ne(),
        Relation::Greater => is.is_gt(),
        Relation::Less => is.is_lt(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Compact(u64),
    /// With so many rows a step.
    Scrub(usize),
}

fn keys() -> impl Strategy<Value = Bytes> {
    prop::sample::select(KEYS.to_vec()).prop_map(Bytes::from_static)
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    let ends = prop_oneof![
        3 => Just(RangeEnd::Single),
        3 => keys().prop_map(RangeEnd::Before),
        1 => Just(RangeEnd::Last),
    ];
    (keys(), ends).prop_map(|(key, end)| KeyRange { key, end })
}

fn range_ops() -> impl Strategy<Value = RangeOp> {
    let revisions = prop_oneof![3 => Just(None::<u64>), 1 => (0..24u64).prop_map(Some)];
    (ranges(), prop::option::of(0..4u64), revisions, any::<[bool; 4]>()).prop_map(
        |(range, limit, revision, [descending, keys_only, count, count_only])| RangeOp {
            range,
            limit,
            revision: revision.map(Revision),
            descending,
            keys_only,
            count,
            count_only,
        },
    )
}

fn puts() -> impl Strategy<Value = PutOp> {
    let values = prop_oneof![1 => Just(None::<&str>), 5 => prop::sample::select(vec!["", "x", "y"]).prop_map(Some)];
    let leases = prop_oneof![1 => Just(None::<u64>), 12 => Just(Some(0)), 1 => Just(Some(9))];
    (keys(), values, leases, any::<bool>()).prop_map(|(key, value, lease, previous)| PutOp {
        key,
        value: value.map(Bytes::from),
        lease,
        previous,
    })
}

fn compares() -> impl Strategy<Value = Compare> {
    let relations = vec![Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
    let targets = prop_oneof![
        (0..4u64).prop_map(Target::Version),
        (0..8u64).prop_map(Target::CreateRevision),
        (0..8u64).prop_map(Target::ModRevision),
        (0..2u64).prop_map(Target::Lease),
        prop::sample::select(vec!["", "x", "y"]).prop_map(|value| Target::Value(value.into())),
    ];
    let parts = (ranges(), prop::sample::select(relations), targets);
    parts.prop_map(|(range, relation, target)| Compare { range, relation, target })
}

fn ops() -> impl Strategy<Value = Op> {
    let single = prop_oneof![
        1 => range_ops().prop_map(Op::Range),
        4 => puts().prop_map(Op::Put),
        2 => (ranges(), any::<bool>()).prop_map(|(range, previous)| Op::Delete(DeleteOp { range, previous })),
    ];
    single.prop_recursive(2, 12, 3, |inner| {
        let branch = || prop::collection::vec(inner.clone(), 0..4);
        let parts = (prop::collection::vec(compares(), 0..2), branch(), branch());
        parts.prop_map(|(compares, success, failure)| Op::Txn(Txn { compares, success, failure }))
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => ops().prop_map(Step::Op),
        1 => (0..24u64).prop_map(Step::Compact),
        1 => (1..6usize).prop_map(Step::Scrub),
    ]
}

/// Every way to ask for the keys of [`KEYS`] at `revision`.
fn questions(revision: u64) -> Vec<RangeOp> {
    let starts = KEYS.map(Bytes::from_static);
    let mut questions = Vec::new();
    for start in &starts {
        let mut ends: Vec<RangeEnd> = starts.iter().cloned().map(RangeEnd::Before).collect();
        ends.extend([RangeEnd::Single, RangeEnd::Last]);
        for end in ends {
            for (limit, descending) in [(None, false), (None, true), (Some(2), false), (Some(2), true)] {
                let range = KeyRange { key: start.clone(), end: end.clone() };
                let revision = Some(Revision(revision));
                let count = descending;
                questions.push(RangeOp { limit, revision, descending, count, ..RangeOp::all(range) });
            }
        }
    }
    questions
}

/// Reads everything that can be read, and a little beyond.
fn compare_all(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    for revision in 0..=model.revision() + 1 {
        let state = model.readable(revision);
        for op in questions(revision) {
            let expected = state.clone().map(|state| answer(state, &op));
            prop_assert_eq!(store.range(&op), expected, "{:?}", op);
        }
        let expected = state.map(|state| Content { keys: state.len() as u64, sum: model.sums[revision as usize] });
        prop_assert_eq!(store.content(revision), expected, "content at {}", revision);
    }
    Ok(())
}

fn compare_newest(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let head = Content { keys: store.head.keys, sum: store.head.sum };
    prop_assert_eq!(store.head.revision.0, model.revision());
    prop_assert_eq!(store.content(model.revision()), Ok(head));
    let all = KeyRange { key: Bytes::new(), end: RangeEnd::Last };
    let past = past_part(&store.engine, STORE, store.head.revision, &all, usize::MAX).expect("memory does not fail");
    prop_assert_eq!(past, (head, None), "the history and the current rows differ");
    Ok(())
}

fn run_step(store: &mut Store, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Op(op) => {
            prop_assert_eq!(store.run(op), model.run(op), "{:?}", op);
            model.sums.resize(model.states.len(), store.head.sum);
        }
        Step::Compact(revision) => {
            prop_assert_eq!(compact(&mut store.head, Revision(*revision)), model.compact(*revision));
        }
        Step::Scrub(max_rows) => {
            store.scrub(*max_rows);
            let (changes, index) = store.history();
            prop_assert_eq!(&changes, &index);
            prop_assert_eq!(changes, model.retained(store.scrubbed));
        }
    }
    compare_newest(store, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_revision_reads_as_in_the_model(script in prop::collection::vec(steps(), 1..24), max_rows in 1usize..5) {
        let (mut store, mut model) = (Store::new(), Model::new());
        for step in &script {
            run_step(&mut store, &mut model, step)?;
        }
        compare_all(&store, &model)?;
        run_step(&mut store, &mut model, &Step::Scrub(max_rows))?;
        compare_all(&store, &model)?;
    }

    #[test]
    fn decoding_a_head_never_panics(row in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(head) = Head::decode(row.into()) {
            prop_assert_eq!(Head::decode(head.encode().into()), Ok(head));
        }
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

#[test]
fn a_transaction_is_one_revision() {
    let mut store = Store::new();
    for (op, revision) in [
        (put("a", "1"), 2),
        (delete("missing"), 2),
        (txn(vec![]), 2),
        (txn(vec![delete("missing")]), 2),
        (put("a", "1"), 3),
        (txn(vec![put("b", "1"), delete("a"), txn(vec![put("c", "1")])]), 4),
        (delete("a"), 4),
    ] {
        assert!(store.run(&op).is_ok());
        assert_eq!(store.head.revision, Revision(revision), "{op:?}");
    }
    let last: Vec<(u64, u32, Bytes)> =
        store.history().0.into_iter().skip(2).map(|(id, key, _)| (id.revision.0, id.sub, key)).collect();
    let expected: [(u64, u32, Bytes); 3] = [(4, 0, "b".into()), (4, 1, "a".into()), (4, 2, "c".into())];
    assert_eq!(last, expected);
}

#[test]
fn a_refused_transaction_writes_nothing() {
    let read = |revision| {
        let all = RangeOp::all(KeyRange::single("a"));
        Op::Range(RangeOp { revision: Some(Revision(revision)), ..all })
    };
    let lease = Op::Put(PutOp { key: "z".into(), value: None, lease: Some(7), previous: false });
    let mut store = Store::new();
    assert!(store.run(&put("a", "1")).is_ok());
    assert!(store.run(&put("a", "2")).is_ok());
    assert_eq!(compact(&mut store.head, Revision(3)), Ok(()));
    for (op, refusal) in [
        (txn(vec![put("b", "1"), keep("c")]), Refusal::KeyNotFound),
        (txn(vec![put("b", "1"), keep("b")]), Refusal::KeyNotFound),
        (txn(vec![delete("a"), keep("a")]), Refusal::KeyNotFound),
        (txn(vec![put("b", "1"), read(4)]), Refusal::FutureRevision { asked: 4, newest: 3 }),
        (txn(vec![put("b", "1"), read(2)]), Refusal::Compacted { asked: 2, floor: 3 }),
        (txn(vec![read(4), keep("c")]), Refusal::KeyNotFound),
        (txn(vec![lease.clone()]), Refusal::KeyNotFound),
        (lease, Refusal::LeaseNotFound { lease: 7 }),
    ] {
        assert_eq!(store.run(&op), Err(refusal), "{op:?}");
    }
    assert!(store.run(&txn(vec![delete("a"), put("a", "3"), keep("a")])).is_ok());
}

#[test]
fn compares_see_the_state_before_all_steps() {
    let exists = Compare { range: KeyRange::single("a"), relation: Relation::Greater, target: Target::Version(0) };
    let nested = Op::Txn(Txn { compares: vec![exists], success: vec![], failure: vec![put("b", "1")] });
    let mut store = Store::new();
    let failed = Reply::Txn { succeeded: false, replies: vec![Reply::Put { previous: None }] };
    let replies = vec![Reply::Put { previous: None }, failed];
    assert_eq!(store.run(&txn(vec![put("a", "1"), nested])), Ok(Reply::Txn { succeeded: true, replies }));
}

#[test]
fn compaction_bounds() {
    let mut head = Head { revision: Revision(5), ..Head::empty() };
    for (asked, expected) in [
        (6, Err(Refusal::FutureRevision { asked: 6, newest: 5 })),
        (3, Ok(())),
        (3, Err(Refusal::Compacted { asked: 3, floor: 3 })),
        (2, Err(Refusal::Compacted { asked: 2, floor: 3 })),
        (5, Ok(())),
    ] {
        assert_eq!(compact(&mut head, Revision(asked)), expected, "{asked}");
    }
}

#[test]
fn a_tombstone_at_the_floor_stays_until_the_floor_passes() {
    let mut store = Store::new();
    for op in [put("a", "1"), delete("a"), put("b", "1")] {
        assert!(store.run(&op).is_ok());
    }
    for (floor, left) in [(3, vec![3, 4]), (4, vec![4])] {
        assert_eq!(compact(&mut store.head, Revision(floor)), Ok(()));
        store.scrub(1);
        let revisions: Vec<u64> = store.history().0.iter().map(|(id, ..)| id.revision.0).collect();
        assert_eq!(revisions, left, "floor {floor}");
    }
}

fn put_of(key: String, bytes: usize) -> Op {
    Op::Put(PutOp { key: key.into(), value: Some(vec![7; bytes].into()), lease: Some(0), previous: false })
}

fn txn_of(success: Vec<Op>) -> Op {
    Op::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() })
}

fn everything() -> KeyRange {
    KeyRange { key: Bytes::from_static(&[0]), end: RangeEnd::Last }
}

#[test]
fn one_command_deletes_a_bounded_number_of_keys() {
    let mut store = Store::new();
    let keys = DELETED_KEYS_MAX + 1;
    for first in (0..keys).step_by(1000) {
        let puts = (first..keys.min(first + 1000)).map(|number| put_of(format!("{number:08}"), 1)).collect();
        assert!(store.run(&txn_of(puts)).is_ok());
    }
    let before = store.head;
    let delete = Op::Delete(DeleteOp { range: everything(), previous: false });
    let refused = Err(Refusal::TooManyKeys { limit: DELETED_KEYS_MAX });
    assert_eq!(store.run(&delete), refused);
    assert_eq!(store.run(&txn_of(vec![put_of("new".into(), 1), delete.clone()])), refused);
    assert_eq!(store.head, before, "a refused delete leaves everything as it was");
    let one = Op::Delete(DeleteOp { range: KeyRange::single("00000000"), previous: false });
    assert_eq!(store.run(&one), Ok(Reply::Delete { deleted: 1, previous: Vec::new() }));
    assert_eq!(store.run(&delete), Ok(Reply::Delete { deleted: DELETED_KEYS_MAX, previous: Vec::new() }));
}

#[test]
fn one_command_answers_with_a_bounded_number_of_bytes() {
    let mut store = Store::new();
    let (value, fitting) = (1 << 20, ANSWER_BYTES_MAX >> 20);
    for number in 0..fitting {
        assert!(store.run(&put_of(format!("{number:02}"), value)).is_ok());
    }
    let read = Op::Range(RangeOp::all(everything()));
    let deleted = Op::Delete(DeleteOp { range: everything(), previous: true });
    assert!(store.run(&txn_of(vec![read.clone()])).is_ok());
    assert!(store.run(&put_of("more".into(), value)).is_ok());
    let before = store.head;
    let refused = Err(Refusal::AnswerTooLarge { limit: ANSWER_BYTES_MAX as u64 });
    for too_much in [read, deleted] {
        assert_eq!(store.run(&txn_of(vec![put_of("new".into(), 1), too_much])), refused);
        assert_eq!(store.head, before, "a refused answer leaves everything as it was");
    }
    let delete = Op::Delete(DeleteOp { range: everything(), previous: false });
    assert!(store.run(&delete).is_ok());
}

#[test]
fn a_page_ends_with_its_bytes() {
    let mut store = Store::new();
    for number in 0..10 {
        assert!(store.run(&put_of(format!("k{number}"), 100)).is_ok());
    }
    let now = store.head.revision;
    assert!(store.run(&put_of("z".into(), 1)).is_ok());
    for revision in [None, Some(now)] {
        for (bytes_max, keys) in [(0, 0), (1, 1), (134, 1), (135, 2), (10_000, 10)] {
            let range = KeyRange { key: "k".into(), end: RangeEnd::Before("l".into()) };
            let op = RangeOp { revision, count: true, ..RangeOp::all(range) };
            let page = range_of(&store, &op, bytes_max);
            assert_eq!((page.pairs.len(), page.more, page.count), (keys, keys < 10, Some(10)), "{bytes_max} bytes");
        }
    }
}

fn range_of(store: &Store, op: &RangeOp, bytes_max: usize) -> RangeReply {
    let found = range(&store.engine, STORE, &store.head, op, bytes_max).expect("memory does not fail");
    found.expect("a readable revision")
}
