//! `cluster map`: which node holds which partition.

use trefoil_client::{ClusterMap, Placed, PlacementRow, Stage};

use super::{node_name, partition_name};
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Sheet};

/// Prints the map.
pub fn run(map: &ClusterMap, output: &mut Output) -> Result<Exit, Failure> {
    let mut sheet = Sheet::new(&["partition", "mode", "epoch", "replicas", "map_version"]);
    map.rows.iter().for_each(|row| sheet.push(cells(map, row)));
    output.sheet(&sheet)?;
    Ok(Exit::Ok)
}

fn cells(map: &ClusterMap, row: &PlacementRow) -> Vec<Cell> {
    let mode = map.keyspace(row.partition.keyspace).and_then(|keyspace| keyspace.mode);
    let replicas: Vec<String> = row.replicas.iter().map(|placed| replica(map, placed)).collect();
    vec![
        partition_name(map, row.partition).into(),
        mode.map_or("unknown", |mode| mode.name()).into(),
        row.epoch.0.into(),
        replicas.join(" ").into(),
        map.version.into(),
    ]
}

fn replica(map: &ClusterMap, placed: &Placed) -> String {
    let stage = match placed.stage {
        Stage::New => " (new)",
        Stage::Live => "",
    };
    format!("{}@{}{stage}", placed.replica, node_name(map, placed.node))
}
