//! `jepsen`: runs, judges again, cleans up. Exit codes as Jepsen's: 0 valid, 1 invalid, 2 unknown, 254 bad arguments, 255
//! the harness failed.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use trefoil_jepsen::backend::Backend;
use trefoil_jepsen::checker::{Valid, Verdict, worst};
use trefoil_jepsen::cleanup;
use trefoil_jepsen::cluster::Cluster;
use trefoil_jepsen::history::{pair, read_lines};
use trefoil_jepsen::nemesis::{FaultKind, Nemesis};
use trefoil_jepsen::run::{self, Plan};
use trefoil_jepsen::store::{self, Results};
use trefoil_jepsen::workload::Workload;
use trefoil_jepsen::workload::append::Lists;
use trefoil_jepsen::workload::register::Registers;
use trefoil_jepsen::workload::set::Set;
use trefoil_world::{clock, random};

const BAD_ARGUMENTS: u8 = 254;
const HARNESS_FAILED: u8 = 255;

/// Trefoil's chaos harness
#[derive(Debug, Parser)]
#[command(name = "jepsen", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload under faults and judge its history
    Test(Test),
    /// Judge a stored history again
    Check {
        /// A history.jsonl
        file: PathBuf,
        /// The workload it is of
        #[arg(long, value_enum)]
        model: Model,
    },
    /// Remove what runs that died have left: namespaces and processes
    Cleanup,
}

#[derive(Debug, clap::Args)]
struct Test {
    #[arg(long, value_enum, default_value_t = Model::Register)]
    workload: Model,
    /// The server
    #[arg(long, env = "KVD_BIN")]
    kvd: PathBuf,
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    #[arg(long, value_enum, default_value_t = Where::Namespaces)]
    backend: Where,
    /// Faults, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "kill,pause,partition")]
    faults: Vec<FaultKind>,
    /// A quiet run
    #[arg(long, conflicts_with = "faults")]
    no_faults: bool,
    /// Seconds of load
    #[arg(long, default_value_t = 60)]
    time_limit: u64,
    #[arg(long, default_value_t = 10)]
    concurrency: usize,
    /// Calls a second, all together
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Of all choices; a fresh one is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Where the run's folder is made
    #[arg(long, default_value = "store")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Model {
    Register,
    Append,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    /// A network namespace for each node (root)
    Namespaces,
    /// Processes on the loopback: faults of processes only
    Loopback,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a terminal that takes no help.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { BAD_ARGUMENTS } else { 0 });
        }
    };
    let done = match args.command {
        Command::Test(test) => match test.workload {
            Model::Register => run_test::<Registers>(&test).await,
            Model::Append => run_test::<Lists>(&test).await,
            Model::Set => run_test::<Set>(&test).await,
        },
        Command::Check { file, model } => match model {
            Model::Register => check::<Registers>(&file),
            Model::Append => check::<Lists>(&file),
            Model::Set => check::<Set>(&file),
        },
        Command::Cleanup => cleanup::run().map(|()| Valid::True),
    };
    match done {
        Ok(valid) => ExitCode::from(match valid {
            Valid::True => 0,
            Valid::False => 1,
            Valid::Unknown => 2,
        }),
        Err(error) => {
            eprintln!("jepsen: {error:#}");
            ExitCode::from(HARNESS_FAILED)
        }
    }
}

async fn run_test<W: Workload + Default>(test: &Test) -> anyhow::Result<Valid> {
    let seed = test.seed.unwrap_or_else(random::next_u64);
    println!("seed {seed}");
    // The same seed again is another run.
    let folder = test.out.join(format!("{}-{seed:016x}-{}", W::NAME, clock::wall_ms()));
    let faults = if test.no_faults { &[][..] } else { &test.faults };
    let id = format!("{:x}", seed & 0xff_ffff);
    let backend = match test.backend {
        Where::Namespaces => Backend::namespaces(&id, test.nodes)?,
        Where::Loopback => Backend::loopback(test.nodes)?,
    };
    let mut cluster = Cluster::start(backend, &test.kvd, &folder, &[]).await?;
    let mut nemesis = Nemesis::new(faults, seed);
    let plan = Plan {
        seed,
        lasts: Duration::from_secs(test.time_limit),
        workers: test.concurrency,
        rate: test.rate,
        call_timeout: Duration::from_secs(2),
        fault_lasts: Duration::from_secs(4),
        fault_pause: Duration::from_secs(2),
    };
    let run = run::run::<W>(&mut cluster, &mut nemesis, &plan).await;
    cluster.stop().await;
    let results = store::save::<W>(&folder, seed, &run?)?;
    print(&results, &folder);
    Ok(results.valid)
}

fn check<W: Workload>(file: &Path) -> anyhow::Result<Valid> {
    let history = read_lines::<W::Call, W::Reply>(BufReader::new(File::open(file)?))?;
    let verdicts = W::check(&pair(&history));
    verdicts.iter().for_each(print_verdict);
    Ok(worst(&verdicts))
}

fn print(results: &Results, folder: &Path) {
    for (kind, [ok, failed, unknown]) in &results.operations {
        println!("{kind:>10}: {ok} ok, {failed} failed, {unknown} unknown");
    }
    for (fault, times) in &results.faults {
        println!("{fault:>10}: {times} times in force");
    }
    results.verdicts.iter().for_each(print_verdict);
    println!("valid: {}; {}", results.valid, folder.display());
}

fn print_verdict(verdict: &Verdict) {
    println!("{:>10}: {}", verdict.checker, verdict.valid);
    for line in &verdict.evidence {
        println!("            {line}");
    }
}
