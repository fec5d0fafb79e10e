//! How RocksDB is set, and what room it takes for that.
//!
//! How much room RocksDB takes: a file of the log stays until every family has flushed what it holds, so a family that
//! is seldom written keeps all files since; above `WAL_BYTES_MAX` in all RocksDB flushes such families. A flush syncs
//! the finished files of the log first, so no table is ever ahead of the log. Rows that were removed or replaced stay
//! until a merge meets them. One merge runs at a time, and needs room for what it reads: from level 0 its tables
//! (RocksDB begins at four, of `MEMTABLE_BYTES` each) and the next level's, about `LEVEL_BYTES`; from any other up to
//! twice `MERGE_BYTES_MAX`. So while merges keep up with writes, one takes less than 200 MiB. When they are asked for:
//! the server's `give_back.rs`; what one takes that is asked for: `tables.rs`.
//!
//! Invariant: the write-ahead log is never recycled or reordered, and recovery stops at the first record that is not whole.
//!
//! Left out: what is set for a single read, write or flush, which stands where it is made.

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options};

use crate::engine::Family;
use crate::engine::tables::MERGE_BYTES_MAX;

const CACHE_BYTES: usize = 64 << 20;
const MEMTABLE_BYTES: usize = 16 << 20;
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the level below level 0; each further one may have ten times as many.
const LEVEL_BYTES: u64 = 64 << 20;
const TABLE_BYTES: u64 = 32 << 20;

/// Of the database; `create`: one that does not exist is made, and so is a family.
pub(super) fn options(create: bool) -> Options {
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

/// Of all families, which share one cache.
pub(super) fn descriptors() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let descriptor = |family: &Family| ColumnFamilyDescriptor::new(family.name(), family_options(*family, &cache));
    Family::ALL.iter().map(descriptor).collect()
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_compression_type(compression(family));
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_bytes_for_level_base(LEVEL_BYTES);
    options.set_target_file_size_base(TABLE_BYTES);
    options.set_max_compaction_bytes(MERGE_BYTES_MAX);
    options
}

/// By which tables are compressed, the same on all levels: RocksDB moves a table down as it is, which most tables of log and
/// changes are, only if it would be compressed alike there. The log passes through and is kept only for a while.
fn compression(family: Family) -> DBCompressionType {
    match family {
        Family::Log => DBCompressionType::None,
        Family::Node | Family::State | Family::Current | Family::Changes | Family::Index => DBCompressionType::Lz4,
    }
}
