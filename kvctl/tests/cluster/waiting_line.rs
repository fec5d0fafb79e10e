//! A node that is not ready says so, and why, every 5 s and not more often.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::process::READY_LINE;
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const LINE: &str = "not ready: ";
/// The first one is said at once.
const LINES: usize = 3;
const LINES_MAX: Duration = Duration::from_secs(30);
/// Between two lines, by their own clock, in microseconds: 5 s and how late a busy machine may be.
const GAP_US: std::ops::RangeInclusive<u64> = 4_000_000..=7_000_000;
const DAY_US: u64 = 86_400_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_says_what_it_waits_for() {
    Scenario::begin("waiting_line::a_node_alone_says_what_it_waits_for");
    let _turn = beside_others().await;
    let mut cluster = Cluster::plan(3, &[]).await;
    cluster.launch(0);
    let process = cluster.nodes[0].running();
    let log = until("three lines of a node that waits", LINES_MAX, async || {
        let log = process.log();
        assert_eq!(process.exited(), None, "expected the node to wait:\n{log}");
        // A line may be there in part.
        let whole = log.rfind('\n').map_or(0, |end| end + 1);
        (log[..whole].matches(LINE).count() >= LINES).then(|| log[..whole].to_owned())
    })
    .await;
    assert!(!log.contains(READY_LINE), "expected a node without its quorum not to be ready:\n{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(LINE)).collect();
    for line in &lines {
        let names = line.contains("waiting for n2") || line.contains("waiting for n3");
        assert!(names, "expected the line to name a node it waits for, got '{line}'");
    }
    let times: Vec<u64> = lines.iter().map(|line| time_of_day_us(line)).collect();
    let gaps: Vec<u64> = times.windows(2).map(|pair| (pair[1] + DAY_US - pair[0]) % DAY_US).collect();
    println!("microseconds between two lines: {gaps:?}");
    assert!(gaps.iter().all(|gap| GAP_US.contains(gap)), "expected a line about every 5 s:\n{log}");
}

/// The time of day in microseconds of a line that begins with `2026-11-21T14:35:57.976754Z`.
fn time_of_day_us(line: &str) -> u64 {
    let parsed = || {
        let stamp = line.split_whitespace().next()?.strip_suffix('Z')?;
        let (_, time) = stamp.split_once('T')?;
        let (clock, fraction) = time.split_once('.')?;
        let mut seconds = 0;
        for part in clock.split(':') {
            seconds = seconds * 60 + part.parse::<u64>().ok()?;
        }
        let micros = (fraction.len() == 6).then(|| fraction.parse::<u64>().ok())??;
        Some(seconds * 1_000_000 + micros)
    };
    parsed().unwrap_or_else(|| panic!("expected a line that begins with an RFC 3339 time, got '{line}'"))
}
