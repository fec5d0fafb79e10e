//! `jepsen test`: one run, and all that it leaves.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use trefoil_world::{clock, random};

use super::{Usage, print_verdict};
use crate::backend::{self, Backend};
use crate::checker::Valid;
use crate::cluster::{Cluster, NotServing, Program, Shim};
use crate::coverage::Expected;
use crate::edn::{self, Form};
use crate::history::Event;
use crate::matrix::Profile;
use crate::nemesis::{self, FaultKind, Needs, Nemesis};
use crate::report::{self, About};
use crate::run::{self, Plan, Run};
use crate::store::{self, Results};
use crate::target::Target;
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
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Setup {
    /// What is tested
    #[arg(long, value_enum, default_value_t = Target::Trefoil)]
    pub(super) target: Target,
    /// The server of Trefoil
    #[arg(long, env = "KVD_BIN")]
    kvd: Option<PathBuf>,
    /// The server of etcd
    #[arg(long, env = "ETCD_BIN")]
    etcd: Option<PathBuf>,
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
    /// [`Usage`]; or the harness itself failed.
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
    let (plan, mut nemesis) = (plan(setup, faults, seed), Nemesis::new(faults, seed));
    let keep = |history: &[Event<W::Call, W::Reply>]| store::save_history(&folder, history);
    let run = match start(backend, setup, faults, &folder).await {
        Ok(mut cluster) => {
            let run = run::run::<W>(&mut cluster, &mut nemesis, &plan, keep).await;
            cluster.stop().await;
            run
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
    flags.extend((!expect.is_empty()).then(|| ("--expect", expect.join(","))));
    flags.extend(setup.kvd.as_ref().map(|kvd| ("--kvd", kvd.display().to_string())));
    flags.extend(setup.etcd.as_ref().map(|etcd| ("--etcd", etcd.display().to_string())));
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
    println!("{:>23}: {} leader changes, {} snapshots", "seen", results.leader_changes, results.snapshots);
    results.verdicts.iter().for_each(print_verdict);
    println!("valid: {}; {}", results.valid, folder.display());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::workload::set;

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
    fn each_target_needs_its_own_program() {
        let cases = [
            ("--kvd a/kvd", Ok(Program::Kvd("a/kvd".into()))),
            ("--kvd a/kvd --etcd a/etcd", Ok(Program::Kvd("a/kvd".into()))),
            ("--target etcd --etcd a/etcd", Ok(Program::Etcd("a/etcd".into()))),
            ("--etcd a/etcd", Err("--target trefoil needs its program: --kvd PATH, or KVD_BIN")),
            ("--target etcd --kvd a/kvd", Err("--target etcd needs its program: --etcd PATH, or ETCD_BIN")),
        ];
        for (words, expected) in cases {
            let mut setup = parsed(std::iter::once("jepsen").chain(words.split(' '))).setup;
            // What stands in the environment of the tests is not given here.
            setup.kvd = setup.kvd.filter(|_| words.contains("--kvd"));
            setup.etcd = setup.etcd.filter(|_| words.contains("--etcd"));
            assert_eq!(setup.program().map_err(|usage| usage.to_string()), expected.map_err(str::to_owned), "{words}");
        }
    }

    #[test]
    fn what_a_target_does_not_have_is_refused_by_name() {
        let cases = [
            ("--faults kill,power-loss,amnesia", None),
            ("--target etcd --faults kill,pause,partition,half-open --expect leader-change", None),
            ("--target etcd --no-faults", None),
            ("--target etcd --faults kill,power-loss", Some("there is no fault power-loss with --target etcd: ")),
            ("--target etcd --faults truncation", Some("there is no fault truncation with --target etcd: ")),
            ("--target etcd --no-faults --expect snapshot", Some("no snapshot can be seen with --target etcd: ")),
        ];
        for (words, refused) in cases {
            let test = parsed(["jepsen", "--kvd", "kvd", "--etcd", "etcd"].into_iter().chain(words.split(' ')));
            match (test.setup.allows(test.faults()), refused) {
                (Ok(()), None) => {}
                (Err(usage), Some(why)) => assert!(usage.to_string().starts_with(why), "{usage}"),
                (said, expected) => panic!("{words}: {said:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn what_needs_proxies_is_run_on_the_loopback() {
        let setup = parsed(["jepsen", "--kvd", "kvd", "--backend", "namespaces", "--expect", "snapshot"]).setup;
        let cases = [
            (vec![], "namespaces"),
            (vec![FaultKind::Kill, FaultKind::Partition, FaultKind::PowerLoss], "namespaces"),
            (vec![FaultKind::SlowLinks], "loopback"),
            (vec![FaultKind::Kill, FaultKind::HalfOpen], "loopback"),
        ];
        for (faults, backend) in cases {
            let conditions = setup.able_to(&faults).conditions("00");
            assert_eq!(conditions.backend, backend, "{faults:?}");
            assert_eq!(conditions, ledger::Conditions { backend: backend.to_owned(), ..setup.conditions("00") });
        }
    }

    #[test]
    fn a_counter_example_stands_whatever_else_went_wrong() {
        let failed = || vec!["the history could not be kept".to_owned(), "worker 1: panicked".to_owned()];
        for (valid, failures, stands) in [
            (Valid::True, Vec::new(), true),
            (Valid::Unknown, Vec::new(), true),
            (Valid::False, Vec::new(), true),
            (Valid::True, failed(), false),
            (Valid::Unknown, failed(), false),
            (Valid::False, failed(), true),
        ] {
            let run: Run<set::Call, set::Reply> = Run::never_began(&NotServing::NotReady("n1".into()));
            let results = Results { valid, ..store::sum::<set::Set>((Target::Trefoil, 7, Wall(0)), &run) };
            let concluded = concluded(results, &failures).map_err(|error| error.to_string());
            assert_eq!(concluded.is_ok(), stands, "{valid}, {failures:?}");
            assert!(concluded.err().is_none_or(|error| failures.iter().all(|failure| error.contains(failure))));
        }
    }

    #[test]
    fn what_cannot_be_written_changes_nothing() {
        leave("nothing", || Err(io::Error::other("no space")));
        leave("nothing", || panic!("on purpose"));
    }

    #[test]
    fn the_command_that_runs_it_again_is_one() {
        let cases = [
            "jepsen --workload append --kvd a/kvd --faults kill,pause --expect leader-change,snapshot --rate 0.5",
            "jepsen --kvd kvd --no-faults --nodes 3 --backend loopback --shim s.so --time-limit 5 --out o --seed 7",
            "jepsen --target etcd --etcd a/etcd --faults kill --expect leader-change",
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
