//! Who was refused lately: a peer whose opening words are not believed tries again twice a second.
//!
//! Invariant: a bounded number of nodes is remembered. Where there are more all are forgotten, and the log says more than it
//! has to.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use trefoil_placement::NodeId;
use trefoil_world::clock::{self, Instant};

use crate::cluster::identity::Refused;

/// How often the log repeats why a peer is refused, which tries again twice a second.
const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// Refused nodes that are remembered.
const REFUSED_MAX: usize = 256;

/// A reason, and when the log last said it.
type Said = (Discriminant<Refused>, Instant);

/// Who was refused lately, so that the log says it once in a while and not at every attempt.
#[derive(Default)]
pub struct RefusedLately {
    /// When the log last said each reason. The numbers in it are not told apart: those of a copy that runs on change all
    /// the time.
    by_node: Mutex<BTreeMap<NodeId, Vec<Said>>>,
}

impl RefusedLately {
    /// Whether the log has not said this lately.
    pub(super) fn is_news(&self, node: NodeId, refused: &Refused) -> bool {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        if by_node.len() >= REFUSED_MAX && !by_node.contains_key(&node) {
            by_node.clear();
        }
        let said = by_node.entry(node).or_default();
        said.retain(|(_, at)| at.elapsed() < REFUSED_EVERY);
        let reason = discriminant(refused);
        if said.iter().any(|(why, _)| *why == reason) {
            return false;
        }
        said.push((reason, clock::now()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_says_a_reason_once_in_a_while() {
        let lately = RefusedLately::default();
        let tail = |node, claimed| Refused::LostTail { node: NodeId(node), known: 70, claimed };
        for (node, refused, news) in [
            (2, tail(2, 10), true),
            (2, tail(2, 11), false),
            (2, Refused::Malformed, true),
            (2, tail(2, 12), false),
            (2, Refused::Malformed, false),
            (3, tail(3, 12), true),
        ] {
            assert_eq!(lately.is_news(NodeId(node), &refused), news, "{node}: {refused}");
        }
        tokio::time::advance(REFUSED_EVERY).await;
        assert!(lately.is_news(NodeId(2), &tail(2, 13)), "it is said again later");
        for node in 10..10 + REFUSED_MAX as u64 {
            lately.is_news(NodeId(node), &Refused::Malformed);
        }
        assert!(lately.by_node.lock().expect("no test panicked under it").len() <= REFUSED_MAX);
    }
}
