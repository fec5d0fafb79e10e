//! A snapshot under fire: a node is down until the others no longer have the log entries it lacks, and while it is sent
//! a snapshot after its start, it or the sender is killed.
//!
//! That part of a snapshot was there is seen from outside, at two places. The receiver says when it begins to receive one,
//! when all of it has come, and when it gives up. And what it writes it writes to its write-ahead log first: when that has
//! grown by more than all else that a node writes in that time, rows have come. After the kill the receiver's words are
//! read once more: if all had come by then, the snapshot was not under fire.
//!
//! Left out: a snapshot that is so small that it comes in one piece. It is there as a whole as soon as it is there.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use trefoil_world::clock;

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
/// By how much the write-ahead log of a receiver grows when rows have come. Whatever else it writes before its snapshot is
/// whole (votes, numbers of starts) is a small part of it; one piece of a snapshot is several times as much.
const PART_BYTES: u64 = 64 << 10;
/// For less than so many milliseconds a snapshot is let be once a part of it is there: mostly for less than until the next
/// piece comes, sometimes for longer.
const RUNS_MS_MAX: [u64; 4] = [15, 15, 15, 80];
/// Some snapshots take hardly longer.
const POLL: Duration = Duration::from_millis(2);

/// What a node's lines about snapshots of the default partition have.
const PARTITION: &str = "partition=1/0";
const RECEIVING: &str = "receiving a snapshot from";
const RECEIVED: &str = "snapshot received";
const NOT_INSTALLED: &str = "snapshot not installed";

/// What has become of a snapshot that a node began to receive, as the node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reception {
    UnderWay,
    /// All of it has come.
    Whole,
    /// No more of it is taken.
    BrokenOff,
}

/// Of each snapshot of the default partition that a node began to receive since its start, in their order. Lines do not
/// say which one they are about: it is the first one of those under way.
fn receptions(said: &str) -> Vec<Reception> {
    let mut receptions = Vec::new();
    for line in said.lines().filter(|line| line.contains(PARTITION)) {
        let end = if line.contains(RECEIVED) {
            Reception::Whole
        } else if line.contains(NOT_INSTALLED) {
            Reception::BrokenOff
        } else {
            receptions.extend(line.contains(RECEIVING).then_some(Reception::UnderWay));
            continue;
        };
        if let Some(first) = receptions.iter_mut().find(|reception| **reception == Reception::UnderWay) {
            *first = end;
        }
    }
    receptions
}

/// A snapshot that was on its way, and who was killed then.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    receiver: usize,
    hit: usize,
    /// How much of it the receiver had written, before the kill.
    part_bytes: u64,
    /// What had become of it when the kill was over.
    at_kill: Reception,
    /// Where the receiver's log ended before, and where the leader's then began.
    ended: u64,
    began: u64,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transfer { receiver, hit, part_bytes, ended, began, .. } = self;
        let (receiver, hit) = (node_name(*receiver), node_name(*hit));
        write!(
            f,
            "{receiver}'s log ended at {ended}, the leader's began at {began}; {receiver} received a snapshot, "
        )?;
        write!(f, "and had written {part_bytes} bytes when {hit} was killed")
    }
}

/// See the file's head.
pub(super) async fn inject(cluster: &mut Cluster, victim: Victim, mut dice: Dice) -> anyhow::Result<Transfer> {
    let (receiver, ended) = choose(cluster, &mut dice).await?;
    let alone = BTreeSet::from([receiver]);
    ensure!(cluster.kill(&alone).await? > 0, "no process was there to be hit");
    let (leader, began) = logs_cut(cluster, ended + MARGIN).await?;
    cluster.launch_all(&alone)?;
    let (number, part_bytes) = part_of_one(cluster, receiver).await?;
    let runs = *dice.pick(&RUNS_MS_MAX);
    clock::sleep(Duration::from_millis(dice.below(runs))).await;
    let hit = match victim {
        Victim::Receiver => receiver,
        Victim::Sender => leader,
    };
    let killed = cluster.kill(&BTreeSet::from([hit])).await?;
    ensure!(killed > 0, "{} ended before it could be hit", node_name(hit));
    let at_kill = receptions(&cluster.said(receiver)).get(number).copied().context("the receiver's log is gone")?;
    Ok(Transfer { receiver, hit, part_bytes, at_kill, ended, began })
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

/// Waits until the leader's log begins behind `index`: who leads, and where it then begins.
async fn logs_cut(cluster: &mut Cluster, index: u64) -> anyhow::Result<(usize, u64)> {
    let until = clock::now() + CUT_MAX;
    loop {
        if let Some(leader) = cluster.leader().await
            && let Some(first) = cluster.replica(leader).await.map(|replica| replica.first_log_index)
            && first > index
        {
            return Ok((leader, first));
        }
        if clock::now() >= until {
            bail!("the leader has not cut its log behind {index} in {CUT_MAX:?}");
        }
        clock::sleep(POLL).await;
    }
}

/// Waits until part of a snapshot has come to a node: of the how-manieth since its start, and how many bytes of it.
async fn part_of_one(cluster: &Cluster, receiver: usize) -> anyhow::Result<(usize, u64)> {
    let (name, until) = (node_name(receiver), clock::now() + SENT_MAX);
    let mut before = u64::MAX;
    loop {
        // First the bytes: what has grown when it says nothing yet is not the snapshot.
        let logged = cluster.logged_bytes(receiver)?;
        let receptions = receptions(&cluster.said(receiver));
        let part_bytes = logged.saturating_sub(before);
        match receptions.last() {
            None => before = logged,
            Some(Reception::UnderWay) if part_bytes >= PART_BYTES => return Ok((receptions.len() - 1, part_bytes)),
            Some(Reception::UnderWay | Reception::BrokenOff) => {}
            Some(Reception::Whole) => bail!("{name} had all of its snapshot before it could be hit"),
        }
        ensure!(clock::now() < until, "{name} was sent no part of a snapshot in {SENT_MAX:?}");
        clock::sleep(POLL).await;
    }
}

/// Who was killed is gone, and part of the snapshot was there, but not all of it.
pub(super) fn probe(cluster: &Cluster, victim: Victim, transfer: &Transfer) -> anyhow::Result<String> {
    let (receiver, hit) = (node_name(transfer.receiver), node_name(transfer.hit));
    ensure!(cluster.is_gone(transfer.hit), "{hit} was killed, and is there");
    ensure!(under_fire(victim, transfer.at_kill), "{receiver} no longer received its snapshot when {hit} was gone");
    Ok(format!("{hit} is gone, and {receiver} had {} bytes of a snapshot, not all of it", transfer.part_bytes))
}

/// Whether a kill came while the snapshot was on its way. When the sender is gone the receiver may know already.
fn under_fire(victim: Victim, at_kill: Reception) -> bool {
    match (victim, at_kill) {
        (_, Reception::UnderWay) | (Victim::Sender, Reception::BrokenOff) => true,
        (Victim::Receiver, Reception::BrokenOff) | (_, Reception::Whole) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGINS: &str = "INFO node: receiving a snapshot from n1 partition=1/0 replica=r5";
    const COMES: &str = "INFO node: snapshot received, installing it partition=1/0 replica=r5";
    const ENDS: &str = "WARN node: snapshot not installed: the sender is gone partition=1/0 replica=r5";

    #[test]
    fn a_node_says_what_becomes_of_its_snapshots() {
        use Reception::{BrokenOff, UnderWay, Whole};
        let other = BEGINS.replace("1/0", "0/0");
        let cases: [(&[&str], &[Reception]); 9] = [
            (&[], &[]),
            (&["INFO node: ready to serve client requests", &other], &[]),
            (&[BEGINS], &[UnderWay]),
            (&[BEGINS, &other, "INFO node: snapshot received, installing it partition=0/0"], &[UnderWay]),
            (&[BEGINS, COMES], &[Whole]),
            (&[BEGINS, ENDS], &[BrokenOff]),
            // All of it had come, whatever became of it then.
            (&[BEGINS, COMES, ENDS], &[Whole]),
            (&[BEGINS, ENDS, BEGINS], &[BrokenOff, UnderWay]),
            // A newer one ends the one before it.
            (&[BEGINS, BEGINS, ENDS, COMES], &[BrokenOff, Whole]),
        ];
        for (lines, expected) in cases {
            assert_eq!(receptions(&lines.join("\n")), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_snapshot_that_had_come_was_not_under_fire() {
        let cases = [
            (Victim::Receiver, Reception::UnderWay, true),
            (Victim::Receiver, Reception::BrokenOff, false),
            (Victim::Receiver, Reception::Whole, false),
            (Victim::Sender, Reception::UnderWay, true),
            (Victim::Sender, Reception::BrokenOff, true),
            (Victim::Sender, Reception::Whole, false),
        ];
        for (victim, at_kill, expected) in cases {
            assert_eq!(under_fire(victim, at_kill), expected, "{victim:?}, {at_kill:?}");
        }
    }
}
