//! Current rows kept in memory beside the applier, so that a put of a key that was put lately need not look it up.
//!
//! Every put reads the row it replaces. [`RowCache`] keeps rows as the engine gives them, and which rows are absent: what
//! was read through [`RowCache::over`], and what [`RowCache::learn`] was told of a batch. It is exact because one task
//! alone writes the current rows of a store and reads through the cache; everybody else reads the engine.
//!
//! **Eviction** is by two generations. What is learnt goes into the young one; when that is full it becomes the old one,
//! and what was the old one is forgotten. So a row stays at least until as many bytes of others as a generation holds have
//! come after it. What is forgotten is freed bit by bit, as many bytes at a time as are learnt: to free a generation at once
//! would hold up a thread that serves requests for tens of milliseconds.
//!
//! The generations together hold 64 MiB, with what is yet to be freed: up to 140 000 rows of 256 bytes under short keys.
//! Rows over 16 KiB are not kept: looking one up costs little beside copying it, and it would push out many small ones.
//!
//! Invariants:
//!
//! * Of a row that is kept, the cache has what the engine has, or what the batch that was last learnt puts there.
//! * A batch that was learnt is in the engine before the next read: scans go past the cache. If it does not get there,
//!   nobody reads through this cache again: its owner gives it away with the batch, and takes it back once that is written.
//! * A key is in one generation at most. Neither exceeds its bytes, nor does the young one with what is yet to be freed, by
//!   more than a row.
//! * Nothing walks over the tables, whose hash is seeded by the process: what is evicted depends on the reads and batches
//!   alone. Keys are chosen by clients, so the hash must be one they cannot foresee.
//!
//! One hit in 64, the first included, is compared with the engine in every build: that costs a 64th of what the hits save,
//! and finds out, in simulations and anywhere else, that somebody else has changed current rows.
//!
//! Left out: other families: a put without a session reads none, and a session's rows are few. What is kept survives
//! neither a restart nor another store number.

use std::collections::{HashMap, hash_map};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::engine::{EngineError, Family, Order, Read, Span, Visit};
use crate::overlay::OwnWrites;

/// Bytes of one of the two generations.
const GENERATION_BYTES_MAX: usize = 32 << 20;
/// Bytes of a row that is kept, with all it costs.
const ROW_BYTES_MAX: usize = 16 << 10;
/// What a row costs beside key and value: its place in a table that may be half empty, and two or three allocations.
const ROW_OVERHEAD_BYTES: usize = 180;
/// One of so many hits is compared with the engine.
const HITS_PER_CHECK: u64 = 64;

/// See the file's head.
pub struct RowCache {
    young: Generation,
    old: Generation,
    /// What is forgotten and yet to be freed.
    forgotten: hash_map::IntoIter<Box<[u8]>, Option<Bytes>>,
    generation_bytes_max: usize,
    row_bytes_max: usize,
    hits: u64,
}

impl Default for RowCache {
    /// An empty one.
    fn default() -> RowCache {
        RowCache::within(GENERATION_BYTES_MAX, ROW_BYTES_MAX)
    }
}

impl RowCache {
    /// An empty one with these bounds; a row is within those of a generation.
    pub(crate) fn within(generation_bytes_max: usize, row_bytes_max: usize) -> RowCache {
        RowCache {
            young: Generation::default(),
            old: Generation::default(),
            forgotten: HashMap::new().into_iter(),
            generation_bytes_max,
            row_bytes_max: row_bytes_max.min(generation_bytes_max),
            hits: 0,
        }
    }

    /// The state of `engine`, read through the cache.
    pub fn over<'a>(&'a mut self, engine: &'a dyn Read) -> CachedRead<'a> {
        CachedRead { engine, cache: Mutex::new(self) }
    }

    /// Takes over the rows of a batch that is about to be written.
    pub fn learn(&mut self, writes: OwnWrites) {
        for (key, row) in writes.into_family(Family::Current) {
            self.keep(key.into_boxed_slice(), row);
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.young.rows.is_empty() && self.old.rows.is_empty()
    }

    /// The row under `key`; `Some(None)` when it is known to be absent.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.young.rows.get(key).or_else(|| self.old.rows.get(key)).cloned()
    }

    /// Replaces what is kept of `key`.
    fn keep(&mut self, key: Box<[u8]>, row: Option<Bytes>) {
        let bytes = bytes_of(key.len(), row.as_ref());
        if bytes > self.row_bytes_max {
            self.old.remove(&key);
            self.young.remove(&key);
            return;
        }
        if self.young.bytes + bytes > self.generation_bytes_max {
            let next = Generation::for_as_many_as(&self.young);
            let forgotten = std::mem::replace(&mut self.old, std::mem::replace(&mut self.young, next));
            self.forgotten = forgotten.rows.into_iter();
        }
        // What the young one has the old one has not: it need not be asked.
        self.young.insert(key, row, |key| self.old.remove(key));
        self.free(bytes);
    }

    /// Frees so many bytes of what is forgotten, up to the end of a row.
    fn free(&mut self, bytes: usize) {
        let mut freed = 0;
        while freed < bytes
            && let Some((key, row)) = self.forgotten.next()
        {
            freed += bytes_of(key.len(), row.as_ref());
        }
    }

    /// Counts a hit; whether it is to be compared with the engine.
    fn checks_hit(&mut self) -> bool {
        self.hits += 1;
        self.hits % HITS_PER_CHECK == 1
    }
}

/// What was learnt between two changes of generations.
#[derive(Default)]
struct Generation {
    rows: HashMap<Box<[u8]>, Option<Bytes>>,
    bytes: usize,
}

impl Generation {
    /// An empty one whose table need not grow for as many rows.
    fn for_as_many_as(other: &Generation) -> Generation {
        Generation { rows: HashMap::with_capacity(other.rows.len()), bytes: 0 }
    }

    /// Calls `if_new` with a key it has not yet, before it has it.
    fn insert(&mut self, key: Box<[u8]>, row: Option<Bytes>, if_new: impl FnOnce(&[u8])) {
        let key_bytes = key.len();
        self.bytes += bytes_of(key_bytes, row.as_ref());
        match self.rows.entry(key) {
            hash_map::Entry::Occupied(mut kept) => {
                self.bytes -= bytes_of(key_bytes, kept.insert(row).as_ref());
            }
            hash_map::Entry::Vacant(place) => {
                if_new(place.key().as_ref());
                place.insert(row);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(row) = self.rows.remove(key) {
            self.bytes -= bytes_of(key.len(), row.as_ref());
        }
    }
}

/// What a row costs.
fn bytes_of(key_bytes: usize, row: Option<&Bytes>) -> usize {
    key_bytes + row.map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES
}

/// A state as the engine holds it, whose current rows are first looked for in a cache.
pub struct CachedRead<'a> {
    engine: &'a dyn Read,
    /// A lock, because [`Read`] is for several threads; nobody waits for it.
    cache: Mutex<&'a mut RowCache>,
}

impl Read for CachedRead<'_> {
    /// # Errors
    /// The engine cannot be read, or has another row than the cache.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if family != Family::Current {
            return self.engine.get(family, key);
        }
        // A panic while it is held ends the batch, and the cache goes with that.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = cache.get(key) {
            if cache.checks_hit() && self.engine.get(family, key)? != row {
                return Err(EngineError::Corrupt("a current row is not the one that was written last".into()));
            }
            return Ok(row);
        }
        let row = self.engine.get(family, key)?;
        cache.keep(key.into(), row.clone());
        Ok(row)
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        self.engine.scan(family, span, order, visit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::memory::MemoryEngine;
    use crate::engine::{Batch, Durability, Engine};
    use crate::overlay::Overlay;

    /// A key, and the bytes of its row, if it has one.
    fn changes() -> impl Strategy<Value = (Vec<u8>, Option<usize>)> {
        (prop::collection::vec(0..3u8, 1..3), prop::option::of(0..200usize))
    }

    /// What the bounds and the file's head say of it.
    fn holds(cache: &RowCache, written: &BTreeMap<Vec<u8>, Option<Bytes>>) -> Result<(), TestCaseError> {
        for generation in [&cache.young, &cache.old] {
            prop_assert!(generation.bytes <= cache.generation_bytes_max);
            let counted: usize = generation.rows.iter().map(|(key, row)| bytes_of(key.len(), row.as_ref())).sum();
            prop_assert_eq!(generation.bytes, counted);
        }
        let unfreed = cache.young.bytes + cache.forgotten.len() * ROW_OVERHEAD_BYTES;
        prop_assert!(unfreed <= cache.generation_bytes_max + cache.row_bytes_max);
        for (key, row) in written {
            let twice = cache.young.rows.contains_key(key.as_slice()) && cache.old.rows.contains_key(key.as_slice());
            prop_assert!(!twice, "in both generations: {:?}", key);
            if let Some(kept) = cache.get(key) {
                prop_assert_eq!(&kept, row, "{:?}", key);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_written_last(
            changes in prop::collection::vec(changes(), 1..60),
            generation_max in prop::sample::select(vec![100usize, 400, 1000, 1 << 20]),
            row_max in prop::sample::select(vec![200usize, 300, 1 << 20]),
        ) {
            let mut cache = RowCache::within(generation_max, row_max);
            let mut written = BTreeMap::new();
            for (key, bytes) in changes {
                let row = bytes.map(|bytes| Bytes::from(vec![7; bytes]));
                cache.keep(key.as_slice().into(), row.clone());
                if bytes_of(key.len(), row.as_ref()) <= cache.row_bytes_max {
                    prop_assert_eq!(cache.get(&key), Some(row.clone()));
                }
                written.insert(key, row);
                holds(&cache, &written)?;
            }
        }
    }

    /// Writes a row past the cache.
    fn write(engine: &MemoryEngine, family: Family, key: &[u8], row: &[u8]) {
        let mut batch = Batch::new();
        batch.put(family, key, row);
        engine.write(&batch, Durability::NoSync).expect("memory does not fail");
    }

    fn get(cache: &mut RowCache, engine: &MemoryEngine, family: Family, key: &[u8]) -> Option<Bytes> {
        cache.over(engine).get(family, key).expect("the cache is exact")
    }

    #[test]
    fn rows_are_learnt_from_batches_and_from_misses() {
        let (engine, mut cache) = (MemoryEngine::new(), RowCache::default());
        write(&engine, Family::Current, b"there", b"before");
        let mut view = Overlay::new(&engine);
        view.put(Family::Current, b"put".to_vec(), b"row".to_vec());
        view.delete(Family::Current, b"deleted".to_vec());
        view.put(Family::State, b"other".to_vec(), b"row".to_vec());
        let (batch, writes) = view.into_parts();
        cache.learn(writes);
        engine.write(&batch, Durability::NoSync).expect("memory does not fail");
        let row = |text: &'static str| Some(Bytes::from(text));
        let keys = ["put", "deleted", "other", "there", "absent"];
        let kept = |cache: &RowCache| keys.map(|key| cache.get(key.as_bytes()));
        assert_eq!(kept(&cache), [Some(row("row")), Some(None), None, None, None]);
        assert_eq!(get(&mut cache, &engine, Family::Current, b"there"), row("before"));
        assert_eq!(get(&mut cache, &engine, Family::Current, b"absent"), None);
        assert_eq!(kept(&cache), [Some(row("row")), Some(None), None, Some(row("before")), Some(None)]);
    }

    #[test]
    fn only_current_rows_are_kept() {
        let (engine, mut cache) = (MemoryEngine::new(), RowCache::default());
        for row in ["one", "two"] {
            write(&engine, Family::State, b"key", row.as_bytes());
            assert_eq!(get(&mut cache, &engine, Family::State, b"key"), Some(Bytes::from(row)));
        }
        assert!(cache.is_empty());
    }

    #[test]
    fn a_row_that_was_changed_by_another_is_found_out() {
        let (engine, mut cache) = (MemoryEngine::new(), RowCache::default());
        write(&engine, Family::Current, b"key", b"one");
        // A miss, and the hit that is compared.
        for _ in 0..2 {
            assert_eq!(get(&mut cache, &engine, Family::Current, b"key"), Some(Bytes::from("one")));
        }
        write(&engine, Family::Current, b"key", b"two");
        let found_out = |cache: &mut RowCache| cache.over(&engine).get(Family::Current, b"key").is_err();
        let hits = (1..=HITS_PER_CHECK).find(|_| found_out(&mut cache));
        assert_eq!(hits, Some(HITS_PER_CHECK));
    }
}
