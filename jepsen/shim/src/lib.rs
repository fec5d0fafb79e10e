//! The preload shim: loaded into a node with `LD_PRELOAD`, it remembers what of the node's files was synced, and makes
//! its disk fail when the harness says so.
//!
//! It takes the place of the C library's file calls, makes the system call itself (`system.rs`), and tells what came of it
//! in the **sidecar**, a folder of the harness (`attached.rs`, `format.rs`):
//!
//! * The **journal** says what changed and what was synced: bytes (`calls.rs`) and names (`names.rs`). It is written with
//!   plain appends: a killed process' page cache stays, so after a SIGKILL of the node the harness knows what a loss of
//!   power could have taken.
//! * The **control file** is shared memory. With it the harness has syncs fail, or limits the space that is left.
//! * In the folder of **kept** files are those that have lost a name, and copies of those that were cut.
//!
//! What `kvd` calls to change its data directory, as its imports and RocksDB's sources (`env/io_posix.cc`,
//! `env/fs_posix.cc`) have it, and what becomes of it here:
//!
//! | call | who | here |
//! |---|---|---|
//! | `open`, `open64` that creates or empties | RocksDB's new files, `lock`, `mark.new` | name open until its directory is synced; the old bytes are kept |
//! | `write` | RocksDB's logs, tables and manifests; `mark.new` | bytes are open until the file is synced |
//! | `pwrite64` | the mark, in place | the old bytes are in the journal |
//! | `fsync`, `fdatasync` | RocksDB, the manifest's notes, `mark.new`, directories | synced, or made to fail |
//! | `sync_file_range` | RocksDB, ahead of its syncs | makes nothing durable; is made to fail as a sync |
//! | `fallocate` | RocksDB, ahead of its writes, without growing the file | no bytes; refused when space is limited |
//! | `ftruncate` | RocksDB when it closes a file, to the length it has | a cut that shortens keeps a copy |
//! | `rename`, `unlink` | RocksDB, `mark.new` | open until the directory is synced; the file that loses its name is kept |
//! | `mkdir` | `db` | name open until its directory is synced |
//!
//! `pwrite`, `writev` and its kin, `copy_file_range`, `truncate`, `creat`, `posix_fallocate`, `unlinkat` and others are
//! modelled beside them, whoever may come to use them. What is imported or could be, and not modelled, is counted when it
//! concerns the directory (`Unmodelled`, `unmodelled.rs`): the harness then calls no loss of power valid.
//! Duplicated descriptors need nothing: files are told apart by what they are, not by their descriptors.
//!
//! Invariants:
//!
//! * A sync is in the journal before the call returns, with a length the file had before it was synced. What is written
//!   over is in the journal, and what is renamed over, removed or cut is kept, before that happens. So the journal never
//!   says less to be synced than was promised.
//! * Nothing is allocated, locked or looked up on the way: calls may come from any thread, also before `main`. Those of
//!   which the C library's own function is needed (`fopen`, `statvfs`) look that up.
//! * A shim that cannot keep its journal ends the process: a journal with a gap would accuse the node.
//! * Without its variables in the environment the shim does nothing but make the calls.
//!
//! Left out: what `unmodelled.rs` leaves out; the name of the directory itself. Where a write, or a change of a name, and
//! a sync come from two threads at once, it may count as synced though it was not: then a loss of power could do worse.

mod attached;
mod calls;
#[allow(dead_code, reason = "the harness reads what the shim writes")]
mod format;
mod names;
mod system;
mod unmodelled;
