//! Comparing replicas by themselves: once a day the leader of a partition has every replica sum its whole content at one
//! revision, and raises an alarm when one differs.
//!
//! The walk goes in parts on a blocking thread over a pinned snapshot. By itself it rests most of the time, and a node
//! walks for few at a time, so that it costs others little. An alarm stands until a later comparison finds the replicas
//! equal.
//!
//! Left out: mending. What differs is shown; which side is right is for an admin to say.

use std::sync::Arc;
use std::time::Duration;

use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::NodeId;
use trefoil_store::mvcc::Content;
use trefoil_world::clock::{self, Instant};

use crate::error::Error;
use crate::replication::{Consistency, Replica};
use crate::router::Router;

/// Patience with one replica's walk.
pub const WALK_PATIENCE: Duration = Duration::from_secs(3600);
/// How many times as long as it walks it rests, when nobody waits for it.
const RESTS: u32 = 4;

/// Whether somebody waits for a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    Asked,
    ByItself,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    pub differences: Vec<Difference>,
    /// Nodes whose replica gave no sum, and why.
    pub not_compared: Vec<(NodeId, Error)>,
}

/// One replica that does not hold what the leader holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub replica: ReplicaId,
    pub node: NodeId,
    pub here: Content,
    pub there: Content,
    pub revision: Revision,
}

/// Sums a replica's content at `revision`, which it waits for; the newest one when there is none.
///
/// # Errors
/// The revision is not applied in time, is compacted, or the content cannot be read.
pub async fn digest(
    replica: &Replica,
    revision: Option<Revision>,
    haste: Haste,
    deadline: Instant,
) -> Result<(Revision, Content), Error> {
    let rests = match haste {
        Haste::Asked => 0,
        Haste::ByItself => RESTS,
    };
    let scan = replica.scan(Consistency::Stale { context: revision }, deadline).await?;
    let at = revision.unwrap_or(scan.revision());
    let walk = clock::timeout_at(deadline, scan.digest(at, rests)).await;
    Ok((at, walk.map_err(|_| Error::DeadlinePassed)??))
}

/// Compares every replica of a partition this node leads with its own.
///
/// # Errors
/// The own content cannot be read.
pub async fn compare(router: &Arc<Router>, replica: &Replica) -> Result<Comparison, Error> {
    let (revision, here) = digest(replica, None, Haste::ByItself, clock::now() + WALK_PATIENCE).await?;
    let mut found = Comparison::default();
    for (id, node) in replica.raft().state().members {
        if node == router.me {
            continue;
        }
        match router.digest_at(replica.raft().partition, node, revision).await {
            Err(why) => found.not_compared.push((node, why)),
            Ok(there) if there == here => {}
            Ok(there) => found.differences.push(Difference { replica: id, node, here, there, revision }),
        }
    }
    Ok(found)
}
