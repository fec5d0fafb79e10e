//! What a member does about `_meta`: it publishes the map, founds the content, registers itself, and makes changes.
//!
//! What is to be changed is worked out again in each round and tried beside the duties, one change at a time, so that a
//! round never waits for `_meta`.
//!
//! Invariant: every change of `_meta` is a compare-and-set, so that one whose outcome is unknown may be tried again.
//!
//! Left out: what the changes are, which is `cluster/map.rs`'s.

use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{Instrument, error, warn};
use trefoil_causality::Revision;
use trefoil_placement::PartitionId;
use trefoil_store::command::{Command, Op, Outcome, Txn};
use trefoil_world::{clock, task};

use super::Membership;
use crate::cluster::founding::Founder;
use crate::cluster::map::{self, NodeRecord};
use crate::replication::Consistency;
use crate::router::Router;

const META_PATIENCE: Duration = Duration::from_secs(3);

impl Membership {
    pub(super) async fn publish_map(&mut self) -> anyhow::Result<()> {
        let Some(meta) = self.router.local(PartitionId::META) else { return Ok(()) };
        if meta.raft().published().view().head.revision <= self.router.map.load().version.max(Revision::EMPTY) {
            return Ok(());
        }
        Ok(self.router.refresh_map(Consistency::Stale { context: None }, clock::now() + META_PATIENCE).await?)
    }

    /// The leader of `_meta` writes its first content, and adds the founders that are no voters.
    pub(super) fn found_meta(&mut self) {
        let Some(meta) = self.router.local(PartitionId::META) else { return };
        let meta = meta.raft().clone();
        let state = meta.state();
        let missing: Vec<Founder> = self
            .record
            .founders
            .iter()
            .filter(|founder| !state.members.contains_key(&founder.meta_replica()))
            .cloned()
            .collect();
        let founded = !self.router.map.load().nodes.is_empty();
        if !state.leads || founded && missing.is_empty() {
            return;
        }
        let (router, record) = (self.router.clone(), self.record.clone());
        self.change_meta(async move {
            for founder in missing {
                let added = meta.add_learner(founder.meta_replica(), founder.node);
                if !matches!(clock::timeout(META_PATIENCE, added).await, Ok(Ok(()))) {
                    warn!("{} is not a learner of _meta yet", founder.name);
                    return;
                }
            }
            write_meta(&router, map::found(&record)).await;
        });
    }

    /// Puts this node's addresses, zone and weight into the map when they have changed.
    pub(super) fn register(&mut self) {
        let config = &self.shared.config;
        let record = NodeRecord {
            name: config.name.clone(),
            client_address: config.advertise_client.clone(),
            peer_address: config.advertise_peer.clone(),
            zone: config.zone.clone(),
            weight: config.weight,
        };
        let known = self.router.map.load().nodes.get(&self.identity.node).is_none_or(|known| *known == record);
        if !known {
            let (router, node) = (self.router.clone(), self.identity.node);
            self.change_meta(async move { write_meta(&router, map::register(node, &record)).await });
        }
    }

    /// Runs a change of `_meta` beside the duties, unless there is one under way.
    pub(super) fn change_meta(&mut self, change: impl Future<Output = ()> + Send + 'static) {
        if self.changing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.changing = Some(task::spawn(change.in_current_span()));
        }
    }
}

/// A change whose outcome is not known is tried again: every one is a compare-and-set.
pub(super) async fn write_meta(router: &Router, txn: Txn) {
    let written = router.write_meta(Command::Op(Op::Txn(txn)), clock::now() + META_PATIENCE).await;
    if let Ok(Outcome { result: Err(refusal), .. }) = written {
        error!("_meta refused a change: {refusal}");
    }
}
