//! The Raft library's network over the node's links, and the conversion of its messages.
//!
//! Every call has its own deadline, because the library enforces none. Snapshots go in checksummed chunks on a
//! connection of their own.
//!
//! Invariants:
//!
//! * A message that lacks a field, or whose entries do not follow each other, is no message.
//! * An answer of another kind than the question's is as good as none.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RPCTypes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trefoil_causality::ReplicaId;
use trefoil_placement::NodeId;
use trefoil_proto::peer::{self, Message, SnapshotChunk, SnapshotHead, message::Body};
use trefoil_world::clock;

use crate::peer::{CallError, Peers};
use crate::raft::state::{StateImage, snapshot_rows};
use crate::raft::types::{
    Group, Home, LogEntry, LogId, Vote, decode_payload, encode_membership, encode_payload, log_id, term_of, vote,
};

/// Patience with an append: a follower may be waiting for its disk.
const APPEND_TTL: Duration = Duration::from_millis(2000);
/// Patience with a vote: longer would outlive the candidacy.
const VOTE_TTL: Duration = Duration::from_millis(600);
/// A snapshot receiver that takes no chunk for this long is given up.
const SNAPSHOT_IDLE: Duration = Duration::from_secs(10);
const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way.
const SNAPSHOT_CHUNKS_MAX: usize = 4;

/// Makes connections for one replica.
pub struct Network {
    pub from: ReplicaId,
    pub peers: Arc<Peers>,
}

impl RaftNetworkFactory<Group> for Network {
    type Network = Route;

    async fn new_client(&mut self, target: ReplicaId, home: &Home) -> Route {
        Route { from: self.from, to: target, node: home.0, peers: self.peers.clone() }
    }
}

/// What answers a message.
enum Answer {
    Append(peer::AppendReply),
    Vote(peer::VoteReply),
    Transfer(peer::TransferReply),
}

impl Answer {
    fn of(body: Body) -> Option<Answer> {
        match body {
            Body::AppendReply(reply) => Some(Answer::Append(reply)),
            Body::VoteReply(reply) => Some(Answer::Vote(reply)),
            Body::TransferReply(reply) => Some(Answer::Transfer(reply)),
            Body::Append(_) | Body::Vote(_) | Body::PreVote(_) | Body::Transfer(_) | Body::Failure(_) => None,
        }
    }
}

/// The way from one replica to another.
pub struct Route {
    from: ReplicaId,
    to: ReplicaId,
    node: NodeId,
    peers: Arc<Peers>,
}

impl Route {
    async fn call(&self, body: Body, ttl: Duration, kind: RPCTypes) -> Result<Answer, RPCError<Group>> {
        let message = Message { id: 0, from_replica: self.from.0, to_replica: self.to.0, body: Some(body) };
        let answer = self.peers.call(self.node, message, ttl).await.map_err(|error| match error {
            CallError::Timeout { ttl, .. } => {
                RPCError::Timeout(Timeout { action: kind, id: self.from, target: self.to, timeout: ttl })
            }
            CallError::Unreachable { .. } | CallError::Failed { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        })?;
        Answer::of(answer).ok_or_else(|| self.nonsense())
    }

    fn nonsense(&self) -> RPCError<Group> {
        RPCError::Unreachable(Unreachable::from_string(format!("{} gave an answer of another kind", self.to)))
    }

    async fn ask_vote(&self, body: Body) -> Result<VoteResponse<Group>, RPCError<Group>> {
        match self.call(body, VOTE_TTL, RPCTypes::Vote).await? {
            Answer::Vote(reply) => vote_reply_from(reply).ok_or_else(|| self.nonsense()),
            Answer::Append(_) | Answer::Transfer(_) => Err(self.nonsense()),
        }
    }
}

impl RaftNetworkV2<Group> for Route {
    type SnapshotData = StateImage;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Group>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Group>, RPCError<Group>> {
        let body = Body::Append(append_to(rpc));
        match self.call(body, APPEND_TTL, RPCTypes::AppendEntries).await? {
            Answer::Append(reply) => append_reply_from(reply).ok_or_else(|| self.nonsense()),
            Answer::Vote(_) | Answer::Transfer(_) => Err(self.nonsense()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Group>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Group>, RPCError<Group>> {
        self.ask_vote(Body::Vote(vote_request_to(&rpc))).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Group>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Group>, RPCError<Group>> {
        self.ask_vote(Body::PreVote(vote_request_to(&rpc))).await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Group>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Group>, RPCError<Group>> {
        let body = Body::Transfer(peer::TransferRequest {
            from_leader: Some(vote_to(rpc.from_leader())),
            to_replica: rpc.to_node_id().0,
            last_log: rpc.last_log_id().map(id_to),
        });
        match self.call(body, VOTE_TTL, RPCTypes::TransferLeader).await? {
            Answer::Transfer(reply) if reply.accepted => Ok(Ok(())),
            Answer::Transfer(reply) => Err(RPCError::Unreachable(Unreachable::from_string(reply.why))),
            Answer::Append(_) | Answer::Vote(_) => Err(self.nonsense()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Group, StateImage>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Group>, StreamingError<Group>> {
        let unreachable = |why: String| StreamingError::Unreachable(Unreachable::from_string(why));
        let mut client = self.peers.dial(self.node).await.map_err(|error| unreachable(error.to_string()))?;
        let (chunks, stream) = mpsc::channel(SNAPSHOT_CHUNKS_MAX);
        let opening = self.opening(&vote, &snapshot);
        let sending = send_snapshot(opening, snapshot.snapshot, chunks);
        let receiving = client.snapshot(ReceiverStream::new(stream));
        let sent = async { tokio::join!(sending, receiving) };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            (sent, received) = sent => {
                let done = received.map_err(|status| unreachable(status.message().to_owned()))?.into_inner();
                sent.map_err(unreachable)?;
                let vote = done.vote.map(vote_from).ok_or_else(|| unreachable("no vote in the answer".into()))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }
}

impl Route {
    fn opening(&self, vote: &Vote, snapshot: &SnapshotOf<Group, StateImage>) -> SnapshotChunk {
        let membership = &snapshot.meta.last_membership;
        SnapshotChunk {
            hello: Some(self.peers.acquaintances.hello(Some(self.node))),
            head: Some(SnapshotHead {
                to_replica: self.to.0,
                vote: Some(vote_to(vote)),
                last_applied: snapshot.meta.last_log_id.as_ref().map(id_to),
                membership_at: membership.log_id().as_ref().map(id_to),
                membership: encode_membership(membership.membership()),
            }),
            rows: bytes::Bytes::new(),
            crc32: 0,
            rows_total: None,
        }
    }
}

async fn send_snapshot(
    opening: SnapshotChunk,
    image: StateImage,
    chunks: mpsc::Sender<SnapshotChunk>,
) -> Result<(), String> {
    let StateImage::Built { read, store } = image else {
        return Err("a received snapshot is not sent on".into());
    };
    send_chunk(&chunks, opening).await?;
    let mut cursor = Some((0, Vec::new()));
    let mut total = 0;
    while cursor.is_some() {
        let (source, number) = (read.clone(), store.number());
        let mut from = cursor.take();
        let (found, next) = trefoil_world::task::blocking(move || {
            let found = snapshot_rows(source.as_ref(), number, &mut from, SNAPSHOT_CHUNK_BYTES);
            (found, from)
        })
        .await
        .map_err(|error| error.to_string())?;
        cursor = next;
        if let Some((rows, count)) = found.map_err(|error| error.to_string())? {
            total += count;
            let crc32 = crc32fast::hash(&rows);
            send_chunk(&chunks, SnapshotChunk { hello: None, head: None, rows, crc32, rows_total: None }).await?;
        }
    }
    let last = SnapshotChunk { hello: None, head: None, rows: bytes::Bytes::new(), crc32: 0, rows_total: Some(total) };
    send_chunk(&chunks, last).await
}

async fn send_chunk(chunks: &mpsc::Sender<SnapshotChunk>, chunk: SnapshotChunk) -> Result<(), String> {
    match clock::timeout(SNAPSHOT_IDLE, chunks.send(chunk)).await {
        Err(_) => Err(format!("the receiver took nothing for {SNAPSHOT_IDLE:?}")),
        Ok(Err(_)) => Err("the receiver hung up".into()),
        Ok(Ok(())) => Ok(()),
    }
}

pub fn vote_to(vote: &Vote) -> peer::Vote {
    let leader = vote.leader_id();
    peer::Vote { term: leader.term, replica: leader.voted_for.0, committed: vote.is_committed() }
}

pub fn vote_from(from: peer::Vote) -> Vote {
    vote(from.term, ReplicaId(from.replica), from.committed)
}

pub fn id_to(id: &LogId) -> peer::LogId {
    peer::LogId { term: term_of(id), index: id.index() }
}

pub fn id_from(from: peer::LogId) -> LogId {
    log_id(from.term, from.index)
}

fn append_to(rpc: AppendEntriesRequest<Group>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_to(&rpc.vote)),
        previous: rpc.prev_log_id.as_ref().map(id_to),
        leader_committed: rpc.leader_commit.as_ref().map(id_to),
        entries: rpc
            .entries
            .iter()
            .map(|entry| peer::Entry { id: Some(id_to(&entry.log_id)), payload: encode_payload(&entry.payload) })
            .collect(),
    }
}

/// Log indexes stay below this: session ids are made of them.
const INDEX_MAX: u64 = 1 << 52;

/// `None` when a field is missing or malformed, or the entries do not follow each other.
pub fn append_from(from: peer::AppendRequest) -> Option<AppendEntriesRequest<Group>> {
    let entry = |entry: peer::Entry| {
        Some(LogEntry { log_id: id_from(entry.id?), payload: decode_payload(entry.payload).ok()? })
    };
    let entries: Vec<LogEntry> = from.entries.into_iter().map(entry).collect::<Option<_>>()?;
    let first = entries.first().map_or(0, |entry| entry.log_id.index());
    let follows = match &from.previous {
        Some(previous) => entries.is_empty() || previous.index.checked_add(1) == Some(first),
        None => true,
    };
    let gapless = entries.iter().zip(first..INDEX_MAX).filter(|(entry, at)| entry.log_id.index() == *at).count();
    (follows && gapless == entries.len()).then(|| {
        Some(AppendEntriesRequest {
            vote: vote_from(from.vote?),
            prev_log_id: from.previous.map(id_from),
            leader_commit: from.leader_committed.map(id_from),
            entries,
        })
    })?
}

pub fn append_reply_to(reply: AppendEntriesResponse<Group>) -> peer::AppendReply {
    use peer::append_reply::Outcome;
    let outcome = match reply {
        AppendEntriesResponse::Success => Outcome::Success(true),
        AppendEntriesResponse::PartialSuccess(None) => Outcome::NothingTaken(true),
        AppendEntriesResponse::PartialSuccess(Some(id)) => Outcome::PartialSuccess(id_to(&id)),
        AppendEntriesResponse::Conflict => Outcome::Conflict(true),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(vote_to(&vote)),
    };
    peer::AppendReply { outcome: Some(outcome) }
}

fn append_reply_from(from: peer::AppendReply) -> Option<AppendEntriesResponse<Group>> {
    use peer::append_reply::Outcome;
    Some(match from.outcome? {
        Outcome::Success(_) => AppendEntriesResponse::Success,
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from(vote)),
        Outcome::PartialSuccess(id) => AppendEntriesResponse::PartialSuccess(Some(id_from(id))),
        Outcome::NothingTaken(_) => AppendEntriesResponse::PartialSuccess(None),
    })
}

fn vote_request_to(rpc: &VoteRequest<Group>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_to(&rpc.vote)),
        last_log: rpc.last_log_id.as_ref().map(id_to),
        leader_transfer: rpc.leadership_transfer,
    }
}

/// `None` when a field is missing.
pub fn vote_request_from(from: peer::VoteRequest) -> Option<VoteRequest<Group>> {
    Some(VoteRequest {
        vote: vote_from(from.vote?),
        last_log_id: from.last_log.map(id_from),
        leadership_transfer: from.leader_transfer,
    })
}

pub fn vote_reply_to(reply: VoteResponse<Group>) -> peer::VoteReply {
    peer::VoteReply {
        vote: Some(vote_to(&reply.vote)),
        last_log: reply.last_log_id.as_ref().map(id_to),
        granted: reply.vote_granted,
    }
}

fn vote_reply_from(from: peer::VoteReply) -> Option<VoteResponse<Group>> {
    Some(VoteResponse {
        vote: vote_from(from.vote?),
        vote_granted: from.granted,
        last_log_id: from.last_log.map(id_from),
    })
}

/// `None` when a field is missing.
pub fn transfer_from(from: peer::TransferRequest) -> Option<TransferLeaderRequest<Group>> {
    let leader = vote_from(from.from_leader?);
    Some(TransferLeaderRequest::new(leader, ReplicaId(from.to_replica), from.last_log.map(id_from)))
}

pub fn transfer_reply_to(reply: TransferLeaderResponse<Group>) -> peer::TransferReply {
    match reply {
        Ok(()) => peer::TransferReply { accepted: true, why: String::new() },
        Err(error) => peer::TransferReply { accepted: false, why: error.to_string() },
    }
}
