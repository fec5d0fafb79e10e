//! Store numbers: who holds which generation of state, and what may be swept away.
//!
//! A replica's state lies under a [`StoreNumber`]. A snapshot is received under a fresh one, and one synced batch
//! switches the replica to it. Readers hold the number they read by a counted [`StoreHandle`]; the rows of a retired
//! number are removed when the last handle is gone, and at open rows under numbers nobody owns are removed too.
//!
//! Invariants:
//!
//! * A number is handed out once: the counter is synced before the first row is written under it.
//! * Only retired numbers, and at open unowned ones, are swept.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Order, Span, Visit};
use trefoil_store::key::{self, StoreNumber};

use crate::writer::{Ending, Writer};

/// Hands out store numbers and removes the rows of those nobody reads any more.
pub struct Stores {
    engine: Arc<dyn Engine>,
    writer: Writer,
    next: tokio::sync::Mutex<u32>,
    // Filled by dropped handles, on any thread; emptied by `sweep`.
    swept_next: Arc<Mutex<Vec<StoreNumber>>>,
}

/// Keeps the rows of one store number readable.
pub struct StoreHandle {
    number: StoreNumber,
    retired: AtomicBool,
    swept_next: Arc<Mutex<Vec<StoreNumber>>>,
}

impl StoreHandle {
    pub fn number(&self) -> StoreNumber {
        self.number
    }

    /// Nobody new will read this number: its rows go with the last handle.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire) {
            self.swept_next.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

/// A snapshot's rows on their way to becoming a replica's state. Dropped before that, they are removed; so however
/// receiving or installing ends, the rows belong to exactly one owner.
pub struct ReceivedRows {
    store: StoreNumber,
    swept_next: Arc<Mutex<Vec<StoreNumber>>>,
    kept: bool,
}

impl ReceivedRows {
    pub fn store(&self) -> StoreNumber {
        self.store
    }

    /// The rows are about to become a replica's state.
    pub fn keep(mut self) -> StoreNumber {
        self.kept = true;
        self.store
    }
}

impl Drop for ReceivedRows {
    fn drop(&mut self) {
        if !self.kept {
            self.swept_next.lock().unwrap_or_else(PoisonError::into_inner).push(self.store);
        }
    }
}

impl Stores {
    /// Reads the counter and removes rows under numbers that are not in `owned`.
    ///
    /// # Errors
    /// The engine cannot be read or written.
    pub fn open(engine: Arc<dyn Engine>, writer: Writer, owned: &BTreeSet<StoreNumber>) -> Result<Stores, EngineError> {
        let next = match engine.get(Family::Node, key::node::NEXT_STORE)? {
            None => 1,
            Some(row) => u32::from_be_bytes(
                row.as_ref()
                    .try_into()
                    .map_err(|_| EngineError::Corrupt("the store number counter is malformed".into()))?,
            ),
        };
        for family in Family::OF_STORE {
            for number in numbers(engine.as_ref(), family)?.difference(owned) {
                engine.remove(family, &key::store(*number))?;
            }
        }
        Ok(Stores { engine, writer, next: tokio::sync::Mutex::new(next), swept_next: Arc::default() })
    }

    /// A number nobody ever had on this node.
    pub async fn allocate(&self) -> Result<StoreNumber, Ending> {
        let mut next = self.next.lock().await;
        let number = StoreNumber(*next);
        let mut batch = Batch::new();
        batch.put(Family::Node, key::node::NEXT_STORE, &(number.0 + 1).to_be_bytes());
        self.writer.write(batch, Durability::Sync).await?;
        *next += 1;
        Ok(number)
    }

    /// A handle to a number this node owns.
    pub fn handle(&self, number: StoreNumber) -> Arc<StoreHandle> {
        Arc::new(StoreHandle { number, retired: AtomicBool::new(false), swept_next: self.swept_next.clone() })
    }

    /// Takes a number for rows that nobody reads yet.
    pub async fn receive(&self) -> Result<ReceivedRows, Ending> {
        Ok(ReceivedRows { store: self.allocate().await?, swept_next: self.swept_next.clone(), kept: false })
    }

    /// Removes the rows of the numbers retired since the last call.
    ///
    /// # Errors
    /// The engine cannot be written.
    pub fn sweep(&self) -> Result<(), EngineError> {
        let numbers = std::mem::take(&mut *self.swept_next.lock().unwrap_or_else(PoisonError::into_inner));
        for number in numbers {
            for family in Family::OF_STORE {
                self.engine.remove(family, &key::store(number))?;
            }
        }
        Ok(())
    }
}

/// The store numbers that have rows in `family`, found by one seek each.
fn numbers(engine: &dyn Engine, family: Family) -> Result<BTreeSet<StoreNumber>, EngineError> {
    let mut numbers = BTreeSet::new();
    let mut from = Some(Vec::new());
    while let Some(start) = from {
        let mut found = None;
        engine.scan(family, &Span { from: start, to: None }, Order::Ascending, &mut |row, _| {
            found = key::decode_store(row);
            Visit::Stop
        })?;
        numbers.extend(found);
        from = found.and_then(|number| key::store(number).to);
    }
    Ok(numbers)
}
