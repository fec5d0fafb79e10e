//! A snapshot under fire: a node is down until the others no longer have the log entries it lacks, and while it is sent
//! a snapshot after its start, it or the sender is killed.
//!
//! That a snapshot is under way is seen from outside: the node has said that it receives one, its log ends before the
//! leader's begins, and it has installed none.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use trefoil_world::clock;

use super::Found;
use crate::backend::node_name;
use crate::cluster::Cluster;
use crate::generator::Dice;
use crate::nemesis::fault::Victim;

/// How long the others may take to cut their logs.
const CUT_MAX: Duration = Duration::from_secs(30);
/// How long a started node may take until it is sent a snapshot.
const SENT_MAX: Duration = Duration::from_secs(20);
/// How many entries the node's log may have grown by since it was asked.
const MARGIN: u64 = 50;
/// A snapshot that is hit at some time is let be for less than this, in milliseconds.
const RUNS_MS_MAX: u64 = 60;
/// Some snapshots take hardly longer.
const POLL: Duration = Duration::from_millis(2);
/// What a node says when the first piece of a snapshot of the default partition has come.
const RECEIVING: [&str; 2] = ["receiving a snapshot from", "partition=1/0"];

/// See the file's head. Says what was seen.
pub(super) async fn inject(cluster: &mut Cluster, victim: Victim, mut dice: Dice) -> anyhow::Result<String> {
    let (receiver, ends) = choose(cluster, &mut dice).await?;
    let alone = BTreeSet::from([receiver]);
    ensure!(cluster.kill(&alone).await? > 0, "no process was there to be hit");
    let begins = logs_cut(cluster, ends + MARGIN).await?;
    cluster.launch_all(&alone)?;
    let seen = sent(cluster, receiver, begins, Duration::from_millis(dice.below(RUNS_MS_MAX))).await?;
    let hit = match victim {
        Victim::Receiver => receiver,
        Victim::Sender => cluster.leader().await.context("nobody leads by now")?,
    };
    cluster.kill(&BTreeSet::from([hit])).await?;
    Ok(format!("{seen}; then {} was killed", node_name(hit)))
}

/// A node that holds the default partition and does not lead it, and where its log ends.
async fn choose(cluster: &mut Cluster, dice: &mut Dice) -> anyhow::Result<(usize, u64)> {
    let leader = cluster.leader().await.context("nobody leads")?;
    let mut followers = Vec::new();
    for node in (0..cluster.nodes().len()).filter(|&node| node != leader) {
        followers.extend(cluster.replica(node).await.map(|replica| (node, replica.last_log_index)));
    }
    ensure!(!followers.is_empty(), "no other node says that it holds the partition");
    Ok(*dice.pick(&followers))
}

/// Waits until the leader's log begins behind `index`, and where it then begins.
async fn logs_cut(cluster: &mut Cluster, index: u64) -> anyhow::Result<u64> {
    let until = clock::now() + CUT_MAX;
    loop {
        if let Some(leader) = cluster.leader().await
            && let Some(first) = cluster.replica(leader).await.map(|replica| replica.first_log_index)
            && first > index
        {
            return Ok(first);
        }
        if clock::now() >= until {
            bail!("the leader has not cut its log behind {index} in {CUT_MAX:?}");
        }
        clock::sleep(POLL).await;
    }
}

/// Waits until the node receives a snapshot, and then for so long.
async fn sent(cluster: &mut Cluster, receiver: usize, begins: u64, runs: Duration) -> anyhow::Result<String> {
    let (name, until) = (node_name(receiver), clock::now() + SENT_MAX);
    while !receives(&cluster.said(receiver)) {
        ensure!(clock::now() < until, "{name} was sent no snapshot in {SENT_MAX:?}");
        clock::sleep(POLL).await;
    }
    clock::sleep(runs).await;
    let replica = cluster.replica(receiver).await.with_context(|| format!("{name} does not say how it is"))?;
    let ends = replica.last_log_index;
    ensure!(replica.snapshots_installed == 0, "{name} had its snapshot before it could be hit");
    ensure!(ends < begins, "{name} needed no snapshot: its log ends at {ends}, the leader's begins at {begins}");
    Ok(format!("{name} received a snapshot; its log ended at {ends}, the leader's began at {begins}"))
}

fn receives(said: &str) -> bool {
    said.lines().any(|line| RECEIVING.iter().all(|words| line.contains(words)))
}

/// Who was killed is gone.
pub(super) fn probe(cluster: &Cluster) -> anyhow::Result<Found> {
    let gone = (0..cluster.nodes().len()).find(|&node| cluster.is_gone(node));
    let gone = gone.context("a process that was killed is there")?;
    Ok(format!("{} is gone, and the snapshot was under way", node_name(gone)).into())
}
