//! Random commands on the store and on the model; then every readable revision is read in every way, before and after
//! scrubs.

use bytes::Bytes;
use proptest::prelude::*;
use trefoil_causality::Revision;

use super::limits::walked;
use super::model::{Model, answer};
use super::{STORE, Store, everything};
use crate::command::{Compare, DeleteOp, KeyRange, Op, PutOp, RangeEnd, RangeOp, Relation, Target, Txn};
use crate::mvcc::content::past_part;
use crate::mvcc::{Content, Head, compact};

/// Prefixes of each other, zero bytes, and the highest byte.
pub(super) const KEYS: [&[u8]; 5] = [b"a", b"a\0", b"a\0\0", b"ab", b"\xff"];

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

pub(super) fn ops() -> impl Strategy<Value = Op> {
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
    fn a_scrub_changes_no_count_of_a_walk(script in prop::collection::vec(steps(), 1..24)) {
        let (mut scrubbed, mut whole) = (Store::new(), Store::new());
        for step in &script {
            match step {
                Step::Op(op) => {
                    prop_assert_eq!(scrubbed.run(op), whole.run(op), "{:?}", op);
                }
                Step::Compact(floor) => {
                    let floors = [&mut scrubbed, &mut whole].map(|store| compact(&mut store.head, Revision(*floor)));
                    prop_assert_eq!(&floors[0], &floors[1]);
                }
                Step::Scrub(max_rows) => scrubbed.scrub(*max_rows),
            }
        }
        scrubbed.scrub(3);
        for revision in 0..=whole.head.revision.0 {
            for (limit, descending) in [(None, false), (None, true), (Some(2), false), (Some(2), true)] {
                let revision = Some(Revision(revision));
                let op = Op::Range(RangeOp { limit, revision, descending, ..RangeOp::all(everything()) });
                prop_assert_eq!(walked(&scrubbed, &op), walked(&whole, &op), "{:?}", op);
            }
        }
    }

    #[test]
    fn decoding_a_head_never_panics(row in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(head) = Head::decode(row.into()) {
            prop_assert_eq!(Head::decode(head.encode().into()), Ok(head));
        }
    }
}
