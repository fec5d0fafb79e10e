//! One replica as the rest of the server sees it: propose, find the read index, take messages, report.
//!
//! The Raft library does not show through: what comes out of here are our own ids, outcomes and errors.
//!
//! Invariants:
//!
//! * An error that says nothing was appended is given only when nothing was; all else is `Unknown`.
//! * What the library takes for granted of a message is checked before it is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Config, Instant as _, Raft, ReadPolicy, ServerState, Snapshot, SnapshotMeta, SnapshotPolicy};
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{NodeId, PartitionId};
use trefoil_proto::peer::{Failure, SnapshotHead, message::Body};
use trefoil_store::command::Outcome;
use trefoil_store::engine::Engine;
use trefoil_store::key::StoreNumber;
use trefoil_store::mvcc;
use trefoil_world::clock;
use trefoil_world::planted::{self, Bug};

use crate::bulk::Bulk;
use crate::peer::Peers;
use crate::raft::log::LogStore;
use crate::raft::network::{
    Network, append_from, append_reply_to, id_from, transfer_from, transfer_reply_to, vote_from, vote_reply_to,
    vote_request_from, vote_to,
};
use crate::raft::state::{Published, StateImage, StateMachine};
use crate::raft::types::{Group, Home, Membership, Proposal, Vote, decode_membership, term_of};
use crate::replica_record::ReplicaRecord;
use crate::stores::{ReceivedRows, Stores};
use crate::writer::Writer;

/// Raft timing in milliseconds: a leader that falls silent is replaced after 1.6 to 2.0 s.
const HEARTBEAT_MS: u64 = 250;
const HEARTBEAT_MIN_MS: u64 = 150;
const ELECTION_MIN_MS: u64 = 600;
const ELECTION_MAX_MS: u64 = 1000;

/// Rows of history looked at in one step of a scrub.
const SCRUB_ROWS_MAX: usize = 2000;

/// How much log is kept for followers that fall behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogKeep {
    /// More entries or bytes than this are cut down to half.
    pub entries: u64,
    pub bytes: usize,
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Nothing was appended: this replica does not lead.
    NotLeader(Option<NodeId>),
    /// Nothing was appended, but this replica leads and will soon be able to.
    NotYet,
    /// It may have been appended, and may be committed.
    Unknown(String),
}

/// Why there is no read index. Nothing was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadIndexError {
    NotLeader(Option<NodeId>),
    /// A leader without a quorum, or without one yet.
    NoQuorum(String),
}

/// How a replica is. Counters count since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaState {
    pub leader: Option<(ReplicaId, NodeId)>,
    pub leads: bool,
    pub term: u64,
    pub last_log: Option<u64>,
    pub committed: Option<u64>,
    pub applied: Option<u64>,
    pub leader_changes: u64,
    /// Voters and learners, with their nodes.
    pub members: BTreeMap<ReplicaId, NodeId>,
    pub voters: BTreeSet<ReplicaId>,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
}

/// One Raft replica.
pub struct RaftReplica {
    pub replica: ReplicaId,
    pub partition: PartitionId,
    raft: Raft<Group, StateMachine>,
    log: LogStore,
    published: Arc<Published>,
    engine: Arc<dyn Engine>,
    stores: Arc<Stores>,
    bulk: Arc<Bulk>,
    /// The snapshot being received: a newer one ends it.
    turn: AtomicU64,
    /// When a leader was last heard, as a reading of the monotonic clock; written by every append.
    heard: Mutex<Option<clock::Instant>>,
    leader_changes: AtomicU64,
    last_leader: AtomicU64,
    /// The first local read that failed, from any task: the steward ends the node over it.
    broken: Mutex<Option<String>>,
    /// How far history was scrubbed; only the steward scrubs.
    scrubbed: Mutex<Scrubbed>,
}

/// Up to which floor, under which store number, history was scrubbed, and where a scrub under way goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scrubbed {
    store: StoreNumber,
    floor: Revision,
    next: Option<Revision>,
}

/// One snapshot's turn to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(u64);

/// What a replica is built from.
pub struct Parts {
    pub replica: ReplicaId,
    pub record: ReplicaRecord,
    pub engine: Arc<dyn Engine>,
    pub writer: Writer,
    pub stores: Arc<Stores>,
    pub bulk: Arc<Bulk>,
    pub peers: Arc<Peers>,
}

impl RaftReplica {
    /// Opens the replica's log and state and starts taking part.
    ///
    /// # Errors
    /// What is stored is malformed or cannot be read.
    pub async fn start(parts: Parts) -> io::Result<RaftReplica> {
        let Parts { replica, record, engine, writer, stores, bulk, peers } = parts;
        let log = LogStore::open(replica, engine.clone(), writer.clone()).map_err(io::Error::other)?;
        let state = StateMachine::open(replica, record, engine.clone(), writer, stores.clone());
        let state = state.map_err(io::Error::other)?;
        let published = state.published();
        let network = Network { from: replica, peers };
        let raft = Raft::new(replica, Arc::new(config()?), network, log.clone(), state);
        let raft = raft.await.map_err(io::Error::other)?;
        Ok(RaftReplica {
            replica,
            partition: record.partition,
            raft,
            log,
            published,
            engine,
            stores,
            bulk,
            turn: AtomicU64::new(0),
            heard: Mutex::new(None),
            leader_changes: AtomicU64::new(0),
            last_leader: AtomicU64::new(0),
            broken: Mutex::new(None),
            scrubbed: Mutex::new(Scrubbed { store: StoreNumber(0), floor: Revision(0), next: None }),
        })
    }

    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Where rows nobody reads yet are written.
    pub fn bulk(&self) -> &Bulk {
        &self.bulk
    }

    /// A snapshot begins to arrive: it ends the one that was being received.
    pub fn receive_next(&self) -> Turn {
        Turn(self.turn.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whether no newer snapshot has begun to arrive.
    pub fn is_turn(&self, turn: Turn) -> bool {
        self.turn.load(Ordering::Relaxed) == turn.0
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Gives a pristine group its first voters. Every one of them may be told the same; does nothing once told.
    pub async fn initialize(&self, voters: BTreeMap<ReplicaId, NodeId>) -> io::Result<()> {
        let homes: BTreeMap<ReplicaId, Home> = voters.into_iter().map(|(id, node)| (id, Home(node))).collect();
        match self.raft.initialize(homes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Adds a replica that gets the log but has no vote; this replica must lead.
    pub async fn add_learner(&self, learner: ReplicaId, node: NodeId) -> io::Result<()> {
        self.raft.add_learner(learner, Home(node), false).await.map_err(io::Error::other)?;
        Ok(())
    }

    /// Appends a batch of commands and waits until it is applied here.
    pub async fn propose(&self, commands: Bytes) -> Result<Vec<Outcome>, ProposeError> {
        match self.raft.client_write(Proposal(commands)).await {
            Ok(response) => Ok(response.data.0),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(self.not_appended(&forward)),
            Err(error) => Err(ProposeError::Unknown(error.to_string())),
        }
    }

    fn not_appended(&self, forward: &ForwardToLeader<Group>) -> ProposeError {
        match forward.reason {
            ForwardReason::LeaseExpired => ProposeError::NotYet,
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                ProposeError::NotLeader(self.other_home(forward))
            }
        }
    }

    fn other_home(&self, forward: &ForwardToLeader<Group>) -> Option<NodeId> {
        let elsewhere = forward.leader_id.filter(|leader| *leader != self.replica);
        elsewhere.and(forward.leader_node).map(|home| home.0)
    }

    /// The index a read that begins now must wait for. Asks a quorum.
    pub async fn read_index(&self, patience: Duration) -> Result<u64, ReadIndexError> {
        if planted::is(Bug::ReadIndexUnasked)
            && let ReplicaState { leads: true, committed: Some(index), .. } = self.state()
        {
            return Ok(index);
        }
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(patience);
        match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadIndexError::NotLeader(self.other_home(&forward)))
            }
            Err(error) => Err(ReadIndexError::NoQuorum(error.to_string())),
        }
    }

    /// Answers one Raft message of another replica.
    pub async fn answer(&self, body: Body) -> Body {
        match self.try_answer(body).await {
            Ok(body) => body,
            Err(reason) => Body::Failure(Failure { reason }),
        }
    }

    async fn try_answer(&self, body: Body) -> Result<Body, String> {
        let malformed = || "malformed message".to_owned();
        let stopped = |error: &dyn std::fmt::Display| format!("{}: {error}", self.replica);
        match body {
            Body::Append(rpc) => {
                let rpc = append_from(rpc).ok_or_else(malformed)?;
                let reply = self.raft.append_entries(rpc).await.map_err(|error| stopped(&error))?;
                if !matches!(reply, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                    *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
                }
                Ok(Body::AppendReply(append_reply_to(reply)))
            }
            Body::Vote(rpc) => {
                let rpc = vote_request_from(rpc).ok_or_else(malformed)?;
                let reply = self.raft.vote(rpc).await.map_err(|error| stopped(&error))?;
                Ok(Body::VoteReply(vote_reply_to(reply)))
            }
            Body::PreVote(rpc) => {
                let rpc = vote_request_from(rpc).ok_or_else(malformed)?;
                let reply = self.raft.pre_vote(rpc).await.map_err(|error| stopped(&error))?;
                Ok(Body::VoteReply(vote_reply_to(reply)))
            }
            Body::Transfer(rpc) => {
                let rpc = transfer_from(rpc).ok_or_else(malformed)?;
                let reply = self.raft.handle_transfer_leader(rpc).await.map_err(|error| stopped(&error))?;
                Ok(Body::TransferReply(transfer_reply_to(reply)))
            }
            Body::AppendReply(_) | Body::VoteReply(_) | Body::TransferReply(_) | Body::Failure(_) => {
                Err("an answer without a question".into())
            }
        }
    }

    /// Installs a snapshot whose rows have all arrived. Answers with this replica's vote.
    ///
    /// # Errors
    /// The opening of the snapshot is malformed, or the replica has stopped.
    pub async fn install(&self, head: SnapshotHead, rows: ReceivedRows) -> Result<trefoil_proto::peer::Vote, String> {
        let vote = head.vote.map(vote_from).ok_or("the snapshot has no vote")?;
        self.check_position(head.last_applied, &vote)?;
        let membership = decode_membership(head.membership).map_err(|error| error.to_string())?;
        let last_membership = Membership::new(head.membership_at.map(id_from), membership);
        let meta = SnapshotMeta { last_log_id: head.last_applied.map(id_from), last_membership };
        let snapshot = Snapshot { meta, snapshot: StateImage::Received { rows } };
        let reply = self.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())?;
        if reply.vote == vote {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
        }
        Ok(vote_to(&reply.vote))
    }

    /// A snapshot ends in a term its sender has led in or before, and one that ends in a later term than what is
    /// committed here is longer: the Raft library takes both for granted.
    fn check_position(&self, at: Option<trefoil_proto::peer::LogId>, vote: &Vote) -> Result<(), String> {
        let Some(at) = at.map(id_from) else { return Ok(()) };
        if term_of(&at) > vote.leader_id().term {
            return Err("the snapshot is of a later term than its vote".into());
        }
        let committed = self.raft.metrics().borrow_watched().local_committed;
        match committed.max(self.published.view().applied) {
            Some(committed) if at > committed && at.index() <= committed.index() => {
                let (end, known) = (at.index(), committed.index());
                Err(format!("the snapshot of a later term ends at {end}, but {known} is committed"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How the replica is now.
    pub fn state(&self) -> ReplicaState {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members: BTreeMap<ReplicaId, NodeId> =
            metrics.membership_config.nodes().map(|(id, home)| (*id, home.0)).collect();
        let leader = metrics.current_leader.and_then(|leader| Some((leader, *members.get(&leader)?)));
        self.count_leader_change(leader.map_or(0, |(leader, _)| leader.0));
        ReplicaState {
            leader,
            leads: metrics.state == ServerState::Leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            committed: metrics.cluster_committed.or(metrics.local_committed).map(|id| id.index()),
            applied: self.published.view().applied.map(|id| id.index()),
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            voters: metrics.membership_config.voter_ids().collect(),
            members,
            stopped: match self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                Some(broken) => Some(broken),
                None => metrics.running_state.as_ref().err().map(ToString::to_string),
            },
        }
    }

    fn count_leader_change(&self, leader: u64) {
        if leader != 0 && self.last_leader.swap(leader, Ordering::Relaxed) != leader {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long ago the leader was last heard; nothing when it never was. A leader is as fresh as its quorum.
    pub fn leader_silent(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state == ServerState::Leader {
            let alone = metrics.membership_config.voter_ids().count() == 1;
            let acked = metrics.last_quorum_acked.map(|acked| acked.into_inner().elapsed());
            return if alone { Some(Duration::ZERO) } else { acked };
        }
        drop(metrics);
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map(|heard| clock::now().saturating_duration_since(heard))
    }

    /// The first log index that is kept.
    pub fn first_log_index(&self) -> u64 {
        self.log.size().first
    }

    /// Cuts the log when it has grown past `keep`. The state itself is the snapshot, so this costs no copy.
    pub async fn trim_log(&self, keep: LogKeep) -> io::Result<()> {
        let size = self.log.size();
        let Some(applied) = self.published.view().applied else { return Ok(()) };
        let kept = (applied.index() + 1).saturating_sub(size.first);
        if kept <= keep.entries && size.bytes <= keep.bytes {
            return Ok(());
        }
        let stays = if size.bytes > keep.bytes { kept / 4 } else { keep.entries / 2 };
        let upto = applied.index().saturating_sub(stays);
        self.raft.trigger().snapshot().await.map_err(io::Error::other)?;
        self.raft.trigger().purge_log(upto).await.map_err(io::Error::other)
    }

    /// Notes that a local read failed: what is stored can no longer be trusted.
    pub fn report_broken(&self, why: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Removes some history below the compaction floor, if there is any left. Nobody reads it any more, so it is
    /// written beside the writer's queue.
    pub async fn scrub(&self) -> io::Result<()> {
        let view = self.published.view();
        let (store, floor) = (view.store.number(), view.head.floor.unwrap_or_default());
        let mut done = *self.scrubbed.lock().unwrap_or_else(PoisonError::into_inner);
        if done.store != store {
            done = Scrubbed { store, floor: Revision(0), next: None };
        }
        if done.floor >= floor {
            return Ok(());
        }
        let engine = self.engine.clone();
        let from = done.next.unwrap_or(done.floor);
        let step =
            trefoil_world::task::blocking(move || mvcc::scrub(engine.as_ref(), store, floor, from, SCRUB_ROWS_MAX));
        let (batch, next) = step.await?.map_err(io::Error::other)?;
        self.bulk.write(batch).await.map_err(io::Error::other)?;
        done.next = next;
        if done.next.is_none() {
            done.floor = floor;
        }
        *self.scrubbed.lock().unwrap_or_else(PoisonError::into_inner) = done;
        Ok(())
    }

    /// Hands leadership to the best of the `alive` nodes, if this replica leads, and waits until another one does.
    /// False when nobody could take it.
    pub async fn hand_over(&self, alive: impl Fn(NodeId) -> bool, patience: Duration) -> bool {
        if !self.state().leads {
            return true;
        }
        let Some(target) = self.heir(alive) else { return false };
        if self.raft.trigger().transfer_leader(target).await.is_err() {
            return false;
        }
        let mut metrics = self.raft.metrics();
        let other_leads = async {
            while metrics.borrow_watched().current_leader.is_none_or(|leader| leader == self.replica) {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        clock::timeout(patience, other_leads).await.is_ok()
    }

    /// The live voter that is furthest, if it is nearly level.
    fn heir(&self, alive: impl Fn(NodeId) -> bool) -> Option<ReplicaId> {
        let state = self.state();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let level = |id: &ReplicaId| replication.get(id).copied().flatten();
        state
            .voters
            .iter()
            .filter(|id| **id != self.replica && state.members.get(id).is_some_and(|node| alive(*node)))
            .filter(|id| level(id).map(|at| at.index() + 1000) >= metrics.last_log_index)
            .max_by_key(|id| level(id).map(|at| (term_of(&at), at.index())))
            .copied()
    }

    /// Stops taking part. The committed position is stored, so that the next start replays nothing.
    pub async fn stop(&self) -> io::Result<()> {
        self.raft.shutdown().await.map_err(io::Error::other)?;
        self.log.store_committed().await
    }

    pub fn stores(&self) -> &Arc<Stores> {
        &self.stores
    }
}

fn config() -> io::Result<Config> {
    let config = Config {
        cluster_name: "trefoil".into(),
        heartbeat_interval: HEARTBEAT_MS,
        heartbeat_min_interval: Some(HEARTBEAT_MIN_MS),
        election_timeout_min: ELECTION_MIN_MS,
        election_timeout_max: ELECTION_MAX_MS,
        max_payload_entries: 4096,
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(io::Error::other)
}
