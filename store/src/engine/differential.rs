//! Keeps the memory engine's crash model honest: the same random batches go to it and to RocksDB, both lose an
//! un-synced tail, and both must then hold the same.
//!
//! RocksDB's loss is made by copying its directory and cutting the copy's write-ahead log somewhere behind the last
//! sync, in the middle of a record too. A batch carries its number, so what was recovered says how many un-synced
//! batches survived; the memory engine is then crashed with as many. Now and then both are flushed, which must lose
//! nothing and bring nothing back.

use std::path::Path;

use bytes::Bytes;

use crate::engine::memory::MemoryEngine;
use crate::engine::rocks::{Inspection, RocksEngine};
use crate::engine::{Batch, Durability, Engine, Family, Order, Read, Span, Visit};

const SEEDS: u64 = 40;
const BATCHES: u64 = 30;
/// Fewer than begin a merge: the directory is copied while nothing changes it.
const FLUSHES_MAX: u64 = 3;
const NUMBER: &[u8] = b"number";

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn batch(number: u64, dice: &mut Dice) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Node, NUMBER, &number.to_be_bytes());
    for _ in 0..dice.below(6) {
        let family = Family::ALL[dice.below(6) as usize];
        let key = [b'k', dice.below(8) as u8];
        match dice.below(5) {
            0 => batch.delete(family, &key),
            1 => batch.delete_range(family, &key, &[b'k', key[1] + 3]),
            _ => batch.put(family, &key, &vec![number as u8; dice.below(3000) as usize]),
        }
    }
    batch
}

fn content(read: &dyn Read) -> Vec<(Family, Vec<u8>, Bytes)> {
    let mut rows = Vec::new();
    for family in Family::ALL {
        let all = Span { from: Vec::new(), to: None };
        read.scan(family, &all, Order::Ascending, &mut |key, value| {
            rows.push((family, key.to_vec(), Bytes::copy_from_slice(value)));
            Visit::Next
        })
        .expect("a readable engine");
    }
    rows
}

fn log_file(folder: &Path) -> std::path::PathBuf {
    let files = folder.read_dir().expect("a folder").map(|file| file.expect("a file").path());
    files.filter(|file| file.extension().is_some_and(|end| end == "log")).max().expect("a write-ahead log")
}

fn copy(from: &Path, to: &Path) {
    for file in from.read_dir().expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

/// Returns how many un-synced batches survived, of how many.
fn crash_both(seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let (folder, copied) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let rocks = RocksEngine::open(folder.path()).expect("a fresh database");
    let memory = MemoryEngine::new();
    let (mut synced, mut synced_bytes, mut flushes) = (0, 0, 0);
    for number in 1..=BATCHES {
        let batch = batch(number, &mut dice);
        let sync = dice.below(6) == 0;
        let durability = if sync { Durability::Sync } else { Durability::NoSync };
        rocks.write(&batch, durability).expect("written");
        memory.write(&batch, durability).expect("written");
        let flush = flushes < FLUSHES_MAX && dice.below(8) == 0;
        if flush {
            rocks.flush().expect("flushed");
            memory.flush().expect("flushed");
            flushes += 1;
        }
        if sync || flush {
            synced = number;
            synced_bytes = log_file(folder.path()).metadata().expect("a length").len();
        }
    }
    assert_eq!(content(&rocks), content(&memory), "seed {seed}: before the crash");
    copy(folder.path(), copied.path());
    let log = log_file(copied.path());
    let length = log.metadata().expect("a length").len();
    let kept_bytes = synced_bytes + dice.below(length - synced_bytes + 1);
    std::fs::OpenOptions::new().write(true).open(&log).expect("the log").set_len(kept_bytes).expect("cut");
    let looked = content(&Inspection::open(copied.path()).expect("readable").expect("a database"));
    let found = RocksEngine::open(copied.path()).expect("recovered");
    let number = found.get(Family::Node, NUMBER).expect("readable");
    let number = number.map_or(0, |row| u64::from_be_bytes(row.as_ref().try_into().expect("8 bytes")));
    assert!(synced <= number, "seed {seed}: batch {synced} was synced, only {number} were recovered");
    let crashed = memory.crash((number - synced) as usize);
    assert_eq!(content(&found), content(&crashed), "seed {seed}: after a crash that kept {number} of {BATCHES}");
    assert_eq!(looked, content(&crashed), "seed {seed}: what an inspection shows is what an open recovers");
    (number - synced, BATCHES - synced)
}

#[test]
fn both_engines_lose_the_same() {
    let (mut survived, mut at_risk) = (0, 0);
    for seed in 1..=SEEDS {
        let (kept, of) = crash_both(seed);
        survived += kept;
        at_risk += of;
    }
    println!("{SEEDS} crashes: {survived} of {at_risk} un-synced batches survived");
    assert!(0 < survived && survived < at_risk, "some must survive and some be lost, else nothing was tried");
}
