//! Whether a member is ready, what it still waits for, and whether clients should come to it now.
//!
//! Ready is when the map is known, and each own `live` replica has heard a leader since the start and has applied what
//! was committed then. It is not taken back; whether the node serves may change with every round.
//!
//! Left out: telling others (`health.rs`).

use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use trefoil_placement::{PlacementRow, Stage};

use super::Membership;
use crate::raft::group::RaftReplica;
use crate::stderr;

/// A leader silent for this long is none for clients.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);

impl Membership {
    /// Whether clients should come here now: ready, and every partition's leader was heard lately.
    pub(super) fn serves(&self) -> bool {
        let heard = |raft: &Arc<RaftReplica>| raft.leader_silent().is_some_and(|silent| silent < LEADER_PATIENCE);
        self.shared.health.ready() && self.rafts.load().values().all(heard)
    }

    pub(super) fn check_ready(&mut self, rows: &[PlacementRow]) {
        if self.shared.health.ready() {
            return;
        }
        match self.unready(rows) {
            Some(why) => self.line.say(why),
            None => {
                self.shared.health.become_ready();
                info!(
                    node = %self.identity.node,
                    cluster = %self.identity.cluster,
                    "ready to serve client requests at {}",
                    self.shared.config.listen_client
                );
                stderr::say(format_args!("{}: ready to serve client requests", self.shared.config.name));
            }
        }
    }

    /// What this node still waits for.
    fn unready(&mut self, rows: &[PlacementRow]) -> Option<String> {
        if rows.is_empty() || !self.router.map.load().nodes.contains_key(&self.identity.node) {
            let connected = self.connected_text();
            return Some(format!("the map is not known yet{connected}"));
        }
        for row in rows {
            let Some(mine) = row.on(self.identity.node) else { continue };
            let Some(raft) = self.rafts.load().get(&mine.replica).cloned() else {
                return Some(format!("replica {} of partition {} is not started", mine.replica, row.partition));
            };
            if mine.stage == Stage::New {
                return Some(format!("replica {} of partition {} is not live yet", mine.replica, row.partition));
            }
            let state = raft.state();
            // The stored vote names a leader of before; only one that was heard since the start counts.
            if raft.leader_silent().is_none() {
                return Some(format!("partition {} has no leader{}", row.partition, self.connected_text()));
            }
            let committed = if state.leads { state.last_log } else { state.committed };
            let goal = *self.goals.entry(raft.replica).or_insert(committed.unwrap_or(0));
            if state.applied.unwrap_or(0) < goal {
                let applied = state.applied.unwrap_or(0);
                return Some(format!("partition {} has applied {applied} of {goal}", row.partition));
            }
        }
        None
    }

    fn connected_text(&self) -> String {
        let peers = &self.router.peers;
        let others = self.record.founders.iter().filter(|founder| founder.node != self.identity.node);
        let away = others.filter(|founder| !peers.connected(founder.node));
        away.map(|founder| match peers.disconnected_because(founder.node).as_str() {
            "" => format!("; not connected to {}", founder.name),
            why => format!("; not connected to {} ({why})", founder.name),
        })
        .collect()
    }
}
