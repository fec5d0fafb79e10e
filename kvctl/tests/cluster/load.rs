//! A write load that remembers what was acknowledged, and when.
//!
//! Each task puts keys nobody else puts, at a steady pace, whatever happens to them. The value is the key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinHandle;
use trefoil_client::{Client, Error, Outcome};
use trefoil_world::clock::{self, Instant, MissedTickBehavior};
use trefoil_world::task;

use crate::wait::until;

const TASKS: usize = 8;
/// A task's time from put to put, at least.
const PACE: Duration = Duration::from_millis(10);
const PUT_MAX: Duration = Duration::from_secs(2);
/// Reads at a time when all is looked up again.
const READS: usize = 32;

/// A put that was answered with yes.
#[derive(Clone, Debug)]
pub struct Acked {
    pub key: String,
    pub begun: Instant,
    pub at: Instant,
}

/// What became of the puts.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// In the order of their answers.
    pub acked: Vec<Acked>,
    pub failed: Vec<Error>,
}

impl Record {
    /// How many failures had this outcome.
    pub fn failed_as(&self, outcome: Outcome) -> usize {
        self.failed.iter().filter(|error| error.outcome() == outcome).count()
    }

    /// Every acknowledged put is still there.
    pub async fn expect_kept(&self, client: &Client) {
        let lookups = self.acked.iter().map(|acked| async move {
            let found = client.get(acked.key.clone()).timeout(Duration::from_secs(20)).await;
            let found = found.unwrap_or_else(|error| panic!("expected to read {}: {error}", acked.key));
            let right = found.value().is_some_and(|value| value[..] == *acked.key.as_bytes());
            (!right).then(|| acked.key.clone())
        });
        let missing: Vec<Option<String>> = futures::stream::iter(lookups).buffer_unordered(READS).collect().await;
        let missing: Vec<String> = missing.into_iter().flatten().collect();
        let few = &missing[..missing.len().min(5)];
        let all = self.acked.len();
        assert!(
            missing.is_empty(),
            "expected all {all} acknowledged puts; {} are lost, such as {few:?}",
            missing.len()
        );
    }
}

/// A running load; dropping it ends it.
#[derive(Debug)]
pub struct Load {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to put under keys that begin with `tag`.
    pub fn start(client: &Client, tag: &str) -> Load {
        let (record, stop) = (Arc::new(Mutex::new(Record::default())), Arc::new(AtomicBool::new(false)));
        let tasks = (0..TASKS).map(|number| {
            task::spawn(keep_putting(client.clone(), format!("{tag}/{number}"), record.clone(), stop.clone()))
        });
        Load { tasks: tasks.collect(), record, stop }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        locked(&self.record)
    }

    /// Waits for `count` acknowledgements more.
    pub async fn more(&self, count: usize, bound: Duration) {
        let goal = self.record().acked.len() + count;
        let what = format!("{count} more acknowledged puts");
        until(&what, bound, async || (self.record().acked.len() >= goal).then_some(())).await;
    }

    /// When the first put that began after `from` was acknowledged.
    pub async fn first_ack_begun_after(&self, from: Instant, bound: Duration) -> Instant {
        let mut looked_at = 0;
        until("an acknowledged put that began after the fault", bound, async || {
            let record = self.record();
            let fresh = record.acked[looked_at..].iter().find(|acked| acked.begun >= from);
            let found = fresh.map(|acked| acked.at);
            looked_at = record.acked.len();
            found
        })
        .await
    }

    /// Ends it, once the puts under way are answered.
    pub async fn stop(mut self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.expect("a load task that does not panic");
        }
        self.record().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_putting(client: Client, tag: String, record: Arc<Mutex<Record>>, stop: Arc<AtomicBool>) {
    let mut pace = clock::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        sequence += 1;
        let key = format!("{tag}/{sequence:08}");
        let begun = clock::now();
        let put = client.put(key.clone(), key.clone()).timeout(PUT_MAX).await;
        let mut record = locked(&record);
        match put {
            Ok(_) => record.acked.push(Acked { key, begun, at: clock::now() }),
            Err(error) => record.failed.push(error),
        }
    }
}

/// Puts `count` keys below `prefix` with values of `bytes` bytes, in transactions of `batch`, many at a time.
pub async fn fill(client: &Client, prefix: &str, count: u64, bytes: usize, batch: u64) {
    use trefoil_client::{Op, Txn};
    let value = bytes::Bytes::from(vec![b'v'; bytes]);
    let starts = (0..count).step_by(usize::try_from(batch).expect("a small batch"));
    let writes = starts.map(|first| {
        let value = value.clone();
        async move {
            let keys = first..(first + batch).min(count);
            let txn = keys.fold(Txn::new(), |txn, key| txn.then(Op::put(format!("{prefix}{key:08}"), value.clone())));
            let written = client.txn(txn).timeout(Duration::from_secs(60)).await;
            written.unwrap_or_else(|error| panic!("expected to write {prefix}{first:08} and on: {error}"));
        }
    });
    futures::stream::iter(writes).buffer_unordered(READS).collect::<Vec<()>>().await;
}
