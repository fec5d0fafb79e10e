//! The map: all nodes, keyspaces and placement rows, with one version; and their rows in the keyspace `_meta`.
//!
//! `_meta` is an ordinary leader-mode keyspace; the map is what its replica on this node holds, read whole whenever
//! it changed and published as an immutable snapshot. Its version is `_meta`'s revision. A peer's refusal may carry a
//! committed row this node's replica of `_meta` has not applied yet: it is adopted **ahead** of the map, until the map
//! is as new as the row's source.
//!
//! Invariants:
//!
//! * Every record begins with a format byte; one this version cannot read is an error, never skipped.
//! * A published map is never changed; of those that are published the version, and each row's epoch, never fall.

use std::collections::BTreeMap;

use bytes::Bytes;
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{Candidate, Epoch, KeyspaceId, Mode, NodeId, PartitionId, Placed, PlacementRow, Stage, choose};
use trefoil_store::codec::{Decoder, Malformed, put_bytes, put_u64};
use trefoil_store::command::{Compare, KeyRange, Op, Pair, PutOp, RangeEnd, Relation, Target, Txn};

use crate::cluster::founding::FoundingRecord;
use crate::cluster::identity::ClusterId;

const FORMAT: u8 = 1;
const NODES: &[u8] = b"nodes/";
const KEYSPACES: &[u8] = b"keyspaces/";
const PLACEMENT: &[u8] = b"placement/";
const CLUSTER_VERSION: &[u8] = b"cluster-version";
const NEXT_REPLICA: &[u8] = b"next-replica";
/// Copies of the keyspace `default`, as far as there are nodes.
const DEFAULT_FACTOR: usize = 3;

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap {
    pub cluster: ClusterId,
    pub version: Revision,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub keyspaces: BTreeMap<KeyspaceId, KeyspaceRecord>,
    pub rows: BTreeMap<PartitionId, PlacementRow>,
    /// Rows adopted ahead of `version`, and the version they are of.
    ahead: BTreeMap<PartitionId, Revision>,
}

/// A node as the map knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub name: String,
    pub client_address: String,
    pub peer_address: String,
    pub zone: String,
    pub weight: u32,
}

/// A keyspace as the map knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceRecord {
    pub name: String,
    pub mode: Mode,
    pub partitions: u32,
    pub factor: u32,
}

impl ClusterMap {
    /// The map of a cluster nothing is known of yet.
    pub fn unknown(cluster: ClusterId) -> ClusterMap {
        ClusterMap {
            cluster,
            version: Revision(0),
            nodes: BTreeMap::new(),
            keyspaces: BTreeMap::new(),
            rows: BTreeMap::new(),
            ahead: BTreeMap::new(),
        }
    }

    /// The map that the pairs of `_meta` describe.
    ///
    /// # Errors
    /// A record is malformed or of a newer format.
    pub fn read(cluster: ClusterId, version: Revision, pairs: &[Pair]) -> Result<ClusterMap, Malformed> {
        let mut map = ClusterMap { version, ..ClusterMap::unknown(cluster) };
        for pair in pairs {
            if let Some(id) = pair.key.strip_prefix(NODES) {
                map.nodes.insert(NodeId(u64_key(id)?), NodeRecord::decode(pair.value.clone())?);
            } else if let Some(id) = pair.key.strip_prefix(KEYSPACES) {
                let id = KeyspaceId(u64_key(id)? as u32);
                map.keyspaces.insert(id, KeyspaceRecord::decode(pair.value.clone())?);
            } else if pair.key.starts_with(PLACEMENT) {
                let row = decode_row(pair.value.clone())?;
                map.rows.insert(row.partition, row);
            }
        }
        Ok(map)
    }

    /// This map with a committed row of version `version`, if that is newer than the row it has.
    pub fn adopting(&self, row: &PlacementRow, version: Revision) -> Option<ClusterMap> {
        let known = self.rows.get(&row.partition)?;
        if row.epoch <= known.epoch || version <= self.version {
            return None;
        }
        let mut adopted = self.clone();
        adopted.rows.insert(row.partition, row.clone());
        adopted.ahead.insert(row.partition, version);
        Some(adopted)
    }

    /// The map to publish after this one, when `read` has been read: with the rows that are still ahead of it. `None`
    /// when it is not newer.
    pub fn succeeded_by(&self, mut read: ClusterMap) -> Option<ClusterMap> {
        if read.version <= self.version {
            return None;
        }
        for (partition, version) in self.ahead.iter().filter(|(_, version)| **version > read.version) {
            if let Some(row) = self.rows.get(partition) {
                read.rows.insert(*partition, row.clone());
                read.ahead.insert(*partition, *version);
            }
        }
        Some(read)
    }

    /// The version of which the row of `partition` is committed.
    pub fn version_of(&self, partition: PartitionId) -> Revision {
        self.ahead.get(&partition).copied().unwrap_or(self.version)
    }

    /// The keyspace called `name`.
    pub fn keyspace(&self, name: &str) -> Option<(KeyspaceId, &KeyspaceRecord)> {
        self.keyspaces.iter().find(|(_, keyspace)| keyspace.name == name).map(|(id, keyspace)| (*id, keyspace))
    }
}

fn u64_key(id: &[u8]) -> Result<u64, Malformed> {
    Ok(u64::from_be_bytes(id.try_into().map_err(|_| Malformed { what: "key of a map record" })?))
}

impl NodeRecord {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        for text in [&self.name, &self.client_address, &self.peer_address, &self.zone] {
            put_bytes(&mut out, text.as_bytes());
        }
        put_u64(&mut out, u64::from(self.weight));
        out.into()
    }

    fn decode(bytes: Bytes) -> Result<NodeRecord, Malformed> {
        let mut from = Decoder::new(bytes, "node record");
        format(&mut from)?;
        let record = NodeRecord {
            name: from.string()?,
            client_address: from.string()?,
            peer_address: from.string()?,
            zone: from.string()?,
            weight: from.u32()?,
        };
        from.end()?;
        Ok(record)
    }
}

impl KeyspaceRecord {
    fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        put_bytes(&mut out, self.name.as_bytes());
        out.push(self.mode.code());
        put_u64(&mut out, u64::from(self.partitions));
        put_u64(&mut out, u64::from(self.factor));
        out.into()
    }

    fn decode(bytes: Bytes) -> Result<KeyspaceRecord, Malformed> {
        let mut from = Decoder::new(bytes, "keyspace record");
        format(&mut from)?;
        let name = from.string()?;
        let mode = Mode::of_code(from.u8()?).ok_or_else(|| from.malformed())?;
        let record = KeyspaceRecord { name, mode, partitions: from.u32()?, factor: from.u32()? };
        from.end()?;
        Ok(record)
    }
}

/// As `_meta` stores it.
pub fn encode_row(row: &PlacementRow) -> Bytes {
    let mut out = vec![FORMAT];
    put_u64(&mut out, u64::from(row.partition.keyspace.0));
    put_u64(&mut out, u64::from(row.partition.index));
    put_u64(&mut out, row.epoch.0);
    put_u64(&mut out, row.replicas.len() as u64);
    for placed in &row.replicas {
        put_u64(&mut out, placed.replica.0);
        put_u64(&mut out, placed.node.0);
        out.push(match placed.stage {
            Stage::New => 1,
            Stage::Live => 2,
        });
    }
    out.into()
}

/// A row as `_meta` stores it.
///
/// # Errors
/// It is malformed or of a newer format.
pub fn decode_row(bytes: Bytes) -> Result<PlacementRow, Malformed> {
    let mut from = Decoder::new(bytes, "placement row");
    format(&mut from)?;
    let partition = PartitionId { keyspace: KeyspaceId(from.u32()?), index: from.u32()? };
    let epoch = Epoch(from.u64()?);
    let mut replicas = Vec::new();
    for _ in 0..from.count()? {
        let (replica, node) = (ReplicaId(from.u64()?), NodeId(from.u64()?));
        let stage = match from.u8()? {
            1 => Stage::New,
            2 => Stage::Live,
            _ => return Err(from.malformed()),
        };
        replicas.push(Placed { replica, node, stage });
    }
    from.end()?;
    Ok(PlacementRow { partition, epoch, replicas })
}

fn format(from: &mut Decoder) -> Result<(), Malformed> {
    match from.u8()? {
        FORMAT => Ok(()),
        _ => Err(from.malformed()),
    }
}

/// The first content of `_meta`: nodes, the keyspaces `_meta` and `default`, and where they live. Writes nothing when
/// the cluster already has content.
pub fn found(record: &FoundingRecord) -> Txn {
    let nodes = record.founders.iter().map(|founder| {
        let node = NodeRecord {
            name: founder.name.clone(),
            client_address: founder.client_address.clone(),
            peer_address: founder.peer_address.clone(),
            zone: founder.zone.clone(),
            weight: founder.weight,
        };
        put(node_key(founder.node), node.encode())
    });
    let meta = record.founders.iter().map(|founder| Placed {
        replica: founder.meta_replica(),
        node: founder.node,
        stage: Stage::Live,
    });
    let first_free = record.founders.len() as u64 + 1;
    let default = default_replicas(record, first_free);
    let next_replica = first_free + default.len() as u64;
    let mut success = vec![
        put(Bytes::from_static(CLUSTER_VERSION), Bytes::from_static(b"1")),
        put(Bytes::from_static(NEXT_REPLICA), next_replica.to_string().into()),
    ];
    success.extend(nodes);
    success.extend(keyspace(KeyspaceId::META, "_meta", meta.collect()));
    success.extend(keyspace(KeyspaceId::DEFAULT, "default", default));
    Txn { compares: vec![absent(Bytes::from_static(CLUSTER_VERSION))], success, failure: Vec::new() }
}

fn default_replicas(record: &FoundingRecord, first_free: u64) -> Vec<Placed> {
    let candidates: Vec<Candidate> = record
        .founders
        .iter()
        .map(|founder| Candidate { node: founder.node, zone: founder.zone.clone(), weight: founder.weight })
        .collect();
    choose(&candidates, DEFAULT_FACTOR)
        .into_iter()
        .zip(first_free..)
        .map(|(node, id)| Placed { replica: ReplicaId(id), node, stage: Stage::New })
        .collect()
}

fn keyspace(id: KeyspaceId, name: &str, replicas: Vec<Placed>) -> [Op; 2] {
    let keyspace =
        KeyspaceRecord { name: name.into(), mode: Mode::Leader, partitions: 1, factor: replicas.len() as u32 };
    let partition = PartitionId { keyspace: id, index: 0 };
    let row = PlacementRow { partition, epoch: Epoch(1), replicas };
    let key = [KEYSPACES, &u64::from(id.0).to_be_bytes()].concat();
    [put(key.into(), keyspace.encode()), put(row_key(partition), encode_row(&row))]
}

/// Sets the record of `node`, when it is not so already.
pub fn register(node: NodeId, record: &NodeRecord) -> Txn {
    let same = compare(node_key(node), Relation::Equal, Target::Value(record.encode()));
    Txn { compares: vec![same], success: Vec::new(), failure: vec![put(node_key(node), record.encode())] }
}

/// Makes `replica` live in `row`, if the row is still as given.
pub fn make_live(row: &PlacementRow, replica: ReplicaId) -> Txn {
    let mut next = row.clone();
    next.epoch = Epoch(row.epoch.0 + 1);
    for placed in &mut next.replicas {
        if placed.replica == replica {
            placed.stage = Stage::Live;
        }
    }
    let same = compare(row_key(row.partition), Relation::Equal, Target::Value(encode_row(row)));
    Txn { compares: vec![same], success: vec![put(row_key(row.partition), encode_row(&next))], failure: Vec::new() }
}

fn node_key(node: NodeId) -> Bytes {
    [NODES, &node.0.to_be_bytes()].concat().into()
}

fn row_key(partition: PartitionId) -> Bytes {
    [PLACEMENT, &partition.keyspace.0.to_be_bytes(), &partition.index.to_be_bytes()].concat().into()
}

fn put(key: Bytes, value: Bytes) -> Op {
    Op::Put(PutOp { key, value: Some(value), lease: Some(0), previous: false })
}

fn absent(key: Bytes) -> Compare {
    compare(key, Relation::Equal, Target::CreateRevision(0))
}

fn compare(key: Bytes, relation: Relation, target: Target) -> Compare {
    Compare { range: KeyRange { key, end: RangeEnd::Single }, relation, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64) -> PlacementRow {
        let replicas = vec![Placed { replica: ReplicaId(4), node: NodeId(1), stage: Stage::Live }];
        PlacementRow { partition: PartitionId::DEFAULT, epoch: Epoch(epoch), replicas }
    }

    fn map(version: u64, epoch: u64) -> ClusterMap {
        let mut map = ClusterMap { version: Revision(version), ..ClusterMap::unknown(ClusterId(7)) };
        map.rows.insert(PartitionId::DEFAULT, row(epoch));
        map
    }

    fn epoch(map: &ClusterMap) -> u64 {
        map.rows[&PartitionId::DEFAULT].epoch.0
    }

    #[test]
    fn a_row_ahead_of_the_map_is_kept_until_the_map_is_as_new() {
        let known = map(5, 2);
        assert_eq!(known.adopting(&row(2), Revision(9)), None, "the same epoch");
        assert_eq!(known.adopting(&row(1), Revision(9)), None, "an older epoch");
        let adopted = known.adopting(&row(4), Revision(9)).expect("a newer epoch");
        assert_eq!((epoch(&adopted), adopted.version_of(PartitionId::DEFAULT)), (4, Revision(9)));
        assert_eq!(adopted.version, Revision(5), "only that row is newer");

        assert_eq!(adopted.succeeded_by(map(5, 2)), None, "the same version");
        let between = adopted.succeeded_by(map(7, 3)).expect("a newer version");
        assert_eq!((between.version, epoch(&between)), (Revision(7), 4));
        let level = between.succeeded_by(map(9, 4)).expect("a newer version");
        assert_eq!(level, map(9, 4));
        let dropped = between.succeeded_by(ClusterMap { rows: BTreeMap::new(), ..map(10, 4) }).expect("newer");
        assert_eq!(dropped.rows.len(), 0, "a partition that is gone stays gone");
    }

    #[test]
    fn rows_are_stored_as_they_are_read() {
        assert_eq!(decode_row(encode_row(&row(3))), Ok(row(3)));
    }
}
