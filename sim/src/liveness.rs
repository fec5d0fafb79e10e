//! The liveness phase: with all faults healed, the cluster must serve and converge within a bound.
//!
//! In turn: every node is ready and raises no alarm; puts and gets are answered; all that was ever written is read, as
//! part of the history; every replica holds the same content at the same revision, by its sum and by a scan of all of it.
//! Each is asked again until it holds.
//!
//! An **outcast** is a node whose directory was replaced. It must serve nothing and say so; the others do without it.

use std::time::Duration;

use bytes::Bytes;
use trefoil_client::{Client, Digest, NodeId, NodeStatus, PartitionId, Revision};
use trefoil_jepsen::coverage::LAST_PROCESS;
use trefoil_jepsen::workload::Workload;
use trefoil_proto::v1;
use trefoil_world::clock;

use crate::clients::{Asking, Load, Worker};
use crate::direct;

/// How long a healed cluster may take for all of it.
pub const CONVERGED_IN: Duration = Duration::from_secs(60);

const ASKED_AGAIN: Duration = Duration::from_millis(100);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Puts and gets that must be served.
const SERVED: u64 = 10;

/// What an outcast says of itself: when it is of the cluster, and when it never came to be.
const STAYS_OUT: &str = "stays out";
const NO_MEMBER: &str = "not a member of a cluster yet";
/// What the others' alarms say of one with an empty directory.
const STRANGER: &str = "came back with another directory";

/// What nodes say when the cluster has converged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converged {
    /// Requests that nodes have forwarded since they were started.
    pub forwards: u64,
    /// Compactions that their replicas have applied since then.
    pub compactions: u64,
    /// Nodes that stay out.
    pub out: u64,
}

/// Ends the load and waits until the cluster has converged. `within`: what is left of [`CONVERGED_IN`]. `outcasts`: by
/// their places among the endpoints.
///
/// # Errors
/// What does not hold when the time is over.
pub async fn converge<W: Workload + Default>(
    load: Load<W>,
    asking: Asking<W>,
    endpoints: Vec<String>,
    outcasts: Vec<usize>,
    within: Duration,
) -> Result<Converged, String> {
    let until = clock::now() + within;
    let mut converged = Converged::default();
    load.stop().await;
    let client = connect(&endpoints, until).await?;
    for (place, endpoint) in endpoints.iter().enumerate() {
        match outcasts.contains(&place) {
            false => {
                let status = ready(&client, endpoint, &outcasts, until).await?;
                converged.forwards += status.forwards;
                converged.compactions += status.replicas.iter().map(|replica| replica.compactions).sum::<u64>();
            }
            true => {
                stays_out(&client, endpoint, until).await?;
                converged.out += 1;
            }
        }
    }
    serve(&client, until).await?;
    last_calls(&client, asking, until).await?;
    equal(&client, &endpoints, &outcasts, until).await?;
    Ok(converged)
}

async fn again(until: clock::Instant, why: impl FnOnce() -> String) -> Result<(), String> {
    if clock::now() >= until {
        return Err(format!("{CONVERGED_IN:?} after the last fault was healed: {}", why()));
    }
    clock::sleep(ASKED_AGAIN).await;
    Ok(())
}

async fn connect(endpoints: &[String], until: clock::Instant) -> Result<Client, String> {
    loop {
        match Client::builder(endpoints.to_vec()).timeout(CALL_TIMEOUT).connect().await {
            Ok(client) => return Ok(client),
            Err(error) => again(until, || format!("nobody answers: {error}")).await?,
        }
    }
}

/// Gives how the node is once it is ready.
async fn ready(
    client: &Client,
    endpoint: &str,
    outcasts: &[usize],
    until: clock::Instant,
) -> Result<NodeStatus, String> {
    let expected = |alarm: &String| !outcasts.is_empty() && alarm.contains(STRANGER);
    loop {
        let asked = client.status_at(endpoint).map_err(|error| error.to_string())?;
        let why = match asked.timeout(CALL_TIMEOUT).send().await {
            Ok(status) if status.ready && status.alarms.iter().all(expected) => return Ok(status),
            Ok(status) if status.ready => format!("{endpoint} raises an alarm: {}", status.alarms.join("; ")),
            Ok(status) => format!("{endpoint} is not ready: {}", status.waiting_for),
            Err(error) => format!("{endpoint} does not say how it is: {error}"),
        };
        again(until, || why).await?;
    }
}

async fn stays_out(client: &Client, endpoint: &str, until: clock::Instant) -> Result<(), String> {
    loop {
        let asked = client.status_at(endpoint).map_err(|error| error.to_string())?;
        let why = match asked.timeout(CALL_TIMEOUT).send().await {
            Ok(status) if status.ready => {
                return Err(format!("{endpoint} is ready with a directory that was replaced"));
            }
            Ok(status) if status.waiting_for.contains(STAYS_OUT) => return Ok(()),
            Ok(status) => format!("{endpoint} does not say that it stays out: {}", status.waiting_for),
            Err(error) if error.to_string().contains(NO_MEMBER) => return Ok(()),
            Err(error) => format!("{endpoint} does not say how it is: {error}"),
        };
        again(until, || why).await?;
    }
}

async fn serve(client: &Client, until: clock::Instant) -> Result<(), String> {
    for number in 0..SERVED {
        let (key, value) = (format!("served/{number}"), number.to_string());
        while let Err(error) = client.put(key.clone(), value.clone()).timeout(CALL_TIMEOUT).send().await {
            again(until, || format!("a put is not served: {error}")).await?;
        }
        let read = loop {
            match client.get(key.clone()).timeout(CALL_TIMEOUT).send().await {
                Ok(reply) => break reply,
                Err(error) => again(until, || format!("a get is not served: {error}")).await?,
            }
        };
        if read.value().is_none_or(|read| read[..] != *value.as_bytes()) {
            return Err(format!("{key} was put, and {:?} was read", read.value()));
        }
    }
    Ok(())
}

/// Reads all that was written.
async fn last_calls<W: Workload>(client: &Client, asking: Asking<W>, until: clock::Instant) -> Result<(), String> {
    let calls = asking.last_calls();
    let mut worker = Worker::new(asking, client.clone(), LAST_PROCESS, 1, CALL_TIMEOUT);
    let answered = worker.insist(calls, until, ASKED_AGAIN).await;
    answered.map_err(|call| format!("{CONVERGED_IN:?} after the last fault was healed: {call:?} has no answer"))
}

/// What a replica holds at the revision at which all are compared.
struct Held {
    digest: Digest,
    /// As a scan of its node shows them.
    pairs: Vec<v1::KeyValue>,
}

/// Whether all replicas of `default` hold the same at one revision.
async fn equal(client: &Client, endpoints: &[String], outcasts: &[usize], until: clock::Instant) -> Result<(), String> {
    loop {
        match held(client, endpoints, outcasts).await {
            Ok(all) => return all.iter().try_for_each(|held| same(&all[0], held)),
            Err(why) => again(until, || why).await?,
        }
    }
}

fn same(first: &Held, other: &Held) -> Result<(), String> {
    let (one, two) = (&first.digest, &other.digest);
    if (one.keys, one.sum) != (two.keys, two.sum) {
        return Err(format!("replicas differ: {one:?} and {two:?}"));
    }
    if two.keys != other.pairs.len() as u64 {
        return Err(format!("{} has {} keys, and shows {}", two.node, two.keys, other.pairs.len()));
    }
    let differing = first.pairs.iter().zip(&other.pairs).find(|(one, two)| one != two);
    differing.map_or(Ok(()), |pairs| Err(format!("{} and {} show different pairs: {pairs:?}", one.node, two.node)))
}

/// All replicas, at the newest revision; at least one. Node ids are given in the order of names, from 1 on.
async fn held(client: &Client, endpoints: &[String], outcasts: &[usize]) -> Result<Vec<Held>, String> {
    let out: Vec<NodeId> = outcasts.iter().map(|place| NodeId(*place as u64 + 1)).collect();
    let map = client.map().timeout(CALL_TIMEOUT).send().await.map_err(|error| format!("no map: {error}"))?;
    let row = map.row(PartitionId::DEFAULT).ok_or("the map has no row of default")?;
    let read = client.get("served/0").timeout(CALL_TIMEOUT).send().await;
    let read = read.map_err(|error| format!("a get is not served: {error}"))?;
    let (revision, context) = (read.header.revision, Bytes::copy_from_slice(read.context.as_bytes()));
    let mut all = Vec::new();
    for node in row.replicas.iter().map(|placed| placed.node).filter(|node| !out.contains(node)) {
        let place = usize::try_from(node.0).ok().and_then(|id| id.checked_sub(1));
        let endpoint = place.and_then(|place| endpoints.get(place)).ok_or_else(|| format!("no {node} was started"))?;
        let digest = digest(client, node, revision).await?;
        let pairs = direct::all_pairs(direct::node(endpoint), revision.0, context.clone(), CALL_TIMEOUT).await;
        all.push(Held {
            digest,
            pairs: pairs.map_err(|status| format!("{node} does not show its content: {status}"))?,
        });
    }
    match all.is_empty() {
        true => Err("default has no replicas".into()),
        false => Ok(all),
    }
}

async fn digest(client: &Client, node: NodeId, revision: Revision) -> Result<Digest, String> {
    let asked = client.digest(node, PartitionId::DEFAULT).revision(revision).timeout(CALL_TIMEOUT).send().await;
    asked.map_err(|error| format!("{node} does not sum its content: {error}"))
}

#[cfg(test)]
mod tests {
    use trefoil_client::ReplicaId;

    use super::*;

    fn held(node: u64, sum: u64, keys: u64, values: &[&'static str]) -> Held {
        let digest = Digest { node: NodeId(node), replica: ReplicaId(node), revision: Revision(9), keys, sum };
        let pair =
            |value: &&'static str| v1::KeyValue { value: Bytes::from_static(value.as_bytes()), ..Default::default() };
        Held { digest, pairs: values.iter().map(pair).collect() }
    }

    #[test]
    fn replicas_that_differ_are_found() {
        let first = held(1, 7, 2, &["a", "b"]);
        for (other, expected) in [
            (held(2, 7, 2, &["a", "b"]), None),
            (held(2, 8, 2, &["a", "b"]), Some("replicas differ")),
            (held(2, 7, 3, &["a", "b", "c"]), Some("replicas differ")),
            (held(2, 7, 2, &["a"]), Some("has 2 keys, and shows 1")),
            (held(2, 7, 2, &["a", "c"]), Some("show different pairs")),
        ] {
            let found = same(&first, &other);
            match expected {
                None => assert_eq!(found, Ok(())),
                Some(words) => assert!(found.as_ref().is_err_and(|why| why.contains(words)), "{found:?}"),
            }
        }
    }
}
