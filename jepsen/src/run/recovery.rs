//! Whether the nodes have recovered, once all faults are healed.
//!
//! Within [`RECOVERY_MAX`], counted from the beginning of the last healing, every node must answer a put, and a
//! linearizable read of it, asked through that node itself ([`serving`]); all replicas of the default partition must have
//! applied the same entries, to the same content by the sums that they keep ([`agreeing`]); and a full read of each must
//! find the same (`recovery/contents.rs`). That the workload's last calls are answered is looked at in `run.rs`. What two
//! looks at the replicas mean is told by [`compare`], without asking anybody.
//!
//! All that is asked here is asked once at least, also when the time is over before.
//!
//! Invariants:
//!
//! * What is put here is at keys of no workload, and not in the history.
//! * Every finding names the nodes it is about.
//! * Contents are compared of replicas at rest only, those that say the same in two looks: a node reads index and sum one
//!   after the other, and may apply an entry in between.

mod contents;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use trefoil_client::{KeyValue, NodeId, NodeStatus, PartitionId, ReplicaStatus};
use trefoil_world::clock;

use crate::backend::node_name;
use crate::client::{Client, EtcdClient};
use crate::cluster::Cluster;
use crate::cluster::status::{self, Statuses};
use crate::target::Target;

/// How long the cluster may take to serve again, from the beginning of the last healing: that waits for nodes to be ready,
/// and for failed disks to have had their consequences.
pub(super) const RECOVERY_MAX: Duration = Duration::from_secs(90);
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What is put through each node.
const TEXT: &str = "recovered";

/// What is asked of the nodes of a store, each by its place.
pub(super) trait Nodes {
    fn count(&self) -> usize;

    /// A put through this node and no other. An error says why there was no answer.
    async fn put(&self, node: usize, key: String) -> Result<(), String>;

    /// What a linearizable read through this node finds. An error says why there was no answer.
    async fn get(&self, node: usize, key: String) -> Result<Option<String>, String>;

    /// How all replicas of the default partition are.
    async fn look(&mut self) -> Look;

    /// All that this node's own replica holds at a revision. An error says why it did not show it.
    async fn show(&self, node: usize, revision: u64) -> Result<Vec<KeyValue>, String>;
}

/// What was seen of all replicas of the default partition at about the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nobody says which nodes hold one: why.
    Nothing(String),
    /// By the names of the nodes that hold one; nothing of a node that does not say how it is.
    Replicas(BTreeMap<String, Option<Applied>>),
}

/// How far a replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    index: u64,
    revision: u64,
    content_sum: u64,
}

/// Replicas that rest, and have applied the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Agreed {
    /// The names of the nodes that hold one.
    holders: BTreeSet<String>,
    /// At which all are.
    revision: u64,
}

/// What two looks mean, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Compared {
    Equal(Agreed),
    /// Whatever comes next: replicas that have applied the same differ.
    Different(Vec<String>),
    /// What is missing as of the second look.
    NotYet(Vec<String>),
}

/// All that has not come true by then; the line of a node or of a replica.
pub(super) async fn findings(nodes: &mut impl Nodes, until: clock::Instant) -> Vec<String> {
    let mut findings = serving(nodes, until).await;
    match agreeing(nodes, until).await {
        Ok(agreed) => findings.extend(contents::differing(nodes, &agreed, until).await),
        Err(lines) => findings.extend(lines),
    }
    findings
}

/// The nodes that do not serve.
async fn serving(nodes: &impl Nodes, until: clock::Instant) -> Vec<String> {
    let served = join_all((0..nodes.count()).map(|node| serves(nodes, node, until))).await;
    served.into_iter().filter_map(Result::err).collect()
}

async fn serves(nodes: &impl Nodes, node: usize, until: clock::Instant) -> Result<(), String> {
    let name = node_name(node);
    let key = format!("recovery/{name}");
    let put = insist(until, || nodes.put(node, key.clone())).await;
    put.map_err(|why| late(&format!("{name} has answered no put: {why}")))?;
    let found = insist(until, || nodes.get(node, key.clone())).await;
    let found = found.map_err(|why| late(&format!("{name} has answered no linearizable read: {why}")))?;
    match found.as_deref() == Some(TEXT) {
        true => Ok(()),
        false => Err(format!("{name}: \"{TEXT}\" was put at {key}, and a linearizable read then found {found:?}")),
    }
}

/// Asks until there is an answer, at least once. An error says why there was none the last time.
async fn insist<T, F>(until: clock::Instant, ask: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(why) if clock::now() >= until => return Err(why),
            Err(_) => clock::sleep(RETRY_PAUSE).await,
        }
    }
}

/// A line for what has not come true in time.
pub(super) fn late(what: &str) -> String {
    format!("{RECOVERY_MAX:?} after the last healing began {what}")
}

/// Waits until replicas have applied the same.
///
/// # Errors
/// How they differ, or that they have not caught up.
async fn agreeing(nodes: &mut impl Nodes, until: clock::Instant) -> Result<Agreed, Vec<String>> {
    let mut before = nodes.look().await;
    loop {
        clock::sleep(RETRY_PAUSE).await;
        let now = nodes.look().await;
        match compare(&before, &now) {
            Compared::Equal(agreed) => return Ok(agreed),
            Compared::Different(lines) => return Err(lines),
            Compared::NotYet(lines) if clock::now() >= until => {
                return Err(lines.iter().map(|line| late(line)).collect());
            }
            Compared::NotYet(_) => before = now,
        }
    }
}

fn compare(before: &Look, now: &Look) -> Compared {
    let replicas = match now {
        Look::Nothing(why) => return Compared::NotYet(vec![why.clone()]),
        Look::Replicas(replicas) if replicas.is_empty() => {
            return Compared::NotYet(vec!["no node holds a replica of the default partition".to_owned()]);
        }
        Look::Replicas(replicas) => replicas,
    };
    let rests = |name: &str, applied: Applied| match before {
        Look::Nothing(_) => false,
        Look::Replicas(before) => before.get(name) == Some(&Some(applied)),
    };
    let said = || replicas.iter().filter_map(|(name, applied)| Some((name.as_str(), (*applied)?)));
    let different = differences(said().filter(|(name, applied)| rests(name, *applied)));
    if !different.is_empty() {
        return Compared::Different(different);
    }
    let furthest = said().map(|(_, applied)| applied.index).max().unwrap_or(0);
    let missing = |(name, applied): (&String, &Option<Applied>)| match applied {
        None => Some(format!("{name} does not say how its replica is")),
        Some(applied) if applied.index < furthest => {
            Some(format!("the replica of {name} has applied {} of {furthest} entries", applied.index))
        }
        Some(applied) if !rests(name, *applied) => Some(format!("the replica of {name} is not at rest")),
        Some(_) => None,
    };
    let missing: Vec<String> = replicas.iter().filter_map(missing).collect();
    if !missing.is_empty() {
        return Compared::NotYet(missing);
    }
    let revision = said().map(|(_, applied)| applied.revision).max().unwrap_or(0);
    Compared::Equal(Agreed { holders: replicas.keys().cloned().collect(), revision })
}

/// A line for each index up to which replicas have applied all entries, and have come to different contents.
fn differences<'a>(replicas: impl Iterator<Item = (&'a str, Applied)>) -> Vec<String> {
    let mut sums: BTreeMap<u64, BTreeMap<u64, Vec<&str>>> = BTreeMap::new();
    for (name, Applied { index, content_sum, .. }) in replicas {
        sums.entry(index).or_default().entry(content_sum).or_default().push(name);
    }
    let differ = sums.into_iter().filter(|(_, sums)| sums.len() > 1);
    let line = |(index, sums): (u64, BTreeMap<u64, Vec<&str>>)| {
        let sums = sums.into_iter().map(|(sum, names)| format!("{sum:016x} on {}", names.join(" ")));
        let sums = sums.collect::<Vec<_>>().join(", ");
        format!("replicas that have applied {index} entries differ: content sum {sums}")
    };
    differ.map(line).collect()
}

/// The nodes of a cluster, each asked through itself.
pub(super) struct Themselves {
    target: Target,
    endpoints: Vec<String>,
    statuses: Statuses,
    /// Of each call.
    timeout: Duration,
}

impl Themselves {
    pub(super) fn of(cluster: &Cluster, timeout: Duration) -> Themselves {
        let (target, endpoints, statuses) = (cluster.target(), cluster.endpoints(), cluster.statuses());
        Themselves { target, endpoints, statuses, timeout }
    }

    /// A client that asks this node and no other.
    async fn client(&self, node: usize) -> Result<Client, String> {
        let endpoint = self.endpoints[node].clone();
        match self.target {
            Target::Trefoil => {
                let builder = trefoil_client::Client::builder([endpoint]).routed(false).retries(false);
                let made = builder.timeout(self.timeout).connect().await;
                made.map(Client::from).map_err(|error| error.to_string())
            }
            Target::Etcd => EtcdClient::of(&[endpoint]).map(Client::from).map_err(|error| format!("{error:#}")),
        }
    }

    /// The nodes that hold a replica of the default partition; nothing when all do.
    async fn holders(&self) -> Result<Option<BTreeSet<NodeId>>, String> {
        match self.target {
            Target::Trefoil => {
                let builder = trefoil_client::Client::builder(self.endpoints.clone()).timeout(self.timeout);
                // It has fetched the map when it is made.
                let map = builder.connect().await.map_err(|error| error.to_string())?.known_map();
                let row = map.row(PartitionId::DEFAULT).ok_or("the map does not name the default partition")?;
                Ok(Some(row.replicas.iter().map(|placed| placed.node).collect()))
            }
            Target::Etcd => Ok(None),
        }
    }
}

impl Nodes for Themselves {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    async fn put(&self, node: usize, key: String) -> Result<(), String> {
        let put = self.client(node).await?.put(key, TEXT.to_owned(), self.timeout).await;
        put.map(|_| ()).map_err(|failure| failure.to_string())
    }

    async fn get(&self, node: usize, key: String) -> Result<Option<String>, String> {
        let read = self.client(node).await?.get(key, self.timeout).await.map_err(|failure| failure.to_string())?;
        Ok(read.pairs.into_iter().flatten().next().map(|pair| pair.text))
    }

    async fn show(&self, node: usize, revision: u64) -> Result<Vec<KeyValue>, String> {
        let shown = self.client(node).await?.all_at(revision, self.timeout).await;
        shown.map_err(|failure| failure.to_string())
    }

    async fn look(&mut self) -> Look {
        match self.holders().await {
            Ok(holders) => seen(holders.as_ref(), &self.statuses.ask_all().await),
            Err(why) => Look::Nothing(why),
        }
    }
}

/// What the nodes say of their replicas. One that says nothing may hold one, and has not recovered anyway.
fn seen(holders: Option<&BTreeSet<NodeId>>, statuses: &[Option<NodeStatus>]) -> Look {
    let holds = |status: &NodeStatus| holders.is_none_or(|holders| holders.contains(&status.node));
    let applied = |replica: &ReplicaStatus| Applied {
        index: replica.applied_index,
        revision: replica.revision.0,
        content_sum: replica.content_sum,
    };
    let all = statuses.iter().enumerate().filter(|(_, status)| status.as_ref().is_none_or(holds));
    let of_node = |(node, status): (usize, &Option<NodeStatus>)| {
        (node_name(node), status.as_ref().and_then(status::replica).map(applied))
    };
    Look::Replicas(all.map(of_node).collect())
}

#[cfg(test)]
mod tests;
