//! Everything a run is made of, from one number.
//!
//! Most seeds get few kinds of fault, some get all (swarm testing, Groce and others 2012): a fault that hides another
//! one is not in all runs. A seed has a short run too, of few faults that end soon: another one, which is for tests that
//! have little time. Pure; printed with each run.

use std::time::Duration;

use trefoil_jepsen::generator::Dice;
use trefoil_jepsen::workload::Name;

use crate::faults::Kind;
use crate::network::Weather;

/// Kinds of faults of a short run: none hides another for long.
const SHORT_KINDS_MAX: usize = 2;

/// What a run is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    pub seed: u64,
    pub workload: Name,
    /// 3 to 5.
    pub nodes: usize,
    pub weather: Weather,
    /// A node that is further away than the others, by so many milliseconds each way.
    pub far: Option<(usize, u64)>,
    /// Of each node.
    pub machines: Vec<MachineParameters>,
    pub unsynced: Unsynced,
    pub log_entries_kept: u64,
    pub verify_interval_s: u64,
    /// Limits of the nodes that are far below those they have by default.
    pub limits: Option<LimitParameters>,
    pub load: LoadParameters,
    pub faults: FaultParameters,
    /// Whether a session is watched as well, and how.
    pub session: Option<SessionParameters>,
    /// Whether folders are kept as well, and how.
    pub folders: Option<FolderParameters>,
    /// Whether history is compacted as well, and how.
    pub compaction: Option<CompactionParameters>,
    /// Nobody looks at the disks: what clients saw must tell.
    pub blind: bool,
    /// The load and the faults end after so much simulated time.
    pub safety_ms: u64,
}

/// How a node's machine is.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineParameters {
    /// How long a sync of its disk takes.
    pub sync: Duration,
    /// How fast its clock runs, in parts per million: 1 000 000 is true.
    pub rate_ppm: u64,
    /// How far its wall clock is off.
    pub wall_offset_ms: i64,
}

/// What a loss of power leaves of what was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Some prefix of it.
    PartlyKept,
    AllLost,
}

/// What clients do.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadParameters {
    pub workers: usize,
    /// The longest pause of a worker between two calls.
    pub pause_ms: u64,
    pub call_timeout: Duration,
    /// Whether the client library repeats what was surely not done.
    pub retries: bool,
}

/// How a session is watched: by whom, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionParameters {
    /// Readers at each node.
    pub readers: usize,
    /// The longest pause between two requests of one of them, or of the writer.
    pub pause_ms: u64,
}

/// How folders are kept: by how many owners, and how often each of them asks.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderParameters {
    pub owners: usize,
    /// The longest pause between two requests of one of them.
    pub pause_ms: u64,
}

/// How history is compacted: how often the client asks that does it.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionParameters {
    /// The longest pause between two of its requests.
    pub pause_ms: u64,
}

/// Settings of the nodes, each at or near the least it may be.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitParameters {
    pub message_bytes_max: usize,
    pub key_bytes_max: usize,
    /// The workloads' largest transactions fit.
    pub txn_ops_max: usize,
    /// Requests at a time on one connection.
    pub streams_max: u32,
    pub log_bytes_kept: usize,
    pub bulk_bytes_per_second: usize,
}

/// Which faults there are, and how thick they come.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultParameters {
    pub kinds: Vec<Kind>,
    /// When the first one may come: at 0 the cluster has not formed.
    pub from_ms: u64,
    /// The longest a fault is in force.
    pub lasts_ms: u64,
    /// The longest until the next one comes, whether or not this one is healed.
    pub pause_ms: u64,
}

/// Parts of a run that choose for themselves, so that one's choices do not depend on how often another chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Parameters,
    Network,
    Nodes,
    Faults,
    Load,
    Workload,
    Session,
    Unsynced,
    Short,
    Watched,
    Folders,
    Limits,
    SlowDisks,
    Compaction,
}

/// The choices of one part of a seed's run.
pub fn dice(seed: u64, part: Part) -> Dice {
    let mut all = Dice::new(seed);
    let mut of_part = all.split();
    for _ in 0..part as usize {
        of_part = all.split();
    }
    of_part
}

impl Parameters {
    /// What `seed` stands for.
    pub fn of(seed: u64) -> Parameters {
        let mut dice = dice(seed, Part::Parameters);
        let nodes = *dice.pick(&[3, 3, 3, 4, 5]);
        let far = one_in(&mut dice, 4).then(|| (dice.below(nodes as u64) as usize, 20 + dice.below(60)));
        let skewed = one_in(&mut dice, 3);
        let wrong = one_in(&mut dice, 3);
        let of_seed = Parameters {
            seed,
            workload: workload(seed),
            nodes,
            weather: weather(&mut dice),
            far,
            machines: (0..nodes).map(|_| machine(&mut dice, skewed, wrong)).collect(),
            unsynced: unsynced(seed),
            log_entries_kept: *dice.pick(&[16, 32, 64, 200, 1000]),
            verify_interval_s: 2 + dice.below(10),
            limits: limits(seed),
            load: load(&mut dice),
            faults: with_slow_disks(faults(&mut dice), seed),
            session: None,
            folders: folders(seed),
            compaction: compaction(seed),
            blind: false,
            safety_ms: 15_000 + dice.below(20_000),
        };
        Parameters { session: session(&of_seed), ..of_seed }
    }

    /// The short run of the same seed.
    pub fn shortened(self) -> Parameters {
        let mut dice = dice(self.seed, Part::Short);
        let mut kinds = self.faults.kinds;
        dice.shuffle(&mut kinds);
        kinds.truncate(SHORT_KINDS_MAX);
        kinds.sort();
        let faults = FaultParameters {
            kinds,
            from_ms: if one_in(&mut dice, 4) { 0 } else { 500 + dice.below(1_000) },
            lasts_ms: *dice.pick(&[300, 1_000, 2_000]),
            pause_ms: *dice.pick(&[1_000, 2_000]),
        };
        Parameters { faults, safety_ms: 4_000 + dice.below(3_000), ..self }
    }

    /// Whether every wall clock is right, and stays so.
    fn clocks_are_right(&self) -> bool {
        let right = |machine: &MachineParameters| machine.wall_offset_ms == 0;
        self.machines.iter().all(right) && !self.faults.kinds.contains(&Kind::ClockJump)
    }
}

/// Watched where clocks are right: log time follows the furthest one, and ends a session that is unused for long.
fn session(of_seed: &Parameters) -> Option<SessionParameters> {
    let mut dice = dice(of_seed.seed, Part::Watched);
    let watched = one_in(&mut dice, 3) && of_seed.clocks_are_right();
    watched.then(|| SessionParameters { readers: 1, pause_ms: *dice.pick(&[100, 200, 400]) })
}

fn folders(seed: u64) -> Option<FolderParameters> {
    let mut dice = dice(seed, Part::Folders);
    one_in(&mut dice, 3).then(|| FolderParameters { owners: 2, pause_ms: *dice.pick(&[100, 200, 400]) })
}

fn compaction(seed: u64) -> Option<CompactionParameters> {
    let mut dice = dice(seed, Part::Compaction);
    one_in(&mut dice, 3).then(|| CompactionParameters { pause_ms: *dice.pick(&[50, 100, 200]) })
}

fn limits(seed: u64) -> Option<LimitParameters> {
    let mut dice = dice(seed, Part::Limits);
    one_in(&mut dice, 4).then(|| LimitParameters {
        message_bytes_max: 16 << 10,
        key_bytes_max: 64,
        txn_ops_max: 8,
        streams_max: *dice.pick(&[1, 2, 4]),
        log_bytes_kept: *dice.pick(&[16 << 10, 64 << 10]),
        bulk_bytes_per_second: 256 << 10,
    })
}

/// Some seeds have slow disks beside what they have chosen, a few have nothing else.
fn with_slow_disks(mut faults: FaultParameters, seed: u64) -> FaultParameters {
    match dice(seed, Part::SlowDisks).below(12) {
        0 => faults.kinds = vec![Kind::SlowDisk],
        1 | 2 => faults.kinds.push(Kind::SlowDisk),
        _ => {}
    }
    faults.kinds.sort();
    faults
}

fn workload(seed: u64) -> Name {
    *dice(seed, Part::Workload).pick(&Name::ALL)
}

fn unsynced(seed: u64) -> Unsynced {
    *dice(seed, Part::Unsynced).pick(&[Unsynced::PartlyKept, Unsynced::PartlyKept, Unsynced::AllLost])
}

fn one_in(dice: &mut Dice, times: u64) -> bool {
    dice.below(times) == 0
}

fn weather(dice: &mut Dice) -> Weather {
    let latency_min_ms = 1 + dice.below(5);
    let spread_ms = *dice.pick(&[0, 1, 3, 10, 40]);
    Weather { latency_min_ms, latency_max_ms: latency_min_ms + spread_ms, lost_permille: *dice.pick(&[0, 0, 1, 5, 20]) }
}

fn machine(dice: &mut Dice, skewed: bool, wrong: bool) -> MachineParameters {
    let sync = Duration::from_micros(*dice.pick(&[200, 1_000, 4_000, 12_000, 25_000]));
    // The choices are made whether or not they are used: what follows must not move.
    let (rate_ppm, offset_ms) = (800_000 + dice.below(400_001), dice.below(1_200_001) as i64 - 600_000);
    MachineParameters {
        sync,
        rate_ppm: if skewed { rate_ppm } else { 1_000_000 },
        wall_offset_ms: if wrong { offset_ms } else { 0 },
    }
}

fn load(dice: &mut Dice) -> LoadParameters {
    LoadParameters {
        workers: 3 + dice.below(4) as usize,
        pause_ms: *dice.pick(&[50, 150, 300]),
        call_timeout: Duration::from_millis(*dice.pick(&[500, 1_000, 2_000, 4_000])),
        retries: one_in(dice, 3),
    }
}

fn faults(dice: &mut Dice) -> FaultParameters {
    let mut kinds = Kind::ALL.to_vec();
    dice.shuffle(&mut kinds);
    kinds.truncate(if one_in(dice, 4) { Kind::ALL.len() } else { 1 + dice.below(3) as usize });
    kinds.sort();
    FaultParameters {
        kinds,
        from_ms: if one_in(dice, 4) { 0 } else { 2_000 + dice.below(3_000) },
        lasts_ms: *dice.pick(&[500, 2_000, 6_000]),
        pause_ms: *dice.pick(&[1_500, 4_000, 8_000]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::faults::schedule;

    #[test]
    fn a_seed_stands_for_one_run() {
        assert_eq!(Parameters::of(7), Parameters::of(7));
        assert_ne!(Parameters::of(7), Parameters { seed: 7, ..Parameters::of(8) });
        let parts = [
            Part::Parameters,
            Part::Network,
            Part::Nodes,
            Part::Faults,
            Part::Load,
            Part::Workload,
            Part::Session,
            Part::Unsynced,
            Part::Short,
            Part::Watched,
            Part::Folders,
            Part::Limits,
            Part::SlowDisks,
            Part::Compaction,
        ];
        let first: BTreeSet<u64> = parts.into_iter().map(|part| dice(7, part).roll()).collect();
        assert_eq!(first.len(), parts.len(), "parts choose for themselves");
    }

    #[test]
    fn seeds_reach_every_fault_size_and_workload() {
        let runs: Vec<Parameters> = (0..1000).map(Parameters::of).collect();
        for kind in Kind::ALL.into_iter().chain([Kind::SlowDisk]) {
            assert!(runs.iter().any(|run| run.faults.kinds == [kind]), "{kind} alone");
        }
        let sizes: BTreeSet<usize> = runs.iter().map(|run| run.nodes).collect();
        assert_eq!(sizes, BTreeSet::from([3, 4, 5]));
        let workloads: BTreeSet<Name> = runs.iter().map(|run| run.workload).collect();
        assert_eq!(workloads, BTreeSet::from(Name::ALL));
        assert!(runs.iter().all(|run| run.machines.len() == run.nodes && !run.faults.kinds.is_empty()));
        let watched: Vec<&Parameters> = runs.iter().filter(|run| run.session.is_some()).collect();
        assert!(!watched.is_empty() && watched.iter().all(|run| run.clocks_are_right()));
        assert!(runs.iter().any(|run| run.folders.is_some()) && runs.iter().any(|run| run.limits.is_some()));
        assert!(runs.iter().any(|run| run.compaction.is_some() && run.folders.is_some() && run.session.is_some()));
    }

    #[test]
    fn a_short_run_is_short_and_has_a_fault() {
        for seed in 0..1000 {
            let (full, short) = (Parameters::of(seed), Parameters::of(seed).shortened());
            assert_eq!(short, Parameters::of(seed).shortened());
            assert!((4_000..7_000).contains(&short.safety_ms) && short.safety_ms < full.safety_ms, "{seed}");
            assert!(short.faults.kinds.iter().all(|kind| full.faults.kinds.contains(kind)), "{seed}");
            let planned = schedule(&short.faults, short.nodes, short.safety_ms, dice(seed, Part::Faults));
            assert!(!planned.is_empty(), "{seed}");
        }
    }
}
