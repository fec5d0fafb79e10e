//! Which entries are applied off the async threads, and that it makes no difference to the state; and when the cache of
//! current rows is emptied.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::impls::{Entry, EntryPayload};
use openraft::storage::{EntryResponder, RaftStateMachine};
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{Mode, PartitionId};
use trefoil_store::command::{
    Command, Compare, DeleteOp, Envelope, KeyRange, Op, PutOp, RangeEnd, RangeOp, Relation, Target, Txn, encode_batch,
    encode_envelope,
};
use trefoil_store::engine::{Batch, Durability, Engine, Family, Order, Read, Span, Visit};
use trefoil_store::key::{self, StoreNumber};
use trefoil_store::mvcc;

use crate::raft::log::tests::{Watched, writer, writer_that_ends};
use crate::raft::state::StateMachine;
use crate::raft::types::{Group, LogEntry, Proposal, log_id};
use crate::replica_record::ReplicaRecord;
use crate::stores::Stores;
use crate::writer::Writer;

fn state(engine: &Arc<Watched>) -> StateMachine {
    state_with(engine, writer(engine.clone()))
}

fn state_with(engine: &Arc<Watched>, writer: Writer) -> StateMachine {
    let stores = Stores::open(engine.clone(), writer.clone(), &BTreeSet::new()).expect("stores");
    let record = ReplicaRecord { partition: PartitionId::DEFAULT, store: StoreNumber(1), mode: Mode::Leader };
    StateMachine::open(ReplicaId(1), record, engine.clone(), writer, Arc::new(stores)).expect("a state")
}

async fn apply(state: &mut StateMachine, entries: Vec<LogEntry>) {
    try_apply(state, entries).await.expect("the engine works");
}

async fn try_apply(state: &mut StateMachine, entries: Vec<LogEntry>) -> io::Result<()> {
    let entries = entries.into_iter().map(|entry| Ok::<EntryResponder<Group>, io::Error>((entry, None)));
    state.apply(futures::stream::iter(entries)).await
}

fn entry(index: u64, commands: Vec<Command>) -> LogEntry {
    let envelope =
        |command| Envelope { at_ms: index, request: None, principal: "anonymous".into(), auth_revision: 0, command };
    let encoded: Vec<Vec<u8>> = commands.into_iter().map(|command| encode_envelope(&envelope(command))).collect();
    let proposal = Proposal(encode_batch(encoded.iter().map(Vec::as_slice)));
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(proposal) }
}

fn put(key: &str) -> Op {
    let key = key.to_owned().into();
    Op::Put(PutOp { key, value: Some("v".into()), lease: Some(0), previous: false })
}

fn puts(count: usize) -> Op {
    Op::Txn(Txn { success: (0..count).map(|number| put(&format!("k{number:03}"))).collect(), ..Txn::default() })
}

fn all() -> KeyRange {
    KeyRange { key: vec![0].into(), end: RangeEnd::Last }
}

/// Counts the keys, and puts one.
fn count() -> Op {
    let count = Op::Range(RangeOp { count_only: true, ..RangeOp::all(all()) });
    Op::Txn(Txn { success: vec![count, put("counted")], ..Txn::default() })
}

fn delete(range: KeyRange) -> Op {
    Op::Delete(DeleteOp { range, previous: false })
}

/// Puts a key if those of `range` exist.
fn put_if(range: KeyRange) -> Op {
    let compare = Compare { range, relation: Relation::Greater, target: Target::Version(0) };
    Op::Txn(Txn { compares: vec![compare], success: vec![put("b")], failure: Vec::new() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_many_keys_are_applied_off_the_async_threads() {
    let engine = Watched::new();
    let mut state = state(&engine);
    let op = Command::Op;
    for (index, (commands, leaves)) in (1..).zip([
        (vec![op(put("a"))], false),
        (vec![op(put("a")), op(put_if(KeyRange::single("a")))], false),
        (vec![op(delete(KeyRange::single("a")))], false),
        (vec![op(puts(64))], false),
        (vec![op(puts(65))], true),
        (vec![Command::Compact(Revision(3))], false),
        (vec![op(count())], true),
        (vec![op(put("a")), op(put_if(all()))], true),
        (vec![op(delete(all()))], true),
        (vec![Command::OpenSession], true),
    ]) {
        let told = format!("{commands:?}");
        apply(&mut state, vec![entry(index, commands)]).await;
        assert_eq!(engine.was_read_elsewhere(), leaves, "{told}");
        let applied = state.published().view().applied;
        assert_eq!(applied.map(|id| id.index()), Some(index), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_entries_are_taken_together_the_state_is_the_same() {
    let commands = [
        vec![Command::Op(puts(50))],
        vec![Command::Op(count()), Command::Op(put("k000"))],
        vec![Command::OpenSession],
        vec![Command::Op(delete(KeyRange::single("k001")))],
        vec![Command::Op(put_if(all()))],
        vec![Command::Compact(Revision(4))],
        vec![Command::Op(delete(KeyRange { key: "k01".into(), end: RangeEnd::Before("k02".into()) }))],
        vec![Command::Op(put("k011"))],
    ];
    let mut entries: Vec<LogEntry> = (1..).zip(commands).map(|(index, commands)| entry(index, commands)).collect();
    entries.push(Entry { log_id: log_id(1, 9), payload: EntryPayload::Blank });
    let mut found = Vec::new();
    for together in [1, 3, 9] {
        let engine = Watched::new();
        let mut state = state(&engine);
        for chunk in entries.chunks(together) {
            apply(&mut state, chunk.to_vec()).await;
        }
        let (view, published) = (state.published().view(), state.published());
        assert_eq!(view.applied, Some(log_id(1, 9)));
        assert_eq!(published.compactions.load(Ordering::Relaxed), 1);
        found.push((view.head, rows(engine.as_ref())));
    }
    // 50, 'counted' and 'b', without k001 and k010 to k019, and k011 again.
    assert_eq!(found[0].0.keys, 42);
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
}

/// How often the key was put since it was made.
fn version(engine: &Watched, state: &StateMachine, key: &'static str) -> Option<u64> {
    let view = state.published().view();
    let op = RangeOp::all(KeyRange::single(key));
    let reply = mvcc::range(engine, view.store.number(), &view.head, &op, usize::MAX).expect("memory does not fail");
    reply.expect("the newest revision is readable").pairs.first().map(|pair| pair.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_not_made_empties_the_cache() {
    let engine = Watched::new();
    let mut state = state(&engine);
    apply(&mut state, vec![entry(1, vec![Command::Op(put("a"))])]).await;
    assert!(!state.cache.is_empty());
    let mut malformed = Batch::new();
    malformed.put(Family::Current, &key::current(StoreNumber(1), b"bad"), b"no row");
    engine.write(&malformed, Durability::NoSync).expect("memory does not fail");
    let refused = try_apply(&mut state, vec![entry(2, vec![Command::Op(put("a")), Command::Op(put("bad"))])]).await;
    assert!(refused.is_err(), "a malformed row stops the replica");
    assert!(state.cache.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_not_written_empties_the_cache() {
    let engine = Watched::new();
    let mut state = state_with(&engine, writer_that_ends(engine.clone(), Arc::new(|_: String| {})));
    apply(&mut state, vec![entry(1, vec![Command::Op(put("a"))])]).await;
    assert!(!state.cache.is_empty());
    engine.break_disk();
    let failed = try_apply(&mut state, vec![entry(2, vec![Command::Op(put("b"))])]).await;
    assert!(failed.is_err(), "the disk is broken");
    assert!(state.cache.is_empty());
    assert_eq!(state.published().view().applied, Some(log_id(1, 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installed_state_begins_with_an_empty_cache() {
    let engine = Watched::new();
    let mut numbers = Batch::new();
    numbers.put(Family::Node, key::node::NEXT_STORE, &2_u32.to_be_bytes());
    engine.write(&numbers, Durability::NoSync).expect("memory does not fail");
    let mut state = state(&engine);
    apply(&mut state, vec![entry(1, vec![Command::Op(put("a"))])]).await;
    let image = state.get_current_snapshot().await.expect("the engine works").expect("something is applied");
    apply(&mut state, vec![entry(2, vec![Command::Op(put("a")), Command::Op(put("b"))])]).await;
    assert_eq!((version(&engine, &state, "a"), version(&engine, &state, "b")), (Some(2), Some(1)));
    state.install_snapshot(&image.meta, image.snapshot).await.expect("the engine works");
    assert!(state.cache.is_empty());
    for (index, versions) in [(2, (Some(2), Some(1))), (3, (Some(3), Some(2)))] {
        apply(&mut state, vec![entry(index, vec![Command::Op(put("a")), Command::Op(put("b"))])]).await;
        assert_eq!((version(&engine, &state, "a"), version(&engine, &state, "b")), versions);
    }
}

/// All rows of the replica's store.
fn rows(engine: &Watched) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for family in Family::OF_STORE {
        let all = Span { from: Vec::new(), to: None };
        let scanned = engine.scan(family, &all, Order::Ascending, &mut |key, value| {
            rows.push((family, key.to_vec(), value.to_vec()));
            Visit::Next
        });
        scanned.expect("memory does not fail");
    }
    rows
}
