//! Replicated state on one node: what a committed command does to it, and how that reaches the disk and comes back.
//!
//! # How a byte travels
//!
//! 1. A client's put becomes a [`command::Command`], is checked ([`mvcc::check`]) and wrapped into a
//!    [`command::Envelope`] with all that its outcome depends on: the clock reading, the request id, who asked.
//! 2. A batch of envelopes is encoded once ([`command::encode_batch`]) and becomes a log entry. The entry is a row of
//!    the `log` family ([`key::log`]); the node's writer syncs it. From here on the byte survives a power cut.
//! 3. The entry is committed, on every replica. [`apply::apply`] runs its commands in order on an [`overlay::Overlay`]:
//!    the engine's state below, read through a [`row_cache`], the entry's own writes above. [`session`] drops what was
//!    executed before; [`mvcc`] gives the put a revision and makes three rows of it: the key's newest version, the
//!    change, and the index entry that finds the change by key. [`record`] says what such rows hold, and [`codec`] how
//!    numbers and strings stand in them.
//! 4. The overlay becomes one [`engine::Batch`] that also holds the new [`mvcc::Head`] and the applied position, and is
//!    written without a sync: after a crash the log brings it back. [`mark`] is how a node finds out that what it had
//!    synced is no longer there.
//! 5. A read takes a snapshot of the engine and asks [`mvcc::range()`]: for now it finds the byte under its key, for
//!    the past it finds the change through the index. When the floor has passed, [`mvcc::scrub`] removes it.
//!
//! # Invariants
//!
//! * Applying is deterministic: rows and outcomes depend on the log alone. No clock, no randomness, no hash order.
//! * A local I/O error never becomes an outcome.
//! * Every row begins with a format byte and is decoded before anything in it is believed; key bytes are known to
//!   [`key`] only.
//!
//! Left out: consensus, networking and the writer's queue, which are the server's.

pub mod engine;
pub mod key;

pub mod codec;
pub mod command;
pub mod record;

pub mod overlay;
pub mod row_cache;

pub mod mvcc;
pub mod session;

pub mod apply;

pub mod mark;

#[cfg(test)]
mod golden;
