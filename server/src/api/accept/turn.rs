//! Turns of reading: a connection that has read much rests until others had theirs.
//!
//! HTTP/2 would read on for as long as there is something. The rest is a task that does nothing, behind all that is ready
//! to run when it begins.
//!
//! Left out: what a single read takes, which is up to whoever reads.

use std::pin::Pin;
use std::task::Context;

use tokio::task::JoinHandle;
use trefoil_world::task;

/// Bytes that are read from a client without a rest: some hundred requests.
pub(super) const TURN_BYTES: usize = 32 << 10;

/// How much was read since others had their turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    bytes: usize,
    /// Ends once the tasks that waited have had theirs.
    rest: Option<JoinHandle<()>>,
}

impl Turn {
    /// Whether others have theirs now; the task is woken when they had it.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let resting = self.rest.as_mut().is_some_and(|rest| Pin::new(rest).poll(cx).is_pending());
        if self.rest.is_some() && !resting {
            *self = Turn::default();
        }
        resting
    }

    /// Takes note of a read of so many bytes, or of one that has to wait.
    pub(super) fn note(&mut self, waits: bool, bytes: usize) {
        self.bytes = if waits { 0 } else { self.bytes + bytes };
        if self.bytes >= TURN_BYTES {
            // Behind all that is ready to run now.
            self.rest = Some(task::spawn(tokio::task::yield_now()));
        }
    }
}
