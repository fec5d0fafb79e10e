//! Nodes that come back with a directory that is not the newest of their names.
//!
//! A wiped directory and an old copy must be refused: the node runs and stays out. One whose log was cut must not start,
//! or not be missed: what was cut may lie behind all that was promised, so serving is for the checkers to judge,
//! and a node that serves keeps the directory.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{bail, ensure};
use trefoil_client::ReplicaStatus;
use trefoil_world::clock;

use super::{Found, POLL, probe_running};
use crate::backend::node_name;
use crate::cluster::{Cluster, EndReason, Replacement};
use crate::generator::Dice;

/// How long a node may take to refuse: it says what it waits for every few seconds.
const REFUSAL_MAX: Duration = Duration::from_secs(30);
/// What a node says that serves nothing for its directory's sake.
const STAYS_OUT: &str = "stays out";
/// How many entries a node must be ahead of the copy that was made of it.
const AHEAD: u64 = 20;
const AHEAD_MAX: Duration = Duration::from_secs(20);

/// Takes the nodes down, puts something in their directories' place, and starts them. Says what.
pub(super) async fn inject(
    cluster: &mut Cluster,
    by: Replacement,
    nodes: &BTreeSet<usize>,
    mut dice: Dice,
) -> anyhow::Result<String> {
    let hit = cluster.kill(nodes).await?;
    ensure!(hit == nodes.len(), "only {hit} of them were running");
    match by {
        Replacement::Nothing | Replacement::Cut => {}
        Replacement::OldCopy => make_copies(cluster, nodes).await?,
    }
    let mut done = Vec::new();
    for &node in nodes {
        let what = cluster.replace_directory(node, by, dice.split()).await?;
        done.push(format!("{} {what}", node_name(node)));
    }
    cluster.launch_all(nodes)?;
    match by {
        Replacement::Cut => nodes.iter().for_each(|&node| cluster.may_end(node, EndReason::Directory)),
        // It stays out, and runs.
        Replacement::Nothing | Replacement::OldCopy => {}
    }
    Ok(done.join(", "))
}

/// Copies the directories of nodes that are down, has the nodes go on for a while, and takes them down again.
async fn make_copies(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<()> {
    for &node in nodes {
        cluster.copy_directory(node).await?;
    }
    cluster.restart().await?;
    for &node in nodes {
        get_ahead(cluster, node).await?;
    }
    cluster.kill(nodes).await?;
    Ok(())
}

/// Waits until a node has applied more than its copy has. One that holds no partition is ahead by its start alone.
async fn get_ahead(cluster: &mut Cluster, node: usize) -> anyhow::Result<()> {
    let applied = |replica: ReplicaStatus| replica.applied_index;
    let Some(copied) = cluster.replica(node).await.map(applied) else { return Ok(()) };
    let until = clock::now() + AHEAD_MAX;
    while cluster.replica(node).await.map(applied).is_none_or(|applied| applied < copied + AHEAD) {
        ensure!(clock::now() < until, "{} got no further in {AHEAD_MAX:?}", node_name(node));
        clock::sleep(POLL).await;
    }
    Ok(())
}

/// What a node makes of its directory.
enum Reaction {
    Refuses(String),
    Serves,
}

/// Every node has said what it makes of its directory.
pub(super) async fn probe(cluster: &mut Cluster, by: Replacement, nodes: &BTreeSet<usize>) -> anyhow::Result<Found> {
    let (mut seen, mut findings) = (Vec::new(), Vec::new());
    let until = clock::now() + REFUSAL_MAX;
    for &node in nodes {
        let name = node_name(node);
        let reaction = loop {
            if let Some(reaction) = reaction(cluster, node)? {
                break reaction;
            }
            if clock::now() >= until {
                bail!("{name} neither refuses nor serves after {REFUSAL_MAX:?}");
            }
            clock::sleep(POLL).await;
        };
        match (by, reaction) {
            (_, Reaction::Refuses(line)) => seen.push(format!("{name} refuses: {line}")),
            (Replacement::Cut, Reaction::Serves) => {
                // It promises things from here on: to take it back to the original would be a second fault.
                cluster.keep_replacement(node).await?;
                seen.push(format!("{name} serves"));
            }
            (Replacement::Nothing | Replacement::OldCopy, Reaction::Serves) => {
                seen.push(format!("{name} serves"));
                findings.push(format!("{name} serves with a directory that is not its newest"));
            }
        }
    }
    Ok(Found { seen: seen.join("; "), findings })
}

/// The nodes run, on directories that are theirs.
pub(super) fn probe_original(cluster: &mut Cluster, nodes: &BTreeSet<usize>) -> anyhow::Result<String> {
    for &node in nodes {
        ensure!(!cluster.is_replaced(node), "{} still runs on a replacement", node_name(node));
        let out = cluster.said(node).lines().any(|line| line.contains(STAYS_OUT));
        ensure!(!out, "{} stays out with the directory that is its own", node_name(node));
    }
    probe_running(cluster, nodes)
}

/// Nothing: it has not said yet.
fn reaction(cluster: &mut Cluster, node: usize) -> anyhow::Result<Option<Reaction>> {
    let ended = cluster.ended_with(node)?.is_some();
    let said = cluster.said(node);
    let line = if ended { said.lines().last() } else { said.lines().find(|line| line.contains(STAYS_OUT)) };
    if let Some(line) = line {
        return Ok(Some(Reaction::Refuses(line.to_owned())));
    }
    Ok(cluster.is_ready(node).then_some(Reaction::Serves))
}
