//! Bulk writes: rows nobody reads yet, and the removal of rows nobody reads any more.
//!
//! They go to the engine beside the writer's queue, un-synced, one batch at a time for the whole node, at a bounded
//! rate, and not at all while the engine holds writes back: bulk must never delay a vote.
//!
//! Rewriting tables ([`crate::give_back`]) writes at the same rate: it takes turns for what it has written.
//!
//! Left out: making such rows durable, which is the synced write's that makes them somebody's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use trefoil_store::engine::{Batch, Durability, Engine, EngineError};
use trefoil_world::clock::{self, Instant};
use trefoil_world::task;

/// How long to wait before the engine is asked again whether it takes writes freely.
const DELAYED_PAUSE: Duration = Duration::from_millis(20);

/// See the file's head.
pub struct Bulk {
    engine: Arc<dyn Engine>,
    bytes_per_second: u64,
    /// When the next batch may be written. Held while one is.
    next: Mutex<Option<Instant>>,
}

impl Bulk {
    pub fn new(engine: Arc<dyn Engine>, bytes_per_second: u64) -> Bulk {
        Bulk { engine, bytes_per_second, next: Mutex::new(None) }
    }

    /// Writes `batch` when it is its turn.
    ///
    /// # Errors
    /// The engine failed.
    pub async fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut next = self.next.lock().await;
        wait_until(*next).await;
        while self.engine.holds_back()? {
            clock::sleep(DELAYED_PAUSE).await;
        }
        let began = clock::now();
        let takes = self.takes(batch.bytes() as u64);
        let engine = self.engine.clone();
        let written = task::blocking(move || engine.write(&batch, Durability::NoSync)).await;
        *next = Some(began + takes);
        written.map_err(|error| EngineError::Io(error.to_string()))?
    }

    /// Waits for its turn, and takes it for so many bytes that were written otherwise: what comes next waits as if they
    /// were written now.
    pub async fn turn(&self, bytes: u64) {
        let mut next = self.next.lock().await;
        wait_until(*next).await;
        *next = Some(clock::now() + self.takes(bytes));
    }

    fn takes(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

async fn wait_until(next: Option<Instant>) {
    if let Some(next) = next {
        clock::sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use trefoil_store::engine::Family;
    use trefoil_store::engine::memory::MemoryEngine;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_until_the_rate_allows_it() {
        let bulk = Bulk::new(Arc::new(MemoryEngine::new()), 1000);
        let began = clock::now();
        let mut written_at = Vec::new();
        for number in 0..3u8 {
            let mut batch = Batch::new();
            batch.put(Family::State, &[number], &[0; 499]);
            bulk.write(batch).await.expect("memory does not fail");
            written_at.push(began.elapsed().as_millis());
        }
        assert_eq!(written_at, [0, 500, 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_and_batches_share_the_rate() {
        let bulk = Bulk::new(Arc::new(MemoryEngine::new()), 1000);
        let began = clock::now();
        let mut batch = Batch::new();
        batch.put(Family::State, b"k", &[0; 499]);
        bulk.turn(250).await;
        assert_eq!(began.elapsed().as_millis(), 0);
        bulk.write(batch).await.expect("memory does not fail");
        assert_eq!(began.elapsed().as_millis(), 250);
        bulk.turn(1).await;
        assert_eq!(began.elapsed().as_millis(), 750);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_while_the_engine_holds_writes_back() {
        let engine = MemoryEngine::new();
        let bulk = Bulk::new(Arc::new(engine.clone()), 1_000_000);
        engine.hold_back(true);
        let began = clock::now();
        let mut batch = Batch::new();
        batch.put(Family::State, b"key", b"row");
        let free_again = async {
            clock::sleep(Duration::from_secs(3)).await;
            assert_eq!(engine.unsynced_batches(), 0, "nothing is written meanwhile");
            engine.hold_back(false);
        };
        let (written, ()) = tokio::join!(bulk.write(batch), free_again);
        written.expect("memory does not fail");
        assert_eq!(engine.unsynced_batches(), 1);
        assert!(began.elapsed() <= Duration::from_secs(3) + DELAYED_PAUSE);
    }
}
