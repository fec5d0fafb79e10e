//! Replicas on other nodes: what this node asks of them, each question once. The messages between nodes end here.
//!
//! Every question carries who asks and the epoch of the placement row it goes by. A refusal may carry a newer committed
//! row, which is adopted before the refusal is handed on: whoever asked may look at the map again.
//!
//! Invariants:
//!
//! * A write that was sent and has no answer is `Unknown`.
//! * Nothing is sent without a connection over which both sides have believed each other's opening words.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_placement::{NodeId, PlacementRow};
use trefoil_proto::peer::{
    Caller, Digest, DigestRequest, NewerRow, ProposeRequest, ReadIndexRequest, Refused, digest_reply, propose_reply,
    read_index_reply, refused,
};
use trefoil_store::command::{Command, Outcome, RequestId, decode_outcome, encode_command};
use trefoil_store::mvcc::Content;
use trefoil_world::clock::{self, Instant};

use crate::cluster::map::{ClusterMap, decode_row};
use crate::error::Error;
use crate::peer::Peers;

/// See the file's head.
pub struct Remotes {
    peers: Arc<Peers>,
    map: Arc<ArcSwap<ClusterMap>>,
}

impl Remotes {
    pub fn new(peers: Arc<Peers>, map: Arc<ArcSwap<ClusterMap>>) -> Remotes {
        Remotes { peers, map }
    }

    /// Hands a command on, to be carried out there or refused.
    pub async fn propose(
        &self,
        row: &PlacementRow,
        to: NodeId,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let mut client = self.peers.client(to).await.map_err(not_sent)?;
        let request = ProposeRequest {
            caller: Some(self.caller(row)),
            keyspace_id: row.partition.keyspace.0,
            partition: row.partition.index,
            command: encode_command(command),
            deadline_ms: millis_left(deadline)?,
            session: request.map_or(0, |id| id.session),
            sequence: request.map_or(0, |id| id.sequence),
            acknowledged: request.map_or(0, |id| id.acknowledged),
        };
        let unknown = |why: String| Error::Unknown { why };
        let reply = match clock::timeout_at(deadline, client.propose(request)).await {
            Err(_) => return Err(unknown("the deadline passed before the leader answered".into())),
            Ok(Err(status)) => return Err(unknown(format!("the leader's connection: {}", status.message()))),
            Ok(Ok(reply)) => reply.into_inner(),
        };
        self.adopt(reply.newer);
        match reply.reply {
            Some(propose_reply::Reply::Outcome(bytes)) => {
                decode_outcome(bytes).map_err(|malformed| unknown(malformed.to_string()))
            }
            Some(propose_reply::Reply::NotLeader(hint)) => {
                Err(Error::NotLeader { leader: leader(hint.leader_node_id) })
            }
            Some(propose_reply::Reply::Unknown(said)) => Err(Error::unknown_there(&said)),
            Some(propose_reply::Reply::Refused(refused)) => Err(refusal(refused)),
            None => Err(unknown("the leader's answer is empty".into())),
        }
    }

    /// How far a linearizable read that began before this call must see.
    pub async fn read_index(&self, row: &PlacementRow, to: NodeId, patience: Duration) -> Result<u64, Error> {
        let mut client = self.peers.client(to).await.map_err(not_sent)?;
        let request = ReadIndexRequest {
            caller: Some(self.caller(row)),
            keyspace_id: row.partition.keyspace.0,
            partition: row.partition.index,
            deadline_ms: patience.as_millis() as u64,
        };
        let reply = match clock::timeout(patience, client.read_index(request)).await {
            Err(_) => return Err(unavailable(format!("the leader did not answer in {patience:?}"))),
            Ok(Err(status)) => return Err(unavailable(format!("the leader's connection: {}", status.message()))),
            Ok(Ok(reply)) => reply.into_inner(),
        };
        self.adopt(reply.newer);
        match reply.reply {
            Some(read_index_reply::Reply::Index(index)) => Ok(index),
            Some(read_index_reply::Reply::NotLeader(hint)) => {
                Err(Error::NotLeader { leader: leader(hint.leader_node_id) })
            }
            Some(read_index_reply::Reply::Refused(refused)) => Err(refusal(refused)),
            None => Err(unavailable("the leader's answer is empty".into())),
        }
    }

    /// Keys and content sum of the replica on `to` at `revision`.
    pub async fn digest(
        &self,
        row: &PlacementRow,
        to: NodeId,
        revision: Revision,
        patience: Duration,
    ) -> Result<Content, Error> {
        let mut client = self.peers.client(to).await.map_err(not_sent)?;
        let request = DigestRequest {
            caller: Some(self.caller(row)),
            keyspace_id: row.partition.keyspace.0,
            partition: row.partition.index,
            revision: revision.0,
        };
        let reply = match clock::timeout(patience, client.digest(request)).await {
            Err(_) => return Err(Error::DeadlinePassed),
            Ok(Err(status)) => return Err(unavailable(status.message().to_owned())),
            Ok(Ok(reply)) => reply.into_inner(),
        };
        self.adopt(reply.newer);
        match reply.reply {
            Some(digest_reply::Reply::Digest(Digest { keys, sum })) => Ok(Content { keys, sum }),
            Some(digest_reply::Reply::Refused(refused)) => Err(refusal(refused)),
            None => Err(unavailable("the answer is empty".into())),
        }
    }

    fn caller(&self, row: &PlacementRow) -> Caller {
        let me = self.peers.acquaintances.me();
        Caller {
            cluster_id: Bytes::copy_from_slice(&me.cluster.0.to_be_bytes()),
            node_id: me.node.0,
            run: self.peers.acquaintances.run(),
            epoch: row.epoch.0,
        }
    }

    /// A row that cannot be read is no row: the map will bring it.
    fn adopt(&self, newer: Option<NewerRow>) {
        let Some(NewerRow { row, version }) = newer else { return };
        let Ok(row) = decode_row(row) else { return };
        self.map.rcu(|known| match known.adopting(&row, Revision(version)) {
            Some(adopted) => Arc::new(adopted),
            None => known.clone(),
        });
    }
}

fn unavailable(why: String) -> Error {
    Error::Unavailable { why }
}

/// What a peer has refused, as if it had been refused here.
fn refusal(Refused { kind, why, limit, code, reason }: Refused) -> Error {
    match refused::Kind::try_from(kind) {
        Ok(refused::Kind::Deadline) => Error::DeadlinePassed,
        Ok(refused::Kind::Exhausted) => Error::Exhausted { what: why.into(), limit },
        Ok(refused::Kind::Broken) => Error::Broken { why },
        Ok(refused::Kind::Refused) => Error::RefusedThere { code, reason, why },
        // A kind this version does not know is none that did anything either.
        Ok(refused::Kind::Unavailable) | Err(_) => Error::Unavailable { why },
    }
}

fn leader(id: u64) -> Option<NodeId> {
    (id != 0).then_some(NodeId(id))
}

fn not_sent(error: crate::peer::CallError) -> Error {
    Error::Unavailable { why: error.to_string() }
}

fn millis_left(deadline: Instant) -> Result<u64, Error> {
    let left = deadline.saturating_duration_since(clock::now());
    match left >= Duration::from_millis(1) {
        true => Ok(left.as_millis() as u64),
        false => Err(Error::DeadlinePassed),
    }
}
