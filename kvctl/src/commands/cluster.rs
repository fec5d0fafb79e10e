//! `cluster status|nodes|map|verify`

mod map;
mod nodes;
mod status;
mod verify;

use std::time::Duration;

use futures::future::join_all;
use trefoil_client::{Client, ClusterMap, Error, NodeId, NodeStatus, PartitionId, ReplicaId, ReplicaStatus};

use super::connect;
use crate::args::{Cluster, Global};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// A node that answers at all answers this from memory.
const STATUS_MAX: Duration = Duration::from_secs(2);

/// Answers a question about the cluster.
pub async fn run(question: Cluster, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    let client = connect(global).await?;
    let map = client.map().await?;
    if map.nodes.is_empty() {
        return unformed(&client, global, output).await;
    }
    let map = of_keyspace(map, global.keyspace.as_deref())?;
    match question {
        Cluster::Status => status::run(&client, &map, global, output).await,
        Cluster::Nodes => nodes::run(&client, &map, global, output).await,
        Cluster::Map => map::run(&map, output),
        Cluster::Verify => verify::run(&client, &map, global, output).await,
    }
}

/// The map with the partitions of one keyspace, or of all when none was given.
///
/// # Errors
/// `Local` when there is no such keyspace.
fn of_keyspace(mut map: ClusterMap, keyspace: Option<&str>) -> Result<ClusterMap, Failure> {
    let Some(name) = keyspace else { return Ok(map) };
    let Some(id) = map.keyspaces.iter().find(|known| known.name == name).map(|known| known.id) else {
        return Err(Failure::Local(format!("no keyspace '{name}'")));
    };
    map.rows.retain(|row| row.partition.keyspace == id);
    Ok(map)
}

/// A cluster that has not formed has no map, but its nodes say what they wait for.
async fn unformed(client: &Client, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    for endpoint in &global.endpoints {
        match client.status_at(endpoint)?.timeout(global.timeout().min(STATUS_MAX)).await {
            Ok(status) => output.note(&format!("{endpoint}: no map yet; waiting for: {}", status.waiting_for))?,
            Err(error) => output.note(&format!("{endpoint}: {error}"))?,
        }
    }
    Ok(Exit::Failed)
}

/// What each node of the map says of itself, in the map's order.
struct Statuses(Vec<(NodeId, Result<NodeStatus, Error>)>);

impl Statuses {
    async fn ask(client: &Client, map: &ClusterMap, global: &Global) -> Statuses {
        let timeout = global.timeout().min(STATUS_MAX);
        let ask = |node: NodeId| async move { (node, client.status(node).timeout(timeout).await) };
        Statuses(join_all(map.nodes.iter().map(|node| ask(node.id))).await)
    }

    fn of(&self, node: NodeId) -> Option<&Result<NodeStatus, Error>> {
        self.0.iter().find(|(asked, _)| *asked == node).map(|(_, status)| status)
    }

    fn of_replica(&self, node: NodeId, partition: PartitionId, replica: ReplicaId) -> Option<&ReplicaStatus> {
        let status = self.of(node)?.as_ref().ok()?;
        status.replicas.iter().find(|found| found.partition == partition && found.replica == replica)
    }

    /// The replica that leads, as it says itself; of several the one of the newest term.
    fn leader_of(&self, partition: PartitionId) -> Option<&ReplicaStatus> {
        let replicas = self.0.iter().filter_map(|(_, status)| status.as_ref().ok()).flat_map(|status| &status.replicas);
        let leads = |replica: &&ReplicaStatus| replica.leader.is_some_and(|(leader, _)| leader == replica.replica);
        replicas.filter(|replica| replica.partition == partition).filter(leads).max_by_key(|replica| replica.term)
    }
}

fn node_name(map: &ClusterMap, node: NodeId) -> String {
    map.node(node).map_or_else(|| node.to_string(), |node| node.name.clone())
}

/// `keyspace/index`, by name.
fn partition_name(map: &ClusterMap, partition: PartitionId) -> String {
    match map.keyspace(partition.keyspace) {
        Some(keyspace) => format!("{}/{}", keyspace.name, partition.index),
        None => partition.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_client::{Epoch, Keyspace, KeyspaceId, PlacementRow};

    fn map() -> ClusterMap {
        let keyspaces = [(0, "_meta"), (1, "default")].map(|(id, name)| Keyspace {
            id: KeyspaceId(id),
            name: name.to_owned(),
            mode: None,
            partitions: 1,
            replication_factor: 3,
        });
        let rows = [0, 1].map(|id| PlacementRow {
            partition: PartitionId { keyspace: KeyspaceId(id), index: 0 },
            epoch: Epoch(1),
            replicas: Vec::new(),
        });
        ClusterMap { keyspaces: keyspaces.into(), rows: rows.into(), ..ClusterMap::default() }
    }

    fn looked_at(keyspace: Option<&str>) -> Result<Vec<u32>, String> {
        let map = of_keyspace(map(), keyspace).map_err(|failure| failure.to_string())?;
        Ok(map.rows.iter().map(|row| row.partition.keyspace.0).collect())
    }

    #[test]
    fn the_partitions_of_the_given_keyspace_or_all() {
        assert_eq!(looked_at(None), Ok(vec![0, 1]));
        assert_eq!(looked_at(Some("default")), Ok(vec![1]));
        assert_eq!(looked_at(Some("_meta")), Ok(vec![0]));
        assert_eq!(looked_at(Some("nowhere")), Err("no keyspace 'nowhere'".to_owned()));
    }
}
