//! The Raft library's type configuration, and how votes, log ids and payloads look on disk and on the wire.
//!
//! A node of the library is our `ReplicaId`; leadership is one leader per term, so a log id is (term, index). Time,
//! tasks and randomness come from the world, so that a simulated cluster repeats itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use openraft::impls::{Entry, EntryPayload, Vote as RaftVote, leader_id_std};
use openraft::type_config::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, StoredMembershipOf, VoteOf};
use openraft::{AsyncRuntime, Membership as RaftMembership};
use openraft_rt_tokio::{TokioInstant, TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime, TokioWatch};
use trefoil_causality::ReplicaId;
use trefoil_placement::NodeId;
use trefoil_store::codec::{Decoder, Malformed, put_bool, put_u64};
use trefoil_store::command::Outcome;
use trefoil_world::random::WorldRng;

openraft::declare_raft_types!(
    /// One Raft group.
    pub Group:
        D = Proposal,
        R = Applied,
        NodeId = ReplicaId,
        Node = Home,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = WorldRuntime,
);

pub type Vote = VoteOf<Group>;
pub type LogId = LogIdOf<Group>;
pub type LogEntry = EntryOf<Group>;
pub type Membership = StoredMembershipOf<Group>;

/// A batch of commands, encoded once by the proposer ([`trefoil_store::command::encode_batch`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of commands", self.0.len())
    }
}

/// The outcomes of a batch, one per command; empty for entries of the library's own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied(pub Vec<Outcome>);

/// The node a replica lives on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(pub NodeId);

/// The library's runtime in our world: tokio's tasks and timers, the world's randomness.
#[derive(Debug)]
pub struct WorldRuntime(TokioRuntime);

impl AsyncRuntime for WorldRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: openraft::OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + openraft::OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = WorldRng;
    type Mpsc = TokioMpsc;
    type Watch = TokioWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: openraft::OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + openraft::OptionalSend + 'static,
        T::Output: openraft::OptionalSend + 'static,
    {
        // The library's own spawn: its tasks are polled for every message, and log nothing of ours.
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + openraft::OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + openraft::OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        WorldRng
    }

    fn new(threads: usize) -> Self {
        WorldRuntime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// A log id from its parts.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The term of a log id.
pub fn term_of(id: &LogId) -> u64 {
    let leader: &CommittedLeaderIdOf<Group> = id.committed_leader_id();
    leader.term
}

/// A vote from its parts.
pub fn vote(term: u64, replica: ReplicaId, committed: bool) -> Vote {
    match committed {
        true => RaftVote::new_committed(term, replica),
        false => RaftVote::new(term, replica),
    }
}

const FORMAT: u8 = 1;
const BLANK: u8 = 1;
const COMMANDS: u8 = 2;
const MEMBERSHIP: u8 = 3;

/// The stored form of a vote.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_u64(&mut out, vote.leader_id().term);
    put_u64(&mut out, vote.leader_id().voted_for.0);
    put_bool(&mut out, vote.is_committed());
    out
}

pub fn decode_vote(bytes: Bytes) -> Result<Vote, Malformed> {
    let mut from = Decoder::new(bytes, "vote");
    format(&mut from)?;
    let (term, replica, committed) = (from.u64()?, ReplicaId(from.u64()?), from.bool()?);
    from.end()?;
    Ok(vote(term, replica, committed))
}

/// The stored form of a log id on its own.
pub fn encode_log_id(id: &LogId) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_log_id(&mut out, id);
    out
}

pub fn decode_log_id(bytes: Bytes) -> Result<LogId, Malformed> {
    let mut from = Decoder::new(bytes, "log id");
    format(&mut from)?;
    let id = log_id(from.u64()?, from.u64()?);
    from.end()?;
    Ok(id)
}

/// The stored form of an entry, in two parts so that commands are not copied for it; its index is in the key.
pub fn encode_entry(entry: &LogEntry) -> (Vec<u8>, Bytes) {
    let (kind, body) = payload_parts(&entry.payload);
    let mut head = Vec::with_capacity(12);
    head.push(FORMAT);
    put_u64(&mut head, term_of(&entry.log_id));
    head.push(kind);
    (head, body)
}

pub fn decode_entry(index: u64, bytes: Bytes) -> Result<LogEntry, Malformed> {
    let mut from = Decoder::new(bytes, "log entry");
    format(&mut from)?;
    let id = log_id(from.u64()?, index);
    Ok(Entry { log_id: id, payload: decode_payload(from.rest())? })
}

/// A payload as the log stores it and peers send it: a kind byte, then the body.
pub fn encode_payload(payload: &EntryPayload<Proposal, ReplicaId, Home>) -> Bytes {
    let (kind, body) = payload_parts(payload);
    let mut out = Vec::with_capacity(1 + body.len());
    out.push(kind);
    out.extend_from_slice(&body);
    out.into()
}

fn payload_parts(payload: &EntryPayload<Proposal, ReplicaId, Home>) -> (u8, Bytes) {
    match payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(proposal) => (COMMANDS, proposal.0.clone()),
        EntryPayload::Membership(membership) => {
            let mut body = Vec::new();
            put_membership(&mut body, membership);
            (MEMBERSHIP, body.into())
        }
    }
}

pub fn decode_payload(bytes: Bytes) -> Result<EntryPayload<Proposal, ReplicaId, Home>, Malformed> {
    let mut from = Decoder::new(bytes, "log payload");
    match from.u8()? {
        BLANK => from.end().map(|()| EntryPayload::Blank),
        COMMANDS => Ok(EntryPayload::Normal(Proposal(from.rest()))),
        MEMBERSHIP => {
            let membership = membership(&mut from)?;
            from.end()?;
            Ok(EntryPayload::Membership(membership))
        }
        _ => Err(Malformed { what: "log payload: unknown kind" }),
    }
}

/// The stored form of the applied position with the membership in force there.
pub fn encode_applied(applied: &Option<LogId>, membership: &Membership) -> Vec<u8> {
    let mut out = vec![FORMAT];
    put_optional_log_id(&mut out, applied);
    put_optional_log_id(&mut out, membership.log_id());
    put_membership(&mut out, membership.membership());
    out
}

pub fn decode_applied(bytes: Bytes) -> Result<(Option<LogId>, Membership), Malformed> {
    let mut from = Decoder::new(bytes, "applied row");
    format(&mut from)?;
    let applied = optional_log_id(&mut from)?;
    let at = optional_log_id(&mut from)?;
    let membership = membership(&mut from)?;
    from.end()?;
    Ok((applied, Membership::new(at, membership)))
}

/// A membership as peers send it.
pub fn encode_membership(membership: &RaftMembership<ReplicaId, Home>) -> Bytes {
    let mut out = Vec::new();
    put_membership(&mut out, membership);
    out.into()
}

pub fn decode_membership(bytes: Bytes) -> Result<RaftMembership<ReplicaId, Home>, Malformed> {
    let mut from = Decoder::new(bytes, "membership");
    let membership = membership(&mut from)?;
    from.end()?;
    Ok(membership)
}

fn put_membership(out: &mut Vec<u8>, membership: &RaftMembership<ReplicaId, Home>) {
    let configs = membership.get_joint_config();
    put_u64(out, configs.len() as u64);
    for config in configs {
        put_u64(out, config.len() as u64);
        for replica in config {
            put_u64(out, replica.0);
        }
    }
    let homes: Vec<_> = membership.nodes().collect();
    put_u64(out, homes.len() as u64);
    for (replica, home) in homes {
        put_u64(out, replica.0);
        put_u64(out, home.0.0);
    }
}

fn membership(from: &mut Decoder) -> Result<RaftMembership<ReplicaId, Home>, Malformed> {
    let mut configs = Vec::new();
    for _ in 0..from.count()? {
        let voters = (0..from.count()?).map(|_| from.u64().map(ReplicaId)).collect::<Result<BTreeSet<_>, _>>()?;
        configs.push(voters);
    }
    let mut homes = BTreeMap::new();
    for _ in 0..from.count()? {
        homes.insert(ReplicaId(from.u64()?), Home(NodeId(from.u64()?)));
    }
    if configs.is_empty() && homes.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(configs, homes).map_err(|_| Malformed { what: "membership" })
}

fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    put_u64(out, term_of(id));
    put_u64(out, id.index());
}

fn put_optional_log_id(out: &mut Vec<u8>, id: &Option<LogId>) {
    put_bool(out, id.is_some());
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

fn optional_log_id(from: &mut Decoder) -> Result<Option<LogId>, Malformed> {
    match from.bool()? {
        true => Ok(Some(log_id(from.u64()?, from.u64()?))),
        false => Ok(None),
    }
}

fn format(from: &mut Decoder) -> Result<(), Malformed> {
    match from.u8()? {
        FORMAT => Ok(()),
        _ => Err(from.malformed()),
    }
}
