//! The model: a list of maps, one per revision, and a list of all changes. It shares no code with what it checks but the
//! command types.

use std::collections::BTreeMap;

use bytes::Bytes;
use trefoil_causality::Revision;

use super::Changes;
use crate::command::{
    Compare, DeleteOp, KeyRange, Op, Pair, PutOp, RangeEnd, RangeOp, RangeReply, Refusal, Relation, Reply, Target,
};
use crate::key::ChangeId;

type State = BTreeMap<Bytes, Pair>;

/// All states there ever were.
pub(super) struct Model {
    /// The state at each revision.
    pub(super) states: Vec<State>,
    /// The content sum at each revision, as the code under test had it then.
    pub(super) sums: Vec<u64>,
    changes: Changes,
    floor: Option<u64>,
}

impl Model {
    pub(super) fn new() -> Model {
        Model { states: vec![State::new(); 2], sums: vec![0; 2], changes: Changes::new(), floor: None }
    }

    pub(super) fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn newest(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    pub(super) fn readable(&self, asked: u64) -> Result<&State, Refusal> {
        if asked > self.revision() {
            return Err(Refusal::FutureRevision { asked, newest: self.revision() });
        }
        match self.floor {
            Some(floor) if asked < floor => Err(Refusal::Compacted { asked, floor }),
            Some(_) | None => Ok(&self.states[asked as usize]),
        }
    }

    pub(super) fn compact(&mut self, asked: u64) -> Result<(), Refusal> {
        match self.floor {
            Some(floor) if asked <= floor => return Err(Refusal::Compacted { asked, floor }),
            Some(_) | None => {}
        }
        self.readable(asked)?;
        self.floor = Some(asked);
        Ok(())
    }

    pub(super) fn run(&mut self, op: &Op) -> Result<Reply, Refusal> {
        let mut trial = Trial {
            model: &*self,
            state: self.newest().clone(),
            changes: Vec::new(),
            put_refusal: lone_put_refusal(op),
            range_refusal: None,
        };
        let reply = trial.step(op);
        let Trial { model: _, state, changes, put_refusal, range_refusal } = trial;
        if let Some(refusal) = put_refusal.or(range_refusal) {
            return Err(refusal);
        }
        if !changes.is_empty() {
            let revision = Revision(self.states.len() as u64);
            let numbered = (0..).zip(changes);
            self.changes.extend(numbered.map(|(sub, (key, alive))| (ChangeId { revision, sub }, key, alive)));
            self.states.push(state);
        }
        Ok(reply)
    }

    /// What a scrub at `floor` leaves.
    pub(super) fn retained(&self, floor: Revision) -> Changes {
        let stays = |place: usize, (id, key, alive): &(ChangeId, Bytes, bool)| {
            let later = &self.changes[place + 1..];
            let superseded = later.iter().any(|(other, of, _)| of == key && other.revision <= floor);
            id.revision > floor || (!superseded && (*alive || id.revision == floor))
        };
        let changes = self.changes.iter().enumerate();
        changes.filter(|(place, change)| stays(*place, change)).map(|(_, change)| change.clone()).collect()
    }
}

/// A put on its own looks for its lease before its key (recorded from etcd); within a transaction, after it.
fn lone_put_refusal(op: &Op) -> Option<Refusal> {
    match op {
        Op::Put(PutOp { lease: Some(lease @ 1..), .. }) => Some(Refusal::LeaseNotFound { lease: *lease }),
        Op::Put(_) | Op::Range(_) | Op::Delete(_) | Op::Txn(_) => None,
    }
}

/// One operation on a copy of the newest state.
struct Trial<'m> {
    model: &'m Model,
    state: State,
    changes: Vec<(Bytes, bool)>,
    put_refusal: Option<Refusal>,
    range_refusal: Option<Refusal>,
}

impl Trial<'_> {
    fn step(&mut self, op: &Op) -> Reply {
        match op {
            Op::Range(op) => Reply::Range(self.range(op)),
            Op::Put(op) => self.put(op),
            Op::Delete(op) => self.delete(op),
            Op::Txn(txn) => {
                let succeeded = txn.compares.iter().all(|compare| holds(self.model.newest(), compare));
                let ops = if succeeded { &txn.success } else { &txn.failure };
                Reply::Txn { succeeded, replies: ops.iter().map(|op| self.step(op)).collect() }
            }
        }
    }

    fn range(&mut self, op: &RangeOp) -> RangeReply {
        let model = self.model;
        match op.revision.map(|revision| model.readable(revision.0)) {
            None => answer(&self.state, op),
            Some(Ok(state)) => answer(state, op),
            Some(Err(refusal)) => {
                self.range_refusal.get_or_insert(refusal);
                RangeReply::default()
            }
        }
    }

    fn put(&mut self, op: &PutOp) -> Reply {
        let old = self.state.get(&op.key).cloned();
        let there = old.is_some() && self.model.newest().contains_key(&op.key);
        if (op.value.is_none() || op.lease.is_none()) && !there {
            self.put_refusal.get_or_insert(Refusal::KeyNotFound);
        } else if let Some(lease @ 1..) = op.lease {
            self.put_refusal.get_or_insert(Refusal::LeaseNotFound { lease });
        }
        let revision = Revision(self.model.revision() + 1);
        let mut new = old.clone().unwrap_or(Pair {
            key: op.key.clone(),
            value: Bytes::new(),
            create_revision: revision,
            mod_revision: revision,
            version: 0,
            lease: 0,
        });
        new.version += 1;
        new.mod_revision = revision;
        if let Some(value) = &op.value {
            new.value = value.clone();
        }
        self.state.insert(op.key.clone(), new);
        self.changes.push((op.key.clone(), true));
        Reply::Put { previous: old.filter(|_| op.previous) }
    }

    fn delete(&mut self, op: &DeleteOp) -> Reply {
        let gone = inside(&self.state, &op.range);
        for pair in &gone {
            self.state.remove(&pair.key);
            self.changes.push((pair.key.clone(), false));
        }
        let deleted = gone.len() as u64;
        Reply::Delete { deleted, previous: if op.previous { gone } else { Vec::new() } }
    }
}

fn inside(state: &State, range: &KeyRange) -> Vec<Pair> {
    let holds = |key: &Bytes| match &range.end {
        RangeEnd::Single => *key == range.key,
        RangeEnd::Before(end) => *key >= range.key && key < end,
        RangeEnd::Last => *key >= range.key,
    };
    state.values().filter(|pair| holds(&pair.key)).cloned().collect()
}

pub(super) fn answer(state: &State, op: &RangeOp) -> RangeReply {
    let mut pairs = inside(state, &op.range);
    let count = pairs.len() as u64;
    if op.descending {
        pairs.reverse();
    }
    if op.keys_only {
        pairs.iter_mut().for_each(|pair| pair.value.clear());
    }
    let most = op.limit.unwrap_or(u64::MAX);
    pairs.truncate(if op.count_only { 0 } else { usize::try_from(most).unwrap_or(usize::MAX) });
    let counted = op.count || op.count_only;
    RangeReply { pairs, more: !op.count_only && count > most, count: counted.then_some(count) }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let found = inside(state, &compare.range);
    match found.is_empty() {
        true => holds_for(compare, None),
        false => found.iter().all(|pair| holds_for(compare, Some(pair))),
    }
}

fn holds_for(compare: &Compare, pair: Option<&Pair>) -> bool {
    let is = match (&compare.target, pair) {
        (Target::Value(with), Some(pair)) => pair.value.cmp(with),
        (Target::Value(_), None) => return false,
        (Target::Version(with), Some(pair)) => pair.version.cmp(with),
        (Target::CreateRevision(with), Some(pair)) => pair.create_revision.0.cmp(with),
        (Target::ModRevision(with), Some(pair)) => pair.mod_revision.0.cmp(with),
        (Target::Lease(with), Some(pair)) => pair.lease.cmp(with),
        (
            Target::Version(with) | Target::CreateRevision(with) | Target::ModRevision(with) | Target::Lease(with),
            None,
        ) => 0u64.cmp(with),
    };
    match compare.relation {
        Relation::Equal => is.is_eq(),
        Relation::NotEqual => is.is_ne(),
        Relation::Greater => is.is_gt(),
        Relation::Less => is.is_lt(),
    }
}
