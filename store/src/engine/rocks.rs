//! The production engine: one RocksDB, one column family per [`Family`], one write-ahead log.
//!
//! The write-ahead log is never disabled, recycled or reordered, so what RocksDB recovers is a prefix of the history
//! (point-in-time recovery). Opening happens in two steps: [`Inspection::open`] replays the log read-only and changes
//! nothing on disk, so that the caller can check who the directory belongs to and whether its tail is all there;
//! [`RocksEngine::open`] then opens it for writing.
//!
//! How it is set, and what room it takes for that, is in `rocks/options.rs`; what it says of that room in `rocks/usage.rs`.
//!
//! Invariants:
//!
//! * A directory that [`Inspection`] refuses is left byte for byte as it was.
//! * Families RocksDB lists but this version does not know mean a newer format: refused, not ignored.
//!
//! Left out: the writer position and the mark ([`crate::mark`]), which find a lost tail that RocksDB cannot see.

mod inspection;
mod options;
mod snapshot;
mod usage;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    CompactOptions, DBWithThreadMode, ErrorKind, FlushOptions, ReadOptions, SingleThreaded, WriteBatch, WriteOptions,
};

use crate::engine::rocks::options::{descriptors, options};
use crate::engine::rocks::snapshot::RocksSnapshot;
use crate::engine::rocks::usage::{UnflushedRanges, log_bytes, tables_of};
use crate::engine::tables;
use crate::engine::{
    Batch, Change, Durability, Engine, EngineError, Family, Manifest, Order, Read, Rewritten, Span, Usage, Visit,
};

pub use self::inspection::{Inspection, manifest};

type Db = DBWithThreadMode<SingleThreaded>;

/// See the file's head. Clones are handles of one database.
#[derive(Clone)]
pub struct RocksEngine {
    db: Arc<Db>,
    ranges: Arc<UnflushedRanges>,
}

impl RocksEngine {
    /// Opens the database for writing, creating it when the directory is empty.
    pub fn open(path: &Path) -> Result<RocksEngine, EngineError> {
        let db = Db::open_cf_descriptors(&options(true), path, descriptors()).map_err(error)?;
        Ok(RocksEngine { db: Arc::new(db), ranges: Arc::default() })
    }

    /// Waits until all merges that RocksDB has asked for are done.
    #[cfg(test)]
    pub(super) fn wait_for_merges(&self) {
        self.db.wait_for_compact(&rocksdb::WaitForCompactOptions::default()).expect("merges that do not fail");
    }
}

impl Read for RocksEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        get(&self.db, family, key, &ReadOptions::default())
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        scan(&self.db, family, span, order, ReadOptions::default(), visit)
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        let mut writes = WriteBatch::with_capacity_bytes(encoded_bytes_max(batch));
        let mut ranges = Vec::new();
        for change in batch.changes() {
            match change {
                Change::Put { family, key, value } => writes.put_cf(handle(&self.db, family)?, key, value),
                Change::Delete { family, key } => writes.delete_cf(handle(&self.db, family)?, key),
                Change::DeleteRange { family, from, to } => {
                    writes.delete_range_cf(handle(&self.db, family)?, from, to);
                    ranges.push((family, from, to));
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Sync);
        self.db.write_opt(writes, &options).map_err(error)?;
        ranges.into_iter().try_for_each(|(family, from, to)| self.note_range(family, from, to))
    }

    fn snapshot(&self) -> Box<dyn Read> {
        Box::new(RocksSnapshot::of(self.db.clone()))
    }

    fn flush(&self) -> Result<(), EngineError> {
        let handles = Family::ALL.iter().map(|family| handle(&self.db, *family)).collect::<Result<Vec<_>, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.ranges.forget();
        self.db.flush_cfs_opt(&handles, &options).map_err(error)
    }

    fn remove(&self, family: Family, span: &Span) -> Result<(), EngineError> {
        let handle = handle(&self.db, family)?;
        let to = span.to.as_deref().unwrap_or(&[0xff; 64]);
        self.db.delete_file_in_range_cf(handle, span.from.as_slice(), to).map_err(error)?;
        self.db.delete_range_cf(handle, span.from.as_slice(), to).map_err(error)?;
        self.note_range(family, &span.from, to)
    }

    fn usage(&self) -> Result<Usage, EngineError> {
        let files = self.db.live_files().map_err(error)?;
        let families = Family::ALL.iter().map(|family| self.family_usage(*family, &files));
        Ok(Usage {
            log_bytes: log_bytes(self.db.path())?,
            memory_bytes: Family::ALL.iter().map(|family| self.memory_bytes(*family)).sum::<Result<u64, _>>()?,
            families: families.collect::<Result<_, _>>()?,
        })
    }

    fn rewrite(&self, family: Family, from: &[u8], room: u64) -> Result<Rewritten, EngineError> {
        let listed = tables_of(family, &self.db.live_files().map_err(error)?);
        let found = tables::Family {
            tables: &listed,
            base: i32::try_from(self.property(family, "rocksdb.base-level")?).expect("RocksDB has few levels"),
            in_memory: self.memory_bytes(family)?,
        };
        let Some(portion) = found.next_portion(from) else { return Ok(Rewritten::default()) };
        let next = portion.next();
        if portion.room > room {
            return Ok(Rewritten { bytes: 0, wants: Some(portion.room), next });
        }
        let mut options = CompactOptions::default();
        // Merges RocksDB asks for itself go on: without them it would hold writes back.
        options.set_exclusive_manual_compaction(false);
        let (from, last) = (Some(portion.from.as_slice()), portion.last.as_deref());
        // It says nothing of a failure; `check` does.
        self.db.compact_range_cf_opt(handle(&self.db, family)?, from, last, &options);
        Ok(Rewritten { bytes: portion.bytes, wants: None, next })
    }

    fn sync_delay(&self) -> Option<Duration> {
        None
    }

    fn manifest_since(&self, known: Manifest) -> Result<Option<Manifest>, EngineError> {
        let Some((file, manifest)) = manifest(self.db.path())?.filter(|(_, manifest)| *manifest != known) else {
            return Ok(None);
        };
        let io = |error: std::io::Error| EngineError::Io(format!("{}: {error}", file.display()));
        File::open(&file).and_then(|open| open.sync_data()).map_err(io)?;
        Ok(Some(manifest))
    }

    fn holds_back(&self) -> Result<bool, EngineError> {
        for property in ["rocksdb.is-write-stopped", "rocksdb.actual-delayed-write-rate"] {
            if self.db.property_int_value(property).map_err(error)?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn check(&self) -> Result<(), EngineError> {
        match self.db.property_int_value("rocksdb.background-errors").map_err(error)? {
            Some(0) | None => Ok(()),
            Some(count) => Err(EngineError::Io(format!("{count} background writes failed"))),
        }
    }
}

/// At most what RocksDB makes of a batch: a header, and for each change a kind, a family and two lengths. Known
/// beforehand it is copied once, not as often as a growing buffer is.
fn encoded_bytes_max(batch: &Batch) -> usize {
    const HEADER: usize = 12;
    const CHANGE: usize = 1 + 3 * 5;
    HEADER + batch.len() * CHANGE + batch.bytes()
}

fn error(error: rocksdb::Error) -> EngineError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => EngineError::Corrupt(text),
        ErrorKind::NotFound
        | ErrorKind::NotSupported
        | ErrorKind::InvalidArgument
        | ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => EngineError::Io(text),
    }
}

fn get(db: &Db, family: Family, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, EngineError> {
    let handle = handle(db, family)?;
    let value = db.get_pinned_cf_opt(handle, key, options).map_err(error)?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

fn handle(db: &Db, family: Family) -> Result<&rocksdb::ColumnFamily, EngineError> {
    db.cf_handle(family.name())
        .ok_or_else(|| EngineError::Corrupt(format!("column family '{}' is missing", family.name())))
}

fn scan(
    db: &Db,
    family: Family,
    span: &Span,
    order: Order,
    mut options: ReadOptions,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<(), EngineError> {
    if span.is_empty() {
        return Ok(());
    }
    options.set_iterate_lower_bound(span.from.clone());
    if let Some(to) = &span.to {
        options.set_iterate_upper_bound(to.clone());
    }
    let mut rows = db.raw_iterator_cf_opt(handle(db, family)?, options);
    match order {
        Order::Ascending => rows.seek_to_first(),
        Order::Descending => rows.seek_to_last(),
    }
    while let Some((key, value)) = rows.item() {
        if visit(key, value) == Visit::Stop {
            return Ok(());
        }
        match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.prev(),
        }
    }
    rows.status().map_err(error)
}
