//! The clients: the chaos harness's workers, on the clients' machine, whose clock is true.
//!
//! How they ask and what they record is the harness's ([`Asking`], [`Worker`]). Here is how they come to their nodes, and
//! how they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_client::Client;
pub use trefoil_jepsen::asking::{Asked, Asking, Book, Worker};
use trefoil_jepsen::generator::Dice;
use trefoil_jepsen::history::Process;
use trefoil_jepsen::workload::Workload;
use trefoil_world::{clock, task};

use crate::parameters::LoadParameters;

const CONNECT_AGAIN: Duration = Duration::from_millis(50);

/// Workers at work.
pub struct Load<W: Workload> {
    pub asking: Asking<W>,
    stopping: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl<W: Workload> Load<W> {
    /// Starts the workers. Runs on the clients' machine, at its beginning.
    pub fn start(parameters: &LoadParameters, endpoints: &[String], asking: Asking<W>, mut dice: Dice) -> Load<W> {
        let stopping = Arc::new(AtomicBool::new(false));
        let start = |number: usize| {
            // One that may not go elsewhere begins with one node, each with another.
            let others = if parameters.retries { endpoints.len() } else { 1 };
            let endpoints = endpoints.iter().cycle().skip(number % endpoints.len()).take(others).cloned().collect();
            task::spawn(work(asking.clone(), number, parameters.clone(), endpoints, stopping.clone(), dice.split()))
        };
        let workers = (0..parameters.workers).map(start).collect();
        Load { asking, stopping, workers }
    }

    /// Returns once every worker has ended what it had begun.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        for worker in self.workers {
            // A worker that panicked has ended the run already.
            drop(worker.await);
        }
    }
}

/// Asks one thing after another until it is told to stop.
async fn work<W: Workload>(
    asking: Asking<W>,
    number: usize,
    parameters: LoadParameters,
    endpoints: Vec<String>,
    stopping: Arc<AtomicBool>,
    mut dice: Dice,
) {
    let (retries, is_stopping) = (parameters.retries, || stopping.load(Ordering::Relaxed));
    let Some(client) = connect(&endpoints, retries, parameters.call_timeout, is_stopping).await else { return };
    let (first, apart) = (Process(number as u64), parameters.workers as u64);
    let worker = Worker::new(asking, client, first, apart, parameters.call_timeout);
    let pause = move || Duration::from_millis(dice.below(parameters.pause_ms + 1));
    worker.work(move || !stopping.load(Ordering::Relaxed), pause).await;
}

/// Connects, again and again; `None` when it was told to stop before. `retries`: whether the client's calls are repeated
/// in it; without, what becomes of one attempt is what is told. `timeout`: of connecting, and of its calls by default.
pub async fn connect(
    endpoints: &[String],
    retries: bool,
    timeout: Duration,
    is_stopped: impl Fn() -> bool,
) -> Option<Client> {
    while !is_stopped() {
        let builder = Client::builder(endpoints.to_vec()).retries(retries);
        if let Ok(client) = builder.timeout(timeout).connect().await {
            return Some(client);
        }
        clock::sleep(CONNECT_AGAIN).await;
    }
    None
}
