//! One run: load and faults at the same time, then heal, last calls, and the verdicts.
//!
//! Each worker is one process at a time, bound to one node; when a call's outcome is unknown it goes on as a new process.
//! What is recorded gets its time under the recorder's lock, so that the history is in the order of its times.
//!
//! Invariants:
//!
//! * A call's invocation is recorded before anything is sent, its completion after the answer is known.
//! * Every fault is healed before the last calls, whatever went wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_client::Client;
use trefoil_world::{clock, task};

use crate::checker::{Verdict, worst};
use crate::cluster::Cluster;
use crate::generator::Dice;
use crate::history::{Event, FaultPhase, Nanos, Operation, Outcome, Process, What, pair};
use crate::nemesis::Nemesis;
use crate::outcome;
use crate::workload::Workload;

/// How long the cluster may take to serve again when all faults are healed.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The process of the last calls: above all that workers use.
const LAST_PROCESS: u64 = 1 << 40;

/// What is done, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub lasts: Duration,
    pub workers: usize,
    /// Calls a second, of all workers together.
    pub rate: f64,
    pub call_timeout: Duration,
    /// How long a fault is in force, and how long there is none, on average.
    pub fault_lasts: Duration,
    pub fault_pause: Duration,
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run<C, R> {
    pub history: Vec<Event<C, R>>,
    pub verdicts: Vec<Verdict>,
}

/// The history being made.
struct Recorder<C, R> {
    began: clock::Instant,
    // Workers and nemesis write into it; held for a push only.
    events: Mutex<Vec<Event<C, R>>>,
}

impl<C, R> Recorder<C, R> {
    fn record(&self, what: What<C, R>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Nanos(self.began.elapsed().as_nanos() as u64);
        events.push(Event { time, what });
    }

    fn record_faults(&self, faults: Vec<(String, FaultPhase, String)>) {
        for (name, phase, detail) in faults {
            eprintln!("{:>7.2} s  {name}: {phase:?}: {detail}", self.began.elapsed().as_secs_f64());
            self.record(What::Fault { name, phase, detail });
        }
    }
}

/// What the workers share: the workload with its choices.
type Shared<W> = Arc<Mutex<(W, Dice)>>;

/// Runs `workload` and `nemesis` against `cluster` as `plan` says.
///
/// # Errors
/// The harness itself failed; a cluster that does not recover is a verdict.
pub async fn run<W: Workload + Default>(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
) -> anyhow::Result<Run<W::Call, W::Reply>> {
    let mut dice = Dice::new(plan.seed);
    let recorder = Arc::new(Recorder { began: clock::now(), events: Mutex::default() });
    let shared: Shared<W> = Arc::new(Mutex::new((W::default(), dice.split())));
    let endpoints = cluster.endpoints();
    let until = recorder.began + plan.lasts;
    let mut workers = Vec::new();
    for number in 0..plan.workers {
        let worker = Worker {
            recorder: recorder.clone(),
            shared: shared.clone(),
            client: connect(&endpoints[number % endpoints.len()], plan.call_timeout).await?,
            process: Process(number as u64),
            workers: plan.workers as u64,
            call_timeout: plan.call_timeout,
        };
        workers.push(task::spawn(worker.work(until, plan.workers as f64 / plan.rate, dice.split())));
    }
    trouble(cluster, nemesis, plan, &recorder, until, dice.split()).await;
    for worker in workers {
        worker.await?;
    }
    recorder.record_faults(nemesis.final_heal(cluster).await);
    let mut verdicts = Vec::new();
    verdicts.push(last_calls(&shared, &recorder, &endpoints, plan).await?);
    let history = recorder.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let operations = pair(&history);
    verdicts.extend(W::check(&operations));
    verdicts.push(coverage::<W>(&operations, &history, &nemesis.kinds()));
    verdicts.push(crashes(cluster.ended()));
    Ok(Run { history, verdicts })
}

async fn connect(endpoint: &str, timeout: Duration) -> anyhow::Result<Client> {
    Ok(Client::builder([endpoint]).retries(false).timeout(timeout).connect().await?)
}

struct Worker<W: Workload> {
    recorder: Arc<Recorder<W::Call, W::Reply>>,
    shared: Shared<W>,
    client: Client,
    process: Process,
    /// How far the next process number is.
    workers: u64,
    call_timeout: Duration,
}

impl<W: Workload> Worker<W> {
    /// Asks one thing after another, `pause` seconds apart on average.
    async fn work(mut self, until: clock::Instant, pause: f64, mut dice: Dice) {
        while clock::now() < until {
            let call = {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                let (workload, choices) = &mut *shared;
                workload.next(choices)
            };
            self.ask(call).await;
            clock::sleep(Duration::from_secs_f64(pause * (dice.below(2000) as f64) / 1000.0)).await;
        }
    }

    /// Whether it was answered.
    async fn ask(&mut self, call: W::Call) -> bool {
        let process = self.process;
        self.recorder.record(What::Invoke { process, call: call.clone() });
        let result = W::carry_out(&self.client, &call, self.call_timeout).await;
        let (what, answered) = match outcome::of(result, W::access(&call)) {
            Outcome::Ok(reply) => {
                self.shared.lock().unwrap_or_else(PoisonError::into_inner).0.observe(&call, &reply);
                (What::Ok { process, reply }, true)
            }
            Outcome::Fail(why) => (What::Fail { process, why }, false),
            Outcome::Info(why) => {
                self.process = Process(self.process.0 + self.workers);
                (What::Info { process, why }, false)
            }
        };
        self.recorder.record(what);
        answered
    }
}

/// Puts one fault after another in force until it is time to end.
async fn trouble<C, R>(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
    recorder: &Recorder<C, R>,
    until: clock::Instant,
    mut dice: Dice,
) {
    let mut about = |mean: Duration| mean.mul_f64(0.5 + dice.below(1000) as f64 / 1000.0);
    loop {
        clock::sleep_until(until.min(clock::now() + about(plan.fault_pause))).await;
        if clock::now() >= until || nemesis.kinds().is_empty() {
            clock::sleep_until(until).await;
            return;
        }
        let leader = cluster.leader().await;
        recorder.record_faults(nemesis.inject(cluster, leader).await);
        clock::sleep_until(until.min(clock::now() + about(plan.fault_lasts))).await;
        recorder.record_faults(nemesis.heal(cluster).await);
    }
}

/// Asks what is asked last until it is answered, of whoever answers: these are reads. A verdict against a cluster that
/// does not answer any more.
async fn last_calls<W: Workload>(
    shared: &Shared<W>,
    recorder: &Arc<Recorder<W::Call, W::Reply>>,
    endpoints: &[String],
    plan: &Plan,
) -> anyhow::Result<Verdict> {
    let calls = shared.lock().unwrap_or_else(PoisonError::into_inner).0.last_calls();
    let client = Client::builder(endpoints).timeout(plan.call_timeout).connect().await?;
    let mut worker = Worker {
        recorder: recorder.clone(),
        shared: shared.clone(),
        client,
        process: Process(LAST_PROCESS),
        workers: 1,
        call_timeout: plan.call_timeout,
    };
    let deadline = clock::now() + RECOVERY_MAX;
    for call in calls {
        while !worker.ask(call.clone()).await {
            if clock::now() >= deadline {
                let why = format!("{RECOVERY_MAX:?} after the last fault was healed {call:?} had no answer");
                return Ok(Verdict::invalid("recovery", vec![why]));
            }
            clock::sleep(RETRY_PAUSE).await;
        }
    }
    Ok(Verdict::valid("recovery"))
}

/// A node that ended by itself is a finding.
fn crashes(ended: &[String]) -> Verdict {
    match ended.is_empty() {
        true => Verdict::valid("crashes"),
        false => Verdict::invalid("crashes", ended.to_vec()),
    }
}

/// Whether enough happened to prove anything: every kind of call has succeeded, every kind of fault was in force.
fn coverage<W: Workload>(
    operations: &[Operation<W::Call, W::Reply>],
    history: &[Event<W::Call, W::Reply>],
    faults: &[String],
) -> Verdict {
    let mut succeeded: BTreeMap<&str, u64> = W::KINDS.iter().map(|kind| (*kind, 0)).collect();
    for operation in operations {
        if let Outcome::Ok(_) = operation.outcome {
            *succeeded.entry(W::kind(&operation.call)).or_default() += 1;
        }
    }
    let mut in_force: BTreeMap<&str, u64> = faults.iter().map(|fault| (fault.as_str(), 0)).collect();
    for event in history {
        if let What::Fault { name, phase: FaultPhase::InForce, .. } = &event.what {
            *in_force.entry(name).or_default() += 1;
        }
    }
    let missing: Vec<String> = succeeded
        .iter()
        .map(|(kind, count)| (format!("no {kind} succeeded"), *count))
        .chain(in_force.iter().map(|(fault, count)| (format!("{fault} was never in force"), *count)))
        .filter(|(_, count)| *count == 0)
        .map(|(what, _)| what)
        .collect();
    match missing.is_empty() {
        true => Verdict::valid("coverage"),
        false => Verdict::unknown("coverage", missing.join("; ")),
    }
}

/// The verdict over all.
pub fn verdict<C, R>(run: &Run<C, R>) -> crate::checker::Valid {
    worst(&run.verdicts)
}
