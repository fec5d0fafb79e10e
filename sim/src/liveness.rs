//! The liveness phase: with all faults healed, the cluster must serve and converge within a bound.
//!
//! In turn: every node is ready and raises no alarm; puts and gets are answered; all that was ever written is read, as
//! part of the history; every replica holds the same content at the same revision. Each is asked again until it holds.
//!
//! An **outcast** is a node whose directory was replaced. It must serve nothing and say so; the others do without it.

use std::time::Duration;

use trefoil_client::{Client, Digest, NodeId, PartitionId, Revision};
use trefoil_jepsen::history::Process;
use trefoil_jepsen::workload::Workload;
use trefoil_world::clock;

use crate::clients::{Asking, Load, Worker};

/// How long a healed cluster may take for all of it.
pub const CONVERGED_IN: Duration = Duration::from_secs(60);

const ASKED_AGAIN: Duration = Duration::from_millis(100);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Puts and gets that must be served.
const SERVED: u64 = 10;
/// The first process of this phase: far above those of the workers.
const FIRST_PROCESS: u64 = 1_000_000_000;

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
    /// Nodes that stay out.
    pub out: u64,
}

/// Ends the load and waits until the cluster has converged. `outcasts`: by their places among the endpoints.
///
/// # Errors
/// What does not hold when the time is over.
pub async fn converge<W: Workload + Default>(
    load: Load<W>,
    asking: Asking<W>,
    endpoints: Vec<String>,
    outcasts: Vec<usize>,
) -> Result<Converged, String> {
    let until = clock::now() + CONVERGED_IN;
    let mut converged = Converged::default();
    load.stop().await;
    let client = connect(&endpoints, until).await?;
    for (place, endpoint) in endpoints.iter().enumerate() {
        match outcasts.contains(&place) {
            false => converged.forwards += ready(&client, endpoint, &outcasts, until).await?,
            true => {
                stays_out(&client, endpoint, until).await?;
                converged.out += 1;
            }
        }
    }
    serve(&client, until).await?;
    last_calls(&client, asking, until).await?;
    equal(&client, &outcasts, until).await?;
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

/// Gives how many requests the node has forwarded.
async fn ready(client: &Client, endpoint: &str, outcasts: &[usize], until: clock::Instant) -> Result<u64, String> {
    let expected = |alarm: &String| !outcasts.is_empty() && alarm.contains(STRANGER);
    loop {
        let asked = client.status_at(endpoint).map_err(|error| error.to_string())?;
        let why = match asked.timeout(CALL_TIMEOUT).send().await {
            Ok(status) if status.ready && status.alarms.iter().all(expected) => return Ok(status.forwards),
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
    let mut worker = Worker::new(asking, client.clone(), Process(FIRST_PROCESS), 1, CALL_TIMEOUT);
    let answered = worker.insist(calls, until, ASKED_AGAIN).await;
    answered.map_err(|call| format!("{CONVERGED_IN:?} after the last fault was healed: {call:?} has no answer"))
}

/// Whether all replicas of `default` hold the same at one revision.
async fn equal(client: &Client, outcasts: &[usize], until: clock::Instant) -> Result<(), String> {
    loop {
        match digests(client, outcasts).await {
            Ok(digests) => {
                match digests.iter().all(|digest| (digest.keys, digest.sum) == (digests[0].keys, digests[0].sum)) {
                    true => return Ok(()),
                    false => return Err(format!("replicas differ: {digests:?}")),
                }
            }
            Err(why) => again(until, || why).await?,
        }
    }
}

/// The sums of all replicas at the newest revision; at least one. Node ids are given in the order of names, from 1 on.
async fn digests(client: &Client, outcasts: &[usize]) -> Result<Vec<Digest>, String> {
    let out: Vec<NodeId> = outcasts.iter().map(|place| NodeId(*place as u64 + 1)).collect();
    let map = client.map().timeout(CALL_TIMEOUT).send().await.map_err(|error| format!("no map: {error}"))?;
    let row = map.row(PartitionId::DEFAULT).ok_or("the map has no row of default")?;
    let read = client.get("served/0").timeout(CALL_TIMEOUT).send().await;
    let revision = read.map_err(|error| format!("a get is not served: {error}"))?.header.revision;
    let mut digests = Vec::new();
    for placed in row.replicas.iter().filter(|placed| !out.contains(&placed.node)) {
        digests.push(digest(client, placed.node, revision).await?);
    }
    match digests.is_empty() {
        true => Err("default has no replicas".into()),
        false => Ok(digests),
    }
}

async fn digest(client: &Client, node: NodeId, revision: Revision) -> Result<Digest, String> {
    let asked = client.digest(node, PartitionId::DEFAULT).revision(revision).timeout(CALL_TIMEOUT).send().await;
    asked.map_err(|error| format!("{node} does not sum its content: {error}"))
}
