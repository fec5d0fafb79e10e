//! The nemesis: puts faults in force, finds out whether they are, and heals them.
//!
//! Choosing is pure (`choice.rs`, `grudge.rs`): a seed, where the default partition is and who leads give the fault. Doing
//! it is thin (`force.rs`). The kinds asked for come in turns, each once in a random order before any comes again, so that
//! a run of some length has had them all; one that comes beside another is the next that goes with it (`beside.rs`). What
//! happened is told as [`Seen`], for the history: a fault is [`FaultPhase::InForce`] only when a probe has seen it at work,
//! and one that could not be put in force is said to be so, with the reason.
//!
//! Invariants:
//!
//! * A fault is noted before anything is done for it, so that a dropped or failed injection is healed too.
//! * Healing heals everything, and may be repeated. A fault is [`FaultPhase::Healed`] only when a probe has seen that it is
//!   gone.
//! * A node that takes a fault otherwise than it must is a finding, whatever the history says. So is each healing, and
//!   each start of nodes, that came to nothing, whatever came of the next one.
//! * Each fault is chosen by dice of its own: what was known when the ones before it were chosen changes nothing.
//!
//! Left out: when faults come and go, and how many there are at a time, which is the run's choice; healing one and not the
//! others.

mod beside;
mod choice;
mod fault;
mod force;
mod grudge;
mod kind;
mod unseats;

use std::collections::BTreeSet;

pub use fault::{Fault, Targets, Victim};
pub use grudge::{Grudge, Shape};
pub use kind::{FaultKind, Needs, UnknownFault};

use crate::backend::Cut;
use crate::cluster::status::Placement;
use crate::cluster::{Cluster, NotServing};
use crate::coverage::{AskedFor, Expected};
use crate::generator::Dice;
use crate::history::FaultPhase;

use force::Found;

/// What a fault is called (the kind asked for; of a partition of any shape its own), what became of it, and in words whom
/// it hits and what was seen.
pub type Seen = (String, FaultPhase, String);

/// How often the last healing is tried: a node may need longer to be ready than it is given once.
const FINAL_ATTEMPTS: u32 = 2;
/// Sets the nemesis' choices apart from others that are made of the same seed ("nemesis").
const STREAM: u64 = 0x6e_656d_6573_6973;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Nemesis {
    kinds: Vec<FaultKind>,
    /// Those still to come in this turn, the next one last.
    turn: Vec<FaultKind>,
    dice: Dice,
    active: Vec<(FaultKind, Fault)>,
    findings: Vec<String>,
    not_healed: Vec<String>,
    /// How many faults in force have had another node lead.
    unseated: u64,
    /// Whether the one in force, which is alone, is among these.
    last_unseats: bool,
}

impl Nemesis {
    /// One that puts faults of these kinds in force. None: it does nothing.
    pub fn new(kinds: &[FaultKind], seed: u64) -> Nemesis {
        let dice = Dice::new(seed ^ STREAM);
        let (turn, active, findings, not_healed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Nemesis { kinds: kinds.to_vec(), turn, dice, active, findings, not_healed, unseated: 0, last_unseats: false }
    }

    /// The names of the kinds of faults asked for.
    pub fn kinds(&self) -> Vec<String> {
        self.kinds.iter().map(FaultKind::to_string).collect()
    }

    /// The same with what they are noted as: each must have been in force for a run to prove anything.
    pub fn asked_for(&self) -> Vec<AskedFor> {
        self.kinds.iter().map(|kind| AskedFor { name: kind.to_string(), noted_as: noted_as(*kind) }).collect()
    }

    /// How many faults in force so far have had another node lead the default partition. Only those that were alone: with
    /// another one beside it there may be no majority to elect anybody.
    pub fn unseated(&self) -> u64 {
        self.unseated
    }

    /// What nodes did that they must not do under the faults so far.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Why healings failed, or nodes did not come back, so far: a line for each time.
    pub fn not_healed(&self) -> &[String] {
        &self.not_healed
    }

    /// The faults that are not healed.
    pub fn active(&self) -> impl Iterator<Item = &Fault> {
        self.active.iter().map(|(_, fault)| fault)
    }

    /// Whether faults of the kinds asked for can go beside each other in such a cluster, whoever leads it.
    pub fn can_pair(&self, placement: &Placement) -> bool {
        let leader = placement.leader.or(placement.holders.first().copied());
        beside::can_pair(&self.kinds, &Placement { leader, ..placement.clone() })
    }

    /// Puts the next fault in force, alone, and probes it. What an earlier healing has left is healed first; nothing is put
    /// in force when it stays.
    pub async fn inject(&mut self, cluster: &mut Cluster, placement: &Placement) -> Vec<Seen> {
        let (order, dice) = (self.dice.split(), self.dice.split());
        let mut seen = Vec::new();
        if !self.active.is_empty() {
            seen = self.heal(cluster).await;
        }
        if self.active.is_empty() {
            seen.extend(self.inject_next(order, dice, cluster, placement).await);
        }
        seen
    }

    /// The same beside the faults in force: the next that goes with them; nothing, when none does. No kind is in force
    /// twice. With none in force it comes alone.
    pub async fn inject_beside(&mut self, cluster: &mut Cluster, placement: &Placement) -> Vec<Seen> {
        if self.active.is_empty() {
            return self.inject(cluster, placement).await;
        }
        let (order, dice) = (self.dice.split(), self.dice.split());
        let Some((kind, fault)) = self.next_beside(order, &dice, cluster, placement) else { return Vec::new() };
        self.unseated -= u64::from(std::mem::take(&mut self.last_unseats));
        self.put_in_force(kind, &fault, cluster, placement).await
    }

    async fn inject_next(
        &mut self,
        order: Dice,
        mut dice: Dice,
        cluster: &mut Cluster,
        placement: &Placement,
    ) -> Vec<Seen> {
        let Some(kind) = self.next_kind(order) else { return Vec::new() };
        let unsupported = |why: String| vec![(kind.to_string(), FaultPhase::Unsupported, why)];
        let fault = match kind.choose(&mut dice, placement) {
            Ok(fault) => fault,
            Err(why) => return unsupported(why),
        };
        if let Some(why) = why_not(kind, cluster) {
            return unsupported(why.to_owned());
        }
        // A disk that has failed may have ended a node after it was healed.
        if let Err(error) = cluster.restart().await {
            let why = format!("before {kind}: {error:#}");
            self.not_healed.push(why.clone());
            return vec![still_there(&why)];
        }
        self.put_in_force(kind, &fault, cluster, placement).await
    }

    async fn put_in_force(
        &mut self,
        kind: FaultKind,
        fault: &Fault,
        cluster: &mut Cluster,
        placement: &Placement,
    ) -> Vec<Seen> {
        let seen = |phase, detail: String| (name(kind, fault), phase, detail);
        self.active.push((kind, fault.clone()));
        let done = match force::inject(cluster, fault).await {
            Ok(done) => done,
            Err(error) => {
                self.note_not_serving(kind, &error);
                return vec![seen(FaultPhase::Unsupported, format!("{fault}: {error:#}"))];
            }
        };
        let injected = seen(FaultPhase::Injected, told(fault, &done.said));
        match force::probe(cluster, fault, &done, self.cuts()).await {
            Ok(Found { seen: found, findings }) => {
                self.last_unseats = self.active.len() == 1 && unseats::unseats(fault, placement);
                self.unseated += u64::from(self.last_unseats);
                self.findings.extend(findings.into_iter().map(|finding| format!("{kind}: {finding}")));
                vec![injected, seen(FaultPhase::InForce, format!("{fault}: {found}"))]
            }
            Err(error) => {
                self.note_not_serving(kind, &error);
                vec![injected, seen(FaultPhase::Unsupported, format!("{fault}: {error:#}"))]
            }
        }
    }

    /// Nodes that do not come back are a finding, also where they were started for a fault's sake.
    fn note_not_serving(&mut self, kind: FaultKind, error: &anyhow::Error) {
        if error.downcast_ref::<NotServing>().is_some() {
            self.not_healed.push(format!("{kind}: {error:#}"));
        }
    }

    /// Heals all faults, waits until every node is ready, and looks whether each fault is gone. What is not, or not known
    /// to be, stays noted, and is said to be still there.
    pub async fn heal(&mut self, cluster: &mut Cluster) -> Vec<Seen> {
        self.last_unseats = false;
        let failed = force::heal(cluster).await.err().map(|error| format!("{error:#}"));
        self.not_healed.extend(failed.clone());
        let (mut seen, mut left) = (Vec::new(), Vec::new());
        // They are noted until it is known what became of all of them.
        for (kind, fault) in self.active.clone() {
            let gone = match &failed {
                None => force::probe_healed(cluster, &fault).await.map_err(|error| format!("{kind}: {error:#}")),
                Some(why) => Err(why.clone()),
            };
            match gone {
                Ok(gone) => seen.push((name(kind, &fault), FaultPhase::Healed, told(&fault, &gone))),
                Err(why) => {
                    seen.push((name(kind, &fault), FaultPhase::Injected, format!("{fault}; not healed: {why}")));
                    self.not_healed.extend(failed.is_none().then_some(why));
                    left.push((kind, fault));
                }
            }
        }
        self.active = left;
        if let Some(why) = failed.filter(|_| seen.is_empty()) {
            seen.push(still_there(&why));
        }
        seen
    }

    /// Brings everything back, whatever was done; again if that fails. Nodes that ended by themselves are started too, also
    /// those that do so late: [`Cluster::ended`] knows those without reason. Each time that it comes to nothing is in
    /// [`Nemesis::not_healed`].
    pub async fn final_heal(&mut self, cluster: &mut Cluster) -> Vec<Seen> {
        let mut seen = Vec::new();
        for _ in 0..FINAL_ATTEMPTS {
            let now = self.heal(cluster).await;
            let healed = now.iter().all(|(_, phase, _)| *phase == FaultPhase::Healed);
            seen.extend(now);
            if healed {
                break;
            }
        }
        if let Err(error) = cluster.settle().await {
            self.not_healed.push(format!("{error:#}"));
        }
        seen
    }

    /// The next kind. `order`: of the next turn, if one begins.
    fn next_kind(&mut self, order: Dice) -> Option<FaultKind> {
        self.begin_turn(order);
        self.turn.pop()
    }

    /// The next kind of this turn that goes beside those in force, and whom it hits. What this cluster cannot have is
    /// said when it is its turn to be alone.
    fn next_beside(
        &mut self,
        order: Dice,
        dice: &Dice,
        cluster: &Cluster,
        placement: &Placement,
    ) -> Option<(FaultKind, Fault)> {
        self.begin_turn(order);
        let able: Vec<FaultKind> = self.turn.iter().copied().filter(|kind| why_not(*kind, cluster).is_none()).collect();
        let (kind, fault) = beside::choose(&able, &self.active, dice, placement)?;
        let place = self.turn.iter().rposition(|left| *left == kind).expect("it was chosen from these");
        self.turn.remove(place);
        Some((kind, fault))
    }

    fn begin_turn(&mut self, mut order: Dice) {
        if self.turn.is_empty() {
            self.turn = self.kinds.clone();
            order.shuffle(&mut self.turn);
        }
    }

    /// All that is to be dropped now.
    fn cuts(&self) -> BTreeSet<Cut> {
        self.active().flat_map(Fault::cuts).collect()
    }
}

/// What is noted when nodes do not come back and no fault is known to be in force.
fn still_there(why: &str) -> Seen {
    ("heal".to_owned(), FaultPhase::Injected, format!("not healed: {why}"))
}

/// A fault, and what was done or seen of it, if there is something to be said.
fn told(fault: &Fault, what: &str) -> String {
    format!("{fault}{}{what}", if what.is_empty() { "" } else { ": " })
}

/// What a fault of a kind is noted as.
fn name(kind: FaultKind, fault: &Fault) -> String {
    match fault {
        Fault::Partition { shape, .. } => FaultKind::PartitionOf(*shape).to_string(),
        Fault::Kill { .. } | Fault::KillAll { .. } | Fault::PowerLoss { .. } | Fault::Pause { .. } => kind.to_string(),
        Fault::PeerPortCut { .. } | Fault::Weather { .. } | Fault::Broken { .. } => kind.to_string(),
        Fault::SyncError { .. } | Fault::DiskFull { .. } => kind.to_string(),
        Fault::Replaced { .. } | Fault::SnapshotUnderFire { .. } => kind.to_string(),
    }
}

/// All that a fault of a kind may be noted as.
fn noted_as(kind: FaultKind) -> Vec<String> {
    match kind == FaultKind::Partition {
        true => Shape::ALL.map(|shape| FaultKind::PartitionOf(shape).to_string()).into(),
        false => vec![kind.to_string()],
    }
}

/// The flags nodes need for faults of these kinds.
pub fn flags(kinds: &[FaultKind]) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    for (flag, value) in kinds.iter().flat_map(|kind| kind.flags().chunks_exact(2)).map(|pair| (pair[0], pair[1])) {
        if !flags.iter().any(|known| known == flag) {
            flags.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    flags
}

/// What must be seen to happen in a run with faults of these kinds for which this is asked; each once.
pub fn expected(kinds: &[FaultKind], asked_for: &[Expected]) -> Vec<Expected> {
    let of_kinds = kinds.iter().flat_map(|kind| kind.expects().iter().copied());
    let all: BTreeSet<Expected> = asked_for.iter().copied().chain(of_kinds).collect();
    all.into_iter().collect()
}

/// Why the cluster can have no such fault.
fn why_not(kind: FaultKind, cluster: &Cluster) -> Option<&'static str> {
    match kind.needs() {
        Needs::Processes => None,
        Needs::Links => cluster.links().err(),
        Needs::Proxies => match cluster.links() {
            Ok(links) => links.proxies().err(),
            Err(why) => Some(why),
        },
        Needs::Shim => cluster.shim().err(),
    }
}

#[cfg(test)]
mod tests;
