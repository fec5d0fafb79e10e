//! Rounds: many callers, one question at a time. Every caller joins the **next** round, never the one under way, so that
//! what a round finds is not older than its callers' arrival.
//!
//! Left out: patience. A caller waits as long as it likes; a round bounds itself.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trefoil_world::clock::{self, Instant};
use trefoil_world::planted::{self, Bug};

use crate::error::Error;

/// Callers that may wait.
const CALLERS_MAX: usize = 65_536;
/// After a round with this many callers more are let gather: a round costs the nodes the same however many join.
const BUSY_ROUND_CALLERS: usize = 16;
const BUSY_ROUND_PAUSE: Duration = Duration::from_millis(1);

/// The index up to which a replica must have applied before it answers the round's reads, or why there is none.
pub type ReadIndex = Result<u64, Error>;

/// See the file's head.
pub struct Rounds {
    callers: mpsc::Sender<oneshot::Sender<ReadIndex>>,
}

impl Rounds {
    /// Starts the task that asks; it ends with the handle.
    pub fn start<A, F>(ask: A) -> Rounds
    where
        A: Fn() -> F + Send + 'static,
        F: Future<Output = ReadIndex> + Send + 'static,
    {
        let (callers, waiting) = mpsc::channel(CALLERS_MAX);
        trefoil_world::task::spawn(run(ask, waiting));
        Rounds { callers }
    }

    /// What the next round finds.
    ///
    /// # Errors
    /// The round's own, or none was waited for to its end. Nothing was read in any case.
    pub async fn join(&self, deadline: Instant) -> ReadIndex {
        let (answer, answered) = oneshot::channel();
        self.callers.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Error::Exhausted { what: "the partition's read queue".into(), limit: CALLERS_MAX as u64 }
            }
            mpsc::error::TrySendError::Closed(_) => ending(),
        })?;
        match clock::timeout_at(deadline, answered).await {
            Err(_) => Err(Error::DeadlinePassed),
            Ok(Err(_)) => Err(ending()),
            Ok(Ok(found)) => found,
        }
    }
}

fn ending() -> Error {
    Error::Unavailable { why: "the node is ending".into() }
}

async fn run<A, F>(ask: A, mut waiting: mpsc::Receiver<oneshot::Sender<ReadIndex>>)
where
    A: Fn() -> F + Send,
    F: Future<Output = ReadIndex> + Send,
{
    while let Some(first) = waiting.recv().await {
        let mut round = vec![first];
        while let Ok(next) = waiting.try_recv() {
            round.push(next);
        }
        let found = ask().await;
        if is_last(&found) {
            return;
        }
        if planted::is(Bug::JoinRunningRound) {
            round.extend(std::iter::from_fn(|| waiting.try_recv().ok()));
        }
        let busy = round.len() >= BUSY_ROUND_CALLERS;
        for caller in round {
            // A caller whose deadline passed no longer waits.
            drop(caller.send(found.clone()));
        }
        if busy {
            clock::sleep(BUSY_ROUND_PAUSE).await;
        }
    }
}

/// Whether a planted bug makes this round the last one.
fn is_last(found: &ReadIndex) -> bool {
    planted::is(Bug::RoundsEndWithFailure) && matches!(found, Err(Error::Unavailable { .. }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_caller_joins_the_next_round_and_shares_it() {
        let (begun, release) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (begun.clone(), release.clone());
        let rounds = Arc::new(Rounds::start(move || {
            let round = count.fetch_add(1, Ordering::Relaxed) + 1;
            let gate = gate.clone();
            async move {
                gate.acquire().await.expect("never closed").forget();
                Ok(round)
            }
        }));
        let deadline = clock::now() + Duration::from_secs(60);
        let join = || {
            let rounds = rounds.clone();
            trefoil_world::task::spawn(async move { rounds.join(deadline).await })
        };
        let first = join();
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..5).map(|_| join()).collect();
        // All five wait before the first round ends.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        release.add_permits(2);
        assert_eq!(first.await.expect("a task that ends"), Ok(1));
        for caller in later {
            assert_eq!(caller.await.expect("a task that ends"), Ok(2));
        }
        assert_eq!(begun.load(Ordering::Relaxed), 2, "five callers, one round");
        assert_eq!(rounds.join(clock::now()).await, Err(Error::DeadlinePassed), "a round that nobody lets go");
    }
}
