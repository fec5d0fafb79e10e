//! What RocksDB says of the room it takes: its properties, its list of tables, and the files of its log.
//!
//! Left out: what follows from the list of tables (`engine/tables.rs`).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{LiveFile, Range};

use crate::engine::rocks::{RocksEngine, error, handle};
use crate::engine::tables::{Table, dead_bytes};
use crate::engine::{EngineError, Family, FamilyUsage};

/// Bytes of the tables of each family in which ranges were removed since the last flush: RocksDB does not say.
#[derive(Default)]
pub(super) struct UnflushedRanges([AtomicU64; Family::ALL.len()]);

impl UnflushedRanges {
    fn of(&self, family: Family) -> &AtomicU64 {
        &self.0[family as usize]
    }

    /// Once the removal is in the history: before, a flush might miss it.
    fn note(&self, family: Family, bytes: u64) {
        self.of(family).fetch_add(bytes, Ordering::AcqRel);
    }

    /// Before the flush: what comes while it runs may be left out of it.
    pub(super) fn forget(&self) {
        self.0.iter().for_each(|family| family.store(0, Ordering::Release));
    }
}

impl RocksEngine {
    pub(super) fn family_usage(&self, family: Family, files: &[LiveFile]) -> Result<FamilyUsage, EngineError> {
        let property = |name: &str| self.property(family, name);
        let in_memory =
            property("rocksdb.num-deletes-active-mem-table")? + property("rocksdb.num-deletes-imm-mem-tables")?;
        let tables = tables_of(family, files);
        Ok(FamilyUsage {
            family,
            table_bytes: tables.iter().map(|table| table.bytes).sum(),
            dead_bytes: dead_bytes(&tables, property("rocksdb.estimate-live-data-size")?, in_memory),
            unflushed_range_bytes: self.ranges.of(family).load(Ordering::Acquire),
        })
    }

    pub(super) fn property(&self, family: Family, name: &str) -> Result<u64, EngineError> {
        let value = self.db.property_int_value_cf(handle(&self.db, family)?, name).map_err(error)?;
        Ok(value.unwrap_or(0))
    }

    /// Bytes of its memtables, at most; 0 when there is nothing in them to flush.
    pub(super) fn memory_bytes(&self, family: Family) -> Result<u64, EngineError> {
        let entries = self.property(family, "rocksdb.num-entries-active-mem-table")?
            + self.property(family, "rocksdb.num-entries-imm-mem-tables")?;
        if entries == 0 { Ok(0) } else { self.property(family, "rocksdb.cur-size-all-mem-tables") }
    }

    /// Takes note of a range that was removed.
    pub(super) fn note_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        let sizes = self.db.get_approximate_sizes_cf(handle(&self.db, family)?, &[Range::new(from, to)]);
        self.ranges.note(family, sizes.into_iter().sum());
        Ok(())
    }
}

/// The tables of a family, of all `files`.
pub(super) fn tables_of(family: Family, files: &[LiveFile]) -> Vec<Table> {
    let of_family = files.iter().filter(|file| file.column_family_name == family.name());
    let table = |file: &LiveFile| Table {
        level: file.level,
        first: file.start_key.clone().unwrap_or_default(),
        last: file.end_key.clone().unwrap_or_default(),
        bytes: file.size as u64,
        entries: file.num_entries,
        deletions: file.num_deletions,
    };
    of_family.map(table).collect()
}

/// Bytes of the write-ahead log's files.
pub(super) fn log_bytes(path: &Path) -> Result<u64, EngineError> {
    let io = |error: std::io::Error| EngineError::Io(format!("{}: {error}", path.display()));
    let mut bytes = 0;
    for file in path.read_dir().map_err(io)? {
        let file = file.map_err(io)?;
        if file.path().extension().is_some_and(|end| end == "log") {
            // One that went meanwhile takes no room.
            bytes += file.metadata().map_or(0, |found| found.len());
        }
    }
    Ok(bytes)
}
