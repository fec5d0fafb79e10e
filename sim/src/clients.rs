//! The clients: workers that ask what a workload chooses, through the client library, and record what came of it.
//!
//! The workload, its table of outcomes and its checkers are the chaos harness's. A worker is one process at a time;
//! when the outcome of a call is unknown, it goes on as a new one. All run on the clients' machine, whose clock is
//! true.
//!
//! Invariants:
//!
//! * An invocation is recorded before anything is sent, a completion after the answer is known.
//! * No two events have the same time, so that what came first in the history came first in time.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_client::Client;
use trefoil_jepsen::generator::Dice;
use trefoil_jepsen::history::{Event, Nanos, Outcome, Process, What};
use trefoil_jepsen::outcome;
use trefoil_jepsen::workload::Workload;
use trefoil_world::{clock, task};

use crate::parameters::LoadParameters;
use crate::trace::Trace;

const CONNECT_AGAIN: Duration = Duration::from_millis(50);

/// The history being made. Clones write into the same one.
pub struct Book<C, R> {
    events: Arc<Mutex<Vec<Event<C, R>>>>,
    trace: Trace,
}

impl<C, R> Clone for Book<C, R> {
    fn clone(&self) -> Book<C, R> {
        Book { events: self.events.clone(), trace: self.trace.clone() }
    }
}

impl<C: Clone + Debug, R: Clone + Debug> Book<C, R> {
    pub fn new(trace: Trace) -> Book<C, R> {
        Book { events: Arc::default(), trace }
    }

    /// Records what happened so long after the beginning, or as soon after the last event as can be told.
    pub fn record(&self, at: Duration, what: What<C, R>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = events.last().map_or(0, |last| last.time.0 + 1);
        let time = Nanos(earliest.max(at.as_nanos() as u64));
        self.trace.line(time.0 / 1_000_000, format_args!("{what:?}"));
        events.push(Event { time, what });
    }

    /// What was recorded so far.
    pub fn events(&self) -> Vec<Event<C, R>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the workers share: the workload with its choices.
type Choices<W> = Arc<Mutex<(W, Dice)>>;

/// Workers at work.
pub struct Load<W: Workload> {
    pub choices: Choices<W>,
    stopping: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl<W: Workload + Default> Load<W> {
    /// Starts the workers. Runs on the clients' machine, at its beginning.
    pub fn start(
        parameters: &LoadParameters,
        endpoints: &[String],
        book: &Book<W::Call, W::Reply>,
        mut dice: Dice,
    ) -> Load<W> {
        let choices: Choices<W> = Arc::new(Mutex::new((W::default(), dice.split())));
        let stopping = Arc::new(AtomicBool::new(false));
        let began = clock::now();
        let start = |number: usize| {
            // One that may not go elsewhere begins with one node, each with another.
            let others = if parameters.retries { endpoints.len() } else { 1 };
            let endpoints = endpoints.iter().cycle().skip(number % endpoints.len()).take(others).cloned().collect();
            let asking = Asking { book: book.clone(), choices: choices.clone(), began };
            task::spawn(work(asking, number, parameters.clone(), endpoints, stopping.clone(), dice.split()))
        };
        let workers = (0..parameters.workers).map(start).collect();
        Load { choices, stopping, workers }
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

/// What it takes to ask and to record.
pub struct Asking<W: Workload> {
    pub book: Book<W::Call, W::Reply>,
    pub choices: Choices<W>,
    /// The beginning of the run on the clients' clock.
    pub began: clock::Instant,
}

impl<W: Workload> Asking<W> {
    /// Asks once, and records both the call and what came of it.
    pub async fn ask(&self, client: &Client, process: Process, call: &W::Call, timeout: Duration) -> Asked {
        self.book.record(self.began.elapsed(), What::Invoke { process, call: call.clone() });
        let result = W::carry_out(client, call, timeout).await;
        let (what, asked) = match outcome::of(result, W::access(call)) {
            Outcome::Ok(reply) => {
                self.choices.lock().unwrap_or_else(PoisonError::into_inner).0.observe(call, &reply);
                (What::Ok { process, reply }, Asked::Answered)
            }
            Outcome::Fail(why) => (What::Fail { process, why }, Asked::NotDone),
            Outcome::Info(why) => (What::Info { process, why }, Asked::Unknown),
        };
        self.book.record(self.began.elapsed(), what);
        asked
    }

    fn next_call(&self) -> W::Call {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let (workload, dice) = &mut *choices;
        workload.next(dice)
    }
}

/// What became of a question, as far as whoever asks again must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Answered,
    NotDone,
    /// The process that asked asks nothing more.
    Unknown,
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
    let Some(client) = connect(&endpoints, &parameters, &stopping).await else { return };
    let mut process = Process(number as u64);
    while !stopping.load(Ordering::Relaxed) {
        let call = asking.next_call();
        match asking.ask(&client, process, &call, parameters.call_timeout).await {
            Asked::Answered | Asked::NotDone => {}
            Asked::Unknown => process.0 += parameters.workers as u64,
        }
        clock::sleep(Duration::from_millis(dice.below(parameters.pause_ms + 1))).await;
    }
}

async fn connect(endpoints: &[String], parameters: &LoadParameters, stopping: &AtomicBool) -> Option<Client> {
    while !stopping.load(Ordering::Relaxed) {
        let builder = Client::builder(endpoints.to_vec()).retries(parameters.retries);
        if let Ok(client) = builder.timeout(parameters.call_timeout).connect().await {
            return Some(client);
        }
        clock::sleep(CONNECT_AGAIN).await;
    }
    None
}
