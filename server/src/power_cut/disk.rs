//! A node's disk over several lives: a memory engine and a mark, of which a cut keeps what a power cut may.
//!
//! Invariant: what was synced is kept, and of what was not some prefix; the mark may be the one of an earlier moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use trefoil_store::engine::memory::MemoryEngine;
use trefoil_store::mark::{FILE_BYTES, Mark};

use super::dice::Dice;
use crate::disk::{OpenDisk, begin};
use crate::writer::{MarkKept, MarkSlots, stored_position};

/// One node's disk between lives.
pub(super) struct Disk {
    pub(super) engine: MemoryEngine,
    pub(super) slots: Arc<Mutex<[u8; FILE_BYTES]>>,
    /// The mark as it stood at some moment of the life before.
    pub(super) old_mark: [u8; FILE_BYTES],
}

impl Disk {
    pub(super) fn new(dice: &mut Dice) -> Disk {
        let delay = Duration::from_micros(200 + dice.below(20_000));
        let fresh = Mark::fresh_file(0);
        Disk { engine: MemoryEngine::with_sync_delay(delay), slots: Arc::new(Mutex::new(fresh)), old_mark: fresh }
    }

    /// What a power cut leaves.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        let kept = dice.below(self.engine.unsynced_batches() as u64 + 1) as usize;
        self.engine = self.engine.crash(kept);
        let newest = *self.slots.lock().unwrap();
        let found = if dice.below(2) == 0 { newest } else { self.old_mark };
        self.slots = Arc::new(Mutex::new(found));
        self.old_mark = found;
    }

    pub(super) fn open(&self) -> Result<OpenDisk, String> {
        let found = stored_position(&self.engine).map_err(|error| error.to_string())?;
        let mark = Mark::decode_file(self.slots.lock().unwrap().as_ref()).map_err(|bad| bad.to_string())?;
        if mark.position > found {
            return Err(format!("lost tail: found {found}, mark {}", mark.position));
        }
        let beginning = begin(&self.engine).map_err(|error| error.to_string())?;
        let position = stored_position(&self.engine).map_err(|error| error.to_string())?;
        let mark = MarkSlots::open(MarkKept::Memory(self.slots.clone()), beginning.storage.0);
        let mark = mark.map_err(|error| error.to_string())?;
        let engine = Arc::new(self.engine.clone());
        Ok(OpenDisk { engine, mark, position, beginning, lock: None })
    }
}
