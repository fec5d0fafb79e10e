//! The `Peer` service: what other nodes ask of this one.
//!
//! A stream of Raft messages and a snapshot begin with opening words, which are believed or refused before anything else
//! is read. The other questions name a start of a node whose opening words were believed; each is converted, answered by
//! the local replica, and never handed on.
//!
//! Invariants:
//!
//! * From a node that is neither a founder nor in the map nothing but Raft messages is taken.
//! * Of each peer only the start that was met last is heard, and only for the replicas that live there.
//! * A snapshot's rows are swept only after the last of them was written.

mod voice;

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span, info, warn};
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{Epoch, KeyspaceId, NodeId, PartitionId};
use trefoil_proto::peer::peer_server::Peer;
use trefoil_proto::peer::{
    Caller, Digest, DigestReply, DigestRequest, Failure, Frame, Introduction, IntroductionReply, Message, NewerRow,
    NotLeader, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest, SnapshotChunk, SnapshotDone,
    SnapshotHead, Vote, digest_reply, message::Body, propose_reply, read_index_reply,
};
use trefoil_store::command::{Command, Op, Outcome, Reply, RequestId, decode_command, encode_outcome};
use trefoil_store::key::StoreNumber;
use trefoil_store::mvcc::{self, Content, Limits};
use trefoil_world::clock::{self, Instant};
use trefoil_world::planted::{self, Bug};

use self::voice::{Voice, home};
use crate::api::accept::Believed;
use crate::api::convert;
use crate::cluster::founding::{Founder, FoundingRecord};
use crate::cluster::identity::{Acquaintances, Refused, StorageId};
use crate::cluster::map::encode_row;
use crate::error::Error;
use crate::health::Health;
use crate::peer::{AMNESIA, run_of};
use crate::raft::group::{RaftReplica, Turn};
use crate::raft::state::{copy_rows, receive_rows};
use crate::replication::{Consistency, Replica};
use crate::router::Router;
use crate::verify::{self, Haste, WALK_PATIENCE};

/// Raft messages of one peer being answered at a time.
const ANSWERS_MAX: usize = 1024;
/// Answered frames on their way.
const FRAMES_MAX: usize = 8;
/// How often the log repeats why a peer is refused, which tries again twice a second.
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// Refused nodes that are remembered.
const REFUSED_MAX: usize = 256;
/// A snapshot sender that is silent for this long is given up.
const SNAPSHOT_IDLE: Duration = Duration::from_secs(15);

/// The Raft replicas of this node, by id.
pub type RaftReplicas = BTreeMap<ReplicaId, Arc<RaftReplica>>;

/// What a member of a cluster answers peers with.
pub struct Member {
    pub acquaintances: Arc<Acquaintances>,
    pub rafts: Arc<ArcSwap<RaftReplicas>>,
    pub router: Arc<Router>,
    pub health: Arc<Health>,
    pub limits: Limits,
    pub message_bytes_max: usize,
    /// Directories under a known node's name that are not its own, and when they last asked.
    pub strangers: Mutex<BTreeMap<String, (StorageId, Instant)>>,
}

impl Member {
    /// Nothing but Raft messages is taken from a node that is neither a founder nor in the map.
    fn expect_of_cluster(&self, node: NodeId) -> Result<(), Status> {
        match self.acquaintances.is_of_cluster(node) {
            true => Ok(()),
            false => Err(denied(format!("{node} is not in the map: only Raft messages are taken from it"))),
        }
    }

    /// Believes a caller that is of the cluster and whose opening words were believed on its Raft connection, in its
    /// latest start.
    fn asked(&self, caller: Option<&Caller>, keyspace: u32, partition: u32) -> Result<Asked, Status> {
        let caller = caller.ok_or_else(|| Status::invalid_argument("it does not say who asks"))?;
        let me = self.acquaintances.me();
        if caller.cluster_id.as_ref() != me.cluster.0.to_be_bytes() {
            return Err(denied(format!("this node is of cluster {}", me.cluster)));
        }
        let node = NodeId(caller.node_id);
        if !self.acquaintances.knows(node, caller.run) {
            return Err(denied(format!("this start of {node} was not met, or another one since")));
        }
        self.expect_of_cluster(node)?;
        let partition = PartitionId { keyspace: KeyspaceId(keyspace), index: partition };
        Ok(Asked { partition, epoch: Epoch(caller.epoch) })
    }

    /// Takes note of a new directory that comes under the name of a known node. A founder that has not adopted the
    /// founding record yet asks with the directory it is known by.
    fn note_stranger(&self, asking: &Introduction) {
        let map = self.router.map.load();
        let known = map.nodes.iter().find(|(_, node)| node.name == asking.name).map(|(node, _)| *node);
        let (Some(node), Ok(storage)) = (known, asking.storage_id.as_ref().try_into()) else { return };
        let storage = StorageId(u128::from_be_bytes(storage));
        if self.acquaintances.storage_of(node) != Some(storage) {
            let seen = (storage, clock::now());
            self.strangers.lock().unwrap_or_else(PoisonError::into_inner).insert(asking.name.clone(), seen);
        }
    }

    /// The strangers by name; without a storage id those that have been silent for `patience`, for the last time.
    pub fn strangers(&self, patience: Duration) -> Vec<(String, Option<StorageId>)> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let named = strangers.iter().map(|(name, (storage, at))| {
            let asks = at.elapsed() < patience;
            (name.clone(), asks.then_some(*storage))
        });
        let named: Vec<_> = named.collect();
        strangers.retain(|_, (_, at)| at.elapsed() < patience);
        named
    }
}

/// See the file's head.
#[derive(Clone)]
pub struct PeerService {
    /// This node as it describes itself while a cluster forms.
    pub me: Arc<Founder>,
    pub initial_cluster: Arc<str>,
    pub founding: Arc<ArcSwapOption<FoundingRecord>>,
    pub member: Arc<ArcSwapOption<Member>>,
    /// The node's, for its lines in the log.
    pub span: Span,
    pub refused: Arc<RefusedLately>,
}

/// A reason, and when the log last said it.
type Said = (Discriminant<Refused>, Instant);

/// Who was refused lately, so that the log says it once in a while and not at every attempt.
#[derive(Default)]
pub struct RefusedLately {
    /// When the log last said each reason. The numbers in it are not told apart: those of a copy that runs on change all
    /// the time.
    by_node: Mutex<BTreeMap<NodeId, Vec<Said>>>,
}

impl RefusedLately {
    /// Whether the log has not said this lately.
    fn is_news(&self, node: NodeId, refused: &Refused) -> bool {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        if by_node.len() >= REFUSED_MAX && !by_node.contains_key(&node) {
            by_node.clear();
        }
        let said = by_node.entry(node).or_default();
        said.retain(|(_, at)| at.elapsed() < REFUSED_EVERY);
        let reason = discriminant(refused);
        if said.iter().any(|(why, _)| *why == reason) {
            return false;
        }
        said.push((reason, clock::now()));
        true
    }
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
        let believed = Believed::of(&request);
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
        believed.note();
        let (answers, stream) = mpsc::channel(FRAMES_MAX);
        let opening = Frame { hello: Some(member.acquaintances.hello(Some(node))), ..Frame::default() };
        drop(answers.try_send(Ok(opening)));
        let run = run_of(&hello);
        trefoil_world::task::spawn(answer_frames(member, (node, run), frames, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotDone>, Status> {
        let member = self.member()?;
        let believed = Believed::of(&request);
        let mut chunks = request.into_inner();
        let first = next_chunk(&mut chunks).await?;
        let hello = first.hello.ok_or_else(|| Status::invalid_argument("a snapshot begins with the opening words"))?;
        let from = member.acquaintances.meet(&hello).await;
        let from = from.map_err(|refused| refusal(&refused))?;
        believed.note();
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

/// Answers a peer's messages until the stream ends, or until another start of that peer has been met.
async fn answer_frames(
    member: Arc<Member>,
    (node, run): (NodeId, u64),
    mut frames: Streaming<Frame>,
    answers: mpsc::Sender<Result<Frame, Status>>,
) {
    let mut voice = Voice::of(node);
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = running.next(), if !running.is_empty() => {
                let mut messages = vec![answer];
                while let Some(Some(answer)) = running.next().now_or_never() {
                    messages.push(answer);
                }
                let frame = Frame { hello: None, messages, position: member.acquaintances.position() };
                if answers.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            frame = frames.message(), if running.len() < ANSWERS_MAX => match frame {
                Ok(Some(frame)) if !member.acquaintances.hear(node, run, frame.position) => return,
                Ok(Some(frame)) => running.extend(frame.messages.into_iter().map(|message| {
                    answer(voice.addressee(&member, &message), message)
                })),
                Ok(None) | Err(_) => return,
            },
        }
    }
}

async fn answer(raft: Result<Arc<RaftReplica>, String>, message: Message) -> Message {
    let body = match (raft, message.body) {
        (Ok(raft), Some(body)) => raft.answer(body).await,
        (Err(reason), _) => Body::Failure(Failure { reason }),
        (_, None) => Body::Failure(Failure { reason: "empty message".into() }),
    };
    Message { id: message.id, from_replica: message.to_replica, to_replica: message.from_replica, body: Some(body) }
}

/// Receives the rest of a snapshot and puts it in the place of the replica's state.
async fn install(
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

async fn next_chunk(chunks: &mut Streaming<SnapshotChunk>) -> Result<SnapshotChunk, Status> {
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

fn not_leader(leader: Option<NodeId>) -> NotLeader {
    NotLeader { leader_node_id: leader.map_or(0, |node| node.0) }
}

/// What a believed peer asks about, and by which placement.
struct Asked {
    partition: PartitionId,
    epoch: Epoch,
}

/// The row this node knows, when it is newer than the one it was asked by.
fn newer_row(member: &Member, asked: &Asked) -> Option<NewerRow> {
    let map = member.router.map.load();
    let row = map.rows.get(&asked.partition).filter(|row| row.epoch > asked.epoch)?;
    Some(NewerRow { row: encode_row(row), version: map.version_of(asked.partition).0 })
}

/// The replica that is asked, on a node that knows the placement it is asked by.
async fn local(member: &Member, asked: &Asked, deadline: Instant) -> Result<Arc<Replica>, Error> {
    member.router.reach_epoch_of(asked.partition, asked.epoch, deadline).await?;
    member
        .router
        .local(asked.partition)
        .ok_or_else(|| Error::Unavailable { why: format!("this node holds no replica of {}", asked.partition) })
}

async fn propose(member: &Member, asked: &Asked, ask: ProposeRequest) -> Result<Outcome, Error> {
    let deadline = clock::now() + Duration::from_millis(ask.deadline_ms);
    let replica = local(member, asked, deadline).await?;
    // A command may have more bytes than the request it came in: a condition repeats the key.
    let (actual, limit) = (ask.command.len(), 2 * member.message_bytes_max);
    if actual > limit {
        return Err(Error::TooLarge { what: "a command", actual, limit });
    }
    let command = decode_command(ask.command)
        .map_err(|malformed| Error::Malformed { field: "command", why: malformed.to_string() })?;
    if let Command::Op(Op::Range(op)) = command {
        return match replica.read(op, Consistency::Linearizable, deadline).await {
            Ok(answer) => Ok(Outcome { revision: answer.revision, result: Ok(Reply::Range(answer.reply)) }),
            Err(Error::Refused(refusal)) => Ok(Outcome { revision: Revision(0), result: Err(refusal) }),
            Err(error) => Err(error),
        };
    }
    if let Command::Op(op) = &command {
        mvcc::check(op, &member.limits)?;
        member.health.room_for(op)?;
    }
    let request = RequestId { session: ask.session, sequence: ask.sequence, acknowledged: ask.acknowledged };
    replica.write(command, (ask.session != 0).then_some(request), deadline).await
}

async fn read_index(member: &Member, asked: &Asked, deadline: Instant) -> Result<u64, Error> {
    match local(member, asked, deadline).await?.as_ref() {
        Replica::Leader(replica) => replica.read_index(deadline).await,
    }
}

async fn digest(member: &Member, asked: &Asked, revision: Revision) -> Result<Content, Error> {
    let deadline = clock::now() + WALK_PATIENCE;
    let replica = local(member, asked, deadline).await?;
    let _walk = member.router.walk_place()?;
    let (_, content) = verify::digest(&replica, Some(revision), Haste::ByItself, deadline).await?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_says_a_reason_once_in_a_while() {
        let lately = RefusedLately::default();
        let tail = |node, claimed| Refused::LostTail { node: NodeId(node), known: 70, claimed };
        for (node, refused, news) in [
            (2, tail(2, 10), true),
            (2, tail(2, 11), false),
            (2, Refused::Malformed, true),
            (2, tail(2, 12), false),
            (2, Refused::Malformed, false),
            (3, tail(3, 12), true),
        ] {
            assert_eq!(lately.is_news(NodeId(node), &refused), news, "{node}: {refused}");
        }
        tokio::time::advance(REFUSED_EVERY).await;
        assert!(lately.is_news(NodeId(2), &tail(2, 13)), "it is said again later");
        for node in 10..10 + REFUSED_MAX as u64 {
            lately.is_news(NodeId(node), &Refused::Malformed);
        }
        assert!(lately.by_node.lock().expect("no test panicked under it").len() <= REFUSED_MAX);
    }
}
