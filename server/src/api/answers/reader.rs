//! The reader of one connection: whom its answers are for, and what waits for it.
//!
//! Everything that waits to be taken is counted here, large answers (`answers.rs`) as well as bytes in HTTP/2's hands
//! (`requests.rs`); a reader that takes nothing of it for too long, or that is over, loses its connection (`accept.rs`).
//!
//! Invariant: what is noted as known is noted as taken once.
//!
//! Left out: judging it. This file only counts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::api::answers::{GETS_SHARE_BYTES_MAX, Parts, SHARE_BYTES_MAX};

/// Whom the answers of one connection are for.
#[derive(Debug)]
pub struct Reader {
    pub(super) share: Parts,
    /// What is known and not taken whole: large answers, and bytes in HTTP/2's hands.
    untaken: AtomicUsize,
    /// Places its connection's requests have.
    pub(in crate::api) requests: AtomicUsize,
    /// Its connection's requests that were refused for want of a place, until the answer is written.
    pub(in crate::api) refused: AtomicUsize,
    /// Whether its connection is to be closed at once.
    over: AtomicBool,
}

impl Default for Reader {
    fn default() -> Reader {
        let share = Parts::of_bytes(SHARE_BYTES_MAX, GETS_SHARE_BYTES_MAX);
        let none = || AtomicUsize::new(0);
        Reader { share, untaken: none(), requests: none(), refused: none(), over: AtomicBool::new(false) }
    }
}

impl Reader {
    /// Whether something waits to be taken whole.
    pub fn is_awaited(&self) -> bool {
        self.untaken.load(Ordering::Relaxed) > 0
    }

    /// Whether its connection is to be closed at once.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Its connection is closed when more would be read from it.
    pub(in crate::api) fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Something waits for it from now on, until as much is noted as taken.
    pub(in crate::api) fn note_known(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::api) fn note_taken(&self) {
        self.untaken.fetch_sub(1, Ordering::Relaxed);
    }
}
