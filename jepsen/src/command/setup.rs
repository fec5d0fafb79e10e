//! What a run needs beside its workload, its faults and its seed: arguments of `jepsen test` and `jepsen test-all`.
//!
//! It is judged before anything is started: whether the target has its program, and whether the faults and what is
//! expected of the run can be had.
//!
//! Left out: starting anything (`test.rs`).

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;

use super::Usage;
use crate::backend;
use crate::cluster::Program;
use crate::coverage::Expected;
use crate::ledger;
use crate::nemesis::{self, FaultKind, Needs};
use crate::target::Target;

// What a run needs beside its workload, its faults and its seed. Said in a doc comment it would be the command line's help.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Setup {
    /// What is tested
    #[arg(long, value_enum, default_value_t = Target::Trefoil)]
    pub(super) target: Target,
    /// The server of Trefoil
    #[arg(long, env = "KVD_BIN")]
    pub(super) kvd: Option<PathBuf>,
    /// The server of etcd
    #[arg(long, env = "ETCD_BIN")]
    pub(super) etcd: Option<PathBuf>,
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(1..=16))]
    pub(super) nodes: usize,
    #[arg(long, value_enum, default_value_t = Where::Namespaces)]
    pub(super) backend: Where,
    /// How many faults there may be at a time, 1 or 2 [default: 1; of test-all 2 with even seeds]
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=2))]
    pub(super) at_once: Option<usize>,
    /// What must be seen to happen, separated by commas: otherwise the run is unknown
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) expect: Vec<Expected>,
    /// The preload shim, which faults of disks need [default: the one beside this program]
    #[arg(long)]
    pub(super) shim: Option<PathBuf>,
    /// Seconds of load
    #[arg(long, default_value_t = 60)]
    pub(super) time_limit: u64,
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(super) concurrency: usize,
    /// Calls a second, all together; those who watch beside the load ask theirs beside these
    #[arg(long, default_value_t = 200.0, value_parser = calls_a_second)]
    pub(super) rate: f64,
    /// Where the run's folder is made
    #[arg(long, default_value = "chaos-runs")]
    pub(super) out: PathBuf,
    /// Keep the data directories of the nodes also of a valid run
    #[arg(long)]
    pub(super) keep_data: bool,
}

/// Where the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Where {
    /// A network namespace for each node (root)
    Namespaces,
    /// Processes on the loopback, with proxies between them if faults of the network are asked for
    Loopback,
}

impl Setup {
    /// What the nodes run.
    ///
    /// # Errors
    /// The target's program is not given.
    pub(super) fn program(&self) -> Result<Program, Usage> {
        let (given, flag, variable) = match self.target {
            Target::Trefoil => (self.kvd.clone().map(Program::Kvd), "--kvd", "KVD_BIN"),
            Target::Etcd => (self.etcd.clone().map(Program::Etcd), "--etcd", "ETCD_BIN"),
        };
        given.ok_or_else(|| Usage(format!("--target {} needs its program: {flag} PATH, or {variable}", self.target)))
    }

    /// Prints what can be brought about on this machine; nothing when no faults are asked for.
    ///
    /// # Errors
    /// The target's program is not given.
    pub(super) fn print_capabilities(&self, with_faults: bool) -> Result<(), Usage> {
        let program = self.program()?;
        if with_faults {
            print!("{}", backend::probe(program.path(), self.shim.as_deref()));
        }
        Ok(())
    }

    /// The same on a backend that can have these faults: what only proxies bring about is had on the loopback.
    pub(super) fn able_to(&self, faults: &[FaultKind]) -> Setup {
        let with_proxies = faults.iter().any(|kind| kind.needs() == Needs::Proxies);
        Setup { backend: if with_proxies { Where::Loopback } else { self.backend }, ..self.clone() }
    }

    /// How many faults there are at a time, at most.
    pub(super) fn at_once(&self) -> usize {
        self.at_once.unwrap_or(1)
    }

    /// The same with two faults at a time for every second seed, unless something else was asked for.
    pub(super) fn with_seed(self, seed: u64) -> Setup {
        let by_turns = if seed.is_multiple_of(2) { 2 } else { 1 };
        Setup { at_once: self.at_once.or(Some(by_turns)), ..self }
    }

    /// What the ledger keeps of it.
    pub(super) fn conditions(&self, server_sha256: &str) -> ledger::Conditions {
        ledger::Conditions {
            target: self.target,
            server_sha256: server_sha256.to_owned(),
            backend: word(&self.backend),
            nodes: self.nodes,
            rate: self.rate,
            concurrency: self.concurrency,
            time_limit: self.time_limit,
            at_once: self.at_once(),
            expect: self.expect.clone(),
        }
    }

    /// Whether a run against this target can be under these faults, and be for what is expected of it.
    ///
    /// # Errors
    /// It cannot, and why.
    pub(super) fn allows(&self, faults: &[FaultKind]) -> Result<(), Usage> {
        let target = self.target;
        if let Some((kind, why)) = faults.iter().find_map(|kind| Some((kind, target.refuses(*kind)?))) {
            return Err(Usage(format!("there is no fault {kind} with --target {target}: {why}")));
        }
        let expected = nemesis::expected(faults, &self.expect);
        match expected.into_iter().find_map(|what| Some((what, target.hides(what)?))) {
            Some((what, why)) => Err(Usage(format!("no {what} can be seen with --target {target}: {why}"))),
            None => Ok(()),
        }
    }
}

fn calls_a_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "this is no number".to_owned())?;
    match rate > 0.0 && rate.is_finite() {
        true => Ok(rate),
        false => Err("this is not above 0 and finite".to_owned()),
    }
}

/// A choice as the command line has it.
pub(super) fn word<T: ValueEnum>(choice: &T) -> String {
    choice.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}
