//! Simulation: whole clusters in one thread, under simulated time, network and disks, from one number.
//!
//! A run has two phases. In the first clients load the cluster while faults come and go as the seed says; whatever
//! happens, nothing wrong may be seen. Then everything is healed, and the cluster must serve and converge within a
//! bound; if the faults were so dense that too little was answered for a verdict, the load goes on for a while first,
//! which takes from that bound. Server and client library are the ones that are shipped; the world they run in is not.
//!
//! The modules, in the order to read them: [`parameters`] makes a run of a seed; [`network`], [`disk`] and [`machine`]
//! are the world, and [`system`] is what libraries see that do not ask it; [`cluster`] has nodes in it; [`faults`] plans
//! and [`nemesis`] acts; [`clients`] ask and [`liveness`] asks last, some by [`direct`]; [`invariants`], the chaos
//! harness's checkers, the [`watcher`]s, which are [`session`] and [`folders`], and [`Compaction`] judge; [`trace`] tells
//! two runs apart, and [`probes`] what rare states they reach. [`profiles`] are runs in which a planted bug comes to light.
//! [`shrink`] makes red runs smaller, and [`ledger`] keeps what many came to.
//!
//! Invariants:
//!
//! * Everything that happens comes from the seed: two processes that run it leave the same trace.
//! * A process runs one seed: libraries may keep state that outlives a run.
//!
//! Left out: failing disks, and schedules of threads, since there is one.

pub mod clients;
pub mod cluster;
pub mod direct;
pub mod disk;
pub mod faults;
pub mod folders;
pub mod invariants;
pub mod ledger;
pub mod liveness;
pub mod machine;
pub mod nemesis;
pub mod network;
pub mod parameters;
pub mod probes;
pub mod profiles;
pub mod session;
pub mod shrink;
pub mod system;
pub mod trace;
pub mod watcher;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::future;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use trefoil_jepsen::checker::{Valid, Verdict, worst};
use trefoil_jepsen::compaction::Compaction;
use trefoil_jepsen::coverage::{self, Floor, Gate};
use trefoil_jepsen::history::{Outcome, What, pair};
use trefoil_jepsen::outcome::Access;
use trefoil_jepsen::with_workload;
use trefoil_jepsen::workload::{Name, Workload};
use trefoil_world::task;

use crate::clients::{Asking, Book, Load};
use crate::cluster::Cluster;
use crate::folders::Folders;
use crate::invariants::Invariants;
use crate::liveness::{CONVERGED_IN, Converged};
use crate::nemesis::{Nemesis, Noted};
use crate::parameters::{Parameters, Part, dice};
use crate::probes::{Probes, Rare};
use crate::session::Watched;
use crate::shrink::Narrowing;
use crate::system::TakenOver;
use crate::trace::Trace;

/// How much longer than its bound the liveness phase may take to end: calls that were begun have their own deadline.
const ENDED_IN: Duration = Duration::from_secs(15);
/// How long after the last fault the load goes on at most when it has shown too little, and how often that is asked.
const LONGER_MAX_MS: u64 = 20_000;
const LONGER_STEP_MS: u64 = 100;
/// How often what replicas hold is counted anew.
const RECOUNTED_EVERY_MS: u64 = 5_000;

/// A bug that is there on purpose, to show that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Disks that have not synced what they say they have.
    ForgetfulDisks,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    pub workload: Name,
    pub valid: Valid,
    pub verdicts: Vec<Verdict>,
    pub simulated_ms: u64,
    /// Per kind of call: how many ended ok, as failed, as unknown.
    pub operations: BTreeMap<String, [u64; 3]>,
    /// How often each kind of fault was in force.
    pub faults: BTreeMap<String, u64>,
    /// Kinds of faults that have begun and were never in force.
    pub in_vain: Vec<String>,
    /// How often rare states were reached.
    pub rare: Probes,
    pub connections: u64,
    pub trace_lines: u64,
    pub trace_sha256: String,
}

/// Runs what is left of what a seed stands for, while clocks and randomness are taken over. Call it once in a process.
pub fn run(
    parameters: Parameters,
    narrowing: &Narrowing,
    planted: Option<Planted>,
    trace: Trace,
    _system: &TakenOver,
) -> Report {
    with_workload!(parameters.workload, W => Run::<W>::new(parameters, narrowing, planted, trace).play())
}

/// The faults that a run has when nothing is left out of it, by when they begin.
pub fn planned(parameters: &Parameters) -> Vec<faults::Planned> {
    let faults = dice(parameters.seed, Part::Faults);
    faults::schedule(&parameters.faults, parameters.nodes, parameters.safety_ms, faults)
}

/// A run of one workload.
struct Run<W: Workload> {
    parameters: Parameters,
    cluster: Cluster,
    nemesis: Nemesis,
    invariants: Invariants,
    book: Book<W::Call, W::Reply>,
    session: Option<Watched>,
    folders: Option<Folders>,
    compaction: Option<Compaction>,
    trace: Trace,
    /// Invariants that do not hold: with the first one the run is over.
    violations: Vec<String>,
    probes: Probes,
}

impl<W: Workload + Default> Run<W> {
    fn new(parameters: Parameters, narrowing: &Narrowing, planted: Option<Planted>, trace: Trace) -> Run<W> {
        // The plan is that of the whole run: a fault's place in it does not depend on what is left out.
        let planned = narrowing.planned(planned(&parameters));
        let parameters = narrowing.parameters(parameters);
        trace.line(0, format_args!("{parameters:?}"));
        Run {
            cluster: Cluster::new(&parameters, planted == Some(Planted::ForgetfulDisks), trace.clone()),
            nemesis: Nemesis::new(planned),
            invariants: Invariants::default(),
            book: book(trace.clone()),
            session: None,
            folders: None,
            compaction: None,
            trace,
            violations: Vec::new(),
            probes: Probes::default(),
            parameters,
        }
    }

    fn play(mut self) -> Report {
        let (load, asking) = self.begin();
        while self.cluster.now_ms() < self.parameters.safety_ms && !self.is_broken() {
            let noted = self.nemesis.act(&mut self.cluster);
            self.note(noted);
            let leaders = self.nemesis.jumped().into_iter().filter(|node| self.invariants.leads(*node)).count();
            self.probes.count(Rare::LeaderClockJump, leaders as u64);
            self.step();
        }
        let noted = self.nemesis.heal_all(&mut self.cluster);
        self.note(noted);
        let healed_ms = self.cluster.now_ms();
        self.go_on_longer(healed_ms + LONGER_MAX_MS);
        let converged = self.converge(load, asking, healed_ms);
        self.judge(converged)
    }

    /// Lets the load go on until it has shown enough, or until then.
    fn go_on_longer(&mut self, until_ms: u64) {
        while self.cluster.now_ms() < until_ms && !self.is_broken() && self.lacks() {
            (0..LONGER_STEP_MS).for_each(|_| self.step());
        }
    }

    /// Whether too little was answered for a verdict so far.
    fn lacks(&self) -> bool {
        let gates = coverage::successes::<W>(&pair(&self.book.events()), Floor::SEED);
        !gates.iter().all(Gate::is_met) || self.watchers().iter().any(|verdict| verdict.valid == Valid::Unknown)
    }

    /// What those found who watch beside the load.
    fn watchers(&self) -> Vec<Verdict> {
        let session = self.session.iter().map(Watched::verdict);
        let folders = self.folders.iter().map(Folders::verdict);
        session.chain(folders).chain(self.compaction.iter().map(Compaction::verdict)).collect()
    }

    /// Starts all nodes and the load.
    fn begin(&mut self) -> (Load<W>, Asking<W>) {
        (0..self.cluster.size()).for_each(|node| self.cluster.start(node));
        let Run { parameters, cluster, book, session, folders, compaction, .. } = self;
        let endpoints = cluster.endpoints();
        *session = parameters.session.as_ref().map(|how| {
            cluster.clients.run(async { Watched::start(how, &endpoints, dice(parameters.seed, Part::Session)) })
        });
        *folders = parameters.folders.as_ref().map(|how| {
            cluster.clients.run(async { Folders::start(how, &endpoints, dice(parameters.seed, Part::Folders).split()) })
        });
        *compaction = parameters.compaction.as_ref().map(|how| {
            let dice = dice(parameters.seed, Part::Compaction).split();
            cluster.clients.run(async { Compaction::start(how.pause_ms, &endpoints, dice).0 })
        });
        let mut choices = dice(parameters.seed, Part::Load);
        let begun = async {
            let asking = Asking::new(W::default(), choices.split(), book.clone());
            (Load::start(&parameters.load, &endpoints, asking.clone(), choices), asking)
        };
        cluster.clients.run(begun)
    }

    fn note(&mut self, noted: Vec<Noted>) {
        let at = Duration::from_millis(self.cluster.now_ms());
        for (kind, phase, detail) in noted {
            self.book.record(at, What::Fault { name: kind.name().into(), phase, detail });
        }
    }

    /// Lets a millisecond pass, and looks whether all is as it must be.
    fn step(&mut self) {
        self.cluster.step();
        if self.cluster.now_ms().is_multiple_of(RECOUNTED_EVERY_MS) {
            self.recount();
        }
        for node in 0..self.cluster.size() {
            // A loss of power takes un-synced applies: its disk is looked at again in the node's next life.
            if !self.cluster.runs(node) || self.parameters.blind {
                continue;
            }
            let (disk, starts) = self.cluster.disk(node);
            match self.invariants.look(node, starts, disk) {
                Ok(None) => {}
                Ok(Some(line)) => self.trace.line(self.cluster.now_ms(), line),
                Err(why) => {
                    self.trace.line(self.cluster.now_ms(), format_args!("violated: {why}"));
                    self.violations.push(why);
                }
            }
        }
    }

    /// Looks whether the nodes that run hold what they say.
    fn recount(&mut self) {
        if self.parameters.blind {
            return;
        }
        let running = (0..self.cluster.size()).filter(|node| self.cluster.runs(*node));
        let found = running.map(|node| invariants::recount(self.cluster.disk(node).0).map_err(|why| (node, why)));
        for (node, why) in found.filter_map(Result::err) {
            self.trace.line(self.cluster.now_ms(), format_args!("violated: n{}: {why}", node + 1));
            self.violations.push(format!("n{}: {why}", node + 1));
        }
    }

    fn is_broken(&self) -> bool {
        !self.violations.is_empty() || !self.cluster.broken().is_empty()
    }

    /// The liveness phase: its bound counts from when all was healed. Nothing is known about it when the run was over
    /// before.
    fn converge(&mut self, load: Load<W>, asking: Asking<W>, healed_ms: u64) -> Verdict {
        const CHECKER: &str = "liveness";
        self.session.iter().for_each(Watched::stop);
        self.folders.iter().for_each(Folders::stop);
        self.compaction.iter().for_each(Compaction::stop);
        let (endpoints, outcasts) = (self.cluster.endpoints(), self.cluster.outcasts());
        let within = CONVERGED_IN - Duration::from_millis(self.cluster.now_ms() - healed_ms);
        let start = future::lazy(|_| task::spawn(liveness::converge(load, asking, endpoints, outcasts, within)));
        let converging: JoinHandle<Result<Converged, String>> = self.cluster.clients.run(start);
        let until_ms = healed_ms + (CONVERGED_IN + ENDED_IN).as_millis() as u64;
        while !converging.is_finished() && !self.is_broken() && self.cluster.now_ms() < until_ms {
            self.step();
        }
        if self.is_broken() {
            return Verdict::unknown(CHECKER, "the run was over before");
        }
        if !converging.is_finished() {
            return Verdict::invalid(CHECKER, vec!["a call has passed its deadline".into()]);
        }
        match self.cluster.clients.run(converging) {
            Ok(Ok(Converged { forwards, compactions, out })) => {
                self.recount();
                self.probes.count(Rare::Forward, forwards);
                self.probes.count(Rare::Compacted, compactions);
                self.probes.count(Rare::StayedOut, out);
                Verdict::valid(CHECKER)
            }
            Ok(Err(why)) => Verdict::invalid(CHECKER, vec![why]),
            Err(panic) => Verdict::invalid(CHECKER, vec![panic.to_string()]),
        }
    }

    fn judge(mut self, converged: Verdict) -> Report {
        let history = self.book.events();
        let operations = pair(&history);
        let unknown = operations.iter().filter(|operation| matches!(operation.outcome, Outcome::Info(_)));
        let writes = unknown.filter(|operation| W::access(&operation.call) == Access::Write).count();
        self.probes.count(Rare::UnknownWrite, writes as u64);
        self.probes.add(self.cluster.probes());
        self.probes.add(self.invariants.probes());
        self.probes.count(Rare::ContextElsewhere, self.folders.as_ref().map_or(0, Folders::elsewhere));
        if self.session.is_some() {
            self.probes.count(Rare::SessionLeaderChange, self.invariants.probes().times(Rare::LeaderChange));
        }
        let counts = coverage::counted::<W>(&operations);
        let mut gates = coverage::successes::<W>(&operations, Floor::SEED);
        gates.extend(self.nemesis.gates());
        let mut verdicts = vec![
            coverage::nothing_found("invariants", &self.violations),
            coverage::nothing_found("nodes", self.cluster.broken()),
            converged,
            coverage::verdict(&gates),
        ];
        verdicts.extend(W::check(&operations));
        verdicts.extend(self.watchers());
        for verdict in &verdicts {
            self.trace.line(self.cluster.now_ms(), format_args!("{}: {}", verdict.checker, verdict.valid));
        }
        let in_force = self.nemesis.in_force().iter().map(|(kind, times)| (kind.name().to_owned(), *times));
        Report {
            seed: self.parameters.seed,
            workload: W::NAME,
            valid: worst(&verdicts),
            verdicts,
            simulated_ms: self.cluster.now_ms(),
            operations: counts,
            faults: in_force.collect(),
            in_vain: self.nemesis.in_vain().into_iter().map(|kind| kind.name().to_owned()).collect(),
            rare: self.probes,
            connections: self.cluster.network.carried().connections,
            trace_lines: self.trace.count(),
            trace_sha256: self.trace.sha256(),
        }
    }
}

/// The history, of which every event is in the trace.
fn book<C, R>(trace: Trace) -> Book<C, R>
where
    C: Clone + Debug + 'static,
    R: Clone + Debug + 'static,
{
    Book::new(move |event| trace.line(event.time.0 / 1_000_000, format_args!("{:?}", event.what)))
}
