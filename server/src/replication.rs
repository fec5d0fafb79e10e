//! The seam: one replica of a partition, whatever its mode.
//!
//! A closed set: which modes support an operation is a `match` the compiler asks again when a mode is added. What a
//! mode cannot do is [`Error::Unsupported`], never a weaker meaning.

pub mod leader;

use std::sync::Arc;

use tokio::sync::Semaphore;
use trefoil_causality::Revision;
use trefoil_placement::Mode;
use trefoil_store::command::{Command, Outcome, RangeOp, RangeReply, RequestId};
use trefoil_world::clock::Instant;

use crate::error::Error;
use crate::raft::group::RaftReplica;
use crate::replication::leader::{LeaderReplica, Scan};

/// One replica of a partition.
pub enum Replica {
    Leader(LeaderReplica),
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    Linearizable,
    /// What this replica has, but at least what the context had seen.
    Stale {
        context: Option<Revision>,
    },
}

/// What a read really was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effective {
    Linearizable,
    Stale { entries_behind: u64, leader_silent_ms: Option<u64> },
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct Answer {
    pub reply: RangeReply,
    /// The store's revision when it was read.
    pub revision: Revision,
    pub effective: Effective,
}

impl Replica {
    /// A replica of the given mode over a running Raft replica, with the node's room for long reads.
    ///
    /// # Errors
    /// The mode is not there yet.
    pub fn start(mode: Mode, raft: Arc<RaftReplica>, long_reads: Arc<Semaphore>) -> Result<Replica, Error> {
        match mode {
            Mode::Leader => Ok(Replica::Leader(LeaderReplica::start(raft, long_reads))),
            Mode::MultiLeader | Mode::Leaderless => Err(Error::Unsupported { op: "a replica", mode }),
        }
    }

    /// Carries out a command.
    pub async fn write(
        &self,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        match self {
            Replica::Leader(replica) => replica.write(command, request, deadline).await,
        }
    }

    /// Reads keys.
    pub async fn read(&self, op: &RangeOp, consistency: Consistency, deadline: Instant) -> Result<Answer, Error> {
        match self {
            Replica::Leader(replica) => replica.read(op, consistency, deadline).await,
        }
    }

    /// Pins the present state for a read in pieces.
    pub async fn scan(&self, consistency: Consistency, deadline: Instant) -> Result<Scan, Error> {
        match self {
            Replica::Leader(replica) => replica.scan(consistency, deadline).await,
        }
    }

    /// The Raft replica below.
    pub fn raft(&self) -> &Arc<RaftReplica> {
        match self {
            Replica::Leader(replica) => replica.raft(),
        }
    }
}
