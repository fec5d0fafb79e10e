//! The content sum: one number for all that lives, to compare replicas by.
//!
//! The sum of [`pair_sum`] over all living keys, wrapping. [`super::Head`] carries the one of the newest revision, kept
//! up to date change by change; [`content_sum_at`] recomputes it from the rows.

use trefoil_causality::Revision;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Head;
use super::range::{current_rows, living_at, version_of};
use crate::command::{KeyRange, RangeEnd, Refusal};
use crate::engine::{EngineError, Order, Read, Visit};
use crate::key::{ChangeId, StoreNumber};

/// How many keys are held in memory while summing in the past.
const PAGE: usize = 1_000;

/// What lives at a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub keys: u64,
    pub sum: u64,
}

impl Content {
    fn add(&mut self, key: &[u8], row: &[u8]) {
        self.keys += 1;
        self.sum = self.sum.wrapping_add(pair_sum(key, row));
    }
}

/// What a key with its encoded `current` row adds to the content sum.
pub fn pair_sum(key: &[u8], row: &[u8]) -> u64 {
    xxh3_64_with_seed(row, xxh3_64(key))
}

/// Recomputes what lives at `revision`, by walking all of it.
pub fn content_sum_at(
    read: &dyn Read,
    store: StoreNumber,
    head: &Head,
    revision: Revision,
) -> Result<Result<Content, Refusal>, EngineError> {
    match head.readable(Some(revision)) {
        Ok(newest) if newest == head.revision => current_content(read, store).map(Ok),
        Ok(past) => past_content(read, store, past).map(Ok),
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn current_content(read: &dyn Read, store: StoreNumber) -> Result<Content, EngineError> {
    let mut content = Content::default();
    let all = KeyRange { key: Default::default(), end: RangeEnd::Last };
    current_rows(read, store, &all, Order::Ascending, |key, row| {
        content.add(key, row);
        Ok(Visit::Next)
    })?;
    Ok(content)
}

/// From the history alone, also for the newest revision.
pub(super) fn past_content(read: &dyn Read, store: StoreNumber, revision: Revision) -> Result<Content, EngineError> {
    let mut content = Content::default();
    let mut rest = KeyRange { key: Default::default(), end: RangeEnd::Last };
    loop {
        let page = page(read, store, &rest, revision)?;
        for (key, id) in &page {
            content.add(key, &version_of(read, store, *id)?.encode());
        }
        match page.into_iter().nth(PAGE - 1) {
            Some((last, _)) => rest.key = [&last[..], &[0]].concat().into(),
            None => return Ok(content),
        }
    }
}

/// The first keys of `range` that live at `revision`, at most [`PAGE`].
fn page(
    read: &dyn Read,
    store: StoreNumber,
    range: &KeyRange,
    revision: Revision,
) -> Result<Vec<(Vec<u8>, ChangeId)>, EngineError> {
    let mut page = Vec::new();
    living_at(read, store, range, revision, Order::Ascending, &mut |key, id| {
        page.push((key.to_vec(), id));
        if page.len() < PAGE { Visit::Next } else { Visit::Stop }
    })?;
    Ok(page)
}
