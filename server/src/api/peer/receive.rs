//! Receiving a snapshot: its rows are written under a store number of their own, which then takes the place of the
//! replica's.
//!
//! Invariants:
//!
//! * Nothing is installed before as many rows have come as there are, each chunk as it was sent.
//! * A snapshot that a newer one has followed writes nothing more.
//!
//! Left out: who may send one (`peer.rs`), and what becomes of rows that are not installed (`stores.rs`).

use std::sync::Arc;
use std::time::Duration;

use tonic::{Status, Streaming};
use tracing::{info, warn};
use trefoil_placement::NodeId;
use trefoil_proto::peer::{SnapshotChunk, SnapshotHead, Vote};
use trefoil_store::key::StoreNumber;
use trefoil_world::clock;
use trefoil_world::planted::{self, Bug};

use crate::raft::group::{RaftReplica, Turn};
use crate::raft::state::{copy_rows, receive_rows};

/// A snapshot sender that is silent for this long is given up.
const SNAPSHOT_IDLE: Duration = Duration::from_secs(15);

/// Receives the rest of a snapshot and puts it in the place of the replica's state.
pub(super) async fn install(
    raft: Arc<RaftReplica>,
    from: NodeId,
    head: SnapshotHead,
    chunks: Streaming<SnapshotChunk>,
) -> Result<Vote, Status> {
    let turn = raft.receive_next();
    let rows = raft.stores().receive().await.map_err(|ending| Status::unavailable(ending.to_string()))?;
    if planted::is(Bug::OldRowsKept) {
        let (engine, old) = (raft.engine().as_ref(), raft.published().view().store.number());
        let copied = copy_rows(engine, old, engine, rows.store());
        copied.map_err(|error| Status::internal(error.to_string()))?;
    }
    let (partition, replica) = (raft.partition, raft.replica);
    info!(%partition, %replica, "receiving a snapshot from {from}");
    let installed = match receive(&raft, turn, rows.store(), chunks).await {
        Ok(()) => {
            info!(%partition, %replica, "snapshot received, installing it");
            raft.install(head, rows).await.map_err(Status::internal)
        }
        Err(status) => Err(status),
    };
    installed.inspect_err(|status| warn!(%partition, %replica, "snapshot not installed: {}", status.message()))
}

/// The next chunk.
///
/// # Errors
/// None came for a while, or there is none.
pub(super) async fn next_chunk(chunks: &mut Streaming<SnapshotChunk>) -> Result<SnapshotChunk, Status> {
    match clock::timeout(SNAPSHOT_IDLE, chunks.message()).await {
        Err(_) => Err(Status::deadline_exceeded(format!("nothing came for {SNAPSHOT_IDLE:?}"))),
        Ok(Err(status)) => Err(status),
        Ok(Ok(None)) => Err(Status::data_loss("the snapshot ended before its last chunk")),
        Ok(Ok(Some(chunk))) => Ok(chunk),
    }
}

/// Writes the rows beside the writer's queue: nobody reads them yet.
async fn receive(
    raft: &RaftReplica,
    turn: Turn,
    store: StoreNumber,
    mut chunks: Streaming<SnapshotChunk>,
) -> Result<(), Status> {
    let mut total = 0;
    loop {
        let chunk = next_chunk(&mut chunks).await?;
        if crc32fast::hash(&chunk.rows) != chunk.crc32 && !chunk.rows.is_empty() {
            return Err(Status::data_loss("a chunk's checksum does not match"));
        }
        if let Some(expected) = chunk.rows_total {
            return match expected == total {
                true => Ok(()),
                false => Err(Status::data_loss(format!("{total} of {expected} rows arrived"))),
            };
        }
        let (batch, count) = receive_rows(chunk.rows, store).map_err(|error| Status::data_loss(error.to_string()))?;
        total += count;
        if !raft.is_turn(turn) {
            return Err(Status::aborted("a newer snapshot is being received"));
        }
        raft.bulk().write(batch).await.map_err(|error| Status::internal(error.to_string()))?;
    }
}
