//! A snapshot: the state as it was at one moment, for as long as it is held.
//!
//! Invariant: a snapshot goes before the database it is of.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ReadOptions, SnapshotWithThreadMode};

use crate::engine::rocks::{Db, get, scan};
use crate::engine::{EngineError, Family, Order, Read, Span, Visit};

pub(super) struct RocksSnapshot {
    // Dropped before `db`, see `of`.
    snapshot: SnapshotWithThreadMode<'static, Db>,
    db: Arc<Db>,
}

impl RocksSnapshot {
    /// The state of `db` as it is now.
    pub(super) fn of(db: Arc<Db>) -> RocksSnapshot {
        let snapshot = db.snapshot();
        // SAFETY: the snapshot borrows `*db`, which lives on the heap behind an `Arc` that `RocksSnapshot` owns and
        // drops after the snapshot (fields drop in order of declaration).
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, Db>, SnapshotWithThreadMode<'static, Db>>(snapshot)
        };
        RocksSnapshot { snapshot, db }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl Read for RocksSnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        get(&self.db, family, key, &self.options())
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        scan(&self.db, family, span, order, self.options(), visit)
    }
}
