//! The production engine: one RocksDB, one column family per [`Family`], one write-ahead log.
//!
//! The write-ahead log is never disabled, recycled or reordered, so what RocksDB recovers is a prefix of the history
//! (point-in-time recovery). Opening happens in two steps: [`Inspection::open`] replays the log read-only and changes
//! nothing on disk, so that the caller can check who the directory belongs to and whether its tail is all there;
//! [`RocksEngine::open`] then opens it for writing.
//!
//! How much room RocksDB takes: a file of the log stays until every family has flushed what it holds, so a family that
//! is seldom written keeps all files since; above `WAL_BYTES_MAX` in all RocksDB flushes such families. A flush syncs
//! the finished files of the log first, so no table is ever ahead of the log. Rows that were removed or replaced stay
//! until a merge meets them. One merge runs at a time, and needs room for what it reads: from level 0 its tables
//! (RocksDB begins at four, of `MEMTABLE_BYTES` each) and the next level's, about `LEVEL_BYTES`; from any other up to
//! twice `MERGE_BYTES_MAX`. So while merges keep up with writes, one takes less than 200 MiB. When they are asked for:
//! the server's `give_back.rs`; what one takes that is asked for: `tables.rs`.
//!
//! Invariants:
//!
//! * A directory that [`Inspection`] refuses is left byte for byte as it was.
//! * Families RocksDB lists but this version does not know mean a newer format: refused, not ignored.
//!
//! Left out: the writer position and the mark ([`crate::mark`]), which find a lost tail that RocksDB cannot see.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactOptions, DBCompressionType, DBRecoveryMode,
    DBWithThreadMode, ErrorKind, FlushOptions, LiveFile, Options, Range, ReadOptions, SingleThreaded,
    SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use crate::engine::tables::{self, MERGE_BYTES_MAX, Table, dead_bytes};
use crate::engine::{
    Batch, Change, Durability, Engine, EngineError, Family, FamilyUsage, Manifest, Order, Read, Rewritten, Span, Usage,
    Visit,
};

type Db = DBWithThreadMode<SingleThreaded>;

const CACHE_BYTES: usize = 64 << 20;
const MEMTABLE_BYTES: usize = 16 << 20;
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the level below level 0; each further one may have ten times as many.
const LEVEL_BYTES: u64 = 64 << 20;
const TABLE_BYTES: u64 = 32 << 20;

/// See the file's head. Clones are handles of one database.
#[derive(Clone)]
pub struct RocksEngine {
    db: Arc<Db>,
    ranges: Arc<UnflushedRanges>,
}

/// Bytes of the tables of each family in which ranges were removed since the last flush: RocksDB does not say.
#[derive(Default)]
struct UnflushedRanges([AtomicU64; Family::ALL.len()]);

impl UnflushedRanges {
    fn of(&self, family: Family) -> &AtomicU64 {
        &self.0[family as usize]
    }

    /// Once the removal is in the history: before, a flush might miss it.
    fn note(&self, family: Family, bytes: u64) {
        self.of(family).fetch_add(bytes, Ordering::AcqRel);
    }

    /// Before the flush: what comes while it runs may be left out of it.
    fn forget(&self) {
        self.0.iter().for_each(|family| family.store(0, Ordering::Release));
    }
}

/// A database opened for looking at: nothing on disk changes.
pub struct Inspection {
    db: Arc<Db>,
}

impl Inspection {
    /// Replays the write-ahead log in memory only. `None` when the directory holds no database yet.
    ///
    /// # Errors
    /// What RocksDB finds wrong with its files, naming the file; a family this version does not know.
    pub fn open(path: &Path) -> Result<Option<Inspection>, EngineError> {
        if !path.join("CURRENT").exists() {
            return refuse_headless(path).map(|()| None);
        }
        let options = options(false);
        check_families(&options, path)?;
        let db = Db::open_cf_descriptors_read_only(&options, path, descriptors(), false).map_err(error)?;
        Ok(Some(Inspection { db: Arc::new(db) }))
    }

    /// Reads every table block and checks its checksum, when there are at most `bytes_max` of them: damage is then
    /// found before anything is changed. Larger databases are checked as they are read.
    ///
    /// # Errors
    /// The first damaged block, naming the file.
    #[expect(deprecated, reason = "deprecated as an optimisation; here it decides what is read")]
    pub fn verify(&self, bytes_max: u64) -> Result<(), EngineError> {
        let mut bytes = 0;
        for family in Family::ALL {
            let size = self.db.property_int_value_cf(handle(&self.db, family)?, "rocksdb.total-sst-files-size");
            bytes += size.map_err(error)?.unwrap_or(0);
        }
        if bytes > bytes_max {
            return Ok(());
        }
        for family in Family::ALL {
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            // What a removed range hides is read too: its blocks may hold other rows.
            options.set_ignore_range_deletions(true);
            options.fill_cache(false);
            options.set_readahead_size(2 << 20);
            let all = Span { from: Vec::new(), to: None };
            scan(&self.db, family, &all, Order::Ascending, options, &mut |_, _| Visit::Next)?;
        }
        Ok(())
    }
}

/// A directory with data files but without `CURRENT` has lost it: creating a fresh database there would bury them.
fn refuse_headless(path: &Path) -> Result<(), EngineError> {
    let Ok(files) = path.read_dir() else { return Ok(()) };
    for file in files {
        let name = file.map_err(|error| EngineError::Io(error.to_string()))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log") {
            return Err(EngineError::Corrupt(format!("{}: CURRENT is missing", path.display())));
        }
    }
    Ok(())
}

fn check_families(options: &Options, path: &Path) -> Result<(), EngineError> {
    let known = |name: &String| name == "default" || Family::ALL.iter().any(|family| family.name() == name);
    let families = Db::list_cf(options, path).map_err(error)?;
    match families.iter().find(|name| !known(name)) {
        Some(name) => Err(EngineError::Corrupt(format!("column family '{name}' is of a newer data format"))),
        None => Ok(()),
    }
}

impl RocksEngine {
    /// Opens the database for writing, creating it when the directory is empty.
    pub fn open(path: &Path) -> Result<RocksEngine, EngineError> {
        let db = Db::open_cf_descriptors(&options(true), path, descriptors()).map_err(error)?;
        Ok(RocksEngine { db: Arc::new(db), ranges: Arc::default() })
    }

    fn family_usage(&self, family: Family, files: &[LiveFile]) -> Result<FamilyUsage, EngineError> {
        let property = |name: &str| self.property(family, name);
        let in_memory =
            property("rocksdb.num-deletes-active-mem-table")? + property("rocksdb.num-deletes-imm-mem-tables")?;
        let tables = tables(family, files);
        Ok(FamilyUsage {
            family,
            table_bytes: tables.iter().map(|table| table.bytes).sum(),
            dead_bytes: dead_bytes(&tables, property("rocksdb.estimate-live-data-size")?, in_memory),
            unflushed_range_bytes: self.ranges.of(family).load(Ordering::Acquire),
        })
    }

    fn property(&self, family: Family, name: &str) -> Result<u64, EngineError> {
        let value = self.db.property_int_value_cf(handle(&self.db, family)?, name).map_err(error)?;
        Ok(value.unwrap_or(0))
    }

    /// Bytes of its memtables, at most; 0 when there is nothing in them to flush.
    fn memory_bytes(&self, family: Family) -> Result<u64, EngineError> {
        let entries = self.property(family, "rocksdb.num-entries-active-mem-table")?
            + self.property(family, "rocksdb.num-entries-imm-mem-tables")?;
        if entries == 0 { Ok(0) } else { self.property(family, "rocksdb.cur-size-all-mem-tables") }
    }

    /// Takes note of a range that was removed.
    fn note_range(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), EngineError> {
        let sizes = self.db.get_approximate_sizes_cf(handle(&self.db, family)?, &[Range::new(from, to)]);
        self.ranges.note(family, sizes.into_iter().sum());
        Ok(())
    }

    /// Waits until all merges that RocksDB has asked for are done.
    #[cfg(test)]
    pub(super) fn wait_for_merges(&self) {
        self.db.wait_for_compact(&rocksdb::WaitForCompactOptions::default()).expect("merges that do not fail");
    }
}

fn tables(family: Family, files: &[LiveFile]) -> Vec<Table> {
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
fn log_bytes(path: &Path) -> Result<u64, EngineError> {
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

/// The manifest `CURRENT` names, and its size; nothing when there is no database.
pub fn manifest(path: &Path) -> Result<Option<(PathBuf, Manifest)>, EngineError> {
    let io = |file: &Path, error: std::io::Error| EngineError::Io(format!("{}: {error}", file.display()));
    let current = path.join("CURRENT");
    let name = match std::fs::read_to_string(&current) {
        Ok(name) => name,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(&current, error)),
    };
    let number = name.trim_end().strip_prefix("MANIFEST-").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| EngineError::Corrupt(format!("{}: names no manifest", current.display())))?;
    let file = path.join(name.trim_end());
    let bytes = std::fs::metadata(&file).map_err(|error| io(&file, error))?.len();
    Ok(Some((file, Manifest { number, bytes })))
}

/// At most what RocksDB makes of a batch: a header, and for each change a kind, a family and two lengths. Known
/// beforehand it is copied once, not as often as a growing buffer is.
fn encoded_bytes_max(batch: &Batch) -> usize {
    const HEADER: usize = 12;
    const CHANGE: usize = 1 + 3 * 5;
    HEADER + batch.len() * CHANGE + batch.bytes()
}

fn options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options.set_unordered_write(false);
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

fn descriptors() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    Family::ALL.iter().map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(&cache))).collect()
}

fn family_options(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_bytes_for_level_base(LEVEL_BYTES);
    options.set_target_file_size_base(TABLE_BYTES);
    options.set_max_compaction_bytes(MERGE_BYTES_MAX);
    options
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

impl Read for Inspection {
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
        let db = self.db.clone();
        let snapshot = db.snapshot();
        // SAFETY: the snapshot borrows `*db`, which lives on the heap behind an `Arc` that `RocksSnapshot` owns and
        // drops after the snapshot (fields drop in order of declaration).
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, Db>, SnapshotWithThreadMode<'static, Db>>(snapshot)
        };
        Box::new(RocksSnapshot { snapshot, db })
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
        let listed = tables(family, &self.db.live_files().map_err(error)?);
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

struct RocksSnapshot {
    // Dropped before `db`, see `snapshot`.
    snapshot: SnapshotWithThreadMode<'static, Db>,
    db: Arc<Db>,
}

impl RocksSnapshot {
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
