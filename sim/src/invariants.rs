//! What must hold after every step, read from the disks as the nodes' processes see them.
//!
//! * The mark is never above what would be found after a loss of power.
//! * A term has one leader.
//! * What one replica has applied at an index, or knows to be committed, every other one has there too that has applied it
//!   or knows so: for ever.
//! * Within a life of a node no log loses, or has replaced, such an entry.
//! * Within a life of a node no replica's applied index goes back, and it never passes the end of its log.
//! * Within a life of a node no replica's vote goes back to an earlier term.
//! * Within a life of a node it takes no other directory for a peer's, and no earlier start of it for its newest.
//! * Replicas at the same applied index are in the same state: revision, content sum, log time, and the rest of what
//!   the head says.
//! * A replica holds what its head says: the content sum, counted anew from the rows now and then ([`recount`]).
//!
//! A disk is looked at when something was written since the last look.
//!
//! Left out: what no disk shows, which is for the histories' checkers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trefoil_causality::ReplicaId;
use trefoil_placement::{NodeId, PartitionId};
use trefoil_server::cluster::identity::{StorageId, decode_met};
use trefoil_server::raft::types::{decode_applied, decode_entry, decode_log_id, decode_vote, term_of};
use trefoil_server::replica_record::ReplicaRecord;
use trefoil_server::writer::stored_position;
use trefoil_store::engine::memory::MemoryEngine;
use trefoil_store::engine::{Family, Order, Read, Span, Visit};
use trefoil_store::key::{self, StoreNumber};
use trefoil_store::mvcc::{Content, Head, content_part_at};

use crate::disk::Disk;
use crate::probes::{Probes, Rare};

/// What was seen of the cluster so far.
#[derive(Default)]
pub struct Invariants {
    /// Per partition and term.
    leaders: BTreeMap<(PartitionId, u64), ReplicaId>,
    /// Per partition and index: the row of what was applied or known to be committed there.
    settled: BTreeMap<(PartitionId, u64), Bytes>,
    /// Per partition and index: the head of a replica that had applied up to there.
    heads: BTreeMap<(PartitionId, u64), Head>,
    nodes: BTreeMap<usize, Life>,
    /// Per partition and term: whom votes went to.
    candidates: BTreeMap<(PartitionId, u64), BTreeSet<ReplicaId>>,
    probes: Probes,
}

/// What was seen of one life of a node.
#[derive(Default)]
struct Life {
    starts: u64,
    /// The writer's position, and how many batches were not synced: with each write one of them rises.
    written: (u64, usize),
    applied: BTreeMap<ReplicaId, (StoreNumber, u64)>,
    /// Up to where replicas know their logs to be committed.
    committed: BTreeMap<ReplicaId, u64>,
    terms: BTreeMap<ReplicaId, u64>,
    /// Per replica: the last entry of its log.
    last: BTreeMap<ReplicaId, (u64, Bytes)>,
    /// Per peer: its directory, and the start of it that was met last.
    met: BTreeMap<NodeId, (StorageId, u64)>,
}

/// What a look at a replica shows.
struct Seen {
    replica: ReplicaId,
    partition: PartitionId,
    store: StoreNumber,
    term: u64,
    /// Who leads that term, if this replica knows.
    leader: Option<ReplicaId>,
    /// Whom its vote went to.
    voted_for: Option<ReplicaId>,
    applied: Option<u64>,
    /// Up to where its log is known to be committed, if the entry there is.
    committed: Option<u64>,
    purged: Option<u64>,
    /// The last entry of its log.
    last: Option<(u64, Bytes)>,
}

impl Invariants {
    /// Looks at a node's disk in its `starts`-th life. Gives a line for the trace when something has changed.
    ///
    /// # Errors
    /// What does not hold.
    pub fn look(&mut self, node: usize, starts: u64, disk: &Disk) -> Result<Option<String>, String> {
        let position = stored_position(disk.engine()).map_err(|error| error.to_string())?;
        let written = (position, disk.engine().unsynced_batches());
        let life = self.nodes.entry(node).or_default();
        if life.starts != starts {
            *life = Life { starts, ..Life::default() };
        }
        let before = std::mem::replace(&mut life.written, written);
        if before.0 == written.0 && before.1 >= written.1 {
            return Ok(None);
        }
        check_mark(disk)?;
        life.check_met(disk.engine()).map_err(|why| format!("n{}: {why}", node + 1))?;
        let mut line = format!("n{} wrote {position}:", node + 1);
        for seen in replicas(disk.engine())? {
            let Seen { replica, partition, term, applied, .. } = &seen;
            line.push_str(&format!(" {replica} of {partition} at term {term}, applied {applied:?};"));
            let looked = self.probe(node, disk.engine(), &seen);
            let looked = looked.and_then(|()| self.check(node, disk.engine(), seen));
            looked.map_err(|why| format!("n{}: {why}", node + 1))?;
        }
        Ok(Some(line))
    }

    /// The rare states that disks have shown.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Whether a replica of this node leads a partition, as far as any disk has shown in its present life.
    pub fn leads(&self, node: usize) -> bool {
        let newest: BTreeMap<PartitionId, ReplicaId> =
            self.leaders.iter().map(|((partition, _), leader)| (*partition, *leader)).collect();
        let life = self.nodes.get(&node);
        life.is_some_and(|life| newest.values().any(|leader| life.terms.contains_key(leader)))
    }

    /// Counts the rare states that a look at a replica shows. Comes before what is known of it is replaced.
    ///
    /// # Errors
    /// Its log has lost what it must keep.
    fn probe(&mut self, node: usize, engine: &MemoryEngine, seen: &Seen) -> Result<(), String> {
        let (partition, term) = (seen.partition, seen.term);
        if seen.leader.is_some() && !self.leaders.contains_key(&(partition, term)) {
            let led_before = self.leaders.range((partition, 0)..(partition, term)).next().is_some();
            self.probes.count(Rare::LeaderChange, u64::from(led_before));
        }
        if let Some(candidate) = seen.voted_for {
            let candidates = self.candidates.entry((partition, term)).or_default();
            let rival = candidates.insert(candidate) && candidates.len() == 2;
            self.probes.count(Rare::RivalCandidates, u64::from(rival));
        }
        let life = self.nodes.entry(node).or_default();
        let switched = life.applied.get(&seen.replica).is_some_and(|(store, _)| *store != seen.store);
        self.probes.count(Rare::SnapshotReceived, u64::from(switched));
        if switched {
            let head = Head::load(engine, seen.store).map_err(|error| error.to_string())?;
            self.probes.count(Rare::SnapshotCompacted, u64::from(head.floor.is_some()));
        }
        let applied = life.applied.get(&seen.replica).map(|(_, applied)| *applied);
        let own = applied.max(life.committed.get(&seen.replica).copied());
        let before = match &seen.last {
            Some(last) => life.last.insert(seen.replica, last.clone()),
            None => life.last.remove(&seen.replica),
        };
        if let Some((index, entry)) = before.filter(|(index, _)| Some(*index) > seen.purged) {
            let now = get(engine, Family::Log, &key::log::entry(seen.replica, index))?;
            if now.as_ref() != Some(&entry) {
                self.probes.count(Rare::LogTruncated, 1);
                self.check_truncated(engine, seen, (index, &entry), own)?;
            }
        }
        Ok(())
    }

    /// A log has lost its last entry, or has another one there: none that is settled may be among what is gone. A log is
    /// cut from its end, so what this replica itself knows to be settled stays if the newest of that does. `own`: up to
    /// where.
    fn check_truncated(
        &self,
        engine: &MemoryEngine,
        seen: &Seen,
        (last, entry): (u64, &Bytes),
        own: Option<u64>,
    ) -> Result<(), String> {
        let settled = |index: u64| self.settled.get(&(seen.partition, index));
        let lost = |index: u64| Err(format!("the log of {} has lost entry {index}, which was settled", seen.replica));
        if settled(last) == Some(entry) {
            return lost(last);
        }
        let Some(own) = own.filter(|own| Some(*own) > seen.purged) else { return Ok(()) };
        let now = get(engine, Family::Log, &key::log::entry(seen.replica, own))?;
        if settled(own).is_none_or(|row| now.as_ref() == Some(row)) { Ok(()) } else { lost(own) }
    }

    fn check(&mut self, node: usize, engine: &MemoryEngine, seen: Seen) -> Result<(), String> {
        if let Some(leader) = seen.leader {
            let known = *self.leaders.entry((seen.partition, seen.term)).or_insert(leader);
            if known != leader {
                return Err(format!("{} has two leaders in term {}: {known} and {leader}", seen.partition, seen.term));
            }
        }
        let life = self.nodes.entry(node).or_default();
        let before = life.terms.insert(seen.replica, seen.term).unwrap_or(0);
        if before > seen.term {
            return Err(format!("the vote of {} went back from term {before} to {}", seen.replica, seen.term));
        }
        if let Some(committed) = seen.committed {
            let before = life.committed.get(&seen.replica).copied();
            life.committed.insert(seen.replica, committed.max(before.unwrap_or(0)));
            // After a start there is no need to go through all that is committed.
            let first = before.map_or(committed, |before| before + 1);
            self.check_entries(engine, &seen, first, committed, false)?;
        }
        let life = self.nodes.entry(node).or_default();
        let Some(applied) = seen.applied else { return Ok(()) };
        let before = life.applied.insert(seen.replica, (seen.store, applied));
        match before {
            Some((_, before)) if before > applied => {
                return Err(format!("{} went back from index {before} to {applied}", seen.replica));
            }
            // In the same store everything since the last look was applied from the log.
            Some((store, before)) if store == seen.store => {
                self.check_entries(engine, &seen, before + 1, applied, true)?;
            }
            // After a start, or with a snapshot, it is there at once; the log may begin behind it.
            Some(_) | None => self.check_entries(engine, &seen, applied, applied, false)?,
        }
        self.check_head(engine, &seen, applied)
    }

    /// Compares the entries `first..=last`, which are settled here, with what is settled there elsewhere. `complete`: this
    /// replica has applied them from its log.
    fn check_entries(
        &mut self,
        engine: &MemoryEngine,
        seen: &Seen,
        first: u64,
        last: u64,
        complete: bool,
    ) -> Result<(), String> {
        for index in first..=last {
            let Some(row) = get(engine, Family::Log, &key::log::entry(seen.replica, index))? else {
                if complete && Some(index) > seen.purged {
                    return Err(format!("{} has applied {index}, which is not in its log", seen.replica));
                }
                continue;
            };
            let known = self.settled.entry((seen.partition, index)).or_insert_with(|| row.clone());
            if *known != row {
                return Err(format!("{} has settled on another entry at {index} than others", seen.replica));
            }
        }
        Ok(())
    }

    fn check_head(&mut self, engine: &MemoryEngine, seen: &Seen, applied: u64) -> Result<(), String> {
        let head = Head::load(engine, seen.store).map_err(|error| error.to_string())?;
        let known = self.heads.entry((seen.partition, applied)).or_insert(head);
        match *known == head {
            true => Ok(()),
            false => Err(format!("{} is at {applied} in state {head:?}, others in {known:?}", seen.replica)),
        }
    }
}

impl Life {
    fn check_met(&mut self, engine: &MemoryEngine) -> Result<(), String> {
        for (peer, row) in rows(engine, &key::node::peers())? {
            let peer = key::node::decode_peer(&peer).ok_or("a peer's key is malformed")?;
            let met = decode_met(row).map_err(|malformed| malformed.to_string())?;
            match self.met.insert(peer, met) {
                Some((storage, _)) if storage != met.0 => {
                    return Err(format!("{peer} was known by storage id {storage}, and is now by {}", met.0));
                }
                Some((_, start)) if start > met.1 => {
                    return Err(format!("start {start} of {peer} was met before, and now start {}", met.1));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Counts anew what each replica of a node holds.
///
/// # Errors
/// It is not what the replica's head says.
pub fn recount(disk: &Disk) -> Result<(), String> {
    let engine = disk.engine();
    for Seen { replica, store, .. } in replicas(engine)? {
        let head = Head::load(engine, store).map_err(|error| error.to_string())?;
        let counted = content_part_at(engine, store, &head, head.revision, &Bytes::new(), usize::MAX);
        let counted = counted.map_err(|error| error.to_string())?.map_err(|refusal| refusal.to_string())?.0;
        if counted != (Content { keys: head.keys, sum: head.sum }) {
            return Err(format!("{replica} holds {counted:?}, and its head says {head:?}"));
        }
    }
    Ok(())
}

fn check_mark(disk: &Disk) -> Result<(), String> {
    let (mark, durable) = (disk.mark_position()?, disk.durable_position()?);
    match mark <= durable {
        true => Ok(()),
        false => Err(format!("the mark says that {mark} is synced, but only {durable} is")),
    }
}

/// The replicas of a node.
fn replicas(engine: &MemoryEngine) -> Result<Vec<Seen>, String> {
    let records = rows(engine, &key::node::replicas())?.into_iter().map(|(replica, record)| {
        let record = ReplicaRecord::decode(record).map_err(|malformed| malformed.to_string())?;
        let replica = key::node::decode_replica(&replica).ok_or("a replica's key is malformed")?;
        see(engine, replica, record)
    });
    records.collect()
}

/// A node's own rows of one kind.
fn rows(engine: &MemoryEngine, span: &Span) -> Result<Vec<(Vec<u8>, Bytes)>, String> {
    let mut rows = Vec::new();
    let scanned = engine.scan(Family::Node, span, Order::Ascending, &mut |row, value| {
        rows.push((row.to_vec(), Bytes::copy_from_slice(value)));
        Visit::Next
    });
    scanned.map(|()| rows).map_err(|error| error.to_string())
}

fn see(engine: &MemoryEngine, replica: ReplicaId, record: ReplicaRecord) -> Result<Seen, String> {
    let vote = get(engine, Family::Log, &key::log::vote(replica))?.map(decode_vote).transpose();
    let vote = vote.map_err(|malformed| malformed.to_string())?;
    let purged = get(engine, Family::Log, &key::log::purged(replica))?.map(decode_log_id).transpose();
    let purged = purged.map_err(|malformed| malformed.to_string())?;
    let applied = get(engine, Family::State, &key::state::applied(record.store))?.map(decode_applied).transpose();
    let applied = applied.map_err(|malformed| malformed.to_string())?.and_then(|(applied, _)| applied);
    let term = vote.as_ref().map_or(0, |vote| vote.leader_id().term);
    if let Some(applied) = applied.as_ref().filter(|applied| term_of(applied) > term) {
        return Err(format!("{replica} has applied an entry of term {}, but has seen only {term}", term_of(applied)));
    }
    Ok(Seen {
        replica,
        partition: record.partition,
        store: record.store,
        term,
        voted_for: vote.as_ref().map(|vote| vote.leader_id().voted_for),
        leader: vote.filter(|vote| vote.is_committed()).map(|vote| vote.leader_id().voted_for),
        applied: applied.map(|applied| applied.index()),
        committed: committed(engine, replica)?,
        purged: purged.map(|purged| purged.index()),
        last: last_entry(engine, replica)?,
    })
}

/// Up to where the log is known to be committed. `None` also when the entry there is not the one that is meant: the log may
/// have yet to be mended, or begin behind it.
fn committed(engine: &MemoryEngine, replica: ReplicaId) -> Result<Option<u64>, String> {
    let committed = get(engine, Family::Log, &key::log::committed(replica))?.map(decode_log_id).transpose();
    let Some(committed) = committed.map_err(|malformed| malformed.to_string())? else { return Ok(None) };
    let Some(row) = get(engine, Family::Log, &key::log::entry(replica, committed.index()))? else { return Ok(None) };
    let entry = decode_entry(committed.index(), row).map_err(|malformed| malformed.to_string())?;
    Ok((term_of(&entry.log_id) == term_of(&committed)).then_some(committed.index()))
}

fn last_entry(engine: &MemoryEngine, replica: ReplicaId) -> Result<Option<(u64, Bytes)>, String> {
    let mut last = None;
    let scanned = engine.scan(Family::Log, &key::log::all_entries(replica), Order::Descending, &mut |row, entry| {
        last = key::log::decode_entry(row).map(|index| (index, Bytes::copy_from_slice(entry)));
        Visit::Stop
    });
    scanned.map(|()| last).map_err(|error| error.to_string())
}

fn get(engine: &MemoryEngine, family: Family, key: &[u8]) -> Result<Option<Bytes>, String> {
    engine.get(family, key).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
