//! The `Peer` service: what other nodes ask of this one.
//!
//! A stream of Raft messages and a snapshot begin with opening words, which are believed or refused before anything else
//! is read. The other questions name a start of a node whose opening words were believed; each is converted, answered by
//! the local replica, and never handed on. Who is believed what is `peer/member.rs`'s and `peer/voice.rs`'s; how the rest
//! goes on is `peer/frames.rs`'s, `peer/receive.rs`'s and `peer/asked.rs`'s.
//!
//! Invariants:
//!
//! * From a node that is neither a founder nor in the map nothing but Raft messages is taken.
//! * Of each peer only the start that was met last is heard, and only for the replicas that live there.
//! * A snapshot's rows are swept only after the last of them was written.

mod asked;
mod frames;
mod member;
mod receive;
mod refused;
mod voice;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span, warn};
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::NodeId;
use trefoil_proto::peer::peer_server::Peer;
use trefoil_proto::peer::{
    Digest, DigestReply, DigestRequest, Frame, Introduction, IntroductionReply, NotLeader, ProposeReply,
    ProposeRequest, ReadIndexReply, ReadIndexRequest, SnapshotChunk, SnapshotDone, digest_reply, propose_reply,
    read_index_reply,
};
use trefoil_store::command::encode_outcome;
use trefoil_store::mvcc::Content;
use trefoil_world::clock;

use self::asked::{digest, newer_row, propose, read_index};
use self::frames::{FRAMES_MAX, answer_frames};
use self::receive::{install, next_chunk};
use self::voice::home;
use crate::api::accept::Believed;
use crate::api::convert;
use crate::cluster::founding::{Founder, FoundingRecord};
use crate::cluster::identity::Refused;
use crate::error::Error;
use crate::peer::{AMNESIA, run_of};

pub use self::member::{Member, RaftReplicas};
pub use self::refused::RefusedLately;

/// See the file's head. Each connection has its own.
#[derive(Clone)]
pub struct PeerService {
    /// Whether the other side of the connection is.
    pub believed: Believed,
    /// This node as it describes itself while a cluster forms.
    pub me: Arc<Founder>,
    pub initial_cluster: Arc<str>,
    pub founding: Arc<ArcSwapOption<FoundingRecord>>,
    pub member: Arc<ArcSwapOption<Member>>,
    /// The node's, for its lines in the log.
    pub span: Span,
    pub refused: Arc<RefusedLately>,
}

impl PeerService {
    fn member(&self) -> Result<Arc<Member>, Status> {
        self.member.load_full().ok_or_else(|| Status::unavailable("this node is not a member of a cluster yet"))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type RaftStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn raft(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::RaftStream>, Status> {
        let member = self.member()?;
        let mut frames = request.into_inner();
        let first = frames.message().await?.and_then(|frame| frame.hello);
        let hello = first.ok_or_else(|| Status::invalid_argument("a stream begins with the opening words"))?;
        let node = match member.acquaintances.meet(&hello).await {
            Ok(node) => node,
            Err(refused) => {
                if self.refused.is_news(NodeId(hello.node_id), &refused) {
                    self.span.in_scope(|| warn!("connection of {} refused: {refused}", NodeId(hello.node_id)));
                }
                return Err(refusal(&refused));
            }
        };
        self.believed.note();
        let (answers, stream) = mpsc::channel(FRAMES_MAX);
        let opening = Frame { hello: Some(member.acquaintances.hello(Some(node))), ..Frame::default() };
        drop(answers.try_send(Ok(opening)));
        let run = run_of(&hello);
        trefoil_world::task::spawn(answer_frames(member, (node, run), frames, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotDone>, Status> {
        let member = self.member()?;
        let mut chunks = request.into_inner();
        let first = next_chunk(&mut chunks).await?;
        let hello = first.hello.ok_or_else(|| Status::invalid_argument("a snapshot begins with the opening words"))?;
        let from = member.acquaintances.meet(&hello).await;
        let from = from.map_err(|refused| refusal(&refused))?;
        self.believed.note();
        member.expect_of_cluster(from)?;
        let head = first.head.ok_or_else(|| Status::invalid_argument("a snapshot begins with its head"))?;
        let raft = member.rafts.load().get(&ReplicaId(head.to_replica)).cloned();
        let raft = raft.ok_or_else(|| Status::not_found(format!("no replica r{} here", head.to_replica)))?;
        let sender = head.vote.map(|vote| ReplicaId(vote.replica));
        let sender = sender.ok_or_else(|| Status::invalid_argument("the snapshot has no vote"))?;
        match home(&member, &raft, sender).map_err(denied)? {
            Some(node) if node != from => return Err(denied(format!("{sender} lives on {node}, not on {from}"))),
            Some(_) | None => {}
        }
        // Beside the call: a call that is cut off must not drop rows while some of them are being written.
        let install = install(raft, from, head, chunks).instrument(self.span.clone());
        let installed = trefoil_world::task::spawn(install).await;
        let vote = installed.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(SnapshotDone { vote: Some(vote) }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        let member = self.member()?;
        let ask = request.into_inner();
        let asked = member.asked(ask.caller.as_ref(), ask.keyspace_id, ask.partition)?;
        let reply = match propose(&member, &asked, ask).await {
            Ok(outcome) => propose_reply::Reply::Outcome(encode_outcome(&outcome).into()),
            Err(Error::NotLeader { leader }) => propose_reply::Reply::NotLeader(not_leader(leader)),
            Err(Error::Unknown { why }) => propose_reply::Reply::Unknown(why),
            Err(error) => propose_reply::Reply::Refused(convert::refused(error)),
        };
        let newer = newer_row(&member, &asked);
        Ok(Response::new(ProposeReply { reply: Some(reply), newer }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let member = self.member()?;
        let ask = request.into_inner();
        let asked = member.asked(ask.caller.as_ref(), ask.keyspace_id, ask.partition)?;
        let reply = match read_index(&member, &asked, clock::now() + Duration::from_millis(ask.deadline_ms)).await {
            Ok(index) => read_index_reply::Reply::Index(index),
            Err(Error::NotLeader { leader }) => read_index_reply::Reply::NotLeader(not_leader(leader)),
            Err(error) => read_index_reply::Reply::Refused(convert::refused(error)),
        };
        let newer = newer_row(&member, &asked);
        Ok(Response::new(ReadIndexReply { reply: Some(reply), newer }))
    }

    async fn digest(&self, request: Request<DigestRequest>) -> Result<Response<DigestReply>, Status> {
        let member = self.member()?;
        let ask = request.into_inner();
        let asked = member.asked(ask.caller.as_ref(), ask.keyspace_id, ask.partition)?;
        let reply = match digest(&member, &asked, Revision(ask.revision)).await {
            Ok(Content { keys, sum }) => digest_reply::Reply::Digest(Digest { keys, sum }),
            Err(error) => digest_reply::Reply::Refused(convert::refused(error)),
        };
        let newer = newer_row(&member, &asked);
        Ok(Response::new(DigestReply { reply: Some(reply), newer }))
    }

    async fn introduce(&self, request: Request<Introduction>) -> Result<Response<IntroductionReply>, Status> {
        if let Some(member) = self.member.load_full() {
            member.note_stranger(request.get_ref());
        }
        let founding = self.founding.load();
        Ok(Response::new(IntroductionReply {
            name: self.me.name.clone(),
            storage_id: self.me.storage.0.to_be_bytes().to_vec().into(),
            initial_cluster: self.initial_cluster.to_string(),
            founding: founding.as_ref().map(|record| record.encode().into()).unwrap_or_default(),
            client_address: self.me.client_address.clone(),
            zone: self.me.zone.clone(),
            weight: self.me.weight,
        }))
    }
}

fn denied(why: String) -> Status {
    Status::permission_denied(format!("refused: {why}"))
}

/// How a peer is told that its opening words are not believed.
fn refusal(refused: &Refused) -> Status {
    let mut status = Status::permission_denied(format!("refused: {refused}"));
    if refused.proves_amnesia() {
        status.metadata_mut().insert(AMNESIA, MetadataValue::from_static("1"));
    }
    status
}

fn not_leader(leader: Option<NodeId>) -> NotLeader {
    NotLeader { leader_node_id: leader.map_or(0, |node| node.0) }
}
