//! An engine in memory with a crash model: what simulation and tests run on.
//!
//! It keeps the visible maps, and beside them what a disk would hold: the state as of the last sync, and the batches
//! written since. [`MemoryEngine::crash`] gives back an engine as it would be found after a power cut: the synced
//! state plus some prefix of the batches after it, the last of them possibly torn and therefore gone.
//!
//! Invariants:
//!
//! * `durable` + `unsynced` replayed in order is `visible`.
//! * A crash loses only batches after the last sync, and always a suffix of them.
//!
//! Left out: time. The writer waits as long as [`Engine::sync_delay`] says.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::engine::{
    Batch, Change, Durability, Engine, EngineError, Family, Manifest, Order, Read, Rewritten, Span, Usage, Visit,
};

type Maps = BTreeMap<Family, Arc<BTreeMap<Vec<u8>, Bytes>>>;

/// See the file's head. Clones share one state, as two handles of one database do.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    // A lock, because readers on any thread share the maps with the one writer; held for single calls only.
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    visible: Maps,
    durable: Maps,
    unsynced: Vec<Batch>,
    holds_back: bool,
    sync_delay: Option<Duration>,
}

impl Disk {
    /// Replayed, not copied: a copy would be shared with what is visible, and each write after it cost a whole family.
    fn sync(&mut self) {
        for batch in self.unsynced.drain(..) {
            replay(&mut self.durable, &batch);
        }
    }
}

impl MemoryEngine {
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// A disk whose syncs take `delay`.
    pub fn with_sync_delay(delay: Duration) -> MemoryEngine {
        let engine = MemoryEngine::default();
        engine.set_sync_delay(delay);
        engine
    }

    /// Lets syncs that begin from now on take `delay`.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.lock().sync_delay = Some(delay);
    }

    /// Makes it behave as an engine whose background work has fallen behind, or no longer.
    pub fn hold_back(&self, holds_back: bool) {
        self.lock().holds_back = holds_back;
    }

    /// How many batches a crash could lose now.
    pub fn unsynced_batches(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// The engine as found after a power cut that let `kept` of the un-synced batches reach the disk whole. The next
    /// one is torn: its record fails its checksum, so nothing of it is seen.
    ///
    /// Handles of the engine from before keep their state and share nothing with the new one.
    pub fn crash(&self, kept: usize) -> MemoryEngine {
        let disk = self.lock();
        let mut visible = disk.durable.clone();
        for batch in disk.unsynced.iter().take(kept) {
            replay(&mut visible, batch);
        }
        let (durable, sync_delay) = (visible.clone(), disk.sync_delay);
        let found = Disk { visible, durable, unsynced: Vec::new(), holds_back: false, sync_delay };
        MemoryEngine { disk: Arc::new(Mutex::new(found)) }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // A panic while the lock is held leaves maps that are still whole: each change is one insert or remove.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for MemoryEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(get(&self.lock().visible, family, key))
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        let map = self.lock().visible.get(&family).cloned();
        scan(map, span, order, visit);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        let mut disk = self.lock();
        replay(&mut disk.visible, batch);
        disk.unsynced.push(batch.clone());
        match durability {
            Durability::Sync => disk.sync(),
            Durability::NoSync => {}
        }
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn Read> {
        Box::new(MemorySnapshot { maps: self.lock().visible.clone() })
    }

    fn flush(&self) -> Result<(), EngineError> {
        let mut disk = self.lock();
        disk.sync();
        Ok(())
    }

    fn remove(&self, family: Family, span: &Span) -> Result<(), EngineError> {
        let mut batch = Batch::new();
        self.scan(family, span, Order::Ascending, &mut |key, _| {
            batch.delete(family, key);
            Visit::Next
        })?;
        self.write(&batch, Durability::NoSync)
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        Ok(Usage::default())
    }

    fn rewrite(&self, _family: Family, _from: &[u8], _room: u64) -> Result<Rewritten, EngineError> {
        Ok(Rewritten::default())
    }

    fn sync_delay(&self) -> Option<Duration> {
        self.lock().sync_delay
    }

    fn manifest_since(&self, _known: Manifest) -> Result<Option<Manifest>, EngineError> {
        Ok(None)
    }

    fn holds_back(&self) -> Result<bool, EngineError> {
        Ok(self.lock().holds_back)
    }

    fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

struct MemorySnapshot {
    maps: Maps,
}

impl Read for MemorySnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(get(&self.maps, family, key))
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        scan(self.maps.get(&family).cloned(), span, order, visit);
        Ok(())
    }
}

fn get(maps: &Maps, family: Family, key: &[u8]) -> Option<Bytes> {
    maps.get(&family)?.get(key).cloned()
}

fn scan(
    map: Option<Arc<BTreeMap<Vec<u8>, Bytes>>>,
    span: &Span,
    order: Order,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) {
    let Some(map) = map.filter(|_| !span.is_empty()) else { return };
    let to = span.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = map.range::<[u8], _>((Bound::Included(span.from.as_slice()), to));
    while let Some((key, value)) = match order {
        Order::Ascending => rows.next(),
        Order::Descending => rows.next_back(),
    } {
        if visit(key, value) == Visit::Stop {
            return;
        }
    }
}

fn replay(maps: &mut Maps, batch: &Batch) {
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => {
                family_mut(maps, family).insert(key.to_vec(), Bytes::copy_from_slice(value));
            }
            Change::Delete { family, key } => {
                family_mut(maps, family).remove(key);
            }
            Change::DeleteRange { family, from, to } => {
                let map = family_mut(maps, family);
                let gone: Vec<Vec<u8>> = match from < to {
                    true => map
                        .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
                        .map(|(key, _)| key.clone())
                        .collect(),
                    false => Vec::new(),
                };
                for key in gone {
                    map.remove(&key);
                }
            }
        }
    }
}

fn family_mut(maps: &mut Maps, family: Family) -> &mut BTreeMap<Vec<u8>, Bytes> {
    Arc::make_mut(maps.entry(family).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(Family::Node, key, b"v");
        batch
    }

    fn keys(engine: &MemoryEngine) -> String {
        let mut keys = String::new();
        let all = Span { from: Vec::new(), to: None };
        engine
            .scan(Family::Node, &all, Order::Ascending, &mut |key, _| {
                keys.push_str(&String::from_utf8_lossy(key));
                Visit::Next
            })
            .unwrap();
        keys
    }

    #[test]
    fn a_crash_loses_a_suffix_of_what_was_not_synced() {
        let engine = MemoryEngine::new();
        engine.write(&put(b"a"), Durability::NoSync).unwrap();
        engine.write(&put(b"b"), Durability::Sync).unwrap();
        engine.write(&put(b"c"), Durability::NoSync).unwrap();
        engine.write(&put(b"d"), Durability::NoSync).unwrap();
        assert_eq!(engine.unsynced_batches(), 2);
        assert_eq!([0, 1, 2].map(|kept| keys(&engine.crash(kept))), ["ab", "abc", "abcd"]);
        assert_eq!(keys(&engine), "abcd", "the crashed engine's handle is not the new one");
    }

    #[test]
    fn a_snapshot_does_not_move() {
        let engine = MemoryEngine::new();
        engine.write(&put(b"a"), Durability::Sync).unwrap();
        let snapshot = engine.snapshot();
        engine.write(&put(b"b"), Durability::Sync).unwrap();
        assert_eq!(snapshot.get(Family::Node, b"b"), Ok(None));
        assert_eq!(keys(&engine), "ab");
    }
}
