//! Comparing the replicas of the partitions this node leads, now and then, and the alarms that follow.
//!
//! A comparison runs beside the duties, one at a time. An alarm about a partition stands until all its replicas
//! were compared and found alike, or this node is found not to lead it.
//!
//! Left out: how two replicas are compared (`verify.rs`).

use tracing::{Instrument, warn};
use trefoil_placement::PartitionId;
use trefoil_world::{clock, task};

use super::Membership;
use crate::health::Health;
use crate::verify::{self, Comparison, Difference};

impl Membership {
    /// Compares the replicas of the partitions this node leads, when it is time.
    pub(super) fn compare_replicas(&mut self) {
        let busy = self.comparing.as_ref().is_some_and(|task| !task.is_finished());
        if busy || clock::now() < self.next_comparison {
            return;
        }
        self.next_comparison = clock::now() + self.shared.config.verify_interval;
        let (router, health) = (self.router.clone(), self.shared.health.clone());
        let compare = async move {
            for replica in router.replicas.load_full().values() {
                let partition = replica.raft().partition;
                if !replica.raft().state().leads {
                    // Whoever leads now says how the replicas are.
                    health.alarm(content_of(partition), None);
                    continue;
                }
                match verify::compare(&router, replica).await {
                    Ok(found) => note_comparison(&health, partition, &found),
                    Err(error) => warn!(%partition, "replicas not compared: {error}"),
                }
            }
        };
        self.comparing = Some(task::spawn(compare.in_current_span()));
    }
}

/// A replica that could not be asked leaves an alarm about the others as it is found, and one of before standing.
fn note_comparison(health: &Health, partition: PartitionId, found: &Comparison) {
    for (node, why) in &found.not_compared {
        warn!(%partition, "the replica on {node} was not compared: {why}");
    }
    if found.not_compared.is_empty() || !found.differences.is_empty() {
        health.alarm(content_of(partition), differences(partition, &found.differences));
    }
}

fn content_of(partition: PartitionId) -> String {
    format!("content of {partition}")
}

fn differences(partition: PartitionId, found: &[Difference]) -> Option<String> {
    let lines: Vec<String> = found
        .iter()
        .map(|found| {
            format!(
                "partition {partition}: {} on {} differs at revision {}: {} keys with sum {:016x}, the leader has {} with {:016x}",
                found.replica, found.node, found.revision, found.there.keys, found.there.sum, found.here.keys, found.here.sum
            )
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}
