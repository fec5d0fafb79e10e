//! Who a node is.
//!
//! A directory gets a **storage id** when it is first opened, and a **cluster id** and **node id** when it joins a
//! cluster; the **start count** rises with every start. Every peer connection opens with them ([`Hello`]), so that a
//! wiped node, a restored copy and a second process with the same directory are told apart from the node they claim to
//! be: what is kept of peers is `identity/acquaintances.rs`'s, judging by it `identity/judge.rs`'s.
//!
//! Invariant: storage id and start count are durable before the node says a word.
//!
//! Left out: minting and counting, which is `disk.rs`'s, and where nodes are reached (`addresses.rs`).

mod acquaintances;
mod judge;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use trefoil_placement::NodeId;
use trefoil_proto::peer::Hello;
use trefoil_store::codec::{Decoder, Malformed, put_bytes, put_u64};

pub use self::acquaintances::Acquaintances;
pub use self::judge::{Lost, Refused, decode_met};

/// The protocol versions this build speaks.
pub const PROTOCOL: (u32, u32) = (1, 1);

/// Starts whose run ids are kept: as long as a peer may be away and still tell this directory from a copy of it.
pub const RUNS_MAX: usize = 1024;
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
