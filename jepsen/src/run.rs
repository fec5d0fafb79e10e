//! One run: load and faults at the same time, then heal, last calls, a look whether the cluster has recovered
//! (`run/recovery.rs`), and the verdicts.
//!
//! Each worker ([`Worker`]) comes to the cluster by a node of its own. Half of them are routed, as users are: their client
//! learns of all nodes, and asks the one that leads. The others are bound ([`is_bound`]): they ask their node and no other,
//! so that followers forward writes and read by the leader's read index, and a leader that was deposed is asked at its own
//! port. A client of etcd is always bound. Where the workload has watchers ([`Workload::WATCH`]), there is one at each node,
//! bound, from the beginning of the load to its end. Beside them the nemesis is at work, and an observer asks all nodes
//! how they are: what they say is counted for the coverage gates, and their alarms are collected (`run/alarms.rs`).
//! A run that is for compactions has a client that compacts ([`Compaction`]).
//!
//! Invariants:
//!
//! * Every fault is healed before the last calls, whatever went wrong.
//! * The history is kept before it is judged.
//! * The nodes have stopped before verdicts are given: how they do it is judged, too.
//! * Whatever goes wrong in the harness is noted, and takes no verdict away: a counter-example stands.

mod alarms;
mod recovery;

use std::collections::BTreeMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_client::NodeStatus;
use trefoil_world::{clock, task};

use crate::asking::{Asking, Book, Seat, Worker, seats};
use crate::checker::{Valid, Verdict};
use crate::client::{Client, EtcdClient};
use crate::cluster::status::Statuses;
use crate::cluster::{Cluster, NotServing, Struck};
use crate::compaction::Compaction;
use crate::coverage::{self, Expected, Floor, Gate, LAST_PROCESS, Observed};
use crate::generator::Dice;
use crate::history::{Event, FaultPhase, Operation, Process, What, pair};
use crate::nemesis::{Nemesis, Seen};
use crate::target::Target;
use crate::workload::Workload;

use alarms::Alarms;
use recovery::{RECOVERY_MAX, RETRY_PAUSE, Themselves};

/// How often nodes are asked how they are.
const OBSERVED_EVERY: Duration = Duration::from_millis(250);

/// How long who compacts pauses at most, in milliseconds.
const COMPACTION_PAUSE_MAX_MS: u64 = 200;

/// What is done, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub lasts: Duration,
    pub workers: usize,
    /// Calls a second, of all workers together. Each who watches asks as often as a worker, beside that.
    pub rate: f64,
    pub call_timeout: Duration,
    /// How long a fault is in force, and how long there is none, on average.
    pub fault_lasts: Duration,
    pub fault_pause: Duration,
    /// How many faults there are at a time at most; at least 1. Where two of them can go beside each other, that must be seen
    /// once: otherwise the run is `unknown`.
    pub at_once: usize,
    /// What must be seen to happen, whatever the faults: otherwise the run is `unknown`.
    pub expected: Vec<Expected>,
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run<C, R> {
    pub history: Vec<Event<C, R>>,
    pub verdicts: Vec<Verdict>,
    pub gates: Vec<Gate>,
    pub observed: Observed,
    /// What went wrong in the harness itself. There is then a verdict that is `unknown` at best.
    pub failures: Vec<String>,
}

impl<C, R> Run<C, R> {
    /// One whose cluster never served: nothing was asked.
    pub fn never_began(why: &NotServing) -> Run<C, R> {
        let verdict = match why {
            NotServing::Ended(nodes) => coverage::nothing_found("crashes", nodes),
            NotServing::NotReady(node) => coverage::nothing_found("recovery", std::slice::from_ref(node)),
        };
        let (history, gates, observed) = (Vec::new(), Vec::new(), Observed::default());
        Run { history, verdicts: vec![verdict], gates, observed, failures: Vec::new() }
    }
}

/// Runs `workload` and `nemesis` against `cluster` as `plan` says. `keep` is given the history before it is judged. What
/// goes wrong in the harness, or in `keep`, is in [`Run::failures`].
pub async fn run<W: Workload + Default>(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
    keep: impl FnOnce(&[Event<W::Call, W::Reply>]) -> io::Result<()>,
) -> Run<W::Call, W::Reply> {
    let plan = &Plan { at_once: possible_at_once(cluster, nemesis, plan).await, ..plan.clone() };
    let mut dice = Dice::new(plan.seed);
    let asking = Asking::new(W::default().for_target(cluster.target()), dice.split(), Book::new(|_| ()));
    let until = asking.began + plan.lasts;
    let noted: Arc<Mutex<Noted>> = Arc::default();
    let observer = task::spawn(observe(cluster.statuses(), noted.clone()));
    let workers = load(&asking, cluster, plan, until, &mut dice);
    let (compaction, compactor) = compacting(cluster, plan, &mut dice).unzip();
    trouble(cluster, nemesis, plan, &asking, until, dice.split()).await;
    compaction.iter().for_each(Compaction::stop);
    let mut failures = all_ended("worker", workers).await;
    failures.extend(all_ended("compacting client", compactor).await);
    let recovered_by = clock::now() + RECOVERY_MAX;
    record_faults(&asking, nemesis.final_heal(cluster).await);
    let recovery = recover(&asking, cluster, nemesis, plan, recovered_by).await;
    observer.abort();
    let Noted { observed, alarms } = noted.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let history = asking.book.events();
    failures.extend(keep(&history).err().map(|error| format!("the history could not be kept: {error}")));
    // What ended after the last healing is a crash too, and so is what does not stop as it should.
    failures.extend(cluster.stop().await.err().map(|error| format!("{error:#}")));
    let operations = pair(&history);
    let mut gates = gates::<W>(&history, &operations, nemesis, (plan.expected.as_slice(), &observed));
    gates.extend((plan.at_once > 1).then(|| coverage::at_once(coverage::pairs(&history))));
    let mut verdicts = vec![recovery];
    failures.extend(judge::<W>(&operations, &mut verdicts).err());
    verdicts.extend(compaction.iter().map(Compaction::verdict));
    verdicts.push(coverage::verdict(&gates));
    // A node that ended by itself is a finding, and so is one that took a fault otherwise than it must.
    verdicts.push(coverage::nothing_found("crashes", cluster.ended()));
    verdicts.push(coverage::nothing_found("faults", nemesis.findings()));
    verdicts.extend(leaders(cluster.target(), &observed));
    verdicts.push(coverage::nothing_found("alarms", &alarms.findings(&struck(cluster))));
    verdicts.extend(harness(&failures));
    Run { history, verdicts, gates, observed, failures }
}

/// How many faults there can be at a time, of as many as were asked for. Says so when they do not go beside each other.
async fn possible_at_once(cluster: &mut Cluster, nemesis: &Nemesis, plan: &Plan) -> usize {
    if plan.at_once == 1 || nemesis.can_pair(&cluster.placement().await) {
        return plan.at_once;
    }
    eprintln!("no two of the faults asked for go beside each other: there is one at a time, and no gate for two");
    1
}

/// What faults have done to each node, by its name.
fn struck(cluster: &Cluster) -> BTreeMap<String, Struck> {
    cluster.nodes().iter().map(|node| (node.place.name.clone(), node.struck())).collect()
}

/// Starts the workers, and those who watch beside them.
fn load<W: Workload>(
    asking: &Asking<W>,
    cluster: &Cluster,
    plan: &Plan,
    until: clock::Instant,
    dice: &mut Dice,
) -> Vec<JoinHandle<()>> {
    let (target, endpoints) = (cluster.target(), cluster.endpoints());
    let seats = seats::<W>(plan.workers, endpoints.len());
    let (mut workers, apart) = (Vec::new(), seats.len() as u64);
    for (number, Seat { node, choose, watches }) in seats.into_iter().enumerate() {
        let (asking, timeout) = (asking.clone(), plan.call_timeout);
        let (endpoint, bound) = (vec![endpoints[node].clone()], watches || is_bound(number, endpoints.len()));
        let manner = Manner { retries: false, routed: !bound, timeout };
        let pause = pauses(plan.workers as f64 / plan.rate, dice.split());
        workers.push(task::spawn(async move {
            // Without an answer by then it has asked nothing; that a node does not serve is seen when all is healed.
            let Ok(client) = connect(target, &endpoint, manner, until).await else { return };
            let worker = Worker::new(asking, client, Process(number as u64), apart, timeout);
            worker.work(choose, move || clock::now() < until, pause).await;
        }));
    }
    workers
}

/// Has history compacted beside the load, if that must be seen to happen.
fn compacting(cluster: &Cluster, plan: &Plan, dice: &mut Dice) -> Option<(Compaction, JoinHandle<()>)> {
    let wanted = plan.expected.contains(&Expected::Compaction);
    wanted.then(|| Compaction::start(COMPACTION_PAUSE_MAX_MS, &cluster.endpoints(), dice.split()))
}

/// Whether a worker asks its node and no other: every second one, and of each node every second one that comes by it.
fn is_bound(worker: usize, nodes: usize) -> bool {
    (worker / nodes + worker % nodes) % 2 == 1
}

/// Waits for tasks, each of which is a `what`. In words, which of them did not end as they should.
async fn all_ended(what: &str, tasks: impl IntoIterator<Item = JoinHandle<()>>) -> Vec<String> {
    let mut failures = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        failures.extend(task.await.err().map(|error| format!("{what} {number}: {error}")));
    }
    failures
}

/// What had to happen, and how often it was seen. `expected`: what the run is for anyway; `observed`: what was seen.
fn gates<W: Workload>(
    history: &[Event<W::Call, W::Reply>],
    operations: &[Operation<W::Call, W::Reply>],
    nemesis: &Nemesis,
    (expected, observed): (&[Expected], &Observed),
) -> Vec<Gate> {
    let expected = coverage::expected(expected, nemesis.unseated());
    [
        coverage::successes::<W>(operations, Floor::RUN),
        coverage::faults(&nemesis.asked_for(), &coverage::in_force(history)),
        coverage::events(&expected, observed),
    ]
    .concat()
}

/// A verdict on who led when. None of etcd: the term that its members tell is that of the last entry they have applied, not
/// the one in which they lead.
fn leaders(target: Target, observed: &Observed) -> Option<Verdict> {
    match target {
        Target::Trefoil => Some(coverage::nothing_found("leaders", &observed.split_terms())),
        Target::Etcd => None,
    }
}

/// Adds the verdicts of the workload's checkers.
///
/// # Errors
/// One of them panicked, which is said.
fn judge<W: Workload>(operations: &[Operation<W::Call, W::Reply>], verdicts: &mut Vec<Verdict>) -> Result<(), String> {
    let checked = panic::catch_unwind(AssertUnwindSafe(|| W::check(operations)));
    verdicts.extend(checked.map_err(|_| "a checker panicked".to_owned())?);
    Ok(())
}

/// A verdict on the harness, when something went wrong in it: a run of which some is missing proves nothing.
fn harness(failures: &[String]) -> Option<Verdict> {
    let verdict = Verdict { checker: "harness".into(), valid: Valid::Unknown, evidence: failures.to_vec() };
    (!failures.is_empty()).then_some(verdict)
}

/// How a client asks.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Whether what was surely not done is asked again.
    retries: bool,
    /// Whether it asks whoever leads; else the nodes that it was given, and no other. Of etcd it always does the latter.
    routed: bool,
    /// Of each call.
    timeout: Duration,
}

/// A client of these nodes, as soon as one of them answers.
///
/// # Errors
/// Nobody has answered by then: why.
async fn connect(
    target: Target,
    endpoints: &[String],
    Manner { retries, routed, timeout }: Manner,
    until: clock::Instant,
) -> Result<Client, String> {
    loop {
        let made = match target {
            Target::Trefoil => {
                let builder = trefoil_client::Client::builder(endpoints.to_vec()).retries(retries).routed(routed);
                builder.timeout(timeout).connect().await.map(Client::from).map_err(|error| error.to_string())
            }
            // Its connections are made when they are first needed.
            Target::Etcd => EtcdClient::of(endpoints).map(Client::from).map_err(|error| format!("{error:#}")),
        };
        match made {
            Ok(client) => return Ok(client),
            Err(why) if clock::now() >= until => return Err(why),
            Err(_) => clock::sleep(RETRY_PAUSE).await,
        }
    }
}

/// Pauses of so many seconds on average.
fn pauses(mean_s: f64, mut dice: Dice) -> impl FnMut() -> Duration + Send + 'static {
    move || Duration::from_secs_f64(mean_s * (dice.below(2000) as f64) / 1000.0)
}

/// What nodes were seen to say of themselves.
#[derive(Clone, Debug, Default)]
struct Noted {
    observed: Observed,
    alarms: Alarms,
}

impl Noted {
    /// Takes note of how a node is.
    fn see(&mut self, node: usize, status: &NodeStatus) {
        self.observed.see(status);
        self.alarms.see(node, status, clock::now());
    }
}

/// Asks all nodes how they are, again and again.
async fn observe(mut statuses: Statuses, noted: Arc<Mutex<Noted>>) {
    loop {
        for (node, status) in statuses.ask_all().await.iter().enumerate() {
            if let Some(status) = status {
                noted.lock().unwrap_or_else(PoisonError::into_inner).see(node, status);
            }
        }
        clock::sleep(OBSERVED_EVERY).await;
    }
}

fn record_faults<W: Workload>(asking: &Asking<W>, faults: Vec<Seen>) {
    for (name, phase, detail) in faults {
        eprintln!("{:>7.2} s  {name}: {phase:?}: {detail}", asking.began.elapsed().as_secs_f64());
        asking.record(What::Fault { name, phase, detail });
    }
}

/// Puts one fault after another in force until it is time to end; beside each, until two were in force at once, and then now
/// and then, one more after half as long.
async fn trouble<W: Workload>(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
    asking: &Asking<W>,
    until: clock::Instant,
    mut dice: Dice,
) {
    let (mut count, mut paired) = (dice.split(), false);
    let mut about = |mean: Duration| mean.mul_f64(0.5 + dice.below(1000) as f64 / 1000.0);
    loop {
        clock::sleep_until(until.min(clock::now() + about(plan.fault_pause))).await;
        if clock::now() >= until || nemesis.kinds().is_empty() {
            clock::sleep_until(until).await;
            return;
        }
        let drawn = count.below(plan.at_once as u64);
        let besides = if paired { drawn } else { plan.at_once as u64 - 1 };
        let mut in_force = 0;
        for more in (0..=besides).rev() {
            if clock::now() < until {
                let placement = cluster.placement().await;
                let seen = match more == besides {
                    true => nemesis.inject(cluster, &placement).await,
                    false => nemesis.inject_beside(cluster, &placement).await,
                };
                in_force += seen.iter().filter(|(_, phase, _)| *phase == FaultPhase::InForce).count();
                record_faults(asking, seen);
            }
            let lasts = about(plan.fault_lasts) / if more > 0 { 2 } else { 1 };
            clock::sleep_until(until.min(clock::now() + lasts)).await;
        }
        paired |= in_force > 1;
        record_faults(asking, nemesis.heal(cluster).await);
    }
}

/// The cluster has recovered when all is healed and every node was ready, the last calls are answered, every node serves
/// by itself, and the replicas are equal. `until`: by then.
async fn recover<W: Workload>(
    asking: &Asking<W>,
    cluster: &Cluster,
    nemesis: &Nemesis,
    plan: &Plan,
    until: clock::Instant,
) -> Verdict {
    let mut findings = nemesis.not_healed().to_vec();
    findings.extend(last_calls(asking, cluster, plan, until).await.err());
    // Behind the last calls: whatever is put now, they have not seen.
    findings.extend(recovery::findings(&mut Themselves::of(cluster, plan.call_timeout), until).await);
    coverage::nothing_found("recovery", &findings)
}

/// Asks what is asked last until it is answered, of whoever answers: these are reads.
///
/// # Errors
/// The one that had no answer of a cluster that does not answer any more, in words.
async fn last_calls<W: Workload>(
    asking: &Asking<W>,
    cluster: &Cluster,
    plan: &Plan,
    until: clock::Instant,
) -> Result<(), String> {
    let (endpoints, timeout) = (cluster.endpoints(), plan.call_timeout);
    let manner = Manner { retries: true, routed: true, timeout };
    let client = connect(cluster.target(), &endpoints, manner, until).await;
    let client = client.map_err(|why| recovery::late(&format!("no node has answered: {why}")))?;
    let mut worker = Worker::new(asking.clone(), client, LAST_PROCESS, 1, timeout);
    let answered = worker.insist(asking.last_calls(), until, RETRY_PAUSE).await;
    answered.map_err(|call| recovery::late(&format!("the last call {call:?} has no answer")))
}

#[cfg(test)]
mod tests;
