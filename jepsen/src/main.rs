//! `jepsen`: runs, one or a matrix of them, sums up what was run, judges again, tampers with what it has judged, shows what
//! runs have left, cleans up. Exit codes as Jepsen's: 0 valid, 1 invalid, 2 unknown, 254 bad arguments, 255 the harness
//! failed or was interrupted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use trefoil_jepsen::check::{self, Model};
use trefoil_jepsen::checker::{Valid, Verdict, worst};
use trefoil_jepsen::command::{SelfTest, Summary, Test, TestAll, Usage, print_verdict};
use trefoil_jepsen::generator::Dice;
use trefoil_jepsen::history::{Event, pair};
use trefoil_jepsen::serve::Server;
use trefoil_jepsen::tamper::{Tamper, tampered};
use trefoil_jepsen::workload::Name;
use trefoil_jepsen::{cleanup, interrupt, with_workload};
use trefoil_world::random;

const BAD_ARGUMENTS: u8 = 254;
const HARNESS_FAILED: u8 = interrupt::EXIT_CODE;

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
    /// Run workloads under profiles of faults, each with several seeds; append a line for each run to the ledger
    TestAll(TestAll),
    /// Sum up a ledger, and say what it does not show; false runs that nothing explains, and too many unknown ones, always
    /// are of that
    Ledger(Summary),
    /// Judge a stored history again
    Check {
        /// A history.jsonl, or a run's folder
        file: PathBuf,
        /// What it is judged by: a workload, with all its checkers, or one checker alone
        #[arg(long, value_enum)]
        model: Model,
    },
    /// List runs, and send the files they left to a browser
    Serve {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Where to listen: whoever can reach it can read all that is in the store
        #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
        address: IpAddr,
        /// Where the runs' folders are
        #[arg(long, default_value = "chaos-runs")]
        out: PathBuf,
    },
    /// Show that its checkers see: a stored history that is valid, changed in one place at a time, must be invalid
    Tamper {
        /// A history.jsonl, or a run's folder
        file: PathBuf,
        /// The workload it is of
        #[arg(long, value_enum)]
        workload: Name,
        /// How many changes, each of the stored history
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        changes: u64,
        /// Of all choices; a fresh one is printed
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Plant bugs one by one: each must be found by its checker, and the same runs without it must be valid
    Selftest(SelfTest),
    /// Remove what runs that died have left: namespaces, processes and records
    Cleanup,
}

fn main() -> ExitCode {
    // A panic has said what it is.
    panic::catch_unwind(done).unwrap_or(ExitCode::from(HARNESS_FAILED))
}

#[tokio::main]
async fn done() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a terminal that takes no help.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { BAD_ARGUMENTS } else { 0 });
        }
    };
    let done = match args.command {
        // What starts clusters takes them down at an interrupt; the rest has nothing that would stay.
        Command::Test(test) => interrupt::or_interrupted(test.run()).await,
        Command::TestAll(all) => interrupt::or_interrupted(all.run()).await,
        Command::Ledger(summary) => summary.run(),
        Command::Check { file, model } => check::judge(&file, model).map(|verdicts| {
            verdicts.iter().for_each(print_verdict);
            worst(&verdicts)
        }),
        Command::Serve { port, address, out } => serve(SocketAddr::new(address, port), &out).await,
        Command::Tamper { file, workload, changes, seed } => {
            let seed = seed.unwrap_or_else(random::next_u64);
            with_workload!(workload, W => tamper::<W>(&file, changes, seed))
        }
        Command::Selftest(selftest) => interrupt::or_interrupted(selftest.run()).await,
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
            ExitCode::from(if error.is::<Usage>() { BAD_ARGUMENTS } else { HARNESS_FAILED })
        }
    }
}

async fn serve(address: SocketAddr, store: &Path) -> anyhow::Result<Valid> {
    let what = || format!("cannot serve {} at {address}", store.display());
    let server = Server::listen(&address.to_string(), store).await.with_context(what)?;
    println!("{} is at {}", store.display(), server.url());
    server.run().await;
    Ok(Valid::True)
}

/// Invalid when a change is not seen; unknown when the history itself is not valid, or there is nothing to change.
fn tamper<W: Tamper>(file: &Path, changes: u64, seed: u64) -> anyhow::Result<Valid> {
    println!("seed {seed}");
    let history: Vec<Event<W::Call, W::Reply>> = check::history(file)?;
    let unchanged = W::check(&pair(&history));
    println!("unchanged: {}", told(&unchanged));
    if worst(&unchanged) != Valid::True {
        return Ok(Valid::Unknown);
    }
    let mut dice = Dice::new(seed);
    let mut red = 0;
    for number in 1..=changes {
        let Some((changed, change)) = tampered::<W>(&history, dice.roll()) else {
            println!("there is nothing to change");
            return Ok(Valid::Unknown);
        };
        let verdicts = W::check(&pair(&changed));
        red += u64::from(worst(&verdicts) == Valid::False);
        println!("{number:>4}. {change}\n      {}", told(&verdicts));
    }
    println!("{}: {red} of {changes} changes are invalid", W::NAME);
    Ok(if red == changes { Valid::True } else { Valid::False })
}

/// Verdicts in one line: the worst, and by whom.
fn told(verdicts: &[Verdict]) -> String {
    let valid = worst(verdicts);
    let by: Vec<&str> =
        verdicts.iter().filter(|verdict| verdict.valid == valid).map(|verdict| verdict.checker.as_str()).collect();
    format!("{valid}, by {}", by.join("; "))
}
