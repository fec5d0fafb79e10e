//! A node's disk: the memory engine and the mark, over the node's lives.
//!
//! When a process is killed, what it wrote is still in the system's memory and will be found. When the machine loses
//! its power, what was synced is found and some prefix of what was not; and of the mark, which is never synced, the
//! newest value, one it had before, or the newest with the slot torn that was being written.
//!
//! A **forgetful** disk is a positive control: it says that it has synced, and after a loss of power shows itself as it
//! was some time before. A run with one must be red.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_jepsen::generator::Dice;
use trefoil_server::disk::{OpenDisk, begin};
use trefoil_server::writer::{MarkKept, MarkSlots, stored_position};
use trefoil_store::engine::Engine;
use trefoil_store::engine::memory::MemoryEngine;
use trefoil_store::mark::{FILE_BYTES, Mark, SLOT_BYTES};

use crate::parameters::Unsynced;

/// The bytes of a mark's file.
type Marks = [u8; FILE_BYTES];

/// What a loss of power took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Batches that were written and not synced.
    pub batches: usize,
    /// A slot of the mark is torn.
    pub torn_mark: bool,
}

/// See the file's head.
pub struct Disk {
    engine: MemoryEngine,
    /// How long a sync takes when nothing is wrong.
    sync: Duration,
    mark: Arc<Mutex<Marks>>,
    /// The mark as it was before: what a loss of power may leave.
    old_mark: Marks,
    /// What a forgetful disk goes back to.
    old_engine: Option<MemoryEngine>,
}

impl Disk {
    /// An empty disk whose syncs take `sync`.
    pub fn new(sync: Duration, forgetful: bool) -> Disk {
        let engine = MemoryEngine::with_sync_delay(sync);
        let mark = Mark::fresh_file(0);
        let old_engine = forgetful.then(|| engine.crash(0));
        Disk { engine, sync, mark: Arc::new(Mutex::new(mark)), old_mark: mark, old_engine }
    }

    /// Another one that holds what this one holds now.
    pub fn copy(&self) -> Disk {
        let mark = self.mark_file();
        let engine = self.engine.crash(self.engine.unsynced_batches());
        engine.set_sync_delay(self.sync);
        Disk { engine, sync: self.sync, mark: Arc::new(Mutex::new(mark)), old_mark: mark, old_engine: None }
    }

    /// An empty one that is as fast.
    pub fn emptied(&self) -> Disk {
        Disk::new(self.sync, false)
    }

    /// Lets syncs that begin from now on take so much longer than they do when nothing is wrong.
    pub fn slow_down(&self, by: Duration) {
        self.engine.set_sync_delay(self.sync + by);
    }

    /// What the node's process sees.
    pub fn engine(&self) -> &MemoryEngine {
        &self.engine
    }

    /// Opens it for a start of the node, as the server's own disk does.
    ///
    /// # Errors
    /// It has lost what was synced, or holds what cannot be read.
    pub fn open(&self) -> Result<OpenDisk, String> {
        let found = self.position()?;
        let mark = self.mark_position()?;
        if mark > found {
            return Err(format!("lost tail: found {found}, mark {mark}"));
        }
        let beginning = begin(&self.engine).map_err(|error| error.to_string())?;
        let position = self.position()?;
        let mark = MarkSlots::open(MarkKept::Memory(self.mark.clone()), beginning.storage.0);
        let mut mark = mark.map_err(|error| error.to_string())?;
        mark.note(position).map_err(|error| error.to_string())?;
        Ok(OpenDisk { engine: Arc::new(self.engine.clone()), mark, position, beginning, lock: None })
    }

    /// The writer's position, of all that was written.
    ///
    /// # Errors
    /// What is stored is malformed.
    pub fn position(&self) -> Result<u64, String> {
        stored_position(&self.engine).map_err(|error| error.to_string())
    }

    /// The position the mark speaks of.
    ///
    /// # Errors
    /// Neither of its slots can be read.
    pub fn mark_position(&self) -> Result<u64, String> {
        Mark::decode_file(&self.mark_file()).map(|mark| mark.position).map_err(|bad| bad.to_string())
    }

    /// The position that would be found after a loss of power now, at least.
    ///
    /// # Errors
    /// What is stored is malformed.
    pub fn durable_position(&self) -> Result<u64, String> {
        stored_position(&self.engine.crash(0)).map_err(|error| error.to_string())
    }

    /// Remembers how it is now, as what a loss of power may leave of what is never synced.
    pub fn remember(&mut self) {
        self.old_mark = self.mark_file();
        if let Some(old) = &mut self.old_engine {
            *old = self.engine.crash(0);
        }
    }

    /// Leaves what a loss of power leaves. Gives what it took.
    pub fn lose_power(&mut self, unsynced: Unsynced, dice: &mut Dice) -> Lost {
        let batches = self.engine.unsynced_batches();
        let kept = match unsynced {
            Unsynced::PartlyKept => dice.below(batches as u64 + 1) as usize,
            Unsynced::AllLost => 0,
        };
        let newest = self.mark_file();
        let torn = torn(newest, self.old_mark);
        let (engine, mark) = match &self.old_engine {
            Some(old) => (old.crash(0), self.old_mark),
            None => (self.engine.crash(kept), *dice.pick(&[newest, self.old_mark, torn])),
        };
        // A fault may have slowed it down, or healed it, since what is left was remembered.
        if let Some(delay) = self.engine.sync_delay() {
            engine.set_sync_delay(delay);
        }
        let torn_mark = mark == torn && ![newest, self.old_mark].contains(&torn);
        self.engine = engine;
        self.old_mark = mark;
        self.mark = Arc::new(Mutex::new(mark));
        Lost { batches: batches - kept, torn_mark }
    }

    fn mark_file(&self) -> Marks {
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mark's file while its newer slot was being written, if one has been since it was `old`.
fn torn(mut newest: Marks, old: Marks) -> Marks {
    if newest != old {
        let written = Mark::next_slot(&newest).other().offset();
        newest[written..written + SLOT_BYTES / 2].fill(0);
    }
    newest
}

#[cfg(test)]
mod tests {
    use trefoil_store::engine::{Batch, Durability, Family, Read};

    use super::*;

    fn write(disk: &Disk, key: &[u8], durability: Durability) {
        let mut batch = Batch::new();
        batch.put(Family::Node, key, b"v");
        disk.engine().write(&batch, durability).expect("memory takes it");
    }

    fn found(disk: &Disk) -> Vec<bool> {
        let has = |key: &[u8]| disk.engine().get(Family::Node, key).expect("readable").is_some();
        vec![has(b"synced"), has(b"unsynced")]
    }

    fn found_after_power_loss(unsynced: Unsynced, seed: u64) -> Vec<bool> {
        let mut disk = Disk::new(Duration::from_millis(1), false);
        write(&disk, b"synced", Durability::Sync);
        write(&disk, b"unsynced", Durability::NoSync);
        let lost = disk.lose_power(unsynced, &mut Dice::new(seed));
        assert_eq!(lost.batches == 0, found(&disk)[1], "what was lost is said");
        assert!(!lost.torn_mark, "no slot was being written");
        found(&disk)
    }

    #[test]
    fn power_takes_only_what_was_not_synced() {
        let seen: Vec<_> = (0..20).map(|seed| found_after_power_loss(Unsynced::PartlyKept, seed)).collect();
        assert!(seen.contains(&vec![true, true]) && seen.contains(&vec![true, false]));
        assert!(seen.iter().all(|found| found[0]), "what was synced is there");
        assert!((0..20).all(|seed| found_after_power_loss(Unsynced::AllLost, seed) == [true, false]));
    }

    #[test]
    fn a_slow_disk_is_slow_also_after_a_loss_of_power_and_its_copy_is_not() {
        let ms = Duration::from_millis;
        let mut disk = Disk::new(ms(1), false);
        disk.slow_down(ms(100));
        disk.lose_power(Unsynced::AllLost, &mut Dice::new(1));
        assert_eq!(disk.engine().sync_delay(), Some(ms(101)));
        assert_eq!(disk.copy().engine().sync_delay(), Some(ms(1)));
        disk.slow_down(Duration::ZERO);
        assert_eq!(disk.engine().sync_delay(), Some(ms(1)));
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let disk = Disk::new(Duration::from_millis(1), false);
        write(&disk, b"unsynced", Durability::NoSync);
        let copy = disk.copy();
        write(&disk, b"synced", Durability::Sync);
        assert_eq!(found(&copy), [false, true]);
        assert_eq!((found(&disk), found(&disk.emptied())), (vec![true; 2], vec![false; 2]));
    }

    #[test]
    fn a_forgetful_disk_forgets_what_it_has_synced() {
        let mut disk = Disk::new(Duration::from_millis(1), true);
        write(&disk, b"unsynced", Durability::Sync);
        disk.remember();
        write(&disk, b"synced", Durability::Sync);
        disk.lose_power(Unsynced::PartlyKept, &mut Dice::new(1));
        assert_eq!(found(&disk), [false, true]);
    }
}
