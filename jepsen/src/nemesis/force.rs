//! Putting a fault in force, finding out whether it is, undoing all faults, and finding out whether they are gone.
//!
//! Undoing does not go by what was done: it mends every link, continues every process, mends every disk, puts every
//! directory back, and starts every node that is down. So it may be repeated, and mends what an interrupted injection
//! has half done. Finding out does: for each fault that was noted it looks where that one was seen.
//!
//! Invariant: nothing is said to be in force, or gone, because it was ordered. What is said was measured, or said by the
//! system or by a node.

mod disk;
mod lines;
mod network;
mod replaced;
mod snapshot;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use trefoil_world::clock;

use super::fault::Fault;
use crate::backend::{Cut, Links, Traffic, node_name};
use crate::cluster::Cluster;
use crate::generator::Dice;

/// How long signals may take to be seen at work: a thread that waits for the disk stops when it has it.
const SIGNAL_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// What an injection has done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// In words, where that is more than the fault says.
    pub(super) said: String,
    /// Of a cut between proxies.
    before: network::Before,
    /// Of a snapshot under fire.
    transfer: Option<snapshot::Transfer>,
}

impl From<String> for Done {
    fn from(said: String) -> Done {
        Done { said, ..Done::default() }
    }
}

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

/// Puts it in force.
///
/// # Errors
/// It could not be done, or hits nobody; some of it may be in force.
pub(super) async fn inject(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<Done> {
    let mut done = Done::default();
    let hit = match fault {
        Fault::Kill { nodes, .. } | Fault::KillAll { nodes } => cluster.kill(nodes).await?,
        Fault::Pause { nodes, .. } => cluster.pause(nodes)?,
        Fault::Partition { .. } | Fault::PeerPortCut { .. } => {
            done.before = network::before(cluster, fault).await?;
            let cuts = fault.cuts();
            let count = cuts.len();
            links(cluster)?.cut(cuts).await?;
            count
        }
        Fault::Weather { weather, nodes, .. } => lines::set(cluster, *weather, nodes)?,
        Fault::Broken { how, nodes, .. } => lines::break_off(cluster, *how, nodes).await?,
        Fault::PowerLoss { seed, .. } => {
            cluster.lose_power(Dice::new(*seed)).await?;
            return Ok(Done::default());
        }
        Fault::SyncError { nodes, .. } => disk::fail_syncs(cluster, nodes)?,
        Fault::DiskFull { nodes, bytes, .. } => disk::fill(cluster, nodes, *bytes)?,
        Fault::Replaced { by, nodes, seed, .. } => {
            return Ok(replaced::inject(cluster, *by, nodes, Dice::new(*seed)).await?.into());
        }
        Fault::SnapshotUnderFire { victim, seed } => {
            let transfer = snapshot::inject(cluster, *victim, Dice::new(*seed)).await?;
            return Ok(Done { said: transfer.to_string(), transfer: Some(transfer), ..Done::default() });
        }
    };
    ensure!(hit > 0, "no process was there to be hit");
    Ok(done)
}

/// Whether it is at work. `done`: what its injection has done. `cuts`: those of all faults in force.
///
/// # Errors
/// It is not, or there is no saying.
pub(super) async fn probe(
    cluster: &mut Cluster,
    fault: &Fault,
    done: &Done,
    cuts: BTreeSet<Cut>,
) -> anyhow::Result<Found> {
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
        Fault::Partition { .. } => Ok(network::probe_partition(cluster, fault, done, &cuts).await?.into()),
        Fault::PeerPortCut { .. } => Ok(network::probe_peer_port_cut(cluster, fault, done, &cuts).await?.into()),
        Fault::Weather { weather, nodes, .. } => lines::probe_weather(cluster, *weather, nodes).await,
        Fault::Broken { how, .. } => lines::probe_broken(cluster, *how).await,
        Fault::SyncError { nodes, .. } => disk::probe_sync_error(cluster, nodes).await,
        Fault::DiskFull { nodes, .. } => disk::probe_full(cluster, nodes).await,
        Fault::Replaced { by, nodes, .. } => replaced::probe(cluster, *by, nodes).await,
        Fault::SnapshotUnderFire { victim, .. } => {
            let transfer = done.transfer.as_ref().context("no snapshot was sent")?;
            Ok(snapshot::probe(cluster, *victim, transfer)?.into())
        }
    }
}

/// Undoes all faults, and waits until every node is ready. Each step is taken whatever became of those before it.
///
/// # Errors
/// Something could not be undone, or a node does not come back: the first of what went wrong.
pub(super) async fn heal(cluster: &mut Cluster) -> anyhow::Result<()> {
    let network = heal_network(cluster).await;
    let resumed = resume(cluster).await;
    let disks = cluster.heal_disks();
    let directories = cluster.put_directories_back().await;
    let restarted = cluster.restart().await;
    network.and(resumed).and(disks).and(directories).and(restarted)
}

/// Whether a fault that was healed is gone: in words, what was seen of that.
///
/// # Errors
/// It is still there, or there is no saying.
pub(super) async fn probe_healed(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<String> {
    match fault {
        Fault::Kill { nodes, .. }
        | Fault::KillAll { nodes }
        | Fault::PowerLoss { nodes, .. }
        | Fault::Pause { nodes, .. } => probe_running(cluster, nodes),
        Fault::Partition { .. } => network::probe_open(cluster, Traffic::All).await,
        Fault::PeerPortCut { .. } => network::probe_open(cluster, Traffic::PeerPort).await,
        Fault::Weather { weather, nodes, .. } => lines::probe_calm(cluster, *weather, nodes).await,
        Fault::Broken { nodes, .. } => lines::probe_whole(cluster, nodes).await,
        Fault::SyncError { nodes, .. } | Fault::DiskFull { nodes, .. } => disk::probe_whole(cluster, nodes).await,
        Fault::Replaced { nodes, .. } => replaced::probe_original(cluster, nodes),
        Fault::SnapshotUnderFire { .. } => {
            let all = (0..cluster.nodes().len()).collect();
            probe_running(cluster, &all)
        }
    }
}

/// The processes of these nodes are there, none of their threads is stopped, and they have been ready since their starts.
fn probe_running(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<String> {
    for &node in nodes {
        let name = node_name(node);
        ensure!(!cluster.is_gone(node), "{name} is gone");
        ensure!(!cluster.is_paused(node), "{name} is stopped");
        ensure!(cluster.is_ready(node), "{name} is not ready");
    }
    Ok("they run, and have been ready".to_owned())
}

async fn heal_network(cluster: &Cluster) -> anyhow::Result<()> {
    match cluster.links() {
        Ok(links) => links.heal().await,
        Err(_) => Ok(()),
    }
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
