//! RocksDB gives back what was removed or replaced while it is open: the directory before and after.
//!
//! Each case begins with the same rows, which do not compress, in tables. The first of them then cease to live in the
//! case's way, and the rest must read as before.

use std::path::Path;

use crate::engine::rocks::RocksEngine;
use crate::engine::{Batch, Durability, Engine, Family, FamilyUsage, Order, Read, Span, Visit};

const FAMILY: Family = Family::Changes;
/// So few that they fit into one memtable: RocksDB merges nothing by itself.
const ROWS: u32 = 1500;
/// How many of them live on, where the others do not.
const LIVING: u32 = 250;
const ROW_BYTES: usize = 8 << 10;
/// Beside the rows: their index, the database's other files, and its log, which the flush left empty.
const BESIDE_BYTES: u64 = 1 << 20;

/// How rows cease to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Deleted,
    DeletedAsRange,
    Removed,
    /// Every row is replaced by another one as large, twice.
    Replaced,
}

impl End {
    fn befall(self, engine: &RocksEngine) {
        match self {
            End::Deleted => {
                let mut batch = Batch::new();
                (LIVING..ROWS).for_each(|number| batch.delete(FAMILY, &key(number)));
                engine.write(&batch, Durability::NoSync).expect("written");
            }
            End::DeletedAsRange => {
                let mut batch = Batch::new();
                batch.delete_range(FAMILY, &key(LIVING), &key(ROWS));
                engine.write(&batch, Durability::NoSync).expect("written");
            }
            End::Removed => {
                let span = Span::new(key(LIVING).to_vec(), key(ROWS).to_vec());
                engine.remove(FAMILY, &span).expect("removed");
            }
            End::Replaced => {
                fill(engine, 2);
                fill(engine, 3);
            }
        }
    }

    fn living(self) -> u32 {
        match self {
            End::Deleted | End::DeletedAsRange | End::Removed => LIVING,
            End::Replaced => ROWS,
        }
    }
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A row's bytes in this round.
fn row(number: u32, round: u64) -> Vec<u8> {
    let mut state = (u64::from(number) << 8) | round;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 31)).to_be_bytes()
    });
    words.take(ROW_BYTES / 8).flatten().collect()
}

/// Writes all rows, and sees to it that they are in tables.
fn fill(engine: &RocksEngine, round: u64) {
    for number in 0..ROWS {
        let mut batch = Batch::new();
        batch.put(FAMILY, &key(number), &row(number, round));
        engine.write(&batch, Durability::NoSync).expect("written");
    }
    engine.flush().expect("flushed");
}

fn content(engine: &RocksEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut rows, all) = (Vec::new(), Span { from: Vec::new(), to: None });
    let scanned = engine.scan(FAMILY, &all, Order::Ascending, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        Visit::Next
    });
    scanned.expect("readable");
    rows
}

fn usage(engine: &RocksEngine) -> FamilyUsage {
    let usage = engine.usage().expect("known");
    usage.families.into_iter().find(|found| found.family == FAMILY).expect("every family is told of")
}

/// Rewrites all portions. Whether there were any.
fn rewrite(engine: &RocksEngine, room: u64) -> bool {
    let (mut from, mut bytes) = (Some(Vec::new()), 0);
    while let Some(first) = from {
        let rewritten = engine.rewrite(FAMILY, &first, room).expect("rewritten");
        bytes += rewritten.bytes;
        from = rewritten.next;
    }
    bytes > 0
}

/// Bytes of the files of a folder; those that go meanwhile count nothing.
fn bytes_below(folder: &Path) -> u64 {
    let files = folder.read_dir().expect("a folder").map(|file| file.expect("a file"));
    files.map(|file| file.metadata().map_or(0, |found| found.len())).sum()
}

fn give_back(end: End) {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = RocksEngine::open(folder.path()).expect("a fresh database");
    fill(&engine, 1);
    end.befall(&engine);
    let removed = usage(&engine).unflushed_range_bytes;
    match end {
        End::DeletedAsRange | End::Removed => {
            let bytes = u64::from(ROWS - LIVING) * ROW_BYTES as u64;
            assert!(removed >= bytes / 2, "{end:?}: expected about {bytes} bytes to be noted, not {removed}");
        }
        End::Deleted | End::Replaced => assert_eq!(removed, 0, "{end:?}"),
    }
    engine.flush().expect("flushed");
    let (content_before, before) = (content(&engine), usage(&engine));
    let (bytes_before, living) = (bytes_below(folder.path()), u64::from(end.living()) * ROW_BYTES as u64);
    let dead = before.table_bytes - living;
    assert!(
        before.unflushed_range_bytes == 0 && before.dead_bytes >= dead / 2,
        "{end:?}: expected {dead} dead bytes: {before:?}"
    );
    assert!(!rewrite(&engine, 1), "{end:?}: expected nothing to be rewritten without room");
    assert!(rewrite(&engine, u64::MAX), "{end:?}: expected something to rewrite");
    let after = usage(&engine);
    assert!(content(&engine) == content_before, "{end:?}: expected all rows to read as before");
    assert_eq!(content_before.len(), end.living() as usize, "{end:?}");
    assert_eq!(after.dead_bytes, 0, "{end:?}");
    assert!(!rewrite(&engine, u64::MAX), "{end:?}: expected nothing more to rewrite");
    // Closing rewrites nothing; it waits until the files that are no more needed are removed.
    drop(engine);
    let bytes_after = bytes_below(folder.path());
    println!("{end:?}: {bytes_before} bytes before, {bytes_after} after, {living} live");
    assert!(bytes_before > 2 * bytes_after, "{end:?}: expected {bytes_before} bytes to become less than half");
    assert!(bytes_after < living + living / 4 + BESIDE_BYTES, "{end:?}: {bytes_after} bytes are kept for {living}");
}

#[test]
fn what_no_longer_lives_is_given_back() {
    [End::Deleted, End::DeletedAsRange, End::Removed, End::Replaced].into_iter().for_each(give_back);
}

/// A snapshot does not keep more than it sees, nor longer than it lives: RocksDB merges its rows by itself after it.
#[test]
fn what_a_snapshot_sees_is_given_back_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = RocksEngine::open(folder.path()).expect("a fresh database");
    fill(&engine, 1);
    let full = usage(&engine).table_bytes;
    let snapshot = engine.snapshot();
    End::Deleted.befall(&engine);
    engine.flush().expect("flushed");
    rewrite(&engine, u64::MAX);
    let last = snapshot.get(FAMILY, &key(ROWS - 1)).expect("readable");
    assert_eq!(last.as_deref(), Some(row(ROWS - 1, 1).as_slice()), "a snapshot does not move");
    let kept = usage(&engine).table_bytes;
    assert!(kept >= full - full / 8, "expected the {full} bytes that are seen to be kept, not {kept}");
    // RocksDB looks at what is older than the newest write only.
    let mut batch = Batch::new();
    batch.put(Family::Node, b"later", b"row");
    engine.write(&batch, Durability::NoSync).expect("written");
    drop(snapshot);
    engine.wait_for_merges();
    let after = usage(&engine).table_bytes;
    assert!(after < full / 2, "expected less than half of {full} bytes once nobody sees them, not {after}");
}

/// The room a portion is said to take is enough to be asked for, and a byte less is not.
#[test]
fn a_portion_says_what_room_it_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = RocksEngine::open(folder.path()).expect("a fresh database");
    fill(&engine, 1);
    End::Deleted.befall(&engine);
    engine.flush().expect("flushed");
    let before = usage(&engine).table_bytes;
    let left = engine.rewrite(FAMILY, b"", 1).expect("left");
    let wants = left.wants.expect("too little room");
    assert!(left.bytes == 0 && wants >= before, "expected room for at least {before} bytes: {left:?}");
    assert_eq!(engine.rewrite(FAMILY, b"", wants - 1).expect("left"), left);
    assert_eq!(usage(&engine).table_bytes, before);
    let rewritten = engine.rewrite(FAMILY, b"", wants).expect("rewritten");
    assert!(rewritten.wants.is_none() && rewritten.bytes >= before, "expected all to be rewritten: {rewritten:?}");
    assert!(usage(&engine).table_bytes < before / 2);
}

#[test]
fn a_flush_gives_the_log_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = RocksEngine::open(folder.path()).expect("a fresh database");
    let mut batch = Batch::new();
    batch.put(Family::Node, b"seldom written", b"row");
    engine.write(&batch, Durability::Sync).expect("written");
    // Fills memtables of another family, which RocksDB flushes; the row above keeps every file of the log.
    for number in 0..2 * ROWS {
        let mut batch = Batch::new();
        batch.put(FAMILY, &key(number), &row(number, 1));
        engine.write(&batch, Durability::NoSync).expect("written");
    }
    let written = u64::from(2 * ROWS) * ROW_BYTES as u64;
    let before = engine.usage().expect("known").log_bytes;
    assert!(before >= written, "expected all {written} bytes to be in the log still, not {before}");
    engine.flush().expect("flushed");
    let after = engine.usage().expect("known").log_bytes;
    assert!(after < BESIDE_BYTES, "expected the log to be given back, not to keep {after} of {before} bytes");
    assert_eq!(engine.get(Family::Node, b"seldom written").expect("readable").as_deref(), Some(b"row".as_slice()));
}
