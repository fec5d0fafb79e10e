//! Random messages between nodes: well-formed, and with anything in their fields. They are said in the name of a node
//! that runs, which is not believed; by a stranger, who knows of a cluster what is public; and in the name of a node of
//! the cluster that no longer runs.
//!
//! Whoever is believed may take part in elections, which is no damage but its right. So what names a node that runs is
//! wrong in at least one field, and the words of those who are believed are malformed, out of date, or answers nobody
//! asked for: the votes in them are of term 0. The one exception is [`impossible_snapshots`], which must be refused
//! before their votes are looked at. The node that no longer runs is never said to have synced more than it has: it must
//! be able to come back.

use bytes::Bytes;
use trefoil_proto::peer::message::Body;
use trefoil_proto::peer::{
    AppendReply, AppendRequest, Caller, DigestRequest, Entry, Failure, Frame, Hello, Introduction, LogId, Message,
    PeerAddress, ProposeRequest, ReadIndexRequest, SnapshotChunk, SnapshotHead, TransferReply, TransferRequest, Vote,
    VoteReply, VoteRequest, append_reply::Outcome,
};

use super::chance::{flag, junk, maybe, number, small_number, some, text};
use super::commands::{command, put_bytes, put_number, read_command};
use crate::scenario::Dice;

/// Of the keyspaces there are, the one whose rows are the map.
const META: u32 = 0;
/// The id of a node that is none.
const STRANGER: u64 = 77_777;

/// A term no group here reaches.
const FAR_TERM: u64 = 1_000_000;

/// What is public about a node.
#[derive(Clone, Debug)]
pub struct Known {
    pub cluster: Bytes,
    pub node: u64,
    pub storage: Bytes,
    pub start_count: u64,
    /// By partition.
    pub replicas: Vec<u64>,
    /// What each had applied at least.
    pub applied: Vec<u64>,
}

/// Whoever speaks to the nodes and is believed.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// One word for it.
    pub who: &'static str,
    /// Its opening words, whoever they are for.
    words: Hello,
    /// By partition, as the nodes' own are; a stranger has none.
    replicas: Vec<u64>,
}

impl Speaker {
    /// A node nobody knows, always the same one.
    pub fn stranger(cluster: &Bytes) -> Speaker {
        let words = Hello {
            cluster_id: cluster.clone(),
            node_id: STRANGER,
            storage_id: vec![7; 16].into(),
            start_count: 1,
            protocol_min: 1,
            protocol_max: 1,
            to_node_id: 0,
            runs: vec![7],
            position: u64::MAX,
            ..Hello::default()
        };
        Speaker { who: "stranger", words, replicas: Vec::new() }
    }

    /// A node of the cluster, by what it said of itself.
    pub fn member(words: Hello, replicas: Vec<u64>) -> Speaker {
        Speaker { who: "member", words, replicas }
    }

    /// Its opening words to a node.
    pub fn hello(&self, to: &Known) -> Hello {
        Hello { to_node_id: to.node, ..self.words.clone() }
    }

    pub fn is_of_cluster(&self) -> bool {
        !self.replicas.is_empty()
    }
}

/// Who speaks to whom within a group.
#[derive(Clone, Copy, Debug)]
struct Pair {
    by: Option<u64>,
    to: Option<u64>,
}

impl Pair {
    /// The replicas of one partition, if there are any.
    fn any(dice: &mut Dice, by: &Speaker, to: &Known) -> Pair {
        let place = dice.below(to.replicas.len() as u64) as usize;
        Pair { by: by.replicas.get(place).copied(), to: to.replicas.get(place).copied() }
    }
}

/// Mostly that replica, or any number.
fn mostly(dice: &mut Dice, replica: Option<u64>) -> u64 {
    match replica {
        Some(replica) if dice.below(4) > 0 => replica,
        Some(_) | None => number(dice),
    }
}

/// Opening words in the name of `claimed`, whom `to` has met. Some field is wrong; the run ids always are, which nobody
/// else knows.
pub fn wrong_hello(dice: &mut Dice, claimed: &Known, to: &Known) -> Hello {
    let right = Hello {
        cluster_id: claimed.cluster.clone(),
        node_id: claimed.node,
        storage_id: claimed.storage.clone(),
        start_count: claimed.start_count,
        protocol_min: 1,
        protocol_max: 1,
        to_node_id: to.node,
        runs: (0..claimed.start_count.min(100)).map(|_| dice.roll()).collect(),
        position: number(dice),
        peer_address: text(dice),
        others: some(dice, |dice| PeerAddress {
            node_id: number(dice),
            start_count: number(dice),
            address: text(dice),
        }),
    };
    match dice.below(10) {
        0 => Hello { cluster_id: dice.roll().to_be_bytes().repeat(2).into(), ..right },
        1 => Hello { cluster_id: dice.bytes(15).into(), ..right },
        2 => Hello { storage_id: dice.roll().to_be_bytes().repeat(2).into(), ..right },
        3 => Hello { storage_id: dice.bytes(15).into(), ..right },
        4 => Hello { protocol_min: 2, protocol_max: u32::MAX, ..right },
        5 => Hello { protocol_min: 0, protocol_max: 0, ..right },
        6 => Hello { to_node_id: to.node + 1 + dice.below(1000), ..right },
        7 => Hello { node_id: to.node, ..right },
        8 => Hello { runs: Vec::new(), ..right },
        _ => Hello { start_count: number(dice), ..right },
    }
}

/// A frame without opening words. The messages' ids are their numbers.
pub fn frame(dice: &mut Dice, by: &Speaker, to: &Known) -> Frame {
    let mut messages = some(dice, |dice| message(dice, by, to));
    messages.extend(some(dice, |dice| message(dice, by, to)));
    for (id, message) in (1..).zip(&mut messages) {
        message.id = id;
    }
    Frame { hello: None, messages, position: number(dice).min(by.words.position) }
}

/// Mostly of the replica whose vote it has: others are not heard.
fn message(dice: &mut Dice, by: &Speaker, to: &Known) -> Message {
    let pair = Pair::any(dice, by, to);
    let body = body(dice, pair);
    let vote = match &body {
        Some(Body::Append(append)) => append.vote,
        Some(Body::Vote(ask) | Body::PreVote(ask)) => ask.vote,
        Some(Body::Transfer(transfer)) => transfer.from_leader,
        Some(_) | None => None,
    };
    let from_replica = vote.filter(|_| dice.below(4) > 0).map_or_else(|| mostly(dice, pair.by), |vote| vote.replica);
    Message { id: 0, from_replica, to_replica: mostly(dice, pair.to), body }
}

fn body(dice: &mut Dice, pair: Pair) -> Option<Body> {
    maybe(dice, |dice| match dice.below(8) {
        0 => Body::Append(AppendRequest {
            vote: vote(dice, pair.by),
            previous: log_id(dice),
            leader_committed: log_id(dice),
            entries: some(dice, |dice| Entry { id: log_id(dice), payload: payload(dice) }),
        }),
        1 => Body::AppendReply(AppendReply { outcome: append_outcome(dice) }),
        2 => Body::Vote(vote_request(dice, pair.by)),
        3 => Body::PreVote(vote_request(dice, pair.by)),
        4 => Body::VoteReply(VoteReply { vote: vote(dice, pair.by), last_log: log_id(dice), granted: flag(dice) }),
        5 => Body::Transfer(TransferRequest {
            from_leader: vote(dice, pair.by),
            to_replica: mostly(dice, pair.to),
            last_log: log_id(dice),
        }),
        6 => Body::TransferReply(TransferReply { accepted: flag(dice), why: text(dice) }),
        _ => Body::Failure(Failure { reason: text(dice) }),
    })
}

fn vote_request(dice: &mut Dice, by: Option<u64>) -> VoteRequest {
    VoteRequest { vote: vote(dice, by), last_log: log_id(dice), leader_transfer: flag(dice) }
}

/// Out of date whatever else it says.
fn vote(dice: &mut Dice, by: Option<u64>) -> Option<Vote> {
    maybe(dice, |dice| Vote { term: 0, replica: mostly(dice, by), committed: flag(dice) })
}

fn log_id(dice: &mut Dice) -> Option<LogId> {
    maybe(dice, |dice| LogId { term: number(dice), index: number(dice) })
}

fn append_outcome(dice: &mut Dice) -> Option<Outcome> {
    maybe(dice, |dice| match dice.below(5) {
        0 => Outcome::Success(flag(dice)),
        1 => Outcome::Conflict(flag(dice)),
        2 => Outcome::HigherVote(Vote { term: number(dice), replica: number(dice), committed: flag(dice) }),
        3 => Outcome::PartialSuccess(LogId { term: number(dice), index: number(dice) }),
        _ => Outcome::NothingTaken(flag(dice)),
    })
}

/// What a log entry holds: a kind, and mostly nonsense.
fn payload(dice: &mut Dice) -> Bytes {
    let mut out = vec![dice.below(5) as u8];
    match dice.below(3) {
        0 => {}
        1 => out.extend(membership(dice)),
        _ => out.extend(dice.bytes(40)),
    }
    out.into()
}

/// Voters in some configurations, and the nodes they live on, or others.
fn membership(dice: &mut Dice) -> Vec<u8> {
    let configs = some(dice, |dice| some(dice, number));
    let mut homes = some(dice, |dice| [number(dice), number(dice)]);
    if flag(dice) {
        homes.extend(configs.iter().flatten().map(|voter| [*voter, number(dice)]));
    }
    encoded_membership(&configs, &homes)
}

fn encoded_membership(configs: &[Vec<u64>], homes: &[[u64; 2]]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, configs.len() as u64);
    for config in configs {
        put_number(&mut out, config.len() as u64);
        config.iter().for_each(|voter| put_number(&mut out, *voter));
    }
    put_number(&mut out, homes.len() as u64);
    homes.iter().flatten().for_each(|number| put_number(&mut out, *number));
    out
}

/// A snapshot that is not to be installed, behind these opening words.
pub fn snapshot(dice: &mut Dice, hello: Option<Hello>, by: &Speaker, to: &Known) -> Vec<SnapshotChunk> {
    let pair = Pair::any(dice, by, to);
    let head = maybe(dice, |dice| SnapshotHead {
        to_replica: mostly(dice, pair.to),
        vote: vote(dice, pair.by),
        last_applied: last_applied(dice),
        membership_at: log_id(dice),
        membership: if dice.below(4) > 0 { membership(dice).into() } else { dice.bytes(30).into() },
    });
    let mut chunks = vec![SnapshotChunk { hello, head, ..SnapshotChunk::default() }];
    let mut total = 0;
    for _ in 0..dice.below(4) {
        let (rows, count) = rows(dice);
        let crc32 = if dice.below(8) == 0 { dice.roll() as u32 } else { crc32(&rows) };
        total += count;
        chunks.push(SnapshotChunk { rows: rows.into(), crc32, ..SnapshotChunk::default() });
    }
    if dice.below(4) > 0 {
        let rows_total = Some(if dice.below(4) > 0 { total } else { number(dice) });
        chunks.push(SnapshotChunk { rows_total, ..SnapshotChunk::default() });
    }
    chunks
}

/// Half of them are not of a later term than the vote.
fn last_applied(dice: &mut Dice) -> Option<LogId> {
    let at = log_id(dice)?;
    Some(if flag(dice) { LogId { term: 0, ..at } } else { at })
}

/// Whole snapshots that no leader sends: of a later term than the vote they come with, or of a later term than what is
/// applied and yet not longer. But for the first of each replica their votes would be taken.
pub fn impossible_snapshots(by: &Speaker, to: &Known) -> Vec<Vec<SnapshotChunk>> {
    let mut snapshots = Vec::new();
    for ((sender, receiver), applied) in by.replicas.iter().zip(&to.replicas).zip(&to.applied) {
        let homes = [[*sender, by.words.node_id], [*receiver, to.node]];
        let membership: Bytes = encoded_membership(&[vec![*sender, *receiver]], &homes).into();
        let at = |term, index| LogId { term, index };
        for (term, last_applied) in [
            (1, at(2, applied + 1)),
            (FAR_TERM, at(FAR_TERM + 1, applied + 1)),
            (FAR_TERM, at(u64::MAX, u64::MAX)),
            (FAR_TERM, at(FAR_TERM, 0)),
            (FAR_TERM, at(FAR_TERM, applied.saturating_sub(1))),
            (FAR_TERM, at(FAR_TERM, *applied)),
        ] {
            let head = SnapshotHead {
                to_replica: *receiver,
                vote: Some(Vote { term, replica: *sender, committed: true }),
                last_applied: Some(last_applied),
                membership_at: Some(at(1, 1)),
                membership: membership.clone(),
            };
            let first = SnapshotChunk { hello: Some(by.hello(to)), head: Some(head), ..SnapshotChunk::default() };
            snapshots.push(vec![first, SnapshotChunk { rows_total: Some(0), ..SnapshotChunk::default() }]);
        }
    }
    snapshots
}

/// Rows of a snapshot and how many they are, or nonsense. A row is a family, a key behind a store number, and a value.
fn rows(dice: &mut Dice) -> (Vec<u8>, u64) {
    if dice.below(4) == 0 {
        return (dice.bytes(100), 0);
    }
    let rows = some(dice, |dice| {
        let family = if dice.below(16) > 0 { dice.below(4) } else { dice.roll() };
        let store = if dice.below(16) > 0 { vec![0; 4] } else { Vec::new() };
        let mut row = vec![family as u8];
        put_bytes(&mut row, &[store, dice.bytes(20)].concat());
        put_bytes(&mut row, &dice.bytes(40));
        row
    });
    (rows.concat(), rows.len() as u64)
}

/// The checksum of chunks (CRC-32 as in zlib).
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

/// A command handed on. What is for the map only reads.
pub fn propose(dice: &mut Dice, by: &Speaker) -> ProposeRequest {
    let keyspace_id = keyspace(dice);
    let command = if keyspace_id == META { read_command(dice) } else { command(dice) };
    ProposeRequest {
        caller: caller(dice, by),
        keyspace_id,
        partition: partition(dice),
        command: command.into(),
        deadline_ms: number(dice),
        session: if flag(dice) { 0 } else { number(dice) },
        sequence: number(dice),
        acknowledged: number(dice),
    }
}

pub fn read_index(dice: &mut Dice, by: &Speaker) -> ReadIndexRequest {
    ReadIndexRequest {
        caller: caller(dice, by),
        keyspace_id: keyspace(dice),
        partition: partition(dice),
        deadline_ms: number(dice),
    }
}

pub fn digest(dice: &mut Dice, by: &Speaker) -> DigestRequest {
    DigestRequest {
        caller: caller(dice, by),
        keyspace_id: keyspace(dice),
        partition: partition(dice),
        revision: number(dice),
    }
}

pub fn introduction(dice: &mut Dice) -> Introduction {
    let name = if flag(dice) { text(dice) } else { format!("n{}", dice.below(4)) };
    Introduction { name, storage_id: junk(dice), initial_cluster: text(dice) }
}

/// Mostly the speaker itself, going by any epoch.
fn caller(dice: &mut Dice, by: &Speaker) -> Option<Caller> {
    let run = by.words.runs.last().copied().unwrap_or(0);
    maybe(dice, |dice| Caller {
        cluster_id: if dice.below(8) > 0 { by.words.cluster_id.clone() } else { junk(dice) },
        node_id: if dice.below(8) > 0 { by.words.node_id } else { number(dice) },
        run: if dice.below(8) > 0 { run } else { number(dice) },
        epoch: if flag(dice) { small_number(dice).into() } else { number(dice) },
    })
}

/// Mostly the default one.
fn keyspace(dice: &mut Dice) -> u32 {
    match dice.below(4) {
        0 => small_number(dice),
        1 => META,
        _ => 1,
    }
}

fn partition(dice: &mut Dice) -> u32 {
    if dice.below(4) > 0 { 0 } else { small_number(dice) }
}
