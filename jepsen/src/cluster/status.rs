//! Asking nodes how they are: the one way in which the harness finds out.
//!
//! A question goes to one node, once; who does not answer in time says nothing. The observer of a run, the nemesis and
//! whoever looks whether the cluster has recovered all ask here. What a member of etcd says is put in the words of a
//! node of Trefoil. What statuses mean is told by functions without a cluster.

use std::time::Duration;

use futures::future::join_all;
use trefoil_client::{NodeStatus, PartitionId, ReplicaStatus};

use crate::client::{Client, EtcdClient};
use crate::target::Target;

const STATUS_MAX: Duration = Duration::from_millis(500);

/// Asks the nodes of a cluster. Clones ask the same ones.
#[derive(Clone, Debug)]
pub struct Statuses {
    target: Target,
    /// Of the nodes, in their order.
    endpoints: Vec<String>,
    /// Made when it is first needed.
    client: Option<Client>,
}

impl Statuses {
    pub(super) fn of(target: Target, endpoints: Vec<String>) -> Statuses {
        Statuses { target, endpoints, client: None }
    }

    /// How a node says it is; nothing when it does not answer.
    pub async fn ask(&mut self, node: usize) -> Option<NodeStatus> {
        let client = self.client().await?;
        self.ask_with(&client, node).await
    }

    /// How all nodes say they are, in their order, asked at the same time.
    pub async fn ask_all(&mut self) -> Vec<Option<NodeStatus>> {
        match self.client().await {
            Some(client) => join_all((0..self.endpoints.len()).map(|node| self.ask_with(&client, node))).await,
            None => vec![None; self.endpoints.len()],
        }
    }

    async fn client(&mut self) -> Option<Client> {
        if self.client.is_none() {
            self.client = self.connect().await;
        }
        self.client.clone()
    }

    async fn connect(&self) -> Option<Client> {
        match self.target {
            Target::Trefoil => {
                let builder = trefoil_client::Client::builder(self.endpoints.clone()).retries(false);
                builder.timeout(STATUS_MAX).connect().await.ok().map(Client::from)
            }
            Target::Etcd => EtcdClient::of(&self.endpoints).ok().map(Client::from),
        }
    }

    async fn ask_with(&self, client: &Client, node: usize) -> Option<NodeStatus> {
        match client {
            Client::Trefoil(client) => {
                client.library().status_at(&self.endpoints[node]).ok()?.timeout(STATUS_MAX).send().await.ok()
            }
            Client::Etcd(client) => client.status(node, STATUS_MAX).await,
        }
    }
}

/// Which node leads the default partition: of those that say so of themselves, the one with the highest term.
pub fn leader(statuses: &[Option<NodeStatus>]) -> Option<usize> {
    let leaders = statuses.iter().enumerate().filter_map(|(node, status)| Some((term_led(status.as_ref()?)?, node)));
    leaders.max().map(|(_, node)| node)
}

/// The term in which a node says it leads the default partition.
fn term_led(status: &NodeStatus) -> Option<u64> {
    let replica = replica(status)?;
    let (leader, _) = replica.leader?;
    (leader == replica.replica).then_some(replica.term)
}

/// How a node's replica of the default partition is; nothing when it has none.
pub fn replica(status: &NodeStatus) -> Option<&ReplicaStatus> {
    status.replicas.iter().find(|replica| replica.partition == PartitionId::DEFAULT)
}

/// For tests: what a node says, with a replica of the default partition for which these hold.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use trefoil_client::{NodeId, ReplicaId, Revision};

    /// Node and replica have the number `id`; `leads`: the replica that leads, and its term.
    pub(crate) fn status(id: u64, (leads, term): (u64, u64)) -> NodeStatus {
        let replica = ReplicaStatus {
            partition: PartitionId::DEFAULT,
            replica: ReplicaId(id),
            leader: Some((ReplicaId(leads), NodeId(leads))),
            term,
            first_log_index: 1,
            last_log_index: 1,
            committed_index: 1,
            applied_index: 1,
            revision: Revision(1),
            compacted_revision: Revision(0),
            keys: 0,
            content_sum: 0,
            lag_entries: 0,
            leader_silent_ms: None,
            leader_changes: 0,
            snapshots_built: 0,
            snapshots_installed: 0,
            compactions: 0,
        };
        NodeStatus {
            cluster_id: Bytes::new(),
            node: NodeId(id),
            name: format!("n{id}"),
            version: String::new(),
            map_version: 1,
            start_count: 1,
            ready: true,
            waiting_for: String::new(),
            replicas: vec![replica],
            forwards: 0,
            alarms: Vec::new(),
            synced_position: 0,
            peers: Vec::new(),
        }
    }

    /// What, what each node says, who leads.
    type Case = (&'static str, Vec<Option<NodeStatus>>, Option<usize>);

    #[test]
    fn who_says_so_in_the_highest_term_leads() {
        let without = NodeStatus { replicas: Vec::new(), ..status(3, (3, 9)) };
        let cases: [Case; 5] = [
            ("nobody answers", vec![None, None], None),
            ("one leads", vec![Some(status(1, (2, 4))), Some(status(2, (2, 4)))], Some(1)),
            ("an old leader has not heard", vec![Some(status(1, (1, 4))), None, Some(status(3, (3, 5)))], Some(2)),
            ("the leader is silent", vec![Some(status(1, (2, 4))), None], None),
            ("who has no replica leads nothing", vec![Some(status(1, (1, 4))), Some(without)], Some(0)),
        ];
        for (what, statuses, expected) in cases {
            assert_eq!(leader(&statuses), expected, "{what}");
        }
    }
}
