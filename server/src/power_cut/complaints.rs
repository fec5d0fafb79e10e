//! What a cluster that is back has to complain of: nodes that are not ready, and alarms.
//!
//! Left out: what was lost, which the ledger tells.

use std::time::Duration;

use trefoil_client::Client;
use trefoil_placement::NodeId;
use trefoil_world::clock;

use super::{NODES, READY_PATIENCE};

/// How often ready nodes are asked again, and at what distance: until links are open and replicas were compared.
const ASKED_AGAIN: usize = 6;
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// What keeps nodes from being ready once everybody is back, and what alarms them: after a power cut, nothing.
pub(super) async fn complaints(client: &Client) -> Vec<String> {
    let until = clock::now() + READY_PATIENCE;
    for node in node_ids() {
        while !is_ready(client, node).await && clock::now() < until {
            clock::sleep(Duration::from_millis(50)).await;
        }
    }
    let mut found = Vec::new();
    for _ in 0..ASKED_AGAIN {
        for node in node_ids() {
            found.extend(complaint(client, node).await);
        }
        if !found.is_empty() {
            break;
        }
        clock::sleep(ASKED_EVERY).await;
    }
    found
}

fn node_ids() -> impl Iterator<Item = NodeId> {
    (1..=NODES as u64).map(NodeId)
}

async fn is_ready(client: &Client, node: NodeId) -> bool {
    matches!(client.status(node).await, Ok(status) if status.ready)
}

async fn complaint(client: &Client, node: NodeId) -> Option<String> {
    match client.status(node).await {
        Ok(status) if !status.ready => Some(format!("{node} is not ready: {}", status.waiting_for)),
        Ok(status) if !status.alarms.is_empty() => {
            Some(format!("{node} raises an alarm: {}", status.alarms.join("; ")))
        }
        Ok(_) => None,
        Err(error) => Some(format!("{node} does not say how it is: {error}")),
    }
}
