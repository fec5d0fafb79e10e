//! `cluster status`: partitions with their leaders, replicas, lag, counters, content sums and alarms.

use trefoil_client::{Client, ClusterMap, Placed, PlacementRow, ReplicaStatus};

use super::nodes::tell_trouble;
use super::{Statuses, node_name, partition_name};
use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Sheet};

const COLUMNS: &[&str] = &[
    "partition",
    "replica",
    "node",
    "role",
    "leader",
    "term",
    "applied",
    "lag",
    "leader_silent_ms",
    "revision",
    "keys",
    "content_sum",
    "leader_changes",
    "snapshots_built",
    "snapshots_installed",
    "compactions",
];

/// Prints a row per replica, and what an admin should look at.
pub async fn run(client: &Client, map: &ClusterMap, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    let statuses = Statuses::ask(client, map, global).await;
    let mut sheet = Sheet::new(COLUMNS);
    for row in &map.rows {
        row.replicas.iter().for_each(|placed| sheet.push(cells(map, row, placed, &statuses)));
    }
    output.sheet(&sheet)?;
    for row in &map.rows {
        if statuses.leader_of(row.partition).is_none() {
            output.note(&format!("no replica of {} says it leads", partition_name(map, row.partition)))?;
        }
    }
    for (node, (_, status)) in map.nodes.iter().zip(&statuses.0) {
        tell_trouble(node, status, output)?;
    }
    if map.nodes.len() == 1 {
        output.note("this cluster has one node: nothing is replicated")?;
    }
    Ok(Exit::Ok)
}

fn cells(map: &ClusterMap, row: &PlacementRow, placed: &Placed, statuses: &Statuses) -> Vec<Cell> {
    let status = statuses.of_replica(placed.node, row.partition, placed.replica);
    let mut cells = vec![
        partition_name(map, row.partition).into(),
        placed.replica.to_string().into(),
        node_name(map, placed.node).into(),
    ];
    match status {
        Some(status) => cells.extend(replica_cells(map, status)),
        None => {
            let answers = statuses.of(placed.node).is_some_and(Result::is_ok);
            cells.push(if answers { "absent" } else { "unreachable" }.into());
            cells.resize(COLUMNS.len(), Cell::Absent);
        }
    }
    cells
}

fn replica_cells(map: &ClusterMap, status: &ReplicaStatus) -> [Cell; 13] {
    let (role, leader) = match status.leader {
        Some((leader, node)) if leader == status.replica => ("leader", node_name(map, node).into()),
        Some((_, node)) => ("follower", node_name(map, node).into()),
        None => ("no leader known", Cell::Absent),
    };
    [
        role.into(),
        leader,
        status.term.into(),
        status.applied_index.into(),
        status.lag_entries.into(),
        status.leader_silent_ms.into(),
        status.revision.0.into(),
        status.keys.into(),
        format!("{:016x}", status.content_sum).into(),
        status.leader_changes.into(),
        status.snapshots_built.into(),
        status.snapshots_installed.into(),
        status.compactions.into(),
    ]
}
