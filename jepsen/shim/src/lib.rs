//! The preload shim: loaded into a node with `LD_PRELOAD`, it remembers what of the node's files was synced, and makes
//! its disk fail when the harness says so.
//!
//! It takes the place of the C library's file calls that `kvd` and RocksDB make (`calls.rs`), makes the system call
//! itself, and tells what came of it in the **sidecar**, a folder of the harness (`attached.rs`, `format.rs`):
//!
//! * The **journal** says which files were created, synced up to which length, cut, overwritten in place (with the bytes
//!   that stood there) or renamed, and which directories were synced. It is written with plain appends: a killed
//!   process' page cache stays, so after a SIGKILL of the node the harness knows what a loss of power could have taken.
//! * The **control file** is shared memory. With it the harness has syncs fail, or limits the space that is left.
//!
//! Invariants:
//!
//! * A sync is in the journal before the call returns, with a length the file had before it was synced. What is written
//!   over is in the journal before it is written over. So the journal never says less to be synced than was promised.
//! * Nothing is allocated, locked or looked up on the way: calls may come from any thread, also before `main`.
//! * A shim that cannot keep its journal ends the process: a journal with a gap would accuse the node.
//! * Without its variables in the environment the shim does nothing.
//!
//! Left out: files written through shared memory, by `writev`, by `O_DSYNC` or with raw system calls, and syncs by
//! `sync`, `syncfs` or `msync`, none of which `kvd` uses. Unlinking, renaming and cutting a file count as durable at
//! once, and an overwritten piece of more than a page as written: a loss of power could do worse.

mod attached;
mod calls;
#[allow(dead_code, reason = "the harness reads what the shim writes")]
mod format;
