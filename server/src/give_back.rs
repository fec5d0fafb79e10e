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
//! The floor is also the room this needs: a merge writes its tables before it removes those it read. What is free is not
//! all for that: a quarter of the floor, within bounds, is left to the writes that go on meanwhile. A portion or a flush
//! for which the rest is too little is left. Were it begun, it might fill the disk, and end the node.
//!
//! Invariants:
//!
//! * One step at a time, and one portion a step; it waits while the engine holds writes back.
//! * What a portion has written takes turns of bulk writes before the next one begins: it must not delay a vote, and both
//!   together keep to their rate but for one portion.
//! * What a pass could not give back (a snapshot still sees it, or there was too little room) is not worth the next one
//!   until there is more of it, or room enough.
//! * While nobody knows how much disk is free nothing is flushed or rewritten here.
//!
//! Left out: measuring free space (`membership.rs`), and how the engine rewrites and knows what room that takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::info;
use trefoil_store::engine::{Engine, EngineError, Family, FamilyUsage, Usage};
use trefoil_world::clock::{self, Instant};
use trefoil_world::task;

use crate::bulk::Bulk;
use crate::health::Health;

/// What is left free for the writes that go on is a quarter of the floor, but at least this: RocksDB gives a file of its
/// log 18 MiB at once.
const RESERVE_MIN: u64 = 32 << 20;
/// And at most this, which is as much as the log may have.
const RESERVE_MAX: u64 = 64 << 20;
/// Bytes of a turn, and how long a step takes turns.
const TURN_BYTES: u64 = 256 << 10;
const TURNS_MAX: Duration = Duration::from_millis(250);

/// How much of the free space merges and flushes may take.
fn room(free: u64, floor: u64) -> u64 {
    free.saturating_sub((floor / 4).clamp(RESERVE_MIN, RESERVE_MAX))
}

/// From when on giving back is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Worth {
    /// From look to look.
    pause: Duration,
    /// Bytes of the log.
    log_bytes: u64,
    /// Dead bytes of a family, at least.
    dead_bytes: u64,
    /// And at least this part of its tables.
    dead_part: u64,
}

const WITH_ROOM: Worth =
    Worth { pause: Duration::from_secs(10), log_bytes: 16 << 20, dead_bytes: 16 << 20, dead_part: 3 };
const BELOW_FLOOR: Worth =
    Worth { pause: Duration::from_secs(1), log_bytes: 4 << 20, dead_bytes: 1 << 20, dead_part: 32 };

impl Worth {
    fn flush(self, usage: &Usage) -> bool {
        let ranges = |family: &FamilyUsage| self.enough(family.unflushed_range_bytes, family);
        usage.log_bytes >= self.log_bytes || usage.families.iter().any(ranges)
    }

    fn rewrite(self, family: &FamilyUsage, stuck: u64) -> bool {
        self.enough(family.dead_bytes.saturating_sub(stuck), family)
    }

    fn enough(self, dead_bytes: u64, family: &FamilyUsage) -> bool {
        dead_bytes >= self.dead_bytes.max(family.table_bytes / self.dead_part)
    }
}

/// What passes have left, per family.
#[derive(Debug, Default)]
struct Stuck(BTreeMap<Family, Left>);

#[derive(Clone, Copy, Debug)]
struct Left {
    dead_bytes: u64,
    /// With so much room some of it might not have been left.
    wants: Option<u64>,
}

impl Stuck {
    /// What became fewer by itself is not stuck, nor is what there is room for now.
    fn note(&mut self, usage: &Usage, room: u64) {
        self.0.retain(|_, left| left.wants.is_none_or(|wants| room < wants));
        for family in &usage.families {
            if let Some(left) = self.0.get_mut(&family.family) {
                left.dead_bytes = left.dead_bytes.min(family.dead_bytes);
            }
        }
    }

    /// A pass over this family has just ended, and would have done more with so much room.
    fn left(&mut self, family: &FamilyUsage, wants: Option<u64>) {
        self.0.insert(family.family, Left { dead_bytes: family.dead_bytes, wants });
    }

    /// The families that are worth a pass, most dead bytes last.
    fn due(&self, usage: &Usage, worth: Worth) -> Vec<Family> {
        let stuck = |family: Family| self.0.get(&family).map_or(0, |left| left.dead_bytes);
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
    bulk: Arc<Bulk>,
    // Held while a step is under way.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stuck: Stuck,
    looked: Option<Instant>,
    /// The room that the flush wants which this look could not do.
    flush_wants: Option<u64>,
    /// The families this look found worth a pass; the last is under way.
    due: Vec<Family>,
    pass: Pass,
    /// Bytes that were rewritten and have not taken their turns yet.
    owed: u64,
}

/// How far the pass over a family has come.
#[derive(Debug, Default)]
struct Pass {
    /// Where it goes on.
    from: Vec<u8>,
    /// Bytes it has rewritten.
    bytes: u64,
    /// The least room that a portion wants which it has left.
    wants: Option<u64>,
}

impl GiveBack {
    pub fn new(engine: Arc<dyn Engine>, health: Arc<Health>, bulk: Arc<Bulk>) -> GiveBack {
        GiveBack { engine, health, bulk, state: Mutex::default() }
    }

    /// Does the next bit, if it is time for it. May take seconds.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn step(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock().await;
        let worth = if self.health.disk_full() { BELOW_FLOOR } else { WITH_ROOM };
        if state.owed > 0 {
            self.take_turns(&mut state.owed).await;
            return Ok(());
        }
        match state.due.last().copied() {
            Some(family) if !self.engine.holds_back()? => self.rewrite(&mut state, family).await,
            None if state.looks_again(worth) && !self.engine.holds_back()? => self.look(&mut state, worth).await,
            Some(_) | None => Ok(()),
        }
    }

    fn room(&self) -> u64 {
        room(self.health.free_space(), self.health.free_space_floor())
    }

    async fn look(&self, state: &mut State, worth: Worth) -> Result<(), EngineError> {
        state.looked = Some(clock::now());
        state.flush_wants = None;
        let (room, mut usage) = (self.room(), self.aside(|engine| engine.usage()).await?);
        state.stuck.note(&usage, room);
        if worth.flush(&usage) || !state.stuck.due(&usage, worth).is_empty() {
            if usage.memory_bytes <= room && room > 0 {
                usage = self.aside(|engine| engine.flush().and_then(|()| engine.usage())).await?;
            } else {
                state.flush_wants = Some(usage.memory_bytes.max(1));
            }
        }
        state.due = state.stuck.due(&usage, worth);
        Ok(())
    }

    async fn rewrite(&self, state: &mut State, family: Family) -> Result<(), EngineError> {
        let (from, room) = (std::mem::take(&mut state.pass.from), self.room());
        let rewritten = self.aside(move |engine| engine.rewrite(family, &from, room)).await?;
        state.owed += rewritten.bytes;
        state.pass.bytes += rewritten.bytes;
        state.pass.wants = least(state.pass.wants, rewritten.wants);
        match rewritten.next {
            Some(next) => {
                state.pass.from = next;
                Ok(())
            }
            None => self.end_pass(state, family).await,
        }
    }

    async fn end_pass(&self, state: &mut State, family: Family) -> Result<(), EngineError> {
        let usage = self.aside(|engine| engine.usage()).await?;
        state.due.pop();
        let Pass { bytes, wants, .. } = std::mem::take(&mut state.pass);
        if let Some(left) = usage.families.iter().find(|left| left.family == family) {
            state.stuck.left(left, least(wants, state.flush_wants));
            info!(
                "rewrote {bytes} bytes of {}: {} are left, of which {} dead",
                family.name(),
                left.table_bytes,
                left.dead_bytes
            );
        }
        Ok(())
    }

    /// Takes turns of bulk writes for bytes that were rewritten, for a while.
    async fn take_turns(&self, owed: &mut u64) {
        let until = clock::now() + TURNS_MAX;
        while *owed > 0 && clock::now() < until {
            let bytes = TURN_BYTES.min(*owed);
            self.bulk.turn(bytes).await;
            *owed -= bytes;
        }
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

/// The lesser of two that may not be.
fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

impl State {
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
        FamilyUsage { family, table_bytes: table_bytes * MB, dead_bytes: dead_bytes * MB, unflushed_range_bytes: 0 }
    }

    fn usage_of(families: &[FamilyUsage]) -> Usage {
        Usage { families: families.to_vec(), ..Usage::default() }
    }

    #[test]
    fn what_is_worth_a_pass() {
        let usage = usage_of;
        let (index, changes) = (Family::Index, Family::Changes);
        let none: &[Family] = &[];
        let cases: [(&str, Usage, &[Family], &[Family]); 7] = [
            ("nothing dead", usage(&[family(index, 100, 0)]), none, none),
            ("little", usage(&[family(index, 20, 15)]), none, &[index]),
            ("enough, of little", usage(&[family(index, 20, 16)]), &[index], &[index]),
            ("a bit of much", usage(&[family(index, 960, 29)]), none, none),
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
        let usage = |dead| usage_of(&[family(Family::Index, 100, dead)]);
        let mut stuck = Stuck::default();
        stuck.left(&family(Family::Index, 100, 50), None);
        let mut due_at = |dead| {
            stuck.note(&usage(dead), u64::MAX);
            !stuck.due(&usage(dead), WITH_ROOM).is_empty()
        };
        assert!(!due_at(50) && !due_at(80), "what was left, and a bit more");
        assert!(due_at(84), "a third more");
        assert!(!due_at(10), "it became less by itself");
        assert!(due_at(50), "and now as much is new");
    }

    #[test]
    fn what_is_left_for_want_of_room_is_worth_another_with_room() {
        let usage = usage_of(&[family(Family::Index, 100, 50)]);
        let mut stuck = Stuck::default();
        stuck.left(&family(Family::Index, 100, 50), Some(70 * MB));
        let mut due_with = |room: u64| {
            stuck.note(&usage, room * MB);
            !stuck.due(&usage, WITH_ROOM).is_empty()
        };
        assert_eq!([0, 69, 70].map(&mut due_with), [false, false, true]);
    }

    #[test]
    fn what_is_left_free() {
        let cases = [
            ("a quarter of the floor", 300, 256, 236),
            ("not too much", 300, 4096, 236),
            ("not too little", 300, 0, 268),
            ("less than that", 20, 0, 0),
            ("not known", 0, 256, 0),
        ];
        for (what, free, floor, expected) in cases {
            assert_eq!(room(free * MB, floor * MB) / MB, expected, "{what}");
        }
    }

    #[test]
    fn what_is_worth_a_flush() {
        let usage = |log: u64, table_bytes: u64, ranges: u64| Usage {
            log_bytes: log * MB,
            ..usage_of(&[FamilyUsage { unflushed_range_bytes: ranges * MB, ..family(Family::Log, table_bytes, 0) }])
        };
        let cases = [
            ("nothing", usage(0, 100, 0), false, false),
            ("a short log", usage(4, 0, 0), false, true),
            ("a long log", usage(16, 0, 0), true, true),
            ("a range of a little", usage(0, 16, 1), false, true),
            ("a small range of much", usage(0, 320, 9), false, false),
            ("a range of enough", usage(0, 16, 16), true, true),
            ("a third of much", usage(0, 300, 100), true, true),
        ];
        for (what, usage, with_room, below_floor) in cases {
            assert_eq!(WITH_ROOM.flush(&usage), with_room, "{what}, with room");
            assert_eq!(BELOW_FLOOR.flush(&usage), below_floor, "{what}, below the floor");
        }
    }

    fn give_back(engine: &Arc<RocksEngine>, health: &Arc<Health>) -> GiveBack {
        let bulk = Arc::new(Bulk::new(engine.clone(), u64::MAX));
        GiveBack::new(engine.clone(), health.clone(), bulk)
    }

    /// As many steps as it takes to look, to rewrite the only portion, and to take its turns.
    async fn steps(give_back: &GiveBack) {
        for _ in 0..3 {
            give_back.step().await.expect("a sound database");
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
        let before = table_bytes(&engine);
        assert!(before >= 8 * MB, "expected the rows to be in tables, not {before} bytes");
        steps(&give_back(&engine, &health)).await;
        let after = table_bytes(&engine);
        assert!(after < MB, "expected {before} bytes to be given back, not to become {after}");
    }

    #[tokio::test]
    async fn with_room_so_little_stays_as_it_is() {
        let (_folder, engine, health) = deleted_rows(0);
        let before = table_bytes(&engine);
        steps(&give_back(&engine, &health)).await;
        assert_eq!(table_bytes(&engine), before);
    }

    #[tokio::test(start_paused = true)]
    async fn what_there_is_no_room_for_waits_until_there_is() {
        let (_folder, engine, health) = deleted_rows(ALWAYS_FULL);
        engine.flush().expect("flushed");
        let before = table_bytes(&engine);
        let wants = engine.rewrite(Family::Changes, b"", 0).expect("left").wants.expect("a portion without room");
        assert!(wants >= before, "expected a portion of {before} bytes to take as much room, not {wants}");
        let give_back = give_back(&engine, &health);
        // As when nobody knows, as when all is reserved, and one byte too little.
        for free in [0, RESERVE_MAX, RESERVE_MAX + wants - 1] {
            health.note_free_space(free);
            for _ in 0..2 {
                steps(&give_back).await;
                clock::sleep(BELOW_FLOOR.pause).await;
            }
            assert_eq!(table_bytes(&engine), before, "with {free} bytes free");
            engine.check().expect("nothing has failed");
        }
        health.note_free_space(RESERVE_MAX + wants);
        steps(&give_back).await;
        let after = table_bytes(&engine);
        assert!(after < MB, "expected {before} bytes to be given back once there is room, not to become {after}");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_flushed() {
        let (_folder, engine, health) = deleted_rows(ALWAYS_FULL);
        let memory = engine.usage().expect("known").memory_bytes;
        assert!(memory > 0, "expected the deletes to be in memory");
        health.note_free_space(RESERVE_MAX + memory - 1);
        steps(&give_back(&engine, &health)).await;
        assert_eq!(engine.usage().expect("known").memory_bytes, memory, "expected no flush without room");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_rewritten_takes_turns_of_bulk_writes() {
        let (_folder, engine, health) = deleted_rows(ALWAYS_FULL);
        let bulk = Arc::new(Bulk::new(engine.clone(), MB));
        let give_back = GiveBack::new(engine.clone(), health, bulk.clone());
        let began = clock::now();
        // One to look, one for the only portion.
        for _ in 0..2 {
            give_back.step().await.expect("a sound database");
        }
        assert!(table_bytes(&engine) < MB, "expected the portion to be rewritten at once");
        while give_back.state.lock().await.owed > 0 {
            give_back.step().await.expect("a sound database");
        }
        bulk.turn(0).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(8), "expected 8 MiB at 1 MiB/s to take 8 s, not {took:?}");
    }
}
