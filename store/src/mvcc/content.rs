//! The content sum: one number for all that lives, to compare replicas by.
//!
//! The sum of [`pair_sum`] over all living keys, wrapping. [`super::Head`] carries the one of the newest revision, kept
//! up to date change by change; [`content_part_at`] recomputes it from the rows.

use bytes::Bytes;
use trefoil_causality::Revision;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Head;
use super::range::{current_rows, living_at, version_of};
use super::walk::Walk;
use crate::command::{KeyRange, RangeEnd, Refusal};
use crate::engine::{EngineError, Order, Read, Visit};
use crate::key::StoreNumber;

/// What lives at a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub keys: u64,
    pub sum: u64,
}

impl Content {
    /// What lives in this part and in that one.
    pub fn and(self, other: Content) -> Content {
        Content { keys: self.keys + other.keys, sum: self.sum.wrapping_add(other.sum) }
    }

    fn add(&mut self, key: &[u8], row: &[u8]) {
        self.keys += 1;
        self.sum = self.sum.wrapping_add(pair_sum(key, row));
    }
}

/// What a key with its encoded `current` row adds to the content sum.
pub fn pair_sum(key: &[u8], row: &[u8]) -> u64 {
    xxh3_64_with_seed(row, xxh3_64(key))
}

/// Recomputes what lives at `revision`, part by part: the next `keys_max` keys from `from` on, and where to go on.
pub fn content_part_at(
    read: &dyn Read,
    store: StoreNumber,
    head: &Head,
    revision: Revision,
    from: &Bytes,
    keys_max: usize,
) -> Result<Result<(Content, Option<Bytes>), Refusal>, EngineError> {
    let rest = KeyRange { key: from.clone(), end: RangeEnd::Last };
    match head.readable(Some(revision)) {
        Ok(newest) if newest == head.revision => current_part(read, store, &rest, keys_max).map(Ok),
        Ok(past) => past_part(read, store, past, &rest, keys_max).map(Ok),
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn current_part(
    read: &dyn Read,
    store: StoreNumber,
    rest: &KeyRange,
    keys_max: usize,
) -> Result<(Content, Option<Bytes>), EngineError> {
    let (mut content, mut next) = (Content::default(), None);
    current_rows(read, store, rest, Order::Ascending, |key, row| {
        if content.keys == keys_max as u64 {
            next = Some(Bytes::copy_from_slice(key));
            return Ok(Visit::Stop);
        }
        content.add(key, row);
        Ok(Visit::Next)
    })?;
    Ok((content, next))
}

/// From the history alone, also for the newest revision.
pub(super) fn past_part(
    read: &dyn Read,
    store: StoreNumber,
    revision: Revision,
    rest: &KeyRange,
    keys_max: usize,
) -> Result<(Content, Option<Bytes>), EngineError> {
    let (mut found, mut next) = (Vec::new(), None);
    living_at(read, store, rest, revision, Order::Ascending, &mut Walk::unbounded(), &mut |key, id| {
        if found.len() == keys_max {
            next = Some(Bytes::copy_from_slice(key));
            return Visit::Stop;
        }
        found.push((key.to_vec(), id));
        Visit::Next
    })?;
    let mut content = Content::default();
    for (key, id) in found {
        content.add(&key, &version_of(read, store, id)?.encode());
    }
    Ok((content, next))
}
