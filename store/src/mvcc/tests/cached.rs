//! A replica that applies through a row cache beside one that does not: the same batches have the same outcomes and leave
//! the same rows, also when a batch does not reach the engine, and after power cuts.

use proptest::prelude::*;

use super::STORE;
use super::random::{KEYS, ops};
use crate::command::{Op, Refusal, Reply};
use crate::engine::memory::MemoryEngine;
use crate::engine::{Durability, Engine, Family, Order, Read, Visit};
use crate::key;
use crate::mvcc::{Head, execute};
use crate::overlay::Overlay;
use crate::row_cache::RowCache;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Written,
    /// The engine does not take it.
    Failed,
    /// It is written; then only so many of the batches since the last cut are found again.
    Cut(usize),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Written), 1 => Just(Fate::Failed), 1 => (0..6usize).prop_map(Fate::Cut)]
}

type Outcomes = Vec<Result<Reply, Refusal>>;

/// Runs `ops` as one batch on what `base` holds.
fn run<'a>(base: &'a dyn Read, ops: &[Op]) -> (Outcomes, Overlay<'a>) {
    let mut head = Head::load(base, STORE).expect("the cache is exact");
    let mut view = Overlay::new(base);
    let outcomes = ops.iter().map(|op| execute(&mut view, STORE, &mut head, op).expect("the cache is exact")).collect();
    head.store(&mut view, STORE);
    (outcomes, view)
}

/// As a state machine has it: the cache goes along with each batch, and comes back when that is written.
struct Cached {
    engine: MemoryEngine,
    cache: RowCache,
}

impl Cached {
    fn apply(&mut self, ops: &[Op], fate: Fate, empty: impl Fn() -> RowCache) -> Outcomes {
        let mut cache = std::mem::replace(&mut self.cache, empty());
        let through = cache.over(&self.engine);
        let (outcomes, view) = run(&through, ops);
        let (batch, writes) = view.into_parts();
        cache.learn(writes);
        match fate {
            Fate::Written => {
                self.engine.write(&batch, Durability::NoSync).expect("memory does not fail");
                self.cache = cache;
            }
            Fate::Failed => {}
            Fate::Cut(kept) => {
                self.engine.write(&batch, Durability::NoSync).expect("memory does not fail");
                self.engine = self.engine.crash(kept);
            }
        }
        outcomes
    }

    /// What is kept is what the engine has.
    fn check(&self) -> Result<(), TestCaseError> {
        for user_key in KEYS {
            let key = key::current(STORE, user_key);
            let row = self.engine.get(Family::Current, &key).expect("memory does not fail");
            if let Some(kept) = self.cache.get(&key) {
                prop_assert_eq!(kept, row, "{:?}", user_key);
            }
        }
        Ok(())
    }
}

fn apply_plainly(engine: &mut MemoryEngine, ops: &[Op], fate: Fate) -> Outcomes {
    let (outcomes, view) = run(&*engine, ops);
    let batch = view.into_batch();
    match fate {
        Fate::Written => engine.write(&batch, Durability::NoSync).expect("memory does not fail"),
        Fate::Failed => {}
        Fate::Cut(kept) => {
            engine.write(&batch, Durability::NoSync).expect("memory does not fail");
            *engine = engine.crash(kept);
        }
    }
    outcomes
}

/// Every row of the store.
fn rows(engine: &MemoryEngine) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for family in Family::OF_STORE {
        let scanned = engine.scan(family, &key::store(STORE), Order::Ascending, &mut |key, row| {
            rows.push((family, key.to_vec(), row.to_vec()));
            Visit::Next
        });
        scanned.expect("memory does not fail");
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // A row of these keys and values costs 165 to 174 bytes: the bounds let all of them, some or none be kept.
    #[test]
    fn a_cache_makes_no_difference(
        batches in prop::collection::vec((prop::collection::vec(ops(), 1..5), fates()), 1..24),
        generation_max in prop::sample::select(vec![100usize, 170, 400, 800, 1 << 20]),
        row_max in prop::sample::select(vec![172usize, 1 << 20]),
    ) {
        let empty = || RowCache::within(generation_max, row_max);
        let mut cached = Cached { engine: MemoryEngine::new(), cache: empty() };
        let mut plain = MemoryEngine::new();
        for (ops, fate) in &batches {
            prop_assert_eq!(cached.apply(ops, *fate, empty), apply_plainly(&mut plain, ops, *fate), "{:?}", ops);
            prop_assert_eq!(rows(&cached.engine), rows(&plain));
            cached.check()?;
        }
    }
}
