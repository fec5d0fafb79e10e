//! Putting a fault in force, finding out whether it is, and undoing all faults.
//!
//! Undoing does not go by what was done: it mends every link, continues every process, mends every disk, puts every
//! directory back, and starts every node that is down. So it may be repeated, and mends what an interrupted injection
//! has half done.

mod disk;
mod lines;
mod replaced;
mod snapshot;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use futures::future::join_all;
use trefoil_world::clock;

use super::fault::Fault;
use crate::backend::{Cut, Links, Reach, Traffic, node_name};
use crate::cluster::Cluster;
use crate::generator::Dice;

/// How long signals may take to be seen at work: a thread that waits for the disk stops when it has it.
const SIGNAL_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// What a probe has found: the fault is at work.
pub(super) struct Found {
    /// In words, what was seen of it.
    pub(super) seen: String,
    /// What nodes did that they must not do.
    pub(super) findings: Vec<String>,
}

impl From<String> for Found {
    fn from(seen: String) -> Found {
        Found { seen, findings: Vec::new() }
    }
}

/// Puts it in force. In words what was done, where that is more than the fault says.
///
/// # Errors
/// It could not be done, or hits nobody; some of it may be in force.
pub(super) async fn inject(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<String> {
    let hit = match fault {
        Fault::Kill { nodes, .. } | Fault::KillAll { nodes } => cluster.kill(nodes).await?,
        Fault::Pause { nodes, .. } => cluster.pause(nodes)?,
        Fault::Partition { .. } | Fault::PeerPortCut { .. } => {
            let cuts = fault.cuts();
            let count = cuts.len();
            links(cluster)?.cut(cuts).await?;
            count
        }
        Fault::Weather { weather, nodes, .. } => lines::set(cluster, *weather, nodes)?,
        Fault::Broken { how, nodes, .. } => lines::break_off(cluster, *how, nodes).await?,
        Fault::PowerLoss { seed, .. } => {
            cluster.lose_power(Dice::new(*seed)).await?;
            return Ok(String::new());
        }
        Fault::SyncError { nodes, .. } => disk::fail_syncs(cluster, nodes)?,
        Fault::DiskFull { nodes, bytes, .. } => disk::fill(cluster, nodes, *bytes)?,
        Fault::Replaced { by, nodes, seed, .. } => {
            return replaced::inject(cluster, *by, nodes, Dice::new(*seed)).await;
        }
        Fault::SnapshotUnderFire { victim, seed } => {
            return snapshot::inject(cluster, *victim, Dice::new(*seed)).await;
        }
    };
    ensure!(hit > 0, "no process was there to be hit");
    Ok(String::new())
}

/// Whether it is at work, as the system and the nodes have it. `cuts` are those of all faults in force.
///
/// # Errors
/// It is not, or there is no saying.
pub(super) async fn probe(cluster: &mut Cluster, fault: &Fault, cuts: BTreeSet<Cut>) -> anyhow::Result<Found> {
    match fault {
        Fault::Kill { nodes, .. } | Fault::KillAll { nodes } => {
            let alive = nodes.iter().find(|&&node| !cluster.is_gone(node));
            ensure!(alive.is_none(), "a process that was killed is there");
            Ok("their processes are gone".to_owned().into())
        }
        Fault::PowerLoss { nodes, .. } => disk::probe_power_loss(cluster, nodes),
        Fault::Pause { nodes, .. } => {
            // One that was down before has no threads that could be stopped.
            let stopped = || nodes.iter().all(|&node| cluster.is_paused(node) || cluster.is_gone(node));
            ensure!(within(SIGNAL_MAX, stopped).await, "a thread runs {SIGNAL_MAX:?} after SIGSTOP");
            Ok("all their threads are stopped".to_owned().into())
        }
        Fault::Partition { .. } => Ok(probe_cuts(cluster, fault, Traffic::All, cuts).await?.into()),
        Fault::PeerPortCut { .. } => {
            let seen = probe_cuts(cluster, fault, Traffic::PeerPort, cuts.clone()).await?;
            expect_decisions(cluster, Traffic::All, cuts).await?;
            Ok(format!("{seen}; other ports are open").into())
        }
        Fault::Weather { weather, nodes, .. } => lines::probe_weather(cluster, *weather, nodes).await,
        Fault::Broken { how, .. } => lines::probe_broken(cluster, *how).await,
        Fault::SyncError { nodes, .. } => disk::probe_sync_error(cluster, nodes).await,
        Fault::DiskFull { nodes, .. } => disk::probe_full(cluster, nodes).await,
        Fault::Replaced { by, nodes, .. } => replaced::probe(cluster, *by, nodes).await,
        Fault::SnapshotUnderFire { .. } => snapshot::probe(cluster),
    }
}

/// What is to be dropped is, and nothing else, and connections over each cut link come to nothing.
async fn probe_cuts(
    cluster: &Cluster,
    fault: &Fault,
    traffic: Traffic,
    expected: BTreeSet<Cut>,
) -> anyhow::Result<String> {
    expect_decisions(cluster, traffic, expected).await?;
    // A connection needs both directions: one attempt for each two nodes.
    let pairs: BTreeSet<(usize, usize)> =
        fault.cuts().iter().map(|cut| (cut.from.min(cut.to), cut.from.max(cut.to))).collect();
    let links = links(cluster)?;
    let attempts = pairs.iter().map(|&(from, to)| links.reach(from, to, traffic.port()));
    for (&(from, to), reach) in pairs.iter().zip(join_all(attempts).await) {
        let passes = reach? == Reach::Answers;
        ensure!(!passes, "{} still connects to {}", node_name(from), node_name(to));
    }
    Ok(format!("{} links are silent", pairs.len()))
}

async fn expect_decisions(cluster: &Cluster, traffic: Traffic, expected: BTreeSet<Cut>) -> anyhow::Result<()> {
    match links(cluster)?.difference(traffic, expected).await? {
        None => Ok(()),
        Some(difference) => Err(anyhow!(difference)),
    }
}

/// Undoes all faults, and waits until every node is ready. Each step is taken whatever became of those before it.
///
/// # Errors
/// Something is still in force, or a node does not come back: the first of what went wrong.
pub(super) async fn heal(cluster: &mut Cluster) -> anyhow::Result<()> {
    let network = heal_network(cluster).await;
    let resumed = resume(cluster).await;
    let disks = cluster.heal_disks();
    let directories = cluster.put_directories_back().await;
    let restarted = cluster.restart().await;
    network.and(resumed).and(disks).and(directories).and(restarted)
}

async fn heal_network(cluster: &Cluster) -> anyhow::Result<()> {
    let Ok(links) = cluster.links() else { return Ok(()) };
    links.heal().await?;
    expect_decisions(cluster, Traffic::All, BTreeSet::new()).await
}

async fn resume(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.resume()?;
    let nodes = cluster.nodes().len();
    let running = || !(0..nodes).any(|node| cluster.is_paused(node));
    ensure!(within(SIGNAL_MAX, running).await, "a node is stopped {SIGNAL_MAX:?} after SIGCONT");
    Ok(())
}

fn links(cluster: &Cluster) -> anyhow::Result<Links> {
    cluster.links().map_err(anyhow::Error::msg)
}

/// Whether it holds within `bound`.
async fn within(bound: Duration, holds: impl Fn() -> bool) -> bool {
    let until = clock::now() + bound;
    while !holds() {
        if clock::now() >= until {
            return false;
        }
        clock::sleep(POLL).await;
    }
    true
}
