//! `sim`: runs one seed, or many in a process each, or makes a red one smaller.
//!
//! Exit codes: 0 green, 1 red, 2 a seed that proves too little, 254 bad arguments, 255 the program itself failed. Of
//! many seeds: 1 when one is red, else 0. Of shrinking: 1 when the seed is red, else 0.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, Output};
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use futures::StreamExt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use trefoil_jepsen::checker::Valid;
use trefoil_jepsen::ledger::commit;
use trefoil_jepsen::wall::Wall;
use trefoil_jepsen::workload::Name;
use trefoil_sim::ledger::{self, Line};
use trefoil_sim::parameters::Parameters;
use trefoil_sim::probes::{Probes, Rare};
use trefoil_sim::profiles;
use trefoil_sim::shrink::{Narrowing, Places, shrink};
use trefoil_sim::trace::Trace;
use trefoil_sim::{Planted, Report, system};
use trefoil_world::clock;
use trefoil_world::planted::Bug;

const RED: i32 = 1;
const BAD_ARGUMENTS: u8 = 254;
const PROGRAM_FAILED: u8 = 255;
/// What the line begins with that a parent reads.
const REPORT: &str = "report: ";
/// Lines of a failing seed's output that are shown.
const SHOWN_LINES: usize = 30;
/// Real time after which a seed is given up: simulated time stands still in it.
const CHILD_MAX: Duration = Duration::from_secs(300);
/// Who finds a run red that ends before it can report: an assertion, or a process that does not end.
const BROKE_OFF: &str = "the run broke off";

/// Simulated clusters under faults, from a seed
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Args {
    /// Run this one
    #[arg(long, required_unless_present = "seeds", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many, each in a process of its own
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Processes at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// How the keyspace replicates
    #[arg(long, default_value = "leader")]
    mode: Mode,
    /// Append a line about the call to this file
    #[arg(long, requires = "seeds")]
    ledger: Option<PathBuf>,
    /// The commit that the line names, instead of that of the checkout
    #[arg(long, requires = "ledger")]
    commit: Option<String>,
    /// Leave out faults and time as long as the seed stays red, in processes of their own
    #[arg(long, requires = "seed", conflicts_with_all = ["only_faults", "safety_ms", "trace", "log"])]
    shrink: bool,
    /// Runs that shrinking may take
    #[arg(long, default_value_t = 60, requires = "shrink")]
    runs: usize,
    /// Of the planned faults only those at these places, as in 0,3,7; or none
    #[arg(long, requires = "seed")]
    only_faults: Option<Places>,
    /// Let load and faults end after so many milliseconds, instead of when the seed says
    #[arg(long, requires = "seed")]
    safety_ms: Option<u64>,
    /// What clients ask, instead of what the seed says
    #[arg(long, value_enum)]
    workload: Option<Name>,
    /// Print every line of the trace
    #[arg(long)]
    trace: bool,
    /// Print the nodes' logs to stderr: error, warn, info, debug or trace
    #[arg(long)]
    log: Option<String>,
    /// What libraries get random numbers from instead of the seed: the run must stay the same
    #[arg(long)]
    entropy: Option<u64>,
    /// A bug to plant, which must be found
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Instead of what seeds stand for, the runs in which this bug comes to light where it is planted
    #[arg(long)]
    provoke: Option<Bug>,
    /// The bug that this build is to have
    #[cfg(feature = "planted")]
    #[arg(long)]
    bug: Bug,
}

impl Args {
    fn parameters(&self, seed: u64) -> Parameters {
        let of_seed = self.provoked().map_or_else(|| Parameters::of(seed), |bug| profiles::provoking(bug, seed));
        Parameters { workload: self.workload.unwrap_or(of_seed.workload), ..of_seed }
    }

    fn narrowing(&self) -> Narrowing {
        Narrowing { only_faults: self.only_faults.clone(), safety_ms: self.safety_ms }
    }

    #[cfg(not(feature = "planted"))]
    fn provoked(&self) -> Option<Bug> {
        self.provoke
    }

    #[cfg(feature = "planted")]
    fn provoked(&self) -> Option<Bug> {
        self.provoke.or(Some(self.bug))
    }
}

/// Ways to replicate that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Leader,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Leader => "leader",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Mode, String> {
        match name == Mode::Leader.name() {
            true => Ok(Mode::Leader),
            false => Err(format!("the mode {name} is not there yet; there is: {}", Mode::Leader.name())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Plant {
    /// Disks that have not synced what they say they have
    ForgetfulDisks,
}

/// The whole program: `bin/sim-planted.rs` is the same, built with another feature.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a terminal that takes no help.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { BAD_ARGUMENTS } else { 0 });
        }
    };
    let ended = match (args.seed, args.seeds) {
        (Some(seed), _) if args.shrink => shrink_one(seed, &args),
        (Some(seed), _) => Ok(run_one(seed, &args)),
        (None, Some(seeds)) => run_many(seeds, &args),
        (None, None) => Ok(ExitCode::from(BAD_ARGUMENTS)),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("sim: {error}");
        ExitCode::from(PROGRAM_FAILED)
    })
}

fn run_one(seed: u64, args: &Args) -> ExitCode {
    end_at_a_panic(seed);
    #[cfg(feature = "planted")]
    eprintln!("{}", trefoil_world::planted::plant(args.bug));
    let began = clock::now();
    let taken_over = system::take_over(args.entropy.unwrap_or(seed));
    if let Some(level) = &args.log
        && let Err(error) = log_to_stderr(level)
    {
        eprintln!("sim: --log: {error}");
        return ExitCode::from(BAD_ARGUMENTS);
    }
    let planted = args.plant.map(|plant| match plant {
        Plant::ForgetfulDisks => Planted::ForgetfulDisks,
    });
    let parameters = args.parameters(seed);
    println!("{parameters:?}");
    let report = trefoil_sim::run(parameters, &args.narrowing(), planted, Trace::new(args.trace), &taken_over);
    drop(taken_over);
    print(&report);
    println!("{:.2} s real", began.elapsed().as_secs_f64());
    println!("{REPORT}{}", serde_json::to_string(&report).expect("a report is plain data"));
    ExitCode::from(match report.valid {
        Valid::True => 0,
        Valid::False => RED as u8,
        Valid::Unknown => 2,
    })
}

/// A broken invariant in one task leaves the others with half a node: the run is red and over.
fn end_at_a_panic(seed: u64) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("seed {seed}: red: {panic}");
        std::process::exit(RED);
    }));
}

/// Logs show the time of the machine they come from.
struct WallTime;

impl FormatTime for WallTime {
    fn format_time(&self, into: &mut Writer<'_>) -> fmt::Result {
        write!(into, "{}", clock::wall_ms())
    }
}

fn log_to_stderr(level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(format!("{level},openraft=warn,h2=warn,hyper=warn,tower=warn"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    lines.with_target(false).with_timer(WallTime).init();
    Ok(())
}

fn print(report: &Report) {
    for (kind, [ok, failed, unknown]) in &report.operations {
        println!("{kind:>12}: {ok} ok, {failed} failed, {unknown} unknown");
    }
    for (fault, times) in &report.faults {
        println!("{fault:>12}: {times} times in force");
    }
    for (rare, times) in Rare::ALL.map(|rare| (rare, report.rare.times(rare))) {
        println!("{rare:>18}: {times} times reached");
    }
    for verdict in &report.verdicts {
        println!("{:>12}: {}", verdict.checker, verdict.valid);
        verdict.evidence.iter().for_each(|line| println!("{:>14}{line}", ""));
    }
    let seconds = report.simulated_ms as f64 / 1000.0;
    println!(
        "seed {}: {}, {}, {seconds:.1} s simulated, {} connections",
        report.seed,
        report.workload,
        colour(report.valid),
        report.connections
    );
    println!("trace: {} lines, sha256 {}", report.trace_lines, report.trace_sha256);
}

fn colour(valid: Valid) -> &'static str {
    match valid {
        Valid::True => "green",
        Valid::False => "red",
        Valid::Unknown => "unknown",
    }
}

/// What came of many seeds.
#[derive(Default)]
struct Sum {
    green: Vec<u64>,
    unknown: Vec<u64>,
    red: Vec<u64>,
    simulated_ms: u64,
    operations: u64,
    workloads: BTreeMap<Name, u64>,
    faults: BTreeMap<String, u64>,
    rare: Probes,
}

impl Sum {
    fn add(&mut self, seed: u64, report: Option<&Report>) {
        match report.map(|report| report.valid) {
            Some(Valid::True) => self.green.push(seed),
            Some(Valid::Unknown) => self.unknown.push(seed),
            Some(Valid::False) | None => self.red.push(seed),
        }
        let Some(report) = report else { return };
        *self.workloads.entry(report.workload).or_default() += 1;
        self.simulated_ms += report.simulated_ms;
        self.operations += report.operations.values().flatten().sum::<u64>();
        for (fault, times) in &report.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
        self.rare.add(&report.rare);
    }

    fn simulated_hours(&self) -> f64 {
        self.simulated_ms as f64 / 3_600_000.0
    }

    fn print(&self, real_hours: f64) {
        let seeds = self.green.len() + self.unknown.len() + self.red.len();
        println!(
            "{seeds} seeds, {:.2} simulated hours, {real_hours:.3} real hours, {} operations",
            self.simulated_hours(),
            self.operations
        );
        for (workload, seeds) in &self.workloads {
            println!("{workload:>18}: {seeds} seeds");
        }
        for (fault, times) in &self.faults {
            println!("{fault:>18}: {times} times in force");
        }
        for rare in Rare::ALL.into_iter().filter(|rare| self.rare.times(*rare) > 0) {
            println!("{rare:>18}: {} times reached", self.rare.times(rare));
        }
        let never: Vec<&str> = self.rare.never_reached().into_iter().map(Rare::name).collect();
        println!("never reached: {}", if never.is_empty() { "none".to_owned() } else { never.join(", ") });
        println!("{} green, {} unknown, {} red", self.green.len(), self.unknown.len(), self.red.len());
        for (colour, seeds) in [("unknown", &self.unknown), ("red", &self.red)] {
            if !seeds.is_empty() {
                println!("{colour}: {seeds:?}");
            }
        }
    }
}

/// What the ledger will say of a call, as far as it is known before: a call that cannot be told is not begun.
fn ledger_line(seeds: u64, args: &Args) -> io::Result<Line> {
    let of_checkout = || commit().map_err(|error| io::Error::other(format!("{error:#}")));
    Ok(Line {
        commit: args.commit.clone().map_or_else(of_checkout, Ok)?,
        date: Wall(clock::wall_ms()).to_string(),
        from: args.from,
        seeds,
        green: Vec::new(),
        unknown: Vec::new(),
        red: Vec::new(),
        simulated_hours: 0.0,
        real_hours: 0.0,
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn run_many(seeds: u64, args: &Args) -> io::Result<ExitCode> {
    println!("mode: {}", args.mode.name());
    let began = clock::now();
    let noted = args.ledger.as_ref().map(|path| ledger_line(seeds, args).map(|line| (path, line))).transpose()?;
    let runtime = runtime()?;
    let sum = runtime.block_on(async {
        let last = args.from.saturating_add(seeds);
        let mut runs = futures::stream::iter(args.from..last)
            .map(|seed| async move { (seed, run_child(seed, args, &Narrowing::default()).await) })
            .buffered(usize::from(args.jobs));
        let mut sum = Sum::default();
        while let Some((seed, output)) = runs.next().await {
            let output = output?;
            let report = output.as_ref().and_then(read_report);
            if report.as_ref().is_none_or(|report| report.valid == Valid::False) {
                show_red(seed, output.as_ref(), args);
            }
            sum.add(seed, report.as_ref());
        }
        Ok::<Sum, io::Error>(sum)
    })?;
    let real_hours = began.elapsed().as_secs_f64() / 3600.0;
    sum.print(real_hours);
    if let Some((path, line)) = noted {
        let (green, simulated_hours) = (ledger::stretches(&sum.green), sum.simulated_hours());
        let (unknown, red) = (sum.unknown.clone(), sum.red.clone());
        ledger::append(path, &Line { green, unknown, red, simulated_hours, real_hours, ..line })?;
    }
    Ok(ExitCode::from(if sum.red.is_empty() { 0 } else { RED as u8 }))
}

/// Runs a seed in a process of its own; nothing comes of one that does not end.
async fn run_child(seed: u64, args: &Args, narrowing: &Narrowing) -> io::Result<Option<Output>> {
    let mut child = tokio::process::Command::new(std::env::current_exe()?);
    child.args(["--seed", &seed.to_string()]).args(passed_on(args)).args(narrowing.arguments()).kill_on_drop(true);
    match clock::timeout(CHILD_MAX, child.output()).await {
        Ok(output) => output.map(Some),
        Err(_) => Ok(None),
    }
}

/// The flags that make a seed the run that it is.
fn passed_on(args: &Args) -> Vec<String> {
    let planted = args.plant.map(|plant| match plant {
        Plant::ForgetfulDisks => ["--plant", "forgetful-disks"],
    });
    let workload = args.workload.map(|workload| ["--workload", workload.as_str()]);
    let provoked = args.provoke.map(|bug| ["--provoke", bug.name()]);
    #[cfg(feature = "planted")]
    let planted = planted.into_iter().chain([["--bug", args.bug.name()]]);
    planted.into_iter().chain(workload).chain(provoked).flatten().map(str::to_owned).collect()
}

/// What a child has reported, if it came so far and its exit code says the same.
fn read_report(output: &Output) -> Option<Report> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Report = serde_json::from_str(text.lines().rev().find_map(|line| line.strip_prefix(REPORT))?).ok()?;
    let expected = match report.valid {
        Valid::True => 0,
        Valid::False => RED,
        Valid::Unknown => 2,
    };
    (output.status.code() == Some(expected)).then_some(report)
}

/// Who finds the seed red when it is so narrowed: checkers, or nobody when it is not.
async fn red_by(seed: u64, args: &Args, narrowing: &Narrowing) -> io::Result<Vec<String>> {
    let output = run_child(seed, args, narrowing).await?;
    let Some(report) = output.as_ref().and_then(read_report) else {
        return Ok(vec![BROKE_OFF.into()]);
    };
    let red = report.verdicts.into_iter().filter(|verdict| verdict.valid == Valid::False);
    Ok(red.map(|verdict| verdict.checker).collect())
}

/// Makes a red seed smaller while the checker that came first in its report still finds it red.
fn shrink_one(seed: u64, args: &Args) -> io::Result<ExitCode> {
    let runtime = runtime()?;
    let red_by = |narrowing: &Narrowing| runtime.block_on(red_by(seed, args, narrowing));
    let Some(checker) = red_by(&Narrowing::default())?.into_iter().next() else {
        println!("seed {seed} is not red: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    let parameters = args.parameters(seed);
    let planned = trefoil_sim::planned(&parameters);
    println!("seed {seed}: red by {checker}, {} faults planned in {} ms", planned.len(), parameters.safety_ms);
    let (smallest, tried) =
        shrink(planned.len(), parameters.safety_ms, args.runs, |narrowing| Ok(red_by(narrowing)?.contains(&checker)))?;
    for (place, left) in planned.iter().enumerate() {
        if smallest.only_faults.as_ref().is_none_or(|only| only.0.contains(&place)) {
            println!("{place:>5}: {} from {} to {} ms: {:?}", left.kind, left.from_ms, left.to_ms, left.effect);
        }
    }
    let words = [passed_on(args), smallest.arguments()].concat().join(" ");
    println!("smallest after {tried} runs: sim --seed {seed} {words}");
    Ok(ExitCode::from(RED as u8))
}

fn show_red(seed: u64, output: Option<&Output>, args: &Args) {
    let program = std::env::args().next().unwrap_or_else(|| "sim".into());
    println!("seed {seed}: red; repeat with: {program} --seed {seed} {}", passed_on(args).join(" "));
    let Some(output) = output else {
        println!("    it did not end within {CHILD_MAX:?}");
        return;
    };
    println!("    {}", output.status);
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(REPORT)).collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().for_each(|line| println!("    {line}"));
    }
}
