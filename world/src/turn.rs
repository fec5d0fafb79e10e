//! The turn of others: when all that was ready to run has run.
//!
//! Whoever awaits it is woken by the runtime after the tasks that were ready, or when it has run tasks for a while
//! ([`tokio::task::yield_now`]); if there are none, at once. A task that merely wakes itself, or waits for another one, may
//! be early: another thread may be free.
//!
//! Invariant: on a runtime's own thread a turn does not come within the poll in which it was first awaited, however long
//! that takes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

const IDLE: u8 = 0;
const AWAITED: u8 = 1;
const COME: u8 = 2;

/// See the file's head. For one task, again and again.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    /// Tells `shared`.
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    /// Who awaits it.
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Shared>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Shared>) {
        self.state.store(COME, Ordering::Release);
        self.task.wake();
    }
}

impl Default for Turn {
    fn default() -> Turn {
        let shared: Arc<Shared> = Arc::default();
        Turn { waker: Waker::from(shared.clone()), shared }
    }
}

impl Turn {
    /// Whether it has come since it was first awaited.
    pub fn has_come(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == COME
    }

    /// Has the task of `cx` woken when it comes.
    pub fn await_it(&self, cx: &Context<'_>) {
        self.shared.task.register(cx.waker());
        if self.shared.state.compare_exchange(IDLE, AWAITED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            // The runtime keeps the waker; the future itself is done with.
            let yielded = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&self.waker));
            if yielded.is_ready() {
                self.waker.wake_by_ref();
            }
        }
    }

    /// From now on the next one may be awaited.
    pub fn take(&self) {
        self.shared.state.store(IDLE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use super::*;

    /// Threads are free all the while.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn it_does_not_come_within_a_poll() {
        let awaiting = tokio::spawn(async {
            let (turn, mut polls) = (Turn::default(), 0);
            poll_fn(|cx| {
                polls += 1;
                if turn.has_come() {
                    return Poll::Ready(());
                }
                turn.await_it(cx);
                let until = Instant::now() + Duration::from_millis(20);
                while Instant::now() < until {
                    assert!(!turn.has_come(), "expected it to wait for the end of this poll");
                }
                Poll::Pending
            })
            .await;
            turn.take();
            (polls, turn.has_come())
        });
        assert_eq!(awaiting.await.expect("no panic"), (2, false));
    }
}
