//! Faults of disks: power lost, syncs that fail, no space left.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use trefoil_world::clock::{self, Instant};

use super::{Found, POLL};
use crate::backend::node_name;
use crate::cluster::{Cluster, DiskCount};

/// A loss of power hits all nodes at once: within this.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The exit code of a node that a failed write has ended.
const DISK_FAILED: &[i32] = &[74];
/// How long a node may take to sync or to write something, under load.
const SEEN_MAX: Duration = Duration::from_secs(10);
/// A node whose sync has failed must be gone within this.
const END_MAX: Duration = Duration::from_secs(2);
/// What a node says of itself when it refuses puts.
const ALARM: &str = "bytes of disk are free";

/// The nodes that run are as many as were hit, and something of the database was lost.
pub(super) fn probe_power_loss(cluster: &Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<Found> {
    let loss = cluster.power_loss().context("power was not lost")?;
    ensure!(loss.killed == nodes.len(), "only {} of {} nodes were running", loss.killed, nodes.len());
    ensure!(loss.within <= AT_ONCE, "the nodes were killed within {:?}, which is not at once", loss.within);
    ensure!(loss.lost.bytes > 0, "nothing was lost that was not synced");
    let alive = nodes.iter().find(|&&node| !cluster.is_gone(node));
    ensure!(alive.is_none(), "a process that was killed is there");
    Ok(format!("killed within {:?}; lost {}", loss.within, loss.lost).into())
}

/// How many processes are hit.
pub(super) fn fail_syncs(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
    let mut hit = 0;
    for &node in nodes {
        hit += usize::from(cluster.is_alive(node)?);
        cluster.may_end(node, DISK_FAILED);
        cluster.fail_syncs(node)?;
    }
    Ok(hit)
}

pub(super) fn fill(cluster: &mut Cluster, nodes: &BTreeSet<usize>, bytes: u64) -> anyhow::Result<usize> {
    let mut hit = 0;
    for &node in nodes {
        hit += usize::from(cluster.is_alive(node)?);
        cluster.may_end(node, DISK_FAILED);
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

/// Every node has met the end of the space: a write of it was refused, it has ended, or it says that it refuses puts.
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
        let refused = cluster.disk_count(node, DiskCount::WritesRefused)?;
        if refused > 0 {
            // It may have been a write without which it goes on, such as one to RocksDB's diary.
            let end = end_within(cluster, node, clock::now() + END_MAX).await?;
            return Ok(end.unwrap_or_else(|| format!("{refused} writes of {name} were refused")));
        }
        let alarms = cluster.status(node).await.map(|status| status.alarms).unwrap_or_default();
        if let Some(alarm) = alarms.into_iter().find(|alarm| alarm.contains(ALARM)) {
            return Ok(format!("{name}: {alarm}"));
        }
        clock::sleep(POLL).await;
    }
    bail!("{name} has not met the end of the space in {SEEN_MAX:?}")
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
