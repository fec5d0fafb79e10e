//! Whom to ask: what the client knows about the cluster, and the choice it makes of that.
//!
//! Knowledge: the endpoints the caller gave, the newest map, who leads each partition, where a node was really met,
//! and which addresses did not answer lately. A node that does not lead forwards without a word, so that a reply does
//! not prove that the right one was asked: who leads is learned from hints in errors and from the nodes' status, which
//! is asked for beside the requests, at once when no leader is known and every few seconds of use. The order of choice for a request
//! that wants the leader: the leader, the given endpoints, the other nodes of the map; any of them forwards. So a
//! client that cannot reach the addresses of the map stays with the endpoints it was given.
//!
//! Invariants:
//!
//! * No network and no waiting here: what is learned is told by the caller, and so is the time.
//! * A silent address is never forgotten, only asked last for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trefoil_placement::{NodeId, PartitionId};
use trefoil_world::clock::Instant;

use crate::address::Address;
use crate::cluster::{ClusterMap, NodeStatus};
use crate::error::{Error, Kind};

/// A silent address is asked last for this long, doubled with each further silence.
const SILENCE_MIN: Duration = Duration::from_millis(250);
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Who leads is asked for again after so much use; after the shorter time when nobody is known to.
const LEADER_GOOD_FOR: Duration = Duration::from_secs(3);
const LEADER_WANTED_EVERY: Duration = Duration::from_millis(100);

/// Whom a request is for.
#[derive(Clone, Debug)]
pub(crate) enum Aim {
    /// The partition's leader; absent when the keyspace is not in the map we have.
    Leader(Option<PartitionId>),
    /// Any replica of it.
    Replica(Option<PartitionId>),
    /// Any node.
    Anybody,
    /// Any of the endpoints that were given, and nobody else.
    Given,
    /// This node and no other.
    Node(NodeId),
    /// This address and no other.
    At(Address),
}

/// What a client knows about the cluster.
#[derive(Debug)]
pub(crate) struct Routes {
    given: Vec<Address>,
    map: Arc<ClusterMap>,
    /// The client addresses of the map.
    mapped: BTreeMap<NodeId, Address>,
    /// Where a node was met under an address that was given.
    met: BTreeMap<NodeId, Address>,
    leaders: BTreeMap<PartitionId, Leader>,
    /// When status was last asked for the sake of the leader.
    asked_for_leader: Option<Instant>,
    silent: BTreeMap<Address, Silence>,
    turn: usize,
}

#[derive(Clone, Copy, Debug)]
struct Leader {
    node: NodeId,
    /// What a status of an older term says is out of date.
    term: u64,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    until: Instant,
    times: u32,
}

impl Routes {
    pub(crate) fn new(given: Vec<Address>) -> Routes {
        Routes {
            given,
            map: Arc::default(),
            mapped: BTreeMap::new(),
            met: BTreeMap::new(),
            leaders: BTreeMap::new(),
            asked_for_leader: None,
            silent: BTreeMap::new(),
            turn: 0,
        }
    }

    pub(crate) fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// Given endpoints whose node is not known from the map: asking their status is worth it.
    pub(crate) fn strangers(&self) -> Vec<Address> {
        let known = |address: &Address| self.mapped.values().chain(self.met.values()).any(|other| other == address);
        self.given.iter().filter(|address| !known(address)).cloned().collect()
    }

    /// The next address to ask, not one of `tried`; when all were, the round begins anew. `None` when there is none
    /// at all: the aim is a node nobody knows.
    pub(crate) fn pick(&mut self, aim: &Aim, tried: &mut Vec<Address>, now: Instant) -> Option<Address> {
        let order = self.order(aim);
        if order.iter().all(|address| tried.contains(address)) {
            tried.clear();
        }
        let mut untried = order.iter().filter(|address| !tried.contains(address));
        let picked = untried.clone().find(|address| !self.is_silent(address, now)).or_else(|| untried.next()).cloned();
        self.turn = self.turn.wrapping_add(1);
        picked
    }

    /// Whether there is anybody else than `asked` to ask in this round who was not silent lately.
    pub(crate) fn has_others(&self, aim: &Aim, tried: &[Address], asked: &Address, now: Instant) -> bool {
        let order = self.order(aim);
        let mut others = order.iter().filter(|address| *address != asked && !tried.contains(address));
        others.any(|address| !self.is_silent(address, now))
    }

    fn is_silent(&self, address: &Address, now: Instant) -> bool {
        self.silent.get(address).is_some_and(|silence| silence.until > now)
    }

    fn order(&self, aim: &Aim) -> Vec<Address> {
        let mut order = match aim {
            Aim::Leader(partition) => self.leader_addresses(*partition),
            Aim::Replica(partition) => self.replica_addresses(*partition),
            Aim::Anybody => Vec::new(),
            Aim::Given => return self.given.clone(),
            Aim::Node(node) => return self.addresses_of(*node).collect(),
            Aim::At(address) => return vec![address.clone()],
        };
        order.extend(self.given.iter().chain(self.mapped.values()).cloned());
        order
    }

    fn addresses_of(&self, node: NodeId) -> impl Iterator<Item = Address> {
        self.mapped.get(&node).into_iter().chain(self.met.get(&node)).cloned()
    }

    fn leader_addresses(&self, partition: Option<PartitionId>) -> Vec<Address> {
        let leader = partition.and_then(|partition| self.leaders.get(&partition));
        leader.into_iter().flat_map(|leader| self.addresses_of(leader.node)).collect()
    }

    /// The replicas in turn, so that stale reads spread.
    fn replica_addresses(&self, partition: Option<PartitionId>) -> Vec<Address> {
        let row = partition.and_then(|partition| self.map.row(partition));
        let mut nodes: Vec<NodeId> = row.into_iter().flat_map(|row| &row.replicas).map(|placed| placed.node).collect();
        if !nodes.is_empty() {
            let turn = self.turn % nodes.len();
            nodes.rotate_left(turn);
        }
        nodes.into_iter().flat_map(|node| self.addresses_of(node)).collect()
    }

    /// A map has come; an older one than ours is ignored. One of another cluster, which was formed behind the same
    /// addresses, counts its versions anew, and its node ids mean other nodes.
    pub(crate) fn learn_map(&mut self, map: ClusterMap) {
        let another = !map.nodes.is_empty() && map.cluster_id != self.map.cluster_id;
        if map.version < self.map.version && !another {
            return;
        }
        if another {
            self.met.clear();
            self.leaders.clear();
        }
        let parsed = map.nodes.iter().filter_map(|node| Some((node.id, Address::parse(&node.client_address).ok()?)));
        self.mapped = parsed.collect();
        self.map = Arc::new(map);
    }

    /// A node told how it is, at this address.
    pub(crate) fn learn_status(&mut self, asked: &Address, status: &NodeStatus) {
        if self.given.contains(asked) && status.node != NodeId::default() {
            self.met.insert(status.node, asked.clone());
        }
        for replica in &status.replicas {
            if let Some((_, node)) = replica.leader {
                self.learn_leader(replica.partition, Leader { node, term: replica.term });
            }
        }
    }

    fn learn_leader(&mut self, partition: PartitionId, leader: Leader) {
        let known = self.leaders.entry(partition).or_insert(leader);
        if leader.term >= known.term {
            *known = leader;
        }
    }

    /// The leader as an error names it, which does not say in which term.
    fn learn_hint(&mut self, partition: PartitionId, node: NodeId) {
        let term = self.leaders.get(&partition).map_or(0, |known| known.term);
        self.leaders.insert(partition, Leader { node, term });
    }

    /// A request was carried out. A node that names another one as having answered says that the other one leads.
    pub(crate) fn learn_reply(&mut self, asked: &Address, aim: &Aim, answered: Option<NodeId>) {
        self.silent.remove(asked);
        let met = self.mapped.iter().chain(&self.met).find(|(_, address)| *address == asked).map(|(node, _)| *node);
        if let (Aim::Leader(Some(partition)), Some(met), Some(answered)) = (aim, met, answered)
            && met != answered
        {
            self.learn_hint(*partition, answered);
        }
    }

    /// Whether it is time to ask a node who leads; the caller then does.
    pub(crate) fn wants_leader(&mut self, aim: &Aim, now: Instant) -> bool {
        let Aim::Leader(Some(partition)) = aim else { return false };
        let good_for = if self.leaders.contains_key(partition) { LEADER_GOOD_FOR } else { LEADER_WANTED_EVERY };
        let wants = self.asked_for_leader.is_none_or(|asked| now >= asked + good_for);
        if wants {
            self.asked_for_leader = Some(now);
        }
        wants
    }

    /// A request failed.
    pub(crate) fn learn_failure(&mut self, asked: &Address, aim: &Aim, error: &Error, answered: bool, now: Instant) {
        if answered {
            self.silent.remove(asked);
        } else {
            self.learn_silence(asked, now);
        }
        let Aim::Leader(Some(partition)) = aim else { return };
        let leads_not = !answered || matches!(error.kind(), Kind::NotLeader | Kind::Unavailable);
        if let Some(leader) = error.leader() {
            self.learn_hint(*partition, leader);
        } else if leads_not && self.leader_addresses(Some(*partition)).contains(asked) {
            self.leaders.remove(partition);
        }
    }

    fn learn_silence(&mut self, asked: &Address, now: Instant) {
        let silence = self.silent.entry(asked.clone()).or_insert(Silence { until: now, times: 0 });
        let wait = (SILENCE_MIN * 2_u32.pow(silence.times.min(10))).min(SILENCE_MAX);
        *silence = Silence { until: now + wait, times: silence.times.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Node;
    use crate::error::Outcome;
    use trefoil_world::clock;

    fn at(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn node(id: u64) -> Node {
        Node {
            id: NodeId(id),
            name: format!("n{id}"),
            client_address: format!("n{id}:2379"),
            peer_address: String::new(),
            zone: String::new(),
            weight: 1,
        }
    }

    fn routes() -> Routes {
        let mut routes = Routes::new(vec![at("given:1")]);
        routes.learn_map(ClusterMap { version: 1, nodes: vec![node(1), node(2)], ..ClusterMap::default() });
        routes
    }

    fn hear_of_leader(routes: &mut Routes, leader: u64) {
        let error = Error::new(Kind::NotLeader, Outcome::NotDone, "elsewhere").with_leader(Some(NodeId(leader)));
        routes.learn_failure(&at("given:1"), &LEADER, &error, true, clock::now());
    }

    const LEADER: Aim = Aim::Leader(Some(PartitionId::DEFAULT));

    fn pick(routes: &mut Routes, tried: &mut Vec<Address>) -> String {
        routes.pick(&LEADER, tried, clock::now()).expect("somebody").to_string()
    }

    #[tokio::test]
    async fn the_leader_first_then_the_given_endpoints() {
        let mut routes = routes();
        assert_eq!(pick(&mut routes, &mut Vec::new()), "given:1");
        hear_of_leader(&mut routes, 2);
        assert_eq!(pick(&mut routes, &mut Vec::new()), "n2:2379");
        let mut tried = vec![at("n2:2379")];
        assert_eq!(pick(&mut routes, &mut tried), "given:1");
        tried.extend([at("given:1"), at("n1:2379")]);
        assert_eq!(pick(&mut routes, &mut tried), "n2:2379");
        assert!(tried.is_empty());
    }

    #[tokio::test]
    async fn what_is_for_the_given_endpoints_goes_to_nobody_else() {
        let mut routes = routes();
        hear_of_leader(&mut routes, 2);
        let mut tried = Vec::new();
        for _ in 0..3 {
            assert_eq!(routes.pick(&Aim::Given, &mut tried, clock::now()), Some(at("given:1")));
            routes.learn_silence(&at("given:1"), clock::now());
            tried.push(at("given:1"));
        }
        assert!(!routes.has_others(&Aim::Given, &[], &at("given:1"), clock::now()));
    }

    #[tokio::test]
    async fn a_silent_leader_is_forgotten_and_asked_last() {
        let mut routes = routes();
        hear_of_leader(&mut routes, 2);
        let error = Error::new(Kind::Unreachable, Outcome::NotDone, "refused");
        routes.learn_failure(&at("n2:2379"), &LEADER, &error, false, clock::now());
        assert_eq!(pick(&mut routes, &mut Vec::new()), "given:1");
        let mut tried = vec![at("given:1")];
        assert_eq!(pick(&mut routes, &mut tried), "n1:2379");
        tried.push(at("n1:2379"));
        assert_eq!(pick(&mut routes, &mut tried), "n2:2379");
    }

    #[tokio::test]
    async fn others_are_those_not_yet_asked_who_were_not_silent() {
        let mut routes = routes();
        let now = clock::now();
        let error = Error::new(Kind::Unreachable, Outcome::NotDone, "refused");
        routes.learn_failure(&at("n2:2379"), &LEADER, &error, false, now);
        let only = Aim::At(at("given:1"));
        for (aim, tried, asked, others) in [
            (&LEADER, vec![], "given:1", true),
            (&LEADER, vec![at("given:1")], "n1:2379", false),
            (&LEADER, vec![at("n1:2379")], "n2:2379", true),
            (&LEADER, vec![at("n1:2379"), at("given:1")], "n2:2379", false),
            (&only, vec![], "given:1", false),
        ] {
            assert_eq!(routes.has_others(aim, &tried, &at(asked), now), others, "{aim:?} {tried:?} {asked}");
        }
        let later = now + SILENCE_MIN;
        assert!(routes.has_others(&LEADER, &[at("given:1")], &at("n1:2379"), later), "its silence is over");
    }

    #[tokio::test]
    async fn an_older_map_changes_nothing_and_an_unknown_node_is_nowhere() {
        let mut routes = routes();
        routes.learn_map(ClusterMap::default());
        assert_eq!(routes.map().version, 1);
        assert_eq!(routes.pick(&Aim::Node(NodeId(9)), &mut Vec::new(), clock::now()), None);
    }

    #[tokio::test]
    async fn the_map_of_another_cluster_replaces_what_is_known() {
        let mut routes = routes();
        hear_of_leader(&mut routes, 2);
        let cluster_id = bytes::Bytes::from_static(b"another cluster.");
        routes.learn_map(ClusterMap { cluster_id, version: 0, nodes: vec![node(1)], ..ClusterMap::default() });
        assert_eq!(routes.map().nodes.len(), 1);
        assert_eq!(pick(&mut routes, &mut Vec::new()), "given:1");
    }

    #[tokio::test]
    async fn a_reply_proves_a_leader_only_when_another_node_answered() {
        let mut routes = routes();
        routes.learn_reply(&at("n1:2379"), &LEADER, Some(NodeId(1)));
        assert_eq!(pick(&mut routes, &mut Vec::new()), "given:1");
        routes.learn_reply(&at("n1:2379"), &LEADER, Some(NodeId(2)));
        assert_eq!(pick(&mut routes, &mut Vec::new()), "n2:2379");
    }

    #[tokio::test]
    async fn a_status_of_an_older_term_is_out_of_date() {
        let mut routes = routes();
        routes.learn_leader(PartitionId::DEFAULT, Leader { node: NodeId(2), term: 5 });
        routes.learn_leader(PartitionId::DEFAULT, Leader { node: NodeId(1), term: 4 });
        assert_eq!(pick(&mut routes, &mut Vec::new()), "n2:2379");
    }

    #[tokio::test]
    async fn who_leads_is_asked_for_at_once_and_then_now_and_then() {
        let (mut routes, now) = (routes(), clock::now());
        assert!(routes.wants_leader(&LEADER, now));
        assert!(!routes.wants_leader(&LEADER, now));
        assert!(routes.wants_leader(&LEADER, now + LEADER_WANTED_EVERY));
        hear_of_leader(&mut routes, 1);
        assert!(!routes.wants_leader(&LEADER, now + 2 * LEADER_WANTED_EVERY));
        assert!(routes.wants_leader(&LEADER, now + LEADER_WANTED_EVERY + LEADER_GOOD_FOR));
    }
}
