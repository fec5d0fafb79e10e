//! What this node knows of its peers: whom it believes, and what it keeps of them.
//!
//! Each side of a connection keeps durably the highest start count it has seen of the other. Every frame also says how
//! far the speaker's writer has synced: whoever comes back with less than it once said has lost its tail. The opening
//! words also say where the speaker and those it has met are reached; of those who are believed that is kept
//! (`addresses.rs`).
//!
//! Invariants:
//!
//! * The higher start count of a peer that is of this cluster is durable here before its connection is accepted.
//! * The position kept of a peer is one it has said: a lower bound of what its directory must hold. It is kept lazily;
//!   what a power cut takes of it only weakens the proof.
//!
//! Left out: the judgement itself (`judge.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use trefoil_placement::NodeId;
use trefoil_proto::peer::{Hello, PeerAddress};
use trefoil_store::engine::{Batch, Durability, EngineError, Family, Order, Read, Visit};
use trefoil_store::key;

use super::judge::{Refused, Seen, judge, run_at};
use super::{ClusterId, Identity, PROTOCOL, RUNS_MAX, StorageId};
use crate::cluster::addresses::{AddressBook, Word};
use crate::writer::{Ending, Writer};

/// Nodes that are remembered.
const PEERS_MAX: usize = 1024;

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
