//! The store under test: which ones there are, and what a run against each can be for.
//!
//! What the programs need in order to run is in `cluster/program.rs`, how they are asked in `client.rs`.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::coverage::Expected;
use crate::nemesis::FaultKind;

/// A store, as the command line and files have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// `kvd`
    #[default]
    Trefoil,
    /// etcd 3.5, through its v3 API
    Etcd,
}

/// What faults of the preload shim cannot be done with.
const STATIC: &str = "it is one static program, which asks the kernel itself: the preload shim does not come between";
/// What faults cannot be done with whose probes read what only kvd says.
const OF_TREFOIL: &str = "whether it is in force is told by what kvd says, how it ends and what its directory holds";
/// What cannot be waited for where only kvd counts it.
const NOT_COUNTED: &str = "its status does not count them";

impl Target {
    pub fn as_str(self) -> &'static str {
        match self {
            Target::Trefoil => "trefoil",
            Target::Etcd => "etcd",
        }
    }

    /// Why there is no such fault of this target.
    pub fn refuses(self, kind: FaultKind) -> Option<&'static str> {
        match (self, kind) {
            (Target::Trefoil, _) => None,
            (Target::Etcd, FaultKind::PowerLoss | FaultKind::SyncError | FaultKind::DiskFull) => Some(STATIC),
            (
                Target::Etcd,
                FaultKind::Amnesia | FaultKind::Truncation | FaultKind::OldCopy | FaultKind::SnapshotUnderFire,
            ) => Some(OF_TREFOIL),
            (
                Target::Etcd,
                FaultKind::Kill
                | FaultKind::KillAll
                | FaultKind::Pause
                | FaultKind::Partition
                | FaultKind::PartitionOf(_)
                | FaultKind::PeerPortCut
                | FaultKind::SlowLinks
                | FaultKind::Drip
                | FaultKind::Reset
                | FaultKind::HalfOpen,
            ) => None,
        }
    }

    /// Why this cannot be seen to happen in this target.
    pub fn hides(self, what: Expected) -> Option<&'static str> {
        match (self, what) {
            (Target::Trefoil, _) | (Target::Etcd, Expected::LeaderChange) => None,
            (Target::Etcd, Expected::Snapshot | Expected::Compaction) => Some(NOT_COUNTED),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Needs;

    #[test]
    fn a_name_is_the_same_everywhere() {
        for target in Target::value_variants() {
            assert_eq!(Target::from_str(target.as_str(), false), Ok(*target), "the command line has it");
            assert_eq!(serde_json::to_string(target).expect("a word"), format!("\"{target}\""), "files have it");
        }
    }

    #[test]
    fn trefoil_takes_all_faults_and_etcd_those_of_processes_and_links() {
        let refused = |target: Target| FaultKind::ALL.into_iter().filter(move |kind| target.refuses(*kind).is_some());
        assert_eq!(refused(Target::Trefoil).count(), 0);
        let refused: Vec<FaultKind> = refused(Target::Etcd).collect();
        for kind in FaultKind::ALL {
            match kind.needs() {
                Needs::Shim => assert!(refused.contains(&kind), "{kind}"),
                Needs::Links | Needs::Proxies => assert!(!refused.contains(&kind), "{kind}"),
                Needs::Processes => {}
            }
        }
        assert!(!refused.contains(&FaultKind::Kill) && refused.contains(&FaultKind::Amnesia));
    }
}
