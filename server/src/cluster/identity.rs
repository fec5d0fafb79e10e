//! Who a node is, and how it knows its peers.
//!
//! A directory gets a **storage id** when it is first opened, and a **cluster id** and **node id** when it joins a
//! cluster; the **start count** rises with every start. Every peer connection opens with them ([`Hello`]), and each
//! side keeps durably the highest start count it has seen of the other, so that a wiped node, a restored copy and a
//! second process with the same directory are told apart from the node they claim to be. Every frame also says how far
//! the speaker's writer has synced: whoever comes back with less than it once said has lost its tail. The opening words
//! also say where the speaker and those it has met are reached; of those who are believed that is kept (`addresses.rs`).
//!
//! Invariants:
//!
//! * Storage id and start count are durable before the node says a word.
//! * The higher start count of a peer that is of this cluster is durable here before its connection is accepted.
//! * The position kept of a peer is one it has said: a lower bound of what its directory must hold. It is kept lazily;
//!   what a power cut takes of it only weakens the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use trefoil_placement::NodeId;
use trefoil_proto::peer::{Hello, PeerAddress};
use trefoil_store::codec::{Decoder, Malformed, put_bytes, put_u64};
use trefoil_store::engine::{Batch, Durability, EngineError, Family, Order, Read, Visit};
use trefoil_store::key;
use trefoil_world::planted::{self, Bug};

use crate::cluster::addresses::{AddressBook, Word};
use crate::writer::{Ending, Writer};

/// The protocol versions this build speaks.
pub const PROTOCOL: (u32, u32) = (1, 1);

/// Starts whose run ids are kept: as long as a peer may be away and still tell this directory from a copy of it.
pub const RUNS_MAX: usize = 1024;
/// Nodes that are remembered.
const PEERS_MAX: usize = 1024;
const FORMAT: u8 = 1;

/// Names one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(pub u128);

/// Names one data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorageId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub storage: StorageId,
    pub start_count: u64,
}

impl Identity {
    /// The stored part: cluster and node; storage id and start count have rows of their own.
    pub fn encode(cluster: ClusterId, node: NodeId) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_bytes(&mut out, &cluster.0.to_be_bytes());
        put_u64(&mut out, node.0);
        out
    }

    pub fn decode(row: Bytes) -> Result<(ClusterId, NodeId), Malformed> {
        let mut from = Decoder::new(row, "identity");
        if from.u8()? != FORMAT {
            return Err(from.malformed());
        }
        let cluster = from.bytes()?.as_ref().try_into().map_err(|_| from.malformed())?;
        let node = NodeId(from.u64()?);
        from.end()?;
        Ok((ClusterId(u128::from_be_bytes(cluster)), node))
    }

    /// The opening words to `to`, with the run ids of the last starts, and without addresses.
    fn hello(&self, to: Option<NodeId>, runs: &[u64], position: u64) -> Hello {
        Hello {
            cluster_id: self.cluster.0.to_be_bytes().to_vec().into(),
            node_id: self.node.0,
            storage_id: self.storage.0.to_be_bytes().to_vec().into(),
            start_count: self.start_count,
            protocol_min: PROTOCOL.0,
            protocol_max: PROTOCOL.1,
            to_node_id: to.map_or(0, |node| node.0),
            runs: runs.to_vec(),
            position,
            ..Hello::default()
        }
    }
}

/// Why a peer's opening words are not believed. One line, for the log of both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("opening words are missing or malformed")]
    Malformed,
    #[error("it is of another cluster, {0}")]
    OtherCluster(ClusterId),
    #[error("it speaks protocols {min} to {max}, this node {} to {}", PROTOCOL.0, PROTOCOL.1)]
    Protocol { min: u32, max: u32 },
    #[error("{node} has storage id {known}, not {claimed}: its directory was replaced")]
    OtherStorage { node: NodeId, known: StorageId, claimed: StorageId },
    #[error("{node} has started {known} times before, this copy of it only {claimed}: an old copy was put back")]
    OldCopy { node: NodeId, known: u64, claimed: u64, lost: Lost },
    #[error("start {count} of {node} was another one: an old copy was put back, or a second copy is running")]
    SecondCopy { node: NodeId, count: u64, lost: Lost },
    #[error("{node} had synced {known} batches, this copy of it has only {claimed}: it has lost its tail")]
    LostTail { node: NodeId, known: u64, claimed: u64 },
    #[error("it is this node's own id, {0}")]
    Myself(NodeId),
    #[error("it looked for {wanted}, this is {this}")]
    WrongNumber { wanted: NodeId, this: NodeId },
    #[error("this node is ending")]
    Ending,
}

/// Whether a directory holds less than its node once said to hold. Of two copies that both hold it, one that knows only
/// one of them cannot say which is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Something,
    Nothing,
}

impl Refused {
    /// Whether this proves that the refused node's directory is not the newest of its name: it must serve nothing.
    pub fn proves_amnesia(&self) -> bool {
        match self {
            Refused::OtherStorage { .. }
            | Refused::OldCopy { lost: Lost::Something, .. }
            | Refused::SecondCopy { lost: Lost::Something, .. }
            | Refused::LostTail { .. } => true,
            Refused::OldCopy { lost: Lost::Nothing, .. }
            | Refused::SecondCopy { lost: Lost::Nothing, .. }
            | Refused::Malformed
            | Refused::OtherCluster(_)
            | Refused::Protocol { .. }
            | Refused::Myself(_)
            | Refused::WrongNumber { .. }
            | Refused::Ending => false,
        }
    }
}

/// What is known of a peer. A start count of 0 stands for one that was never met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    storage: StorageId,
    start_count: u64,
    run: u64,
    /// The highest synced position it has said.
    position: u64,
}

impl Seen {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_bytes(&mut out, &self.storage.0.to_be_bytes());
        put_u64(&mut out, self.start_count);
        put_u64(&mut out, self.run);
        put_u64(&mut out, self.position);
        out
    }

    fn decode(row: Bytes) -> Result<Seen, Malformed> {
        let mut from = Decoder::new(row, "peer record");
        if from.u8()? != FORMAT {
            return Err(from.malformed());
        }
        let storage = from.bytes()?.as_ref().try_into().map_err(|_| from.malformed())?;
        let seen = Seen {
            storage: StorageId(u128::from_be_bytes(storage)),
            start_count: from.u64()?,
            run: from.u64()?,
            position: from.u64()?,
        };
        from.end()?;
        Ok(seen)
    }

    /// Whether both are the same start of the same directory.
    fn same_start(&self, other: &Seen) -> bool {
        (self.storage, self.start_count, self.run) == (other.storage, other.start_count, other.run)
    }
}

/// By which directory a peer is known, and which of its starts was met last, from what is kept of it.
///
/// # Errors
/// The row is malformed.
pub fn decode_met(row: Bytes) -> Result<(StorageId, u64), Malformed> {
    Seen::decode(row).map(|seen| (seen.storage, seen.start_count))
}

/// What this node knows of its peers, and its judgement of their opening words.
pub struct Acquaintances {
    me: Identity,
    runs: Vec<u64>,
    writer: Writer,
    founders: BTreeSet<NodeId>,
    addresses: Arc<AddressBook>,
    // Asked by every connection task; held for memory work only.
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    /// One peer is judged and recorded at a time, so that of two that claim one start only one is believed.
    judging: tokio::sync::Mutex<()>,
    /// Positions as they were last kept.
    kept: Mutex<BTreeMap<NodeId, u64>>,
    /// Why a peer does not believe this node to be itself, once one has said so.
    disowned: Mutex<Option<String>>,
}

impl Acquaintances {
    /// Reads what is kept of the peers, and adds the storage ids the founding record names.
    ///
    /// # Errors
    /// A row is malformed, or cannot be read.
    pub fn open(
        me: Identity,
        runs: Vec<u64>,
        engine: &dyn Read,
        writer: Writer,
        founders: BTreeMap<NodeId, StorageId>,
        addresses: Arc<AddressBook>,
    ) -> Result<Acquaintances, EngineError> {
        let mut rows = Vec::new();
        engine.scan(Family::Node, &key::node::peers(), Order::Ascending, &mut |key, value| {
            rows.push((key::node::decode_peer(key), Bytes::copy_from_slice(value)));
            Visit::Next
        })?;
        let unmet = |storage| Seen { storage, start_count: 0, run: 0, position: 0 };
        let mut seen: BTreeMap<NodeId, Seen> =
            founders.iter().map(|(node, storage)| (*node, unmet(*storage))).collect();
        for (node, row) in rows {
            let node = node.ok_or_else(|| EngineError::Corrupt("malformed peer key".into()))?;
            seen.insert(node, Seen::decode(row)?);
        }
        Ok(Acquaintances {
            me,
            runs,
            writer,
            founders: founders.into_keys().collect(),
            addresses,
            seen: Mutex::new(seen),
            judging: Default::default(),
            kept: Mutex::default(),
            disowned: Mutex::default(),
        })
    }

    pub fn me(&self) -> Identity {
        self.me
    }

    /// The opening words to `to`.
    pub fn hello(&self, to: Option<NodeId>) -> Hello {
        let others = self.addresses.said().into_iter().filter(|(node, _)| Some(*node) != to);
        let others = others.map(|(node, word)| PeerAddress {
            node_id: node.0,
            start_count: word.start_count,
            address: word.address,
        });
        Hello {
            peer_address: self.addresses.own().to_owned(),
            others: others.collect(),
            ..self.me.hello(to, &self.runs, self.position())
        }
    }

    /// Believes or refuses a peer's opening words. What is new in those of a node of this cluster is durable when this
    /// returns, and the addresses in them are tried from then on.
    pub async fn meet(&self, hello: &Hello) -> Result<NodeId, Refused> {
        let (node, claimed) = self.read(hello)?;
        let run_at = |count| run_at(hello, count);
        let _one_at_a_time = self.judging.lock().await;
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        if judge(node, known, claimed, run_at)? {
            self.keep(node, claimed).await?;
        }
        // Under the same lock: what an earlier start said never comes after what a later one says.
        if self.is_of_cluster(node) {
            self.note_addresses(node, hello);
        }
        Ok(node)
    }

    /// Where a believed node of this cluster says that it and others of the cluster are reached.
    fn note_addresses(&self, node: NodeId, hello: &Hello) {
        self.addresses.hear(node, Word { start_count: hello.start_count, address: hello.peer_address.clone() });
        for told in &hello.others {
            let other = NodeId(told.node_id);
            if other != node && other != self.me.node && self.is_of_cluster(other) {
                self.addresses.overhear(other, Word { start_count: told.start_count, address: told.address.clone() });
            }
        }
    }

    /// Keeps what is new of a peer that is believed.
    async fn keep(&self, node: NodeId, claimed: Seen) -> Result<(), Refused> {
        if self.is_of_cluster(node) {
            let mut batch = Batch::new();
            batch.put(Family::Node, &key::node::peer(node), &claimed.encode());
            self.writer.write(batch, Durability::Sync).await.map_err(|_| Refused::Ending)?;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains_key(&node) && seen.len() >= PEERS_MAX {
            let stranger = seen.keys().copied().find(|node| !self.is_of_cluster(*node));
            stranger.and_then(|stranger| seen.remove(&stranger));
        }
        seen.insert(node, claimed);
        Ok(())
    }

    /// Whether a node is of this cluster, as far as is known here. What is known of such a node is durable; others are
    /// remembered while there is room, so that made-up ones cost no disk and keep nobody out.
    pub fn is_of_cluster(&self, node: NodeId) -> bool {
        self.founders.contains(&node) || self.addresses.map().load().nodes.contains_key(&node)
    }

    /// The synced position this node may speak of.
    pub fn position(&self) -> u64 {
        self.writer.synced()
    }

    /// The run id of this node's present start.
    pub fn run(&self) -> u64 {
        self.runs.last().copied().unwrap_or(0)
    }

    /// Whether this is the start of `node` that was met last: only that one is listened to.
    pub fn knows(&self, node: NodeId, run: u64) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&node).is_some_and(|seen| seen.start_count > 0 && seen.run == run)
    }

    /// The directory a node is known by.
    pub fn storage_of(&self, node: NodeId) -> Option<StorageId> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&node).map(|seen| seen.storage)
    }

    /// Takes note of the position a believed peer says in a frame. False when another start of that peer has been met
    /// since: of two processes with one identity, only the one met last is heard.
    pub fn hear(&self, node: NodeId, run: u64, position: u64) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(&node) {
            Some(seen) if seen.run == run => {
                seen.position = seen.position.max(position);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The peers that were met, with the highest position each has said.
    pub fn positions(&self) -> Vec<(NodeId, u64)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let met = seen.iter().filter(|(_, seen)| seen.start_count > 0);
        met.map(|(node, seen)| (*node, seen.position)).collect()
    }

    /// Keeps what was heard of positions since the last time, un-synced.
    ///
    /// # Errors
    /// The node is ending.
    pub async fn keep_positions(&self) -> Result<(), Ending> {
        // A start that is being judged may be durable already and not yet seen: its row must not be overwritten.
        let _one_at_a_time = self.judging.lock().await;
        let mut batch = Batch::new();
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let met = seen.iter().filter(|(node, seen)| seen.start_count > 0 && self.is_of_cluster(**node));
            for (node, seen) in met {
                if kept.insert(*node, seen.position) != Some(seen.position) {
                    batch.put(Family::Node, &key::node::peer(*node), &seen.encode());
                }
            }
        }
        match batch.is_empty() {
            true => Ok(()),
            false => self.writer.submit(batch, Durability::NoSync, || ()).await,
        }
    }

    /// A peer has proof that this directory is not the newest of its name.
    pub fn disown(&self, why: &str) {
        self.disowned.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why.to_owned());
    }

    /// Why this node must serve nothing, once a peer has said so.
    pub fn disowned(&self) -> Option<String> {
        self.disowned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self, hello: &Hello) -> Result<(NodeId, Seen), Refused> {
        let u128_of = |bytes: &Bytes| Some(u128::from_be_bytes(bytes.as_ref().try_into().ok()?));
        let cluster = ClusterId(u128_of(&hello.cluster_id).ok_or(Refused::Malformed)?);
        let storage = StorageId(u128_of(&hello.storage_id).ok_or(Refused::Malformed)?);
        let node = NodeId(hello.node_id);
        if cluster != self.me.cluster {
            return Err(Refused::OtherCluster(cluster));
        }
        if hello.protocol_min > PROTOCOL.1 || hello.protocol_max < PROTOCOL.0 {
            return Err(Refused::Protocol { min: hello.protocol_min, max: hello.protocol_max });
        }
        if hello.to_node_id != 0 && hello.to_node_id != self.me.node.0 {
            return Err(Refused::WrongNumber { wanted: NodeId(hello.to_node_id), this: self.me.node });
        }
        if node == self.me.node {
            return Err(Refused::Myself(node));
        }
        // All starts, or as many as are kept.
        if hello.runs.len() as u64 != hello.start_count.min(RUNS_MAX as u64) {
            return Err(Refused::Malformed);
        }
        let run = run_at(hello, hello.start_count).ok_or(Refused::Malformed)?;
        Ok((node, Seen { storage, start_count: hello.start_count, run, position: hello.position }))
    }
}

/// The run id of the peer's start number `count`, as far back as it remembers.
fn run_at(hello: &Hello, count: u64) -> Option<u64> {
    let back = usize::try_from(hello.start_count.checked_sub(count)?).ok()?;
    hello.runs.iter().rev().nth(back).copied()
}

/// Whether what is claimed is new and must be kept. `run_at` gives the claimant's run id of one of its starts: a copy
/// that was put back has other ones since it was made, however often it has been started.
fn judge(
    node: NodeId,
    known: Option<Seen>,
    claimed: Seen,
    run_at: impl Fn(u64) -> Option<u64>,
) -> Result<bool, Refused> {
    let Some(known) = known else { return Ok(true) };
    if planted::is(Bug::StorageIdIgnored) && known.storage != claimed.storage {
        return Ok(true);
    }
    if known.storage != claimed.storage {
        return Err(Refused::OtherStorage { node, known: known.storage, claimed: claimed.storage });
    }
    if planted::is(Bug::StartCountIgnored) {
        return Ok(!claimed.same_start(&known));
    }
    let lost = if claimed.position < known.position { Lost::Something } else { Lost::Nothing };
    if claimed.start_count < known.start_count {
        return Err(Refused::OldCopy { node, known: known.start_count, claimed: claimed.start_count, lost });
    }
    let met = known.start_count > 0;
    // A claimant that has started too often since to remember that start is told apart by its position alone.
    if met && run_at(known.start_count).is_some_and(|run| run != known.run) {
        return Err(Refused::SecondCopy { node, count: known.start_count, lost });
    }
    // Within one start its words on several connections overtake each other.
    if !claimed.same_start(&known) && claimed.position < known.position {
        return Err(Refused::LostTail { node, known: known.position, claimed: claimed.position });
    }
    Ok(!claimed.same_start(&known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(storage: u128, start_count: u64, run: u64) -> Seen {
        Seen { storage: StorageId(storage), start_count, run, position: 70 }
    }

    /// What is known of a peer, and what somebody claims who was started with these run ids.
    fn judged(known: Option<Seen>, storage: u128, runs: &[u64]) -> Result<bool, Refused> {
        let hello = Hello { start_count: runs.len() as u64, runs: runs.to_vec(), ..Hello::default() };
        let claimed = seen(storage, hello.start_count, *runs.last().expect("started once"));
        judge(NodeId(2), known, claimed, |count| run_at(&hello, count))
    }

    #[test]
    fn a_peer_is_believed_only_as_itself() {
        assert_eq!(judged(None, 1, &[9]), Ok(true));
        assert_eq!(judged(Some(seen(1, 0, 0)), 1, &[9]), Ok(true), "known from the founding record only");
        assert_eq!(judged(Some(seen(1, 1, 9)), 1, &[9]), Ok(false));
        assert_eq!(judged(Some(seen(1, 1, 9)), 1, &[9, 8]), Ok(true));
        assert!(matches!(judged(Some(seen(1, 1, 9)), 2, &[9]), Err(Refused::OtherStorage { .. })));
        assert!(matches!(judged(Some(seen(1, 3, 7)), 1, &[9, 8]), Err(Refused::OldCopy { .. })));
        assert!(matches!(judged(Some(seen(1, 2, 8)), 1, &[9, 5]), Err(Refused::SecondCopy { .. })));
        assert!(matches!(judged(Some(seen(1, 2, 8)), 1, &[9, 5, 4, 3]), Err(Refused::SecondCopy { .. })));
        let forgotten = Seen { start_count: 2000, ..seen(1, 0, 3) };
        let judged = judge(NodeId(2), Some(seen(1, 2, 8)), forgotten, |_| None);
        assert_eq!(judged, Ok(true), "started too often since to remember that start");
    }

    #[test]
    fn a_peer_with_less_than_it_once_said_has_lost_its_tail() {
        let runs = [9, 8];
        let claim = |position| Seen { position, ..seen(1, 2, 8) };
        let judged =
            |position| judge(NodeId(2), Some(seen(1, 1, 9)), claim(position), |count| Some(runs[count as usize - 1]));
        assert_eq!(judged(70), Ok(true));
        assert_eq!(judged(71), Ok(true));
        assert_eq!(judged(69), Err(Refused::LostTail { node: NodeId(2), known: 70, claimed: 69 }));
        assert!(judged(69).is_err_and(|refused| refused.proves_amnesia()));
        for (position, proves) in [(69, true), (70, false)] {
            let other = Seen { run: 7, ..claim(position) };
            let refused = judge(NodeId(2), Some(seen(1, 2, 8)), other, |_| Some(7));
            assert!(refused.is_err_and(|refused| refused.proves_amnesia() == proves), "another start 2 at {position}");
        }
        let overtaken = judge(NodeId(2), Some(seen(1, 2, 8)), claim(69), |count| Some(runs[count as usize - 1]));
        assert_eq!(overtaken, Ok(false), "an older word of the same start");
    }
}
