//! What clients were promised and what they saw, and the faults that follow from both.
//!
//! Left out: putting and reading (`clients.rs`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use trefoil_client::PutReply;
use trefoil_world::clock;

/// What clients were promised, and what they saw.
#[derive(Default)]
pub(super) struct Ledger {
    /// Per key: the highest value acknowledged.
    pub(super) acknowledged: BTreeMap<String, u64>,
    /// Per key: the highest revision a linearizable read has shown.
    seen: BTreeMap<String, u64>,
    pub(super) faults: Vec<String>,
    pub(super) trace: Vec<String>,
    pub(super) reads: u64,
}

impl Ledger {
    pub(super) fn note_put(&mut self, key: String, value: u64, put: Result<PutReply, trefoil_client::Error>) {
        let at = clock::wall_ms();
        match put {
            Ok(reply) => {
                self.trace.push(format!("{at} {key}={value} ok {}", reply.header.revision));
                self.acknowledged.insert(key, value);
            }
            Err(error) => self.trace.push(format!("{at} {key}={value} {error}")),
        }
    }

    pub(super) fn saw(&mut self, key: &str, value: u64, revision: u64) {
        let seen = self.seen.entry(key.to_owned()).or_default();
        if revision < *seen {
            self.faults.push(format!("{key}: a read went back from revision {seen} to {revision}"));
        }
        *seen = (*seen).max(revision);
        let promised = self.acknowledged.get(key).copied().unwrap_or(0);
        if value < promised {
            self.faults.push(format!("{key}: {promised} was acknowledged, {value} was read"));
        }
        self.reads += 1;
    }
}

pub(super) type Shared = Rc<RefCell<Ledger>>;
