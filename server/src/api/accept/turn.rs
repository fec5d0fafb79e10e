//! Turns of reading: a connection that has read much rests until others had theirs.
//!
//! HTTP/2 would read on for as long as there is something, and hands out requests one by one in between. What has been read
//! is looked at before the rest ends: it does not end within the poll in which it began.
//!
//! Left out: what a single read takes, which is up to whoever reads.

use std::task::Context;

use trefoil_world::turn;

/// Bytes that are read from a client without a rest: some hundred requests.
pub(super) const TURN_BYTES: usize = 32 << 10;

/// How much was read since others had their turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    bytes: usize,
    others: turn::Turn,
}

impl Turn {
    /// Whether others have theirs now; the task is woken when they had it.
    pub(super) fn is_over(&mut self, cx: &Context<'_>) -> bool {
        if self.bytes < TURN_BYTES {
            return false;
        }
        if self.others.has_come() {
            self.others.take();
            self.bytes = 0;
            return false;
        }
        self.others.await_it(cx);
        true
    }

    /// Takes note of a read of so many bytes.
    pub(super) fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}
