//! Where keys live: the ids of nodes, keyspaces and partitions, and the rows that join them.
//!
//! Pure: the same input gives the same answer on every node. Today every keyspace has one partition, so placement
//! is a choice of nodes, made once by [`choose`] when a keyspace is created; hashing of keys comes with many
//! partitions.

use std::collections::BTreeMap;
use std::fmt;

use trefoil_causality::ReplicaId;

/// One `kvd` process with one data directory. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A named, isolated key range with its own mode. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// The keyspace that holds nodes, keyspaces and placement.
    pub const META: KeyspaceId = KeyspaceId(0);
    /// The keyspace `default`, created with the cluster.
    pub const DEFAULT: KeyspaceId = KeyspaceId(1);
}

/// One of the equal arcs of a keyspace's hash ring: the unit of placement, replication and moving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    pub keyspace: KeyspaceId,
    pub index: u32,
}

impl PartitionId {
    pub const META: PartitionId = PartitionId { keyspace: KeyspaceId::META, index: 0 };
    pub const DEFAULT: PartitionId = PartitionId { keyspace: KeyspaceId::DEFAULT, index: 0 };
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.keyspace.0, self.index)
    }
}

/// Counts the changes of one placement row: raised only when its replicas or their stages change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// How a keyspace replicates. Fixed at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    Leader,
    MultiLeader,
    Leaderless,
}

impl Mode {
    /// The name used in the API, the CLI and the docs.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Leader => "leader",
            Mode::MultiLeader => "multi-leader",
            Mode::Leaderless => "leaderless",
        }
    }

    /// The byte it is stored as. Never changes.
    pub fn code(self) -> u8 {
        match self {
            Mode::Leader => 1,
            Mode::MultiLeader => 2,
            Mode::Leaderless => 3,
        }
    }

    /// The mode stored as this byte.
    pub fn of_code(code: u8) -> Option<Mode> {
        [Mode::Leader, Mode::MultiLeader, Mode::Leaderless].into_iter().find(|mode| mode.code() == code)
    }
}

/// How far a replica has come: a `live` one without data has lost it and must never answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Being filled for the first time; may start from nothing.
    New,
    /// Has held the partition's data; may never again start from nothing.
    Live,
}

/// One replica of a placement row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    pub replica: ReplicaId,
    pub node: NodeId,
    pub stage: Stage,
}

/// Who holds a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementRow {
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub replicas: Vec<Placed>,
}

impl PlacementRow {
    /// The replica of this row on `node`.
    pub fn on(&self, node: NodeId) -> Option<Placed> {
        self.replicas.iter().copied().find(|placed| placed.node == node)
    }
}

/// A node as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    /// Failure domain; copies spread over zones first.
    pub zone: String,
    /// Share of the load relative to the others; 0 takes none unless nobody else is left.
    pub weight: u32,
}

/// Picks `factor` nodes for one partition: as many zones as possible, then the heaviest, ties to the lowest id.
///
/// Returns fewer than `factor` nodes only when there are fewer candidates.
pub fn choose(candidates: &[Candidate], factor: usize) -> Vec<NodeId> {
    let mut by_zone: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_zone.entry(&candidate.zone).or_default().push(candidate);
    }
    let heaviest_first = |a: &&Candidate, b: &&Candidate| b.weight.cmp(&a.weight).then(a.node.cmp(&b.node));
    for zone in by_zone.values_mut() {
        zone.sort_by(heaviest_first);
    }
    let rounds = by_zone.values().map(Vec::len).max().unwrap_or(0);
    let mut chosen = Vec::with_capacity(factor);
    for round in 0..rounds {
        let mut heads: Vec<&Candidate> = by_zone.values().filter_map(|zone| zone.get(round).copied()).collect();
        heads.sort_by(heaviest_first);
        chosen.extend(heads.into_iter().map(|candidate| candidate.node));
    }
    chosen.truncate(factor);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(nodes: &[(u64, &str, u32)]) -> Vec<Candidate> {
        nodes.iter().map(|&(id, zone, weight)| Candidate { node: NodeId(id), zone: zone.into(), weight }).collect()
    }

    fn chosen(nodes: &[(u64, &str, u32)], factor: usize) -> Vec<u64> {
        choose(&candidates(nodes), factor).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn zones_first_then_weight_then_id() {
        assert_eq!(chosen(&[(1, "a", 1), (2, "a", 1), (3, "b", 1), (4, "c", 1)], 3), [1, 3, 4]);
        assert_eq!(chosen(&[(1, "a", 1), (2, "a", 5), (3, "b", 1)], 2), [2, 3]);
        assert_eq!(chosen(&[(1, "", 1), (2, "", 1), (3, "", 1), (4, "", 1)], 3), [1, 2, 3]);
        assert_eq!(chosen(&[(1, "a", 1)], 3), [1]);
        assert_eq!(chosen(&[], 3), Vec::<u64>::new());
    }
}
