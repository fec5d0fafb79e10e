//! Who may say what in the Raft stream: each node speaks for the replicas that live there, and for no others.

use std::collections::BTreeSet;
use std::sync::Arc;

use trefoil_causality::ReplicaId;
use trefoil_placement::NodeId;
use trefoil_proto::peer::{Message, message::Body};

use super::Member;
use crate::raft::group::RaftReplica;

/// What one peer may say: the messages of replicas that live there. A replica never moves to another node.
pub struct Voice {
    node: NodeId,
    /// Senders known to live there, with the replicas they talk to.
    own: BTreeSet<(ReplicaId, ReplicaId)>,
}

impl Voice {
    pub fn of(node: NodeId) -> Voice {
        Voice { node, own: BTreeSet::new() }
    }

    /// The replica a message is for, if its sender may speak to it. A sender that neither the group nor the map knows is
    /// newer than both.
    pub fn addressee(&mut self, member: &Member, message: &Message) -> Result<Arc<RaftReplica>, String> {
        let (from, to) = (ReplicaId(message.from_replica), ReplicaId(message.to_replica));
        let raft = member.rafts.load().get(&to).cloned().ok_or_else(|| format!("no replica {to} here"))?;
        match message.body.as_ref().and_then(speaker) {
            Some(speaker) if speaker != from => return Err(format!("{from} speaks as {speaker}")),
            Some(_) | None => {}
        }
        if self.own.contains(&(from, to)) {
            return Ok(raft);
        }
        match home(member, &raft, from)? {
            Some(node) if node != self.node => Err(format!("{from} lives on {node}, not on {}", self.node)),
            Some(_) => {
                self.own.insert((from, to));
                Ok(raft)
            }
            None => match is_newer(member, from) {
                true => Ok(raft),
                false => Err(format!("{from} is not known here")),
            },
        }
    }
}

/// Whether a replica that is not known here may be newer than what is: ids only grow.
fn is_newer(member: &Member, replica: ReplicaId) -> bool {
    let map = member.router.map.load();
    let newest = map.rows.values().flat_map(|row| &row.replicas).map(|placed| placed.replica).max();
    newest.is_none_or(|newest| replica > newest)
}

/// Whose vote or leadership a message speaks of: its sender's own.
fn speaker(body: &Body) -> Option<ReplicaId> {
    let vote = match body {
        Body::Append(append) => append.vote,
        Body::Vote(ask) | Body::PreVote(ask) => ask.vote,
        Body::Transfer(transfer) => transfer.from_leader,
        Body::AppendReply(_) | Body::VoteReply(_) | Body::TransferReply(_) | Body::Failure(_) => None,
    };
    vote.map(|vote| ReplicaId(vote.replica))
}

/// Where a replica of the group of `raft` lives, as the group or the map has it.
pub fn home(member: &Member, raft: &RaftReplica, replica: ReplicaId) -> Result<Option<NodeId>, String> {
    let map = member.router.map.load();
    let placed = map.rows.values().find_map(|row| {
        let placed = row.replicas.iter().find(|placed| placed.replica == replica)?;
        Some((row.partition, placed.node))
    });
    match placed {
        Some((partition, _)) if partition != raft.partition => Err(format!("{replica} is of partition {partition}")),
        Some((_, node)) => Ok(Some(node)),
        None => Ok(raft.state().members.get(&replica).copied()),
    }
}
