//! Profiles: runs in which a planted bug comes to light where it is there, one for each bug.
//!
//! A profile says what its bug needs. All else is plain, so that nothing else hides it: three nodes, clocks that are
//! right, short ways. The seed decides the rest: when faults come and whom they hit, what clients ask, how late packets
//! are. Pure; the build without bugs must be green in all of them.

use std::time::Duration;

use trefoil_jepsen::workload::Name;
use trefoil_world::planted::Bug;

use crate::faults::Kind;
use crate::machine::TRUE_RATE_PPM;
use crate::network::Weather;
use crate::parameters::{FaultParameters, LoadParameters, MachineParameters, Parameters, SessionParameters, Unsynced};

/// By then a cluster has formed.
const FAULTS_FROM_MS: u64 = 3_000;
const SAFETY_MS: u64 = 30_000;
const VERIFY_INTERVAL_S: u64 = 5;
const SESSION: SessionParameters = SessionParameters { readers: 3, pause_ms: 40 };

/// What a bug needs.
#[derive(Clone, Copy)]
struct Profile {
    kinds: &'static [Kind],
    /// The longest that a fault lasts, and the longest until the next one.
    lasts_ms: u64,
    pause_ms: u64,
    /// How long a sync takes, node by node.
    sync_ms: [u64; 3],
    unsynced: Unsynced,
    latency_max_ms: u64,
    lost_permille: u64,
    log_entries_kept: u64,
    workers: usize,
    /// The longest pause of a worker.
    worker_pause_ms: u64,
    call_timeout_ms: u64,
    retries: bool,
    /// A session is watched.
    session: bool,
    blind: bool,
}

const PLAIN: Profile = Profile {
    kinds: &[],
    lasts_ms: 1_000,
    pause_ms: 4_000,
    sync_ms: [4; 3],
    unsynced: Unsynced::PartlyKept,
    latency_max_ms: 5,
    lost_permille: 0,
    log_entries_kept: 1_000,
    workers: 4,
    worker_pause_ms: 60,
    call_timeout_ms: 1_000,
    retries: false,
    session: false,
    blind: false,
};

/// Many requests in flight.
const BUSY: Profile = Profile { workers: 8, worker_pause_ms: 10, ..PLAIN };

/// Followers that learn late what is committed.
const LATE: Profile = Profile { latency_max_ms: 20, lost_permille: 20, session: true, ..PLAIN };

/// Nodes that are away until what they miss is no longer in the log.
const SNAPSHOTS: Profile =
    Profile { kinds: &[Kind::Kill], lasts_ms: 4_000, pause_ms: 6_000, log_entries_kept: 16, ..PLAIN };

fn profile(bug: Bug) -> Profile {
    match bug {
        Bug::AckBeforeSync => Profile {
            kinds: &[Kind::WholePowerLoss],
            lasts_ms: 500,
            pause_ms: 4_000,
            sync_ms: [25; 3],
            unsynced: Unsynced::AllLost,
            blind: true,
            ..BUSY
        },
        Bug::MarkBeforeSync | Bug::VoteNotPersisted => Profile { kinds: &[Kind::Kill], ..PLAIN },
        Bug::LocalReads | Bug::ReadBeforeApplied | Bug::JoinRunningRound => LATE,
        Bug::ReadIndexUnasked => {
            Profile { kinds: &[Kind::Halves], lasts_ms: 8_000, pause_ms: 8_000, session: true, ..PLAIN }
        }
        Bug::RoundsEndWithFailure => Profile { kinds: &[Kind::Halves], lasts_ms: 3_000, pause_ms: 3_000, ..BUSY },
        Bug::AppliedApart => Profile { kinds: &[Kind::PowerLoss], sync_ms: [12; 3], ..BUSY },
        Bug::ApplyBeforeEntry => Profile { kinds: &[Kind::PowerLoss], sync_ms: [25, 1, 1], ..BUSY },
        Bug::OldRowsKept | Bug::RequestTableLost => Profile { session: true, blind: true, ..SNAPSHOTS },
        Bug::VoteLostWithSnapshot => SNAPSHOTS,
        Bug::CompareOutsideApply => BUSY,
        Bug::UnknownWriteRepeated => Profile {
            kinds: &[Kind::Kill],
            lasts_ms: 600,
            pause_ms: 3_000,
            sync_ms: [12; 3],
            call_timeout_ms: 4_000,
            retries: true,
            ..BUSY
        },
        Bug::StorageIdIgnored => Profile { kinds: &[Kind::Wipe], ..PLAIN },
        Bug::StartCountIgnored => Profile { kinds: &[Kind::OldCopy], ..PLAIN },
    }
}

/// The run of this seed in which `bug` comes to light.
pub fn provoking(bug: Bug, seed: u64) -> Parameters {
    let profile = profile(bug);
    let machine = |sync_ms: u64| MachineParameters {
        sync: Duration::from_millis(sync_ms),
        rate_ppm: TRUE_RATE_PPM,
        wall_offset_ms: 0,
    };
    Parameters {
        seed,
        workload: Name::Register,
        nodes: profile.sync_ms.len(),
        weather: Weather {
            latency_min_ms: 1,
            latency_max_ms: profile.latency_max_ms,
            lost_permille: profile.lost_permille,
        },
        far: None,
        machines: profile.sync_ms.into_iter().map(machine).collect(),
        unsynced: profile.unsynced,
        log_entries_kept: profile.log_entries_kept,
        verify_interval_s: VERIFY_INTERVAL_S,
        limits: None,
        load: LoadParameters {
            workers: profile.workers,
            pause_ms: profile.worker_pause_ms,
            call_timeout: Duration::from_millis(profile.call_timeout_ms),
            retries: profile.retries,
        },
        faults: FaultParameters {
            kinds: profile.kinds.to_vec(),
            from_ms: FAULTS_FROM_MS,
            lasts_ms: profile.lasts_ms,
            pause_ms: profile.pause_ms,
        },
        session: profile.session.then_some(SESSION),
        folders: None,
        compaction: None,
        blind: profile.blind,
        safety_ms: SAFETY_MS,
    }
}

#[cfg(test)]
mod tests {
    use trefoil_jepsen::generator::Dice;

    use super::*;
    use crate::faults::schedule;

    #[test]
    fn each_bug_has_a_run_with_its_faults() {
        for bug in Bug::ALL {
            let run = provoking(bug, 7);
            assert_eq!((run.machines.len(), run.seed), (run.nodes, 7), "{bug}");
            let planned = schedule(&run.faults, run.nodes, run.safety_ms, Dice::new(7));
            assert_eq!(planned.is_empty(), run.faults.kinds.is_empty(), "{bug}");
            assert!(planned.iter().all(|planned| planned.to_ms <= run.safety_ms), "{bug}");
            assert!(!run.blind || run.session.is_some() || bug == Bug::AckBeforeSync, "{bug}: somebody must look");
        }
    }
}
