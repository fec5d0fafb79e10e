//! Faults of what proxies pass on: late, in drips, broken off.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{bail, ensure};
use trefoil_world::clock;

use super::{Found, links, within};
use crate::backend::{Break, Line, Proxies, Weather, node_name};
use crate::cluster::Cluster;

/// How long it may take until something has come by: peers say something several times a second.
const SEEN_MAX: Duration = Duration::from_secs(5);
/// How long nodes may take to connect to each other again: they wait for silence to be long enough, then for each other.
const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// By how much a drip makes a heartbeat late.
const DRIP_LATE: Duration = Duration::from_millis(100);

fn proxies(cluster: &Cluster) -> anyhow::Result<Proxies> {
    links(cluster)?.proxies().cloned().map_err(anyhow::Error::msg)
}

fn lines(cluster: &Cluster, nodes: &BTreeSet<usize>) -> BTreeSet<Line> {
    nodes.iter().flat_map(|&node| Line::of_node(node, cluster.nodes().len())).collect()
}

/// How many lines are hit.
pub(super) fn set(cluster: &Cluster, weather: Weather, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
    let lines = lines(cluster, nodes);
    proxies(cluster)?.weather(&lines, weather);
    Ok(lines.len())
}

/// Waits until each node has a connection, and breaks them. How many nodes are hit.
pub(super) async fn break_off(cluster: &Cluster, how: Break, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
    let proxies = proxies(cluster)?;
    let connected = || nodes.iter().all(|&node| proxies.standing(node) > 0);
    ensure!(within(SEEN_MAX, connected).await, "there is no connection to be broken");
    nodes.iter().for_each(|&node| proxies.break_connections(node, how));
    Ok(nodes.len())
}

/// On one line at least, something was as late as it was to be: not every two nodes have something to say to each other.
pub(super) async fn probe_weather(
    cluster: &Cluster,
    weather: Weather,
    nodes: &BTreeSet<usize>,
) -> anyhow::Result<Found> {
    let (proxies, lines, late) = (proxies(cluster)?, lines(cluster, nodes), late(weather));
    let slow = || lines.iter().copied().find(|&line| proxies.slowest(line) >= late);
    ensure!(within(SEEN_MAX, || slow().is_some()).await, "nothing was {late:?} late in {SEEN_MAX:?}");
    let slowest = lines.iter().max_by_key(|&&line| proxies.slowest(line));
    let Line { from, to } = *slowest.expect("one line is slow");
    let took = proxies.slowest(Line { from, to });
    Ok(format!("from {} to {} something took {took:?}", node_name(from), node_name(to)).into())
}

/// How late something is at least that was hit by it.
fn late(weather: Weather) -> Duration {
    match weather {
        Weather::Slow { delay, .. } => delay,
        Weather::Drip { .. } => DRIP_LATE,
    }
}

/// On each line a word got through in less time than with that weather.
pub(super) async fn probe_calm(cluster: &Cluster, weather: Weather, nodes: &BTreeSet<usize>) -> anyhow::Result<String> {
    let (proxies, mut left) = (proxies(cluster)?, lines(cluster, nodes));
    let until = clock::now() + SEEN_MAX;
    while !left.is_empty() {
        if let Some(Line { from, to }) = left.first().filter(|_| clock::now() >= until) {
            bail!("from {} to {} everything takes {:?} still", node_name(*from), node_name(*to), late(weather));
        }
        let words = proxies.words(&BTreeSet::new()).await;
        left.retain(|line| words.get(line).copied().flatten().is_none_or(|took| took >= late(weather)));
    }
    Ok(format!("on each line a word takes less than {:?}", late(weather)))
}

/// No connection is half open, and these nodes have some.
pub(super) async fn probe_whole(cluster: &Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<String> {
    let proxies = proxies(cluster)?;
    ensure!(within(SEEN_MAX, || proxies.half_open() == 0).await, "a connection is still half open");
    let alone = cluster.nodes().len() < 2;
    let connected = || alone || nodes.iter().all(|&node| proxies.standing(node) > 0);
    ensure!(within(RECONNECT_MAX, connected).await, "a node has no connection after {RECONNECT_MAX:?}");
    Ok("they have connections, and none is half open".to_owned())
}

/// A connection was broken.
pub(super) async fn probe_broken(cluster: &Cluster, how: Break) -> anyhow::Result<Found> {
    let proxies = proxies(cluster)?;
    ensure!(within(SEEN_MAX, || proxies.broken() > 0).await, "no connection was broken");
    let what = match how {
        Break::Reset => "reset",
        Break::HalfOpen => "left half open",
    };
    Ok(format!("{} connections were {what}", proxies.broken()).into())
}
