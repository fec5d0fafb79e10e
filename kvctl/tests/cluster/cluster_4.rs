//! Line 4: kill -9 under write load. Nothing acknowledged is lost, and writes resume soon.
//!
//! A gap is measured from the kill to the acknowledgement of the first put that began after the process was gone.

use std::time::Duration;

use trefoil_client::{Client, Outcome};
use trefoil_world::clock;

use crate::cluster::Cluster;
use crate::load::{Load, Record};
use crate::scenario::{Scenario, alone};

/// No gap may be longer.
const GAP_MAX: Duration = Duration::from_secs(8);
/// The median gap may not be longer, nor all but a few of them.
const GAP_MEDIAN_MAX: Duration = Duration::from_millis(2500);
const GAP_MOST_MAX: Duration = Duration::from_secs(4);
/// How many of fifty gaps may be longer than most.
const GAPS_LONG_MAX: usize = 2;
/// The gap a leader that is asked to stop may leave.
const GAP_STOPPED_MAX: Duration = Duration::from_secs(1);
/// How long the load may take for a few acknowledgements.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_leader() {
    let scenario = Scenario::begin("cluster_4::killing_the_leader");
    let _turn = alone().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let load = Load::start(&cluster.client().await, "kills");
    let mut gaps = Vec::new();
    for _ in 0..scenario.pick(50, 3) {
        load.more(100, PATIENCE).await;
        let leader = cluster.leader().await;
        let killed = clock::now();
        cluster.kill(leader).await;
        // Somewhat more than allowed, so that the figures show how much more it was.
        let resumed = load.first_ack_begun_after(clock::now(), GAP_MAX * 4).await;
        gaps.push(resumed - killed);
        cluster.start(leader).await;
    }
    finish(load, &cluster).await;
    judge(gaps, scenario.full);
}

fn judge(mut gaps: Vec<Duration>, full: bool) {
    gaps.sort();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let long = gaps.iter().filter(|gap| **gap > GAP_MOST_MAX).count();
    println!(
        "{} kills of the leader: median {median:?}, longest {longest:?}, {long} over {GAP_MOST_MAX:?}",
        gaps.len()
    );
    assert!(longest <= GAP_MAX, "expected every gap within {GAP_MAX:?}: {gaps:?}");
    if full {
        assert!(median <= GAP_MEDIAN_MAX, "expected a median within {GAP_MEDIAN_MAX:?}: {gaps:?}");
        assert!(long <= GAPS_LONG_MAX, "expected all but {GAPS_LONG_MAX} within {GAP_MOST_MAX:?}: {gaps:?}");
    }
}

/// Ends the load and looks everything up again.
async fn finish(load: Load, cluster: &Cluster) -> Record {
    let record = load.stop().await;
    println!(
        "puts: {} acknowledged, {} not done, {} unknown",
        record.acked.len(),
        record.failed_as(Outcome::NotDone),
        record.failed_as(Outcome::Unknown)
    );
    assert_eq!(record.failed_as(Outcome::Refused), 0, "expected no put to be refused: {:?}", record.failed);
    record.expect_kept(&cluster.client().await).await;
    cluster.expect_equal_replicas().await;
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_all_at_once() {
    let scenario = Scenario::begin("cluster_4::killing_all_at_once");
    let _turn = alone().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let load = Load::start(&cluster.client().await, "blackout");
    let rounds = scenario.pick(20, 2);
    for _ in 0..rounds {
        load.more(100, PATIENCE).await;
        cluster.kill_all().await;
        cluster.start_all().await;
    }
    load.more(1, PATIENCE).await;
    println!("{rounds} kills of all nodes");
    finish(load, &cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_the_leader() {
    let scenario = Scenario::begin("cluster_4::stopping_the_leader");
    let _turn = alone().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let connected = Client::builder(cluster.endpoints()).retries(false).connect().await;
    let client = connected.unwrap_or_else(|error| panic!("expected to connect: {error}"));
    let load = Load::start(&client, "stops");
    let mut stops = Vec::new();
    for _ in 0..scenario.pick(5, 1) {
        load.more(100, PATIENCE).await;
        let leader = cluster.leader().await;
        let from = clock::now();
        let status = cluster.terminate(leader).await;
        assert!(status.success(), "expected exit code 0 after SIGTERM, got {status}");
        let until = load.first_ack_begun_after(clock::now(), GAP_MAX).await;
        stops.push((from, until));
        cluster.start(leader).await;
    }
    let record = finish(load, &cluster).await;
    let wrong: Vec<_> = record.failed.iter().filter(|error| error.outcome() != Outcome::NotDone).collect();
    assert!(wrong.is_empty(), "expected only errors that say that nothing was done: {wrong:?}");
    for (from, until) in stops {
        let gap = longest_silence(&record, from, until);
        println!("the leader was stopped: gap {gap:?}, {} puts to repeat", record.failed.len());
        assert!(gap <= GAP_STOPPED_MAX, "expected a gap within {GAP_STOPPED_MAX:?}, got {gap:?}");
    }
}

/// The longest time without an acknowledgement between two moments.
fn longest_silence(record: &Record, from: clock::Instant, until: clock::Instant) -> Duration {
    let between = record.acked.iter().map(|acked| acked.at).filter(|at| (from..=until).contains(at));
    let mut longest = Duration::ZERO;
    let mut last = from;
    for at in between {
        longest = longest.max(at.saturating_duration_since(last));
        last = at;
    }
    longest
}
