//! Carrying out operations: puts, deletes, and the transactions made of them.
//!
//! An operation goes through three steps, so that a refused one has written nothing:
//!
//! 1. **Resolve**: all compares, nested ones too, are evaluated on the state before the first write. That fixes which
//!    branches run.
//! 2. **Check** every operation of those branches.
//! 3. **Run** them in order. Reads see the writes before them; all changes get one revision, and subs 0, 1, 2, …
//!
//! A put that keeps the present value or lease needs its key before the transaction (etcd's rule), and also at its
//! turn: etcd's checks let one kind of transaction through that deletes such a key first, and then etcd cannot go on.
//! Here that is [`Refusal::KeyNotFound`] like any other.
//!
//! What one command may delete and answer is bounded ([`DELETED_KEYS_MAX`], [`ANSWER_BYTES_MAX`]), and for a command of
//! the log also how far its ranges and compares walk ([`super::WALK_KEYS_MAX`]), the same on every replica. A command that
//! could exceed a bound runs on an overlay of its own, so that a refusal on the way leaves nothing behind either.
//!
//! Left out: what needs no state ([`super::check`]), and leases: none exist yet, so each one named is not found.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use trefoil_causality::Revision;

use super::Head;
use super::content::pair_sum;
use super::cover::Cover;
use super::range::{current_rows, cut_by_bytes, pair_bytes, read_at};
use super::walk::Walk;
use crate::command::{
    Compare, DeleteOp, KeyRange, Op, Pair, PutOp, RangeEnd, RangeOp, Refusal, Relation, Reply, Target, Txn,
};
use crate::engine::{EngineError, Family, Order, Read, Visit};
use crate::key::{self, ChangeId, StoreNumber};
use crate::overlay::Overlay;
use crate::record::{ChangeRecord, Version, index_value};

/// Keys one command may delete.
pub const DELETED_KEYS_MAX: u64 = 100_000;
/// Bytes of the keys one command may delete.
pub const DELETED_KEY_BYTES_MAX: usize = 16 << 20;
/// Bytes of keys and values one command may answer with; the last pair may exceed them.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Carries out `op`, or says why nothing of it was. Walks as far as it has to: for transactions that only read, which go
/// past the log.
pub fn execute(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    op: &Op,
) -> Result<Result<Reply, Refusal>, EngineError> {
    execute_within(view, store, head, op, u64::MAX)
}

/// As [`execute`], but refused when the ranges and compares walk over more than `walk_max` keys: for commands of the log.
pub fn execute_within(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    op: &Op,
    walk_max: u64,
) -> Result<Result<Reply, Refusal>, EngineError> {
    match carry_out(view, store, head, op, walk_max) {
        Ok(reply) => Ok(Ok(reply)),
        Err(Halt::Refused(refusal)) => Ok(Err(refusal)),
        Err(Halt::Failed(error)) => Err(error),
    }
}

fn carry_out(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    op: &Op,
    walk_max: u64,
) -> Result<Reply, Halt> {
    let mut walk = Walk::within(walk_max, head.floor);
    let step = resolve(&*view, store, op, &mut walk)?;
    if let Some(refusal) = refusal(&*view, store, head, &step)? {
        return Err(Halt::Refused(refusal));
    }
    match step.may_exceed() {
        false => Run::new(view, store, head, walk).step(&step),
        true => attempt(view, store, head, walk, &step),
    }
}

/// Runs `step` so that nothing of it is left when it halts.
fn attempt(
    view: &mut Overlay<'_>,
    store: StoreNumber,
    head: &mut Head,
    walk: Walk,
    step: &Step<'_>,
) -> Result<Reply, Halt> {
    let mut attempted = *head;
    let mut own = Overlay::new(&*view);
    let reply = Run::new(&mut own, store, &mut attempted, walk).step(step)?;
    let writes = own.into_writes();
    view.absorb(writes);
    *head = attempted;
    Ok(reply)
}

/// Why a run ends early.
enum Halt {
    Refused(Refusal),
    Failed(EngineError),
}

impl<E: Into<EngineError>> From<E> for Halt {
    fn from(error: E) -> Halt {
        Halt::Failed(error.into())
    }
}

/// An operation whose branches are chosen.
enum Step<'o> {
    Single(Single<'o>),
    Txn { succeeded: bool, steps: Vec<Step<'o>> },
}

/// An operation that is not a transaction.
#[derive(Clone, Copy)]
enum Single<'o> {
    Range(&'o RangeOp),
    Put(&'o PutOp),
    Delete(&'o DeleteOp),
}

impl<'o> Step<'o> {
    /// Adds what is to be done, in order.
    fn flatten(&self, out: &mut Vec<Single<'o>>) {
        match self {
            Step::Single(single) => out.push(*single),
            Step::Txn { succeeded: _, steps } => steps.iter().for_each(|step| step.flatten(out)),
        }
    }

    /// Whether it can exceed what one command may delete, answer or walk over.
    fn may_exceed(&self) -> bool {
        match self {
            Step::Single(Single::Range(_)) => true,
            Step::Single(Single::Put(put)) => put.previous,
            Step::Single(Single::Delete(delete)) => delete.previous || delete.range.end != RangeEnd::Single,
            Step::Txn { succeeded: _, steps } => steps.iter().any(Step::may_exceed),
        }
    }
}

fn resolve<'o>(read: &dyn Read, store: StoreNumber, op: &'o Op, walk: &mut Walk) -> Result<Step<'o>, Halt> {
    Ok(match op {
        Op::Range(range) => Step::Single(Single::Range(range)),
        Op::Put(put) => Step::Single(Single::Put(put)),
        Op::Delete(delete) => Step::Single(Single::Delete(delete)),
        Op::Txn(txn) => {
            let succeeded = all_hold(read, store, txn, walk)?;
            let branch = if succeeded { &txn.success } else { &txn.failure };
            let steps = branch.iter().map(|op| resolve(read, store, op, walk)).collect::<Result<Vec<_>, _>>()?;
            Step::Txn { succeeded, steps }
        }
    })
}

fn all_hold(read: &dyn Read, store: StoreNumber, txn: &Txn, walk: &mut Walk) -> Result<bool, Halt> {
    for compare in &txn.compares {
        if !holds(read, store, compare, walk)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(read: &dyn Read, store: StoreNumber, compare: &Compare, walk: &mut Walk) -> Result<bool, Halt> {
    let (mut found, mut held) = (false, true);
    current_rows(read, store, &compare.range, Order::Ascending, |_, row| {
        if walk.key() == Visit::Stop {
            return Ok(Visit::Stop);
        }
        found = true;
        held = satisfies(compare, Some(&Version::decode(Bytes::copy_from_slice(row))?));
        Ok(if held { Visit::Next } else { Visit::Stop })
    })?;
    within(walk)?;
    Ok(if found { held } else { satisfies(compare, None) })
}

/// Halts a command that has walked too far.
fn within(walk: &Walk) -> Result<(), Halt> {
    walk.refusal().map_or(Ok(()), |refusal| Err(Halt::Refused(refusal)))
}

/// Whether a key with this version, or a missing one, satisfies `compare`.
fn satisfies(compare: &Compare, version: Option<&Version>) -> bool {
    let number = |of: fn(&Version) -> u64| version.map_or(0, of);
    let ordering = match &compare.target {
        Target::Version(with) => number(|version| version.version).cmp(with),
        Target::CreateRevision(with) => number(|version| version.create_revision.0).cmp(with),
        Target::ModRevision(with) => number(|version| version.modified.revision.0).cmp(with),
        Target::Lease(with) => number(|version| version.lease).cmp(with),
        Target::Value(with) => match version {
            Some(version) => version.value.cmp(with),
            None => return false,
        },
    };
    match compare.relation {
        Relation::Equal => ordering.is_eq(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
    }
}

/// The first reason not to begin, puts before reads as in etcd.
fn refusal(read: &dyn Read, store: StoreNumber, head: &Head, step: &Step<'_>) -> Result<Option<Refusal>, EngineError> {
    // A put on its own looks for its lease before its key; within a transaction it is the other way round.
    if let Step::Single(Single::Put(PutOp { lease: Some(lease @ 1..), .. })) = step {
        return Ok(Some(Refusal::LeaseNotFound { lease: *lease }));
    }
    let mut singles = Vec::new();
    step.flatten(&mut singles);
    if let Some(refusal) = put_refusal(read, store, &singles)? {
        return Ok(Some(refusal));
    }
    Ok(singles.iter().find_map(|single| match single {
        Single::Range(range) => head.readable(range.revision).err(),
        Single::Put(_) | Single::Delete(_) => None,
    }))
}

fn put_refusal(read: &dyn Read, store: StoreNumber, singles: &[Single<'_>]) -> Result<Option<Refusal>, EngineError> {
    let mut gone = Gone::default();
    for single in singles {
        match single {
            Single::Range(_) => {}
            Single::Delete(delete) => gone.delete(&delete.range),
            Single::Put(put) => {
                let keeps = put.value.is_none() || put.lease.is_none();
                if keeps && (gone.holds(&put.key) || current(read, store, &put.key)?.is_none()) {
                    return Ok(Some(Refusal::KeyNotFound));
                }
                if let Some(lease) = put.lease.filter(|&lease| lease != 0) {
                    return Ok(Some(Refusal::LeaseNotFound { lease }));
                }
                gone.put(&put.key);
            }
        }
    }
    Ok(None)
}

/// The keys a transaction has deleted so far and not put again.
#[derive(Default)]
struct Gone {
    deleted: Cover,
    /// Keys put since they were last deleted.
    back: BTreeSet<Bytes>,
}

impl Gone {
    fn holds(&self, key: &Bytes) -> bool {
        !self.back.contains(key) && self.deleted.contains(key)
    }

    fn put(&mut self, key: &Bytes) {
        self.back.insert(key.clone());
    }

    fn delete(&mut self, range: &KeyRange) {
        let upper = range.upper();
        if upper.as_ref().is_some_and(|upper| *upper <= range.key) {
            return;
        }
        let span = (Bound::Included(&range.key), upper.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
        let put_before: Vec<Bytes> = self.back.range::<Bytes, _>(span).cloned().collect();
        for key in &put_before {
            self.back.remove(key);
        }
        self.deleted.add(range.key.clone(), upper);
    }
}

fn current(read: &dyn Read, store: StoreNumber, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
    read.get(Family::Current, &key::current(store, key))
}

/// The run of one operation.
struct Run<'v, 'b> {
    view: &'v mut Overlay<'b>,
    store: StoreNumber,
    head: &'v mut Head,
    /// The revision of the changes of this run, if there are any.
    own_revision: Revision,
    /// How many changes were made.
    changes: u32,
    /// Keys that may still be deleted, and their bytes.
    deletes_left: u64,
    key_bytes_left: usize,
    /// Bytes that may still be answered.
    bytes_left: usize,
    /// What the ranges walk over.
    walk: Walk,
}

/// A key that is about to be removed.
struct Doomed {
    key: Bytes,
    sum: u64,
    pair: Option<Pair>,
}

impl<'v, 'b> Run<'v, 'b> {
    fn new(view: &'v mut Overlay<'b>, store: StoreNumber, head: &'v mut Head, walk: Walk) -> Run<'v, 'b> {
        let own_revision = head.revision.next();
        let (deletes_left, bytes_left) = (DELETED_KEYS_MAX, ANSWER_BYTES_MAX);
        let key_bytes_left = DELETED_KEY_BYTES_MAX;
        Run { view, store, head, own_revision, changes: 0, deletes_left, key_bytes_left, bytes_left, walk }
    }

    fn step(&mut self, step: &Step<'_>) -> Result<Reply, Halt> {
        match step {
            Step::Single(Single::Range(op)) => self.range(op),
            Step::Single(Single::Put(op)) => self.put(op),
            Step::Single(Single::Delete(op)) => self.delete(op),
            Step::Txn { succeeded, steps } => {
                let replies = steps.iter().map(|step| self.step(step)).collect::<Result<Vec<_>, _>>()?;
                Ok(Reply::Txn { succeeded: *succeeded, replies })
            }
        }
    }

    fn range(&mut self, op: &RangeOp) -> Result<Reply, Halt> {
        let revision = op.revision.unwrap_or(self.head.revision);
        let reply = read_at(&*self.view, self.store, self.head, revision, op, self.bytes_left, &mut self.walk)?;
        within(&self.walk)?;
        if cut_by_bytes(op, &reply) {
            return Err(too_large());
        }
        reply.pairs.iter().try_for_each(|pair| self.answer(pair))?;
        Ok(Reply::Range(reply))
    }

    /// Counts a pair that is answered.
    fn answer(&mut self, pair: &Pair) -> Result<(), Halt> {
        if self.bytes_left == 0 {
            return Err(too_large());
        }
        self.bytes_left = self.bytes_left.saturating_sub(pair_bytes(pair));
        Ok(())
    }

    fn put(&mut self, op: &PutOp) -> Result<Reply, Halt> {
        let old_row = current(&*self.view, self.store, &op.key)?;
        if let Some(row) = &old_row {
            self.subtract(pair_sum(&op.key, row));
        }
        let old = old_row.map(Version::decode).transpose()?;
        let id = self.next_change();
        let new = put_over(old.as_ref(), op, id);
        let row = new.encode();
        self.add(pair_sum(&op.key, &row));
        self.view.put(Family::Current, key::current(self.store, &op.key), row);
        self.record(id, &op.key, put_record(op.key.clone(), new));
        let previous = old.filter(|_| op.previous).map(|old| old.into_pair(op.key.clone()));
        previous.iter().try_for_each(|pair| self.answer(pair))?;
        Ok(Reply::Put { previous })
    }

    fn delete(&mut self, op: &DeleteOp) -> Result<Reply, Halt> {
        let doomed = self.doomed(op)?;
        let deleted = doomed.len() as u64;
        let mut previous = Vec::new();
        for Doomed { key, sum, pair } in doomed {
            let id = self.next_change();
            self.subtract(sum);
            self.view.delete(Family::Current, key::current(self.store, &key));
            self.record(id, &key, ChangeRecord::Delete { key: key.clone() });
            previous.extend(pair);
        }
        Ok(Reply::Delete { deleted, previous })
    }

    fn doomed(&mut self, op: &DeleteOp) -> Result<Vec<Doomed>, Halt> {
        let (mut doomed, mut left, mut bytes_left) = (Vec::new(), self.deletes_left, self.bytes_left);
        let mut key_bytes_left = self.key_bytes_left;
        let mut refusal = None;
        current_rows(&*self.view, self.store, &op.range, Order::Ascending, |key, row| {
            key_bytes_left = key_bytes_left.saturating_sub(key.len());
            let Some(still_left) = left.checked_sub(1).filter(|_| key_bytes_left > 0) else {
                refusal = Some(Refusal::TooManyKeys { limit: DELETED_KEYS_MAX });
                return Ok(Visit::Stop);
            };
            left = still_left;
            let sum = pair_sum(key, row);
            let key = Bytes::copy_from_slice(key);
            let pair = match op.previous {
                true => Some(Version::decode(Bytes::copy_from_slice(row))?.into_pair(key.clone())),
                false => None,
            };
            if let Some(pair) = &pair {
                if bytes_left == 0 {
                    refusal = Some(Refusal::AnswerTooLarge { limit: ANSWER_BYTES_MAX as u64 });
                    return Ok(Visit::Stop);
                }
                bytes_left = bytes_left.saturating_sub(pair_bytes(pair));
            }
            doomed.push(Doomed { key, sum, pair });
            Ok(Visit::Next)
        })?;
        (self.deletes_left, self.key_bytes_left, self.bytes_left) = (left, key_bytes_left, bytes_left);
        refusal.map_or(Ok(doomed), |refusal| Err(Halt::Refused(refusal)))
    }

    /// The first change of a run makes its revision.
    fn next_change(&mut self) -> ChangeId {
        self.head.revision = self.own_revision;
        let id = ChangeId { revision: self.own_revision, sub: self.changes };
        self.changes += 1;
        id
    }

    fn record(&mut self, id: ChangeId, key: &[u8], record: ChangeRecord) {
        let kind = index_value(&record).to_vec();
        self.view.put(Family::Changes, key::change(self.store, id), record.encode());
        self.view.put(Family::Index, key::index(self.store, key, id), kind);
    }

    fn add(&mut self, sum: u64) {
        self.head.keys += 1;
        self.head.sum = self.head.sum.wrapping_add(sum);
    }

    fn subtract(&mut self, sum: u64) {
        assert!(self.head.keys > 0, "a living key is not counted in the head");
        self.head.keys -= 1;
        self.head.sum = self.head.sum.wrapping_sub(sum);
    }
}

fn too_large() -> Halt {
    Halt::Refused(Refusal::AnswerTooLarge { limit: ANSWER_BYTES_MAX as u64 })
}

/// What a put makes of `old`.
fn put_over(old: Option<&Version>, op: &PutOp, id: ChangeId) -> Version {
    let kept_value = || old.map_or_else(Bytes::new, |old| old.value.clone());
    Version {
        create_revision: old.map_or(id.revision, |old| old.create_revision),
        modified: id,
        version: old.map_or(1, |old| old.version + 1),
        lease: op.lease.unwrap_or(old.map_or(0, |old| old.lease)),
        value: op.value.clone().unwrap_or_else(kept_value),
    }
}

fn put_record(key: Bytes, made: Version) -> ChangeRecord {
    let Version { create_revision, modified: _, version, lease, value } = made;
    ChangeRecord::Put { key, create_revision, version, lease, value }
}
