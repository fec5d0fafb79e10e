//! The clients: the chaos harness's workers, on the clients' machine, whose clock is true.
//!
//! How they ask and what they record is the harness's ([`Asking`], [`Worker`]), and so is who watches beside the load
//! ([`seats`]): those go to their node and no other. Here is how they come to their nodes, and how they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_client::{Builder, Client};
pub use trefoil_jepsen::asking::{Asked, Asking, Book, Worker};
use trefoil_jepsen::asking::{Seat, seats};
use trefoil_jepsen::generator::Dice;
use trefoil_jepsen::history::Process;
use trefoil_jepsen::workload::{Choose, Workload};
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
        let seats = seats::<W>(parameters.workers, endpoints.len());
        let apart = seats.len() as u64;
        let start = |(number, seat): (u64, Seat<W>)| {
            let parameters = LoadParameters { retries: parameters.retries && !seat.watches, ..parameters.clone() };
            // One that may not go elsewhere begins with one node, each with another.
            let others = if parameters.retries { endpoints.len() } else { 1 };
            let endpoints: Vec<String> = endpoints.iter().cycle().skip(seat.node).take(others).cloned().collect();
            let (asking, stopping, dice) = (asking.clone(), stopping.clone(), dice.split());
            task::spawn(async move {
                // Who watches asks its node and no other.
                let builder = Client::builder(endpoints).retries(parameters.retries).routed(!seat.watches);
                let builder = builder.timeout(parameters.call_timeout);
                let is_stopping = || stopping.load(Ordering::Relaxed);
                let Some(client) = connect(builder, is_stopping).await else { return };
                let worker = Worker::new(asking, client, Process(number), apart, parameters.call_timeout);
                work(worker, seat.choose, parameters.pause_ms, stopping, dice).await;
            })
        };
        let workers = (0..).zip(seats).map(start).collect();
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
    worker: Worker<W>,
    choose: Choose<W>,
    pause_ms: u64,
    stopping: Arc<AtomicBool>,
    mut dice: Dice,
) {
    let pause = move || Duration::from_millis(dice.below(pause_ms + 1));
    worker.work(choose, move || !stopping.load(Ordering::Relaxed), pause).await;
}

/// Connects, again and again; `None` when it was told to stop before.
pub async fn connect(builder: Builder, is_stopped: impl Fn() -> bool) -> Option<Client> {
    while !is_stopped() {
        if let Ok(client) = builder.clone().connect().await {
            return Some(client);
        }
        clock::sleep(CONNECT_AGAIN).await;
    }
    None
}
