//! One run: load and faults at the same time, then heal, last calls, and the verdicts.
//!
//! Each worker ([`Worker`]) is bound to one node. Beside them the nemesis is at work, and an observer asks all nodes how
//! they are: what they say is counted for the coverage gates.
//!
//! Invariants:
//!
//! * Every fault is healed before the last calls, whatever went wrong.
//! * The history is kept before it is judged: a checker that panics leaves it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trefoil_client::Client;
use trefoil_world::{clock, task};

use crate::asking::{Asking, Book, Worker};
use crate::checker::Verdict;
use crate::cluster::Cluster;
use crate::coverage::{self, Expected, LAST_PROCESS, Observed};
use crate::generator::Dice;
use crate::history::{Event, Process, What, pair};
use crate::nemesis::{Nemesis, Seen};
use crate::workload::Workload;

/// How long the cluster may take to serve again when all faults are healed.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often nodes are asked how they are, and how long one may take to say.
const OBSERVED_EVERY: Duration = Duration::from_millis(250);
const STATUS_MAX: Duration = Duration::from_millis(500);

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
    /// What must be seen to happen: otherwise the run is `unknown`.
    pub expected: Vec<Expected>,
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Run<C, R> {
    pub history: Vec<Event<C, R>>,
    pub verdicts: Vec<Verdict>,
    pub observed: Observed,
}

/// Runs `workload` and `nemesis` against `cluster` as `plan` says. `keep` is given the history before it is judged.
///
/// # Errors
/// The harness itself failed, or `keep` did; a cluster that does not recover is a verdict.
pub async fn run<W: Workload + Default>(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
    keep: impl FnOnce(&[Event<W::Call, W::Reply>]) -> io::Result<()>,
) -> anyhow::Result<Run<W::Call, W::Reply>> {
    let mut dice = Dice::new(plan.seed);
    let asking = Asking::new(W::default(), dice.split(), Book::new(|_| ()));
    let endpoints = cluster.endpoints();
    let until = asking.began + plan.lasts;
    let observed: Arc<Mutex<Observed>> = Arc::default();
    let observer = task::spawn(observe(endpoints.clone(), observed.clone()));
    let mut workers = Vec::new();
    for number in 0..plan.workers {
        let client = connect(&endpoints[number % endpoints.len()], plan.call_timeout).await?;
        let apart = plan.workers as u64;
        let worker = Worker::new(asking.clone(), client, Process(number as u64), apart, plan.call_timeout);
        let pause = pauses(plan.workers as f64 / plan.rate, dice.split());
        workers.push(task::spawn(worker.work(move || clock::now() < until, pause)));
    }
    trouble(cluster, nemesis, plan, &asking, until, dice.split()).await;
    for worker in workers {
        worker.await?;
    }
    record_faults(&asking, nemesis.final_heal(cluster).await);
    let unanswered = last_calls(&asking, &endpoints, plan).await?;
    let recovery = recovery(nemesis.not_healed(), unanswered);
    // What ended after the last healing is a crash too.
    cluster.observe()?;
    observer.abort();
    let observed = observed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let history = asking.book.events();
    keep(&history)?;
    let mut verdicts = vec![recovery];
    verdicts.extend(judge::<W>(&history, &nemesis.kinds(), (plan.expected.as_slice(), &observed)));
    // A node that ended by itself is a finding, and so is one that took a fault otherwise than it must.
    verdicts.push(coverage::nothing_found("crashes", cluster.ended()));
    verdicts.push(coverage::nothing_found("faults", nemesis.findings()));
    Ok(Run { history, verdicts, observed })
}

/// What the history tells: its checkers' verdicts, and whether it is enough. `expected`: what had to be seen, and what
/// was.
fn judge<W: Workload>(
    history: &[Event<W::Call, W::Reply>],
    faults: &[String],
    (expected, observed): (&[Expected], &Observed),
) -> Vec<Verdict> {
    let operations = pair(history);
    let mut missing = coverage::unsuccessful(&coverage::counted::<W>(&operations));
    missing.extend(coverage::without_force(faults, &coverage::in_force(history)));
    missing.extend(coverage::unseen(expected, observed));
    let mut verdicts = W::check(&operations);
    verdicts.push(coverage::verdict(missing));
    verdicts
}

async fn connect(endpoint: &str, timeout: Duration) -> anyhow::Result<Client> {
    Ok(Client::builder([endpoint]).retries(false).timeout(timeout).connect().await?)
}

/// Pauses of so many seconds on average.
fn pauses(mean_s: f64, mut dice: Dice) -> impl FnMut() -> Duration + Send + 'static {
    move || Duration::from_secs_f64(mean_s * (dice.below(2000) as f64) / 1000.0)
}

/// Asks all nodes how they are, again and again. Who does not answer says nothing.
async fn observe(endpoints: Vec<String>, observed: Arc<Mutex<Observed>>) {
    let client = loop {
        match Client::builder(endpoints.clone()).retries(false).timeout(STATUS_MAX).connect().await {
            Ok(client) => break client,
            Err(_) => clock::sleep(OBSERVED_EVERY).await,
        }
    };
    loop {
        for endpoint in &endpoints {
            let Ok(asked) = client.status_at(endpoint) else { continue };
            if let Ok(status) = asked.timeout(STATUS_MAX).send().await {
                observed.lock().unwrap_or_else(PoisonError::into_inner).see(&status);
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

/// Puts one fault after another in force until it is time to end.
async fn trouble<W: Workload>(
    cluster: &mut Cluster,
    nemesis: &mut Nemesis,
    plan: &Plan,
    asking: &Asking<W>,
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
        record_faults(asking, nemesis.inject(cluster, leader).await);
        clock::sleep_until(until.min(clock::now() + about(plan.fault_lasts))).await;
        record_faults(asking, nemesis.heal(cluster).await);
    }
}

/// Asks what is asked last until it is answered, of whoever answers: these are reads. In words, the one that had no
/// answer of a cluster that does not answer any more.
async fn last_calls<W: Workload>(
    asking: &Asking<W>,
    endpoints: &[String],
    plan: &Plan,
) -> anyhow::Result<Option<String>> {
    let client = Client::builder(endpoints).timeout(plan.call_timeout).connect().await?;
    let mut worker = Worker::new(asking.clone(), client, LAST_PROCESS, 1, plan.call_timeout);
    let deadline = clock::now() + RECOVERY_MAX;
    Ok(match worker.insist(asking.last_calls(), deadline, RETRY_PAUSE).await {
        Ok(()) => None,
        Err(call) => Some(format!("{RECOVERY_MAX:?} after the last fault was healed {call:?} had no answer")),
    })
}

/// The cluster has recovered when all is healed, every node is ready, and the last calls are answered.
fn recovery(not_healed: Option<&str>, unanswered: Option<String>) -> Verdict {
    let findings: Vec<String> = not_healed.map(str::to_owned).into_iter().chain(unanswered).collect();
    coverage::nothing_found("recovery", &findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Valid;

    #[test]
    fn a_node_that_is_not_ready_has_not_recovered() {
        let (late, silent) = ("n3 is not ready after 60s", "no answer");
        let cases = [
            (None, None, Valid::True, vec![]),
            (Some(late), None, Valid::False, vec![late]),
            (None, Some(silent), Valid::False, vec![silent]),
            (Some(late), Some(silent), Valid::False, vec![late, silent]),
        ];
        for (not_healed, unanswered, valid, evidence) in cases {
            let verdict = recovery(not_healed, unanswered.map(str::to_owned));
            assert_eq!((verdict.checker.as_str(), verdict.valid), ("recovery", valid));
            assert_eq!(verdict.evidence, evidence);
        }
    }
}
