//! Faults of disks: power lost, syncs that fail, no space left.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use trefoil_client::NodeStatus;
use trefoil_world::clock::{self, Instant};

use super::{Found, POLL, probe_running};
use crate::backend::node_name;
use crate::cluster::{Cluster, DiskCount, EndReason};

/// A loss of power hits all nodes at once: within this.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long a node may take to sync or to write something, under load.
const SEEN_MAX: Duration = Duration::from_secs(10);
/// A node whose sync has failed must be gone within this.
const END_MAX: Duration = Duration::from_secs(2);
/// How long a disk that was healed is watched, and how long its node may take to believe it: it looks every second.
const WATCHED: Duration = Duration::from_millis(200);
const WHOLE_MAX: Duration = Duration::from_secs(15);
/// What a node says of itself when it refuses puts.
const ALARM: &str = "bytes of disk are free";

/// The nodes that run are as many as were hit, and something of the database was lost. What they did that the model of
/// such a loss does not know is a finding: the loss may then have been too kind.
pub(super) fn probe_power_loss(cluster: &Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<Found> {
    let loss = cluster.power_loss().context("power was not lost")?;
    ensure!(loss.killed == nodes.len(), "only {} of {} nodes were running", loss.killed, nodes.len());
    ensure!(loss.within <= AT_ONCE, "the nodes were killed within {:?}, which is not at once", loss.within);
    ensure!(loss.lost.bytes > 0, "nothing was lost that was not synced");
    let alive = nodes.iter().find(|&&node| !cluster.is_gone(node));
    ensure!(alive.is_none(), "a process that was killed is there");
    let seen = format!("killed within {:?}; lost {}", loss.within, loss.lost);
    Ok(Found { seen, findings: cluster.unmodelled()? })
}

/// How many processes are hit.
pub(super) fn fail_syncs(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
    let mut hit = 0;
    for &node in nodes {
        hit += usize::from(cluster.is_alive(node)?);
        cluster.may_end(node, EndReason::DiskFails);
        cluster.fail_syncs(node)?;
    }
    Ok(hit)
}

pub(super) fn fill(cluster: &mut Cluster, nodes: &BTreeSet<usize>, bytes: u64) -> anyhow::Result<usize> {
    let mut hit = 0;
    for &node in nodes {
        hit += usize::from(cluster.is_alive(node)?);
        cluster.may_end(node, EndReason::DiskFails);
        cluster.limit_space(node, bytes)?;
    }
    Ok(hit)
}

/// Every node has met a sync that failed. It must end at once, with the code for that: another code is a crash.
pub(super) async fn probe_sync_error(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<Found> {
    let (mut seen, mut findings) = (Vec::new(), Vec::new());
    for &node in nodes {
        let (name, until) = (node_name(node), clock::now() + SEEN_MAX);
        while cluster.disk_count(node, DiskCount::SyncsFailed)? == 0 {
            ensure!(clock::now() < until, "{name} has synced nothing in {SEEN_MAX:?}");
            clock::sleep(POLL).await;
        }
        match end_within(cluster, node, clock::now() + END_MAX).await? {
            Some(said) => seen.push(said),
            None => {
                findings.push(format!("{name} goes on {END_MAX:?} after a sync has failed"));
                seen.push(format!("{name} has met a failed sync"));
            }
        }
    }
    Ok(Found { seen: seen.join("; "), findings })
}

/// Every node has met the end of the space: a write of it that matters was refused, it has ended, or it says that it
/// refuses puts. A line of RocksDB's diary does not matter.
pub(super) async fn probe_full(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<Found> {
    let mut seen = Vec::new();
    for &node in nodes {
        seen.push(met_the_end_of_space(cluster, node).await?);
    }
    Ok(seen.join("; ").into())
}

async fn met_the_end_of_space(cluster: &mut Cluster, node: usize) -> anyhow::Result<String> {
    let (name, until) = (node_name(node), clock::now() + SEEN_MAX);
    while clock::now() < until {
        if let Some(said) = end_within(cluster, node, clock::now()).await? {
            return Ok(said);
        }
        let refused = cluster.disk_count(node, DiskCount::DataRefused)?;
        if refused > 0 {
            // It may have been a write without which it goes on, such as one of a flush, which is tried again.
            let end = end_within(cluster, node, clock::now() + END_MAX).await?;
            let seen = || format!("{refused} writes of {name} to logs, tables or the like were refused");
            return Ok(end.unwrap_or_else(seen));
        }
        if let Some(alarm) = cluster.status(node).await.and_then(alarm) {
            return Ok(format!("{name}: {alarm}"));
        }
        clock::sleep(POLL).await;
    }
    bail!("{name} has not met the end of the space in {SEEN_MAX:?}")
}

/// That its disk is full, if it says so.
fn alarm(status: NodeStatus) -> Option<String> {
    status.alarms.into_iter().find(|alarm| alarm.contains(ALARM))
}

/// For a while nothing has failed on the disks of these nodes; they run, and none says that its disk is full.
pub(super) async fn probe_whole(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<String> {
    let until = clock::now() + WHOLE_MAX;
    loop {
        let failed = calls_failed(cluster, nodes)?;
        clock::sleep(WATCHED).await;
        // One that met a failure before it was healed may have ended since.
        cluster.restart().await?;
        let trouble = match calls_failed(cluster, nodes)? == failed {
            true => says_full(cluster, nodes).await,
            false => Some("calls failed".to_owned()),
        };
        match trouble {
            None => break,
            Some(trouble) => ensure!(clock::now() < until, "{WHOLE_MAX:?} after the disks were healed: {trouble}"),
        }
        clock::sleep(POLL).await;
    }
    probe_running(cluster, nodes).map(|seen| format!("{seen}; no call has failed since, and no disk is full"))
}

/// How many calls of each node the shim has made fail.
fn calls_failed(cluster: &Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<Vec<u64>> {
    let of_node = |&node: &usize| -> anyhow::Result<u64> {
        Ok(cluster.disk_count(node, DiskCount::SyncsFailed)? + cluster.disk_count(node, DiskCount::WritesRefused)?)
    };
    nodes.iter().map(of_node).collect()
}

/// Which of these nodes says that its disk is full, or does not say how it is.
async fn says_full(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> Option<String> {
    for &node in nodes {
        let name = node_name(node);
        match cluster.status(node).await.map(alarm) {
            None => return Some(format!("{name} does not say how it is")),
            Some(Some(alarm)) => return Some(format!("{name}: {alarm}")),
            Some(None) => {}
        }
    }
    None
}

/// How a node has ended by itself, if it has by then.
async fn end_within(cluster: &mut Cluster, node: usize, until: Instant) -> anyhow::Result<Option<String>> {
    loop {
        if let Some(code) = cluster.ended_with(node)? {
            let said = cluster.said(node);
            let last = said.lines().last().unwrap_or_default();
            return Ok(Some(format!("{} has ended with code {code}: {last}", node_name(node))));
        }
        if clock::now() >= until {
            return Ok(None);
        }
        clock::sleep(POLL).await;
    }
}
