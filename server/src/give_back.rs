//! Giving room on disk back: from when on it is worth it, and the doing, a little at a time.
//!
//! What is deleted, purged, swept or replaced takes its room until RocksDB merges the tables it stands in, which it
//! does only while enough is written; and what is written stays in the write-ahead log until the memtables are flushed.
//! So now and then the node looks at what the engine takes. It flushes when the log or what is dead is worth it, then
//! goes through the families that are worth it, most dead bytes first, and rewrites their tables portion by portion.
//!
//! With room on the disk, a family is worth it when a third of its tables is dead: a dead byte costs at most two
//! living ones that are written anew, and tables settle at one and a half times what lives in them, or 16 MiB more.
//! Below the floor of free space the node looks more often, and little is worth it: this is how a full node that
//! deletes and compacts comes to take puts again.
//!
//! The floor is also the room this needs. Merging writes the new tables before it removes the old ones; RocksDB is set
//! to merge less than 200 MiB at a time (`store/src/engine/rocks.rs`), the default floor is 256 MiB, and a portion of
//! tables that have more bytes than are free is left as it is. A flush writes no more than the log holds, which it
//! frees.
//!
//! Invariants:
//!
//! * One step at a time, and one portion a step; it waits while the engine holds writes back.
//! * After a portion as long a pause as it takes to write it at the rate of bulk writes: it must not delay a vote.
//! * What a pass could not give back (a snapshot still sees it) is not worth the next one.
//!
//! Left out: measuring free space (`membership.rs`), and how the engine rewrites.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::info;
use trefoil_store::engine::{Engine, EngineError, Family, FamilyUsage, Usage};
use trefoil_world::clock::{self, Instant};
use trefoil_world::task;

use crate::health::Health;

/// From when on giving back is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Worth {
    /// From look to look.
    pause: Duration,
    /// Bytes of the log.
    log_bytes: u64,
    /// Dead bytes of a family, at least.
    dead_bytes: u64,
    /// And at least this part of its tables; `u64::MAX`: any.
    dead_part: u64,
}

const WITH_ROOM: Worth =
    Worth { pause: Duration::from_secs(10), log_bytes: 16 << 20, dead_bytes: 16 << 20, dead_part: 3 };
const BELOW_FLOOR: Worth =
    Worth { pause: Duration::from_secs(1), log_bytes: 4 << 20, dead_bytes: 1 << 20, dead_part: u64::MAX };

impl Worth {
    fn flush(self, usage: &Usage) -> bool {
        let ranges = |family: &FamilyUsage| family.unflushed_ranges && family.table_bytes >= self.dead_bytes;
        usage.log_bytes >= self.log_bytes || usage.families.iter().any(ranges)
    }

    fn rewrite(self, family: &FamilyUsage, stuck: u64) -> bool {
        let fresh = family.dead_bytes.saturating_sub(stuck);
        fresh >= self.dead_bytes.max(family.table_bytes / self.dead_part)
    }
}

/// Dead bytes that passes have left, per family.
#[derive(Debug, Default)]
struct Stuck(BTreeMap<Family, u64>);

impl Stuck {
    /// What became fewer by itself is not stuck.
    fn note(&mut self, usage: &Usage) {
        for family in &usage.families {
            let stuck = self.0.entry(family.family).or_default();
            *stuck = family.dead_bytes.min(*stuck);
        }
    }

    /// A pass over this family has just ended.
    fn left(&mut self, family: &FamilyUsage) {
        self.0.insert(family.family, family.dead_bytes);
    }

    /// The families that are worth a pass, most dead bytes last.
    fn due(&self, usage: &Usage, worth: Worth) -> Vec<Family> {
        let stuck = |family: Family| self.0.get(&family).copied().unwrap_or(0);
        let mut due: Vec<&FamilyUsage> =
            usage.families.iter().filter(|family| worth.rewrite(family, stuck(family.family))).collect();
        due.sort_by_key(|family| family.dead_bytes);
        due.iter().map(|family| family.family).collect()
    }
}

/// See the file's head.
pub struct GiveBack {
    engine: Arc<dyn Engine>,
    health: Arc<Health>,
    bytes_per_second: u64,
    // Held while a step is under way.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stuck: Stuck,
    looked: Option<Instant>,
    /// The families this look found worth a pass; the last is under way.
    due: Vec<Family>,
    /// Where the pass over it goes on, when, and how many bytes it has rewritten.
    from: Vec<u8>,
    not_before: Option<Instant>,
    rewritten: u64,
}

impl GiveBack {
    pub fn new(engine: Arc<dyn Engine>, health: Arc<Health>, bytes_per_second: u64) -> GiveBack {
        GiveBack { engine, health, bytes_per_second, state: Mutex::default() }
    }

    /// Does the next bit, if it is time for it. May take seconds.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn step(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock().await;
        let worth = if self.health.disk_full() { BELOW_FLOOR } else { WITH_ROOM };
        match state.due.last().copied() {
            Some(family) if state.goes_on() && !self.engine.holds_back()? => self.rewrite(&mut state, family).await,
            None if state.looks_again(worth) && !self.engine.holds_back()? => self.look(&mut state, worth).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn look(&self, state: &mut State, worth: Worth) -> Result<(), EngineError> {
        state.looked = Some(clock::now());
        let mut usage = self.aside(|engine| engine.usage()).await?;
        state.stuck.note(&usage);
        if worth.flush(&usage) || !state.stuck.due(&usage, worth).is_empty() {
            usage = self.aside(|engine| engine.flush().and_then(|()| engine.usage())).await?;
        }
        state.due = state.stuck.due(&usage, worth);
        Ok(())
    }

    async fn rewrite(&self, state: &mut State, family: Family) -> Result<(), EngineError> {
        let (began, from, room) = (clock::now(), std::mem::take(&mut state.from), self.health.free_space());
        let rewritten = self.aside(move |engine| engine.rewrite(family, &from, room)).await?;
        state.rewritten += rewritten.bytes;
        let takes = Duration::from_secs_f64(rewritten.bytes as f64 / self.bytes_per_second as f64);
        state.not_before = Some(began + takes);
        match rewritten.next {
            Some(next) => {
                state.from = next;
                Ok(())
            }
            None => self.end_pass(state, family).await,
        }
    }

    async fn end_pass(&self, state: &mut State, family: Family) -> Result<(), EngineError> {
        let usage = self.aside(|engine| engine.usage()).await?;
        state.due.pop();
        let bytes = std::mem::take(&mut state.rewritten);
        if let Some(left) = usage.families.iter().find(|left| left.family == family) {
            info!(
                "rewrote {bytes} bytes of {}: {} are left, of which {} dead",
                family.name(),
                left.table_bytes,
                left.dead_bytes
            );
            state.stuck.left(left);
        }
        Ok(())
    }

    /// Asks the engine for what may take long.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let engine = self.engine.clone();
        task::blocking(move || work(engine.as_ref())).await.map_err(|error| EngineError::Io(error.to_string()))?
    }
}

impl State {
    fn goes_on(&self) -> bool {
        self.not_before.is_none_or(|at| clock::now() >= at)
    }

    fn looks_again(&self, worth: Worth) -> bool {
        self.looked.is_none_or(|at| clock::now().duration_since(at) >= worth.pause)
    }
}

#[cfg(test)]
mod tests {
    use trefoil_store::engine::rocks::RocksEngine;
    use trefoil_store::engine::{Batch, Durability};

    use super::*;

    const MB: u64 = 1 << 20;
    /// More than any disk has.
    const ALWAYS_FULL: u64 = 9_000_000_000_000_000_000;

    fn family(family: Family, table_bytes: u64, dead_bytes: u64) -> FamilyUsage {
        FamilyUsage { family, table_bytes: table_bytes * MB, dead_bytes: dead_bytes * MB, unflushed_ranges: false }
    }

    #[test]
    fn what_is_worth_a_pass() {
        let usage = |families: &[FamilyUsage]| Usage { log_bytes: 0, families: families.to_vec() };
        let (index, changes) = (Family::Index, Family::Changes);
        let none: &[Family] = &[];
        let cases: [(&str, Usage, &[Family], &[Family]); 6] = [
            ("nothing dead", usage(&[family(index, 100, 0)]), none, none),
            ("little", usage(&[family(index, 20, 15)]), none, &[index]),
            ("enough, of little", usage(&[family(index, 20, 16)]), &[index], &[index]),
            ("enough, of much", usage(&[family(index, 900, 299)]), none, &[index]),
            ("a third of much", usage(&[family(index, 900, 300)]), &[index], &[index]),
            (
                "most last",
                usage(&[family(index, 90, 50), family(changes, 90, 40)]),
                &[changes, index],
                &[changes, index],
            ),
        ];
        for (what, usage, with_room, below_floor) in cases {
            let stuck = Stuck::default();
            assert_eq!(stuck.due(&usage, WITH_ROOM), with_room, "{what}, with room");
            assert_eq!(stuck.due(&usage, BELOW_FLOOR), below_floor, "{what}, below the floor");
        }
    }

    #[test]
    fn what_a_pass_leaves_is_not_worth_another() {
        let usage = |dead| Usage { log_bytes: 0, families: vec![family(Family::Index, 100, dead)] };
        let mut stuck = Stuck::default();
        stuck.left(&family(Family::Index, 100, 50));
        let mut due_at = |dead| {
            stuck.note(&usage(dead));
            !stuck.due(&usage(dead), WITH_ROOM).is_empty()
        };
        assert!(!due_at(50) && !due_at(80), "what was left, and a bit more");
        assert!(due_at(84), "a third more");
        assert!(!due_at(10), "it became less by itself");
        assert!(due_at(50), "and now as much is new");
    }

    #[test]
    fn what_is_worth_a_flush() {
        let usage = |log: u64, table_bytes: u64, unflushed_ranges: bool| Usage {
            log_bytes: log * MB,
            families: vec![FamilyUsage { unflushed_ranges, ..family(Family::Log, table_bytes, 0) }],
        };
        let cases = [
            ("nothing", usage(0, 100, false), false, false),
            ("a short log", usage(4, 0, false), false, true),
            ("a long log", usage(16, 0, false), true, true),
            ("a range of a little", usage(0, 1, true), false, true),
            ("a range of much", usage(0, 16, true), true, true),
        ];
        for (what, usage, with_room, below_floor) in cases {
            assert_eq!(WITH_ROOM.flush(&usage), with_room, "{what}, with room");
            assert_eq!(BELOW_FLOOR.flush(&usage), below_floor, "{what}, below the floor");
        }
    }

    /// A database in which 8 MB of rows were deleted, and the health of a node with this floor.
    fn deleted_rows(floor: u64) -> (tempfile::TempDir, Arc<RocksEngine>, Arc<Health>) {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Arc::new(RocksEngine::open(folder.path()).expect("a fresh database"));
        let mut state = 1_u64;
        let mut put = Batch::new();
        let mut delete = Batch::new();
        for number in 0..1024_u32 {
            let words = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()
            });
            let row: Vec<u8> = words.take(1024).flatten().collect();
            put.put(Family::Changes, &number.to_be_bytes(), &row);
            delete.delete(Family::Changes, &number.to_be_bytes());
        }
        engine.write(&put, Durability::Sync).expect("written");
        engine.flush().expect("flushed");
        engine.write(&delete, Durability::Sync).expect("written");
        let health = Arc::new(Health::new(floor));
        health.note_free_space(ALWAYS_FULL / 2);
        (folder, engine, health)
    }

    fn table_bytes(engine: &RocksEngine) -> u64 {
        engine.usage().expect("known").families.iter().map(|family| family.table_bytes).sum()
    }

    #[tokio::test]
    async fn below_the_floor_a_few_steps_give_back_what_is_dead() {
        let (_folder, engine, health) = deleted_rows(ALWAYS_FULL);
        let give_back = GiveBack::new(engine.clone(), health, u64::MAX);
        let before = table_bytes(&engine);
        assert!(before >= 8 * MB, "expected the rows to be in tables, not {before} bytes");
        // One to look, one for the only portion.
        for _ in 0..2 {
            give_back.step().await.expect("a sound database");
        }
        let after = table_bytes(&engine);
        assert!(after < MB, "expected {before} bytes to be given back, not to become {after}");
    }

    #[tokio::test]
    async fn with_room_so_little_stays_as_it_is() {
        let (_folder, engine, health) = deleted_rows(0);
        let give_back = GiveBack::new(engine.clone(), health, u64::MAX);
        let before = table_bytes(&engine);
        for _ in 0..2 {
            give_back.step().await.expect("a sound database");
        }
        assert_eq!(table_bytes(&engine), before);
    }
}
