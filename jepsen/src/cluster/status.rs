//! Asking nodes how they are: the one way in which the harness finds out.
//!
//! A question goes to one node, once; who does not answer in time says nothing. The observer of a run, the nemesis and
//! whoever looks whether the cluster has recovered all ask here. What a member of etcd says is put in the words of a
//! node of Trefoil. What statuses mean is told by functions without a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use trefoil_client::{NodeId, NodeStatus, PartitionId, ReplicaStatus};

use crate::backend::Line;
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
    /// The nodes that hold the default partition, as far as they have said; before that all.
    holders: BTreeSet<usize>,
}

impl Statuses {
    pub(super) fn of(target: Target, endpoints: Vec<String>) -> Statuses {
        let holders = (0..endpoints.len()).collect();
        Statuses { target, endpoints, client: None, holders }
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

    /// Which nodes hold the default partition, and who leads it, as they say now; of one that does not say, as it was
    /// last known.
    pub async fn placement(&mut self) -> Placement {
        let placement = Placement::of(&self.ask_all().await, &self.holders);
        self.holders.clone_from(&placement.holders);
        placement
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

/// Where the default partition is: all that is judged is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How many nodes there are, those that hold nothing among them.
    pub nodes: usize,
    /// The nodes that hold a replica, at least one. All nodes as long as it is not known.
    pub holders: BTreeSet<usize>,
    /// Which of them leads, if that is known.
    pub leader: Option<usize>,
}

impl Placement {
    /// Of so many nodes, of which nobody has said what it holds.
    pub fn unknown(nodes: usize, leader: Option<usize>) -> Placement {
        Placement { nodes, holders: (0..nodes).collect(), leader }
    }

    /// `before`: the holders as they were known until now. A node that is not ready may not have opened its replica yet.
    fn of(statuses: &[Option<NodeStatus>], before: &BTreeSet<usize>) -> Placement {
        let holds = |node: &usize| match &statuses[*node] {
            Some(status) if replica(status).is_some() => true,
            Some(status) if status.ready => false,
            Some(_) | None => before.contains(node),
        };
        let holders: BTreeSet<usize> = (0..statuses.len()).filter(holds).collect();
        let leader = leader(statuses);
        match holders.is_empty() {
            true => Placement::unknown(statuses.len(), leader),
            false => Placement { nodes: statuses.len(), holders, leader },
        }
    }

    /// The nodes that hold nothing.
    pub fn others(&self) -> Vec<usize> {
        (0..self.nodes).filter(|node| !self.holders.contains(node)).collect()
    }

    /// The fewest holders that are a majority of them.
    pub fn majority(&self) -> usize {
        self.holders.len() / 2 + 1
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

/// At which place each node is, of those that answer.
pub fn places(statuses: &[Option<NodeStatus>]) -> BTreeMap<NodeId, usize> {
    let place = |(place, status): (usize, &Option<NodeStatus>)| Some((status.as_ref()?.node, place));
    statuses.iter().enumerate().filter_map(place).collect()
}

/// Whether a node says that it is connected to another one, for each two of which the former answers and has met the
/// latter. `places`: those that are known; whether who is there answers now does not matter.
pub fn connections(statuses: &[Option<NodeStatus>], places: &BTreeMap<NodeId, usize>) -> BTreeMap<Line, bool> {
    let mut connections = BTreeMap::new();
    for (from, status) in statuses.iter().enumerate() {
        for peer in status.iter().flat_map(|status| &status.peers) {
            connections.extend(places.get(&peer.node).map(|&to| (Line { from, to }, peer.connected)));
        }
    }
    connections
}

/// For tests: what a node says, with a replica of the default partition for which these hold.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::client::untold;
    use trefoil_client::{PeerStatus, ReplicaId, Revision};

    /// Node and replica have the number `id`; `leads`: the replica that leads, and its term.
    pub(crate) fn status(id: u64, (leads, term): (u64, u64)) -> NodeStatus {
        let replica = ReplicaStatus {
            leader: Some((ReplicaId(leads), NodeId(leads))),
            term,
            first_log_index: 1,
            last_log_index: 1,
            committed_index: 1,
            applied_index: 1,
            revision: Revision(1),
            ..untold::replica(id)
        };
        NodeStatus {
            name: format!("n{id}"),
            map_version: 1,
            start_count: 1,
            ready: true,
            replicas: vec![replica],
            ..untold::node(id)
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

    #[test]
    fn who_is_connected_to_whom_is_told_of_those_who_answer() {
        let says = |id, peers: &[(u64, bool)]| {
            let peer = |(node, connected): &(u64, bool)| PeerStatus {
                node: NodeId(*node),
                connected: *connected,
                synced_position: 0,
            };
            Some(NodeStatus { peers: peers.iter().map(peer).collect(), ..status(id, (1, 4)) })
        };
        let told = |statuses: &[Option<NodeStatus>], places: &BTreeMap<NodeId, usize>| {
            let lines = connections(statuses, places).into_iter();
            lines.map(|(Line { from, to }, connected)| ((from, to), connected)).collect::<Vec<_>>()
        };
        let before = [says(10, &[(20, true), (30, true), (40, true)]), says(20, &[(10, false)]), None, says(40, &[])];
        let known = places(&before);
        assert_eq!(known, BTreeMap::from([(NodeId(10), 0), (NodeId(20), 1), (NodeId(40), 3)]));
        assert_eq!(told(&before, &known), [((0, 1), true), ((0, 3), true), ((1, 0), false)]);
        // Who is silent since hides nothing of what others say of it.
        let later = [says(10, &[(20, false), (40, true)]), None, None, None];
        assert_eq!(told(&later, &known), [((0, 1), false), ((0, 3), true)]);
        assert!(told(&later, &places(&later)).is_empty());
    }

    /// What, what each node says, who was known to hold the partition, who is now.
    type Held = (&'static str, Vec<Option<NodeStatus>>, &'static [usize], &'static [usize]);

    #[test]
    fn who_says_so_holds_the_partition_and_who_is_silent_does_as_before() {
        let holds = |id| Some(status(id, (1, 4)));
        let without = |id, ready| Some(NodeStatus { replicas: Vec::new(), ready, ..status(id, (1, 4)) });
        let cases: [Held; 6] = [
            ("nobody answers", vec![None, None], &[0, 1], &[0, 1]),
            ("all tell", vec![holds(1), without(2, true), holds(3)], &[0, 1, 2], &[0, 2]),
            ("a holder is silent", vec![None, holds(2), without(3, true)], &[0, 1], &[0, 1]),
            ("another one is silent", vec![holds(1), holds(2), None], &[0, 1], &[0, 1]),
            ("a holder is not ready", vec![without(1, false), holds(2)], &[0, 1], &[0, 1]),
            ("nobody has it: it is not known", vec![without(1, true), without(2, true)], &[0], &[0, 1]),
        ];
        for (what, statuses, before, expected) in cases {
            let set = |nodes: &[usize]| nodes.iter().copied().collect::<BTreeSet<usize>>();
            let placement = Placement::of(&statuses, &set(before));
            assert_eq!(placement.holders, set(expected), "{what}");
            assert_eq!((placement.nodes, placement.leader), (statuses.len(), leader(&statuses)), "{what}");
        }
    }

    #[test]
    fn who_holds_nothing_is_no_part_of_a_majority() {
        let placement = Placement { nodes: 5, holders: BTreeSet::from([0, 2, 4]), leader: None };
        assert_eq!((placement.others(), placement.majority()), (vec![1, 3], 2));
        assert_eq!((Placement::unknown(5, None).others(), Placement::unknown(5, None).majority()), (vec![], 3));
    }
}
