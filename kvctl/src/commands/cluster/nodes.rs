//! `cluster nodes`: the nodes and whether they answer.

use trefoil_client::{Client, ClusterMap, Error, Node, NodeStatus};

use super::Statuses;
use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Sheet};

const COLUMNS: &[&str] =
    &["id", "name", "client_address", "peer_address", "zone", "weight", "state", "version", "starts", "forwards"];

/// Prints the nodes.
pub async fn run(client: &Client, map: &ClusterMap, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    let statuses = Statuses::ask(client, map, global).await;
    let mut sheet = Sheet::new(COLUMNS);
    for node in &map.nodes {
        sheet.push(cells(node, statuses.of(node.id).and_then(|status| status.as_ref().ok())));
    }
    output.sheet(&sheet)?;
    for (node, status) in map.nodes.iter().zip(&statuses.0) {
        tell_trouble(node, &status.1, output)?;
    }
    Ok(Exit::Ok)
}

fn cells(node: &Node, status: Option<&NodeStatus>) -> Vec<Cell> {
    let state = match status {
        Some(status) if status.ready => "ready",
        Some(_) => "waiting",
        None => "unreachable",
    };
    vec![
        node.id.0.into(),
        node.name.as_str().into(),
        node.client_address.as_str().into(),
        node.peer_address.as_str().into(),
        node.zone.as_str().into(),
        u64::from(node.weight).into(),
        state.into(),
        status.map_or(Cell::Absent, |status| status.version.as_str().into()),
        status.map(|status| status.start_count).into(),
        status.map(|status| status.forwards).into(),
    ]
}

/// Why a node does not serve, and its alarms.
pub fn tell_trouble(node: &Node, status: &Result<NodeStatus, Error>, output: &mut Output) -> Result<(), Failure> {
    let name = &node.name;
    match status {
        Ok(status) => {
            if !status.ready {
                output.note(&format!("{name} is not ready; waiting for: {}", status.waiting_for))?;
            }
            for alarm in &status.alarms {
                output.note(&format!("ALARM {name}: {alarm}"))?;
            }
        }
        Err(error) => output.note(&format!("{name} does not answer: {error}"))?,
    }
    Ok(())
}
