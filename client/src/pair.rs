//! What replies are made of: pairs, headers, contexts, and how fresh a read was.

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_placement::NodeId;

/// A key's value and where it stands in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    /// Empty when only keys were asked for.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision of its newest put.
    pub mod_revision: Revision,
    /// Puts since it was created; a fresh key has 1.
    pub version: u64,
    /// The lease it is attached to; 0 for none.
    pub lease: u64,
}

/// What every reply begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id, 16 bytes.
    pub cluster_id: Bytes,
    /// The node that answered.
    pub node: NodeId,
    /// Mode leader: the partition's revision after the request.
    pub revision: Revision,
    /// The version of the map the node holds.
    pub map_version: u64,
}

/// What a read or write had seen: opaque, to be handed to a later write or stale read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(pub(crate) Bytes);

impl Context {
    /// A context that was kept as bytes. The server refuses bytes that are none.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Context {
        Context(bytes.into())
    }

    /// For keeping it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began.
    #[default]
    Linearizable,
    /// What some replica has. With a context: at least what the context had seen.
    Stale,
}

/// How fresh a read was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectiveConsistency {
    Linearizable,
    Stale {
        /// Log entries known to be committed and not yet applied at the replica that answered.
        entries_behind: u64,
        /// Milliseconds since that replica heard its leader; absent when it never did since it started.
        leader_silent_ms: Option<u64>,
    },
}
