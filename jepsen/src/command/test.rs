//! `jepsen test`: one run, and all that it leaves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use trefoil_world::{clock, random};

use super::print_verdict;
use crate::backend::{self, Backend};
use crate::checker::Valid;
use crate::cluster::{Cluster, Shim};
use crate::coverage::Expected;
use crate::edn::{self, Form};
use crate::history::Event;
use crate::matrix::Profile;
use crate::nemesis::{self, FaultKind, Needs, Nemesis};
use crate::report::{self, About};
use crate::run::{self, Plan};
use crate::store::{self, Results};
use crate::wall::Wall;
use crate::workload::{Name, Workload};
use crate::{ledger, with_workload};

// What is said of these structures in doc comments would be the command line's help.

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

// What a run needs beside its workload, its faults and its seed.
#[derive(Debug, clap::Args)]
pub(super) struct Setup {
    /// The server
    #[arg(long, env = "KVD_BIN")]
    kvd: PathBuf,
    #[arg(long, default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(1..=16))]
    nodes: usize,
    #[arg(long, value_enum, default_value_t = Where::Namespaces)]
    backend: Where,
    /// What must be seen to happen, separated by commas: otherwise the run is unknown
    #[arg(long, value_enum, value_delimiter = ',')]
    expect: Vec<Expected>,
    /// The preload shim, which faults of disks need [default: the one beside this program]
    #[arg(long)]
    shim: Option<PathBuf>,
    /// Seconds of load
    #[arg(long, default_value_t = 60)]
    pub(super) time_limit: u64,
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    concurrency: usize,
    /// Calls a second, all together
    #[arg(long, default_value_t = 200.0, value_parser = calls_a_second)]
    rate: f64,
    /// Where the run's folder is made
    #[arg(long, default_value = "chaos-runs")]
    out: PathBuf,
}

/// Where the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// A network namespace for each node (root)
    Namespaces,
    /// Processes on the loopback, with proxies between them if faults of the network are asked for
    Loopback,
}

impl Test {
    /// Runs it.
    ///
    /// # Errors
    /// The harness itself failed.
    pub async fn run(&self) -> anyhow::Result<Valid> {
        let seed = self.seed.unwrap_or_else(random::next_u64);
        let (setup, faults) = (&self.setup, self.faults());
        if !faults.is_empty() {
            print!("{}", backend::probe(&setup.kvd, setup.shim.as_deref()));
        }
        // Not everybody runs it in a checkout.
        let commit = ledger::commit().ok();
        let run = with_workload!(self.workload, W => run_one::<W>(setup, faults, seed, commit.as_deref()).await);
        Ok(run?.valid)
    }

    fn faults(&self) -> &[FaultKind] {
        if self.no_faults { &[] } else { &self.faults }
    }
}

fn calls_a_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "this is no number".to_owned())?;
    match rate > 0.0 && rate.is_finite() {
        true => Ok(rate),
        false => Err("this is not above 0 and finite".to_owned()),
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
    let id = format!("{:x}", seed & 0xff_ffff);
    let backend = match setup.backend {
        Where::Namespaces => Backend::namespaces(&id, setup.nodes)?,
        Where::Loopback if faults.iter().any(|kind| kind.needs().network()) => Backend::proxied(setup.nodes).await?,
        Where::Loopback => Backend::loopback(setup.nodes)?,
    };
    let mut cluster = start(backend, setup, faults, &folder).await?;
    let mut nemesis = Nemesis::new(faults, seed);
    let plan = plan(setup, faults, seed);
    let keep = |history: &[Event<W::Call, W::Reply>]| store::save_history(&folder, history);
    let run = run::run::<W>(&mut cluster, &mut nemesis, &plan, keep).await;
    cluster.stop().await;
    let run = run?;
    let results = store::save::<W>(&folder, (seed, began), &run)?;
    edn::save(&folder, &run.history)?;
    let expected = (plan.expected.as_slice(), &run.observed);
    let about = About {
        seed,
        began,
        facts: facts(setup, faults, commit),
        command: again(setup, W::NAME, faults, seed),
        verdicts: run.verdicts,
        gates: report::gates(&results.operations, (&nemesis.kinds(), &results.faults), expected),
    };
    report::save::<W>(&folder, &run.history, about)?;
    print(&results, &folder);
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
        expected: nemesis::expected(faults, &setup.expect),
    }
}

/// What was run, and where, for a person.
fn facts(setup: &Setup, faults: &[FaultKind], commit: Option<&str>) -> Vec<(String, String)> {
    let load = format!("{} workers, {} calls a second, {} s", setup.concurrency, setup.rate, setup.time_limit);
    let facts = [
        ("nodes", format!("{}, {}", setup.nodes, word(&setup.backend))),
        ("faults asked for", Profile { faults: faults.to_vec() }.to_string()),
        ("load", load),
        ("server", setup.kvd.display().to_string()),
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
        ("--kvd", setup.kvd.display().to_string()),
        ("--nodes", setup.nodes.to_string()),
        ("--backend", word(&setup.backend)),
        ("--time-limit", setup.time_limit.to_string()),
        ("--concurrency", setup.concurrency.to_string()),
        ("--rate", setup.rate.to_string()),
        ("--out", setup.out.display().to_string()),
    ];
    flags.extend((!kinds.is_empty()).then(|| ("--faults", kinds.join(","))));
    flags.extend((!expect.is_empty()).then(|| ("--expect", expect.join(","))));
    flags.extend(setup.shim.as_ref().map(|shim| ("--shim", shim.display().to_string())));
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    let quiet = kinds.is_empty().then(|| "--no-faults".to_owned());
    ["jepsen", "test"].map(str::to_owned).into_iter().chain(flags).chain(quiet).collect()
}

/// A choice as the command line has it.
fn word<T: ValueEnum>(choice: &T) -> String {
    choice.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

/// Starts the cluster so that it can have these faults.
async fn start(backend: Backend, setup: &Setup, faults: &[FaultKind], folder: &Path) -> anyhow::Result<Cluster> {
    let flags = nemesis::flags(faults);
    match faults.iter().any(|kind| kind.needs() == Needs::Shim) {
        true => {
            let shim = Shim::find(setup.shim.as_deref())?;
            Cluster::start_under(shim, backend, &setup.kvd, folder, &flags).await
        }
        false => Cluster::start(backend, &setup.kvd, folder, &flags).await,
    }
}

fn print(results: &Results, folder: &Path) {
    for (kind, [ok, failed, unknown]) in &results.operations {
        println!("{kind:>10}: {ok} ok, {failed} failed, {unknown} unknown");
    }
    for (fault, times) in &results.faults {
        println!("{fault:>10}: {times} times in force");
    }
    println!("{:>10}: {} leader changes, {} snapshots", "seen", results.leader_changes, results.snapshots);
    results.verdicts.iter().for_each(print_verdict);
    println!("valid: {}; {}", results.valid, folder.display());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        test: Test,
    }

    fn parsed<'a>(words: impl IntoIterator<Item = &'a str>) -> Test {
        Args::try_parse_from(words).expect("these are arguments").test
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for flag in ["--rate=0", "--rate=-1", "--rate=inf", "--rate=NaN", "--concurrency=0", "--nodes=0", "--nodes=17"]
        {
            assert!(Args::try_parse_from(["jepsen", "--kvd", "kvd", flag]).is_err(), "{flag}");
        }
        for flag in ["--rate=0.1", "--concurrency=1", "--nodes=1", "--nodes=16"] {
            assert!(Args::try_parse_from(["jepsen", "--kvd", "kvd", flag]).is_ok(), "{flag}");
        }
    }

    #[test]
    fn the_command_that_runs_it_again_is_one() {
        let cases = [
            "jepsen --workload append --kvd a/kvd --faults kill,pause --expect leader-change,snapshot --rate 0.5",
            "jepsen --kvd kvd --no-faults --nodes 3 --backend loopback --shim s.so --time-limit 5 --out o --seed 7",
        ];
        for words in cases {
            let test = parsed(words.split(' '));
            let words = again(&test.setup, test.workload, test.faults(), 7);
            assert_eq!(words[..2], ["jepsen", "test"]);
            let again = parsed(words[1..].iter().map(String::as_str));
            assert_eq!((again.seed, again.workload), (Some(7), test.workload));
            assert_eq!((again.faults(), again.no_faults), (test.faults(), test.no_faults));
            assert_eq!(format!("{:?}", again.setup), format!("{:?}", test.setup));
        }
    }
}
