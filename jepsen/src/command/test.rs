//! `jepsen test`: one run, and all that it leaves.
//!
//! A cluster is started, loaded under faults, and stopped; then the history is judged. The verdict is written first:
//! what cannot be written after it takes nothing away.
//!
//! Invariant: nodes that do not come to serve are a finding; anything else that goes wrong is the harness's own failure,
//! but for a counter-example, which stands.
//!
//! Left out: the run itself (`run.rs`), and what it needs (`setup.rs`).

#[cfg(test)]
mod tests;

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use trefoil_world::{clock, random};

use super::print_verdict;
use super::setup::{Setup, Where, word};
use crate::backend::Backend;
use crate::checker::Valid;
use crate::cluster::{Cluster, NotServing, Program, Shim};
use crate::edn::{self, Form};
use crate::history::Event;
use crate::matrix::Profile;
use crate::nemesis::{self, FaultKind, Needs, Nemesis};
use crate::report::{self, About};
use crate::run::{self, Plan, Run};
use crate::store::{self, Results};
use crate::wall::Wall;
use crate::workload::{Name, Workload};
use crate::{ledger, with_workload};

// What is said of this structure in a doc comment would be the command line's help.
#[derive(Debug, clap::Args)]
pub struct Test {
    #[arg(long, value_enum, default_value_t = Name::Register)]
    workload: Name,
    /// Faults, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "kill,pause,partition")]
    faults: Vec<FaultKind>,
    /// A quiet run
    #[arg(long, conflicts_with = "faults")]
    no_faults: bool,
    /// Of all choices; a fresh one is printed
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    setup: Setup,
}

impl Test {
    /// Runs it.
    ///
    /// # Errors
    /// [`Usage`](super::Usage); or the harness itself failed.
    pub async fn run(&self) -> anyhow::Result<Valid> {
        let seed = self.seed.unwrap_or_else(random::next_u64);
        let (setup, faults) = (&self.setup, self.faults());
        setup.allows(faults)?;
        setup.print_capabilities(!faults.is_empty())?;
        // Not everybody runs it in a checkout.
        let commit = ledger::commit().ok();
        let run = with_workload!(self.workload, W => run_one::<W>(setup, faults, seed, commit.as_deref()).await);
        Ok(run?.valid)
    }

    fn faults(&self) -> &[FaultKind] {
        if self.no_faults { &[] } else { &self.faults }
    }
}

/// One run, and all that it leaves.
pub(super) async fn run_one<W>(
    setup: &Setup,
    faults: &[FaultKind],
    seed: u64,
    commit: Option<&str>,
) -> anyhow::Result<Results>
where
    W: Workload + Default,
    W::Call: Form<Reply = W::Reply>,
{
    println!("seed {seed}");
    let began = Wall(clock::wall_ms());
    // The same seed again is another run.
    let folder = setup.out.join(format!("{}-{seed:016x}-{}", W::NAME, began.0));
    let backend = match setup.backend {
        Where::Namespaces => Backend::namespaces("ns", setup.nodes)?,
        Where::Loopback if faults.iter().any(|kind| kind.needs().network()) => Backend::proxied(setup.nodes).await?,
        Where::Loopback => Backend::loopback(setup.nodes)?,
    };
    let (plan, mut nemesis) = (plan(setup, faults, seed), Nemesis::new(faults, seed));
    let keep = |history: &[Event<W::Call, W::Reply>]| store::save_history(&folder, history);
    let mut data = Vec::new();
    let run = match start(backend, setup, faults, &folder).await {
        Ok(mut cluster) => {
            data = cluster.folders();
            run::run::<W>(&mut cluster, &mut nemesis, &plan, keep).await
        }
        // Nodes that do not come to serve are a finding; anything else is the harness's own failure.
        Err(error) => {
            let run = Run::never_began(&error.downcast::<NotServing>()?);
            leave("history.jsonl", || keep(&run.history));
            run
        }
    };
    // The verdict first: what cannot be written after it takes nothing away.
    let results = store::sum::<W>((setup.target, seed, began), &run);
    leave("results.json", || store::save(&folder, &results));
    print(&results, &folder);
    let Run { history, verdicts, gates, failures, .. } = run;
    leave("the history as EDN", || edn::save(&folder, &history));
    let about = About {
        seed,
        began,
        facts: facts(setup, faults, commit),
        command: again(setup, W::NAME, faults, seed),
        verdicts,
        gates,
    };
    leave("report.html", || report::save::<W>(&folder, &history, about));
    if is_spent(results.valid, setup.keep_data) {
        store::remove_data(&data);
    }
    concluded(results, &failures)
}

/// Leaves something beside the verdict: when it cannot be written, that is said, and changes nothing.
fn leave(what: &str, write: impl FnOnce() -> io::Result<()>) {
    match panic::catch_unwind(AssertUnwindSafe(write)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("jepsen: {what} is not written: {error}"),
        // The panic has said why.
        Err(_) => eprintln!("jepsen: {what} is not written"),
    }
}

/// Whether nobody needs what the nodes have left on their disks: it is for whoever looks for what went wrong.
fn is_spent(valid: Valid, keep_data: bool) -> bool {
    match valid {
        Valid::True => !keep_data,
        Valid::Unknown | Valid::False => false,
    }
}

/// The results, unless the harness failed. A counter-example stands, whatever else went wrong.
fn concluded(results: Results, failures: &[String]) -> anyhow::Result<Results> {
    ensure!(failures.is_empty() || results.valid == Valid::False, "{}", failures.join("; "));
    Ok(results)
}

fn plan(setup: &Setup, faults: &[FaultKind], seed: u64) -> Plan {
    Plan {
        seed,
        lasts: Duration::from_secs(setup.time_limit),
        workers: setup.concurrency,
        rate: setup.rate,
        call_timeout: Duration::from_secs(2),
        fault_lasts: Duration::from_secs(4),
        fault_pause: Duration::from_secs(2),
        at_once: setup.at_once(),
        expected: nemesis::expected(faults, &setup.expect),
    }
}

/// What was run, and where, for a person.
fn facts(setup: &Setup, faults: &[FaultKind], commit: Option<&str>) -> Vec<(String, String)> {
    let load = format!("{} workers, {} calls a second, {} s", setup.concurrency, setup.rate, setup.time_limit);
    let server = setup.program().map_or_else(|usage| usage.to_string(), |program| program.path().display().to_string());
    let facts = [
        ("target", setup.target.to_string()),
        ("nodes", format!("{}, {}", setup.nodes, word(&setup.backend))),
        ("faults asked for", Profile { faults: faults.to_vec() }.to_string()),
        ("faults at a time", setup.at_once().to_string()),
        ("load", load),
        ("server", server),
        ("commit", commit.unwrap_or("unknown").to_owned()),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The command that runs it again.
fn again(setup: &Setup, workload: Name, faults: &[FaultKind], seed: u64) -> Vec<String> {
    let kinds: Vec<String> = faults.iter().map(FaultKind::to_string).collect();
    let expect: Vec<String> = setup.expect.iter().map(word).collect();
    let mut flags = vec![
        ("--workload", workload.to_string()),
        ("--seed", seed.to_string()),
        ("--target", setup.target.to_string()),
        ("--nodes", setup.nodes.to_string()),
        ("--backend", word(&setup.backend)),
        ("--time-limit", setup.time_limit.to_string()),
        ("--concurrency", setup.concurrency.to_string()),
        ("--rate", setup.rate.to_string()),
        ("--out", setup.out.display().to_string()),
    ];
    flags.extend((!kinds.is_empty()).then(|| ("--faults", kinds.join(","))));
    flags.extend(setup.at_once.map(|faults| ("--at-once", faults.to_string())));
    flags.extend((!expect.is_empty()).then(|| ("--expect", expect.join(","))));
    flags.extend(setup.kvd.as_ref().map(|kvd| ("--kvd", kvd.display().to_string())));
    flags.extend(setup.etcd.as_ref().map(|etcd| ("--etcd", etcd.display().to_string())));
    flags.extend(setup.shim.as_ref().map(|shim| ("--shim", shim.display().to_string())));
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    let quiet = kinds.is_empty().then(|| "--no-faults".to_owned());
    let kept = setup.keep_data.then(|| "--keep-data".to_owned());
    ["jepsen", "test"].map(str::to_owned).into_iter().chain(flags).chain(quiet).chain(kept).collect()
}

/// Starts the cluster so that it can have these faults.
async fn start(backend: Backend, setup: &Setup, faults: &[FaultKind], folder: &Path) -> anyhow::Result<Cluster> {
    let flags = nemesis::flags(faults);
    match (setup.program()?, faults.iter().any(|kind| kind.needs() == Needs::Shim)) {
        (Program::Kvd(kvd), true) => {
            let shim = Shim::find(setup.shim.as_deref())?;
            Cluster::start_under(shim, backend, &kvd, folder, &flags).await
        }
        (Program::Kvd(kvd), false) => Cluster::start(backend, &kvd, folder, &flags).await,
        // Flags are for faults that it does not have.
        (Program::Etcd(etcd), _) => Cluster::start_etcd(backend, &etcd, folder).await,
    }
}

fn print(results: &Results, folder: &Path) {
    for (kind, [ok, failed, unknown]) in &results.operations {
        println!("{kind:>23}: {ok} ok, {failed} failed, {unknown} unknown");
    }
    for (fault, times) in &results.faults {
        println!("{fault:>23}: {times} times in force");
    }
    println!("{:>23}: {} times two at once", "of these", results.pairs);
    let (built, installed) = (results.snapshots_built, results.snapshots_installed);
    let changes = results.leader_changes;
    println!("{:>23}: {changes} leader changes, {built} snapshots built, {installed} installed", "seen");
    results.verdicts.iter().for_each(print_verdict);
    println!("valid: {}; {}", results.valid, folder.display());
}
