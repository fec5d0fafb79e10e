//! Judging a peer: whether its opening words may be believed, by what is kept of it. Pure.
//!
//! A peer is known by its directory, by its last start that was met, and by how far it has said to have synced. Whoever
//! comes with another directory, with fewer starts, with another start of that number or with less than was once said,
//! is not the node it claims to be.
//!
//! Invariant: a copy of a directory that was put back is told from it, however often it was started since: by its run
//! ids as far as they are remembered, else by its position.
//!
//! Left out: keeping what is new, and deciding one at a time (`acquaintances.rs`).

use bytes::Bytes;
use trefoil_placement::NodeId;
use trefoil_proto::peer::Hello;
use trefoil_store::codec::{Decoder, Malformed, put_bytes, put_u64};
use trefoil_world::planted::{self, Bug};

use super::{ClusterId, FORMAT, PROTOCOL, StorageId};

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
pub(super) struct Seen {
    pub(super) storage: StorageId,
    pub(super) start_count: u64,
    pub(super) run: u64,
    /// The highest synced position it has said.
    pub(super) position: u64,
}

impl Seen {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_bytes(&mut out, &self.storage.0.to_be_bytes());
        put_u64(&mut out, self.start_count);
        put_u64(&mut out, self.run);
        put_u64(&mut out, self.position);
        out
    }

    pub(super) fn decode(row: Bytes) -> Result<Seen, Malformed> {
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

/// The run id of the peer's start number `count`, as far back as it remembers.
pub(super) fn run_at(hello: &Hello, count: u64) -> Option<u64> {
    let back = usize::try_from(hello.start_count.checked_sub(count)?).ok()?;
    hello.runs.iter().rev().nth(back).copied()
}

/// Whether what is claimed is new and must be kept. `run_at` gives the claimant's run id of one of its starts: a copy
/// that was put back has other ones since it was made, however often it has been started.
pub(super) fn judge(
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
