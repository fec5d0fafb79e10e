//! Many seeds, a process each, and what came of them together.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Output;

use futures::StreamExt;
use trefoil_jepsen::checker::Valid;
use trefoil_jepsen::ledger::{commit, is_dirty, named};
use trefoil_jepsen::wall::Wall;
use trefoil_jepsen::workload::Name;
use trefoil_sim::Report;
use trefoil_sim::ledger::{self, Done, Line, tally};
use trefoil_sim::probes::{Probes, Rare};
use trefoil_sim::shrink::Narrowing;
use trefoil_world::clock;

use super::arguments::Args;
use super::{GREEN, RED, REPORT, UNKNOWN, child, smaller};

/// Seeds of a line of the ledger: what a call that is broken off may lose.
const STRETCH: usize = 200;
/// Red seeds that are made smaller at once.
const SHRUNK_MAX: usize = 3;
/// Lines of a failing seed's output that are shown.
const SHOWN_LINES: usize = 30;

/// Runs them and prints what came of it.
///
/// # Errors
/// A seed could not be started, or the ledger not be read or written.
pub fn run(seeds: u64, args: &Args) -> io::Result<u8> {
    println!("mode: {}", args.mode.name());
    let commit = args.ledger.as_ref().map(|_| commit_of(args)).transpose()?;
    let seeds = args.from..args.from.saturating_add(seeds);
    let done = done(args, commit.as_deref())?;
    let in_range = |list: &BTreeSet<u64>| list.range(seeds.clone()).count() as u64;
    let (known, known_unknown) = (in_range(&done.seeds), in_range(&done.unknown));
    let open: Vec<u64> = seeds.clone().filter(|seed| done.open.contains(seed)).collect();
    if known > 0 {
        println!("{known} seeds stand in the ledger already, of which are red and unexplained: {open:?}");
    }
    let began = clock::now();
    let left = seeds.filter(|seed| !done.seeds.contains(seed));
    let sum = child::runtime()?.block_on(run_all(left, args, commit.as_deref()))?;
    sum.print(began.elapsed().as_secs_f64() / 3600.0);
    if !args.no_shrink {
        for seed in sum.ended_red.iter().take(SHRUNK_MAX) {
            smaller::run(*seed, args)?;
        }
    }
    let unknown = sum.unknown.len() as u64 + known_unknown;
    let too_many_unknown = tally::too_many_unknown(unknown, sum.seeds() as u64 + known);
    too_many_unknown.iter().for_each(|why| println!("{why}"));
    Ok(match (sum.red.is_empty() && open.is_empty(), too_many_unknown) {
        (false, _) => RED,
        (true, Some(_)) => UNKNOWN,
        (true, None) => GREEN,
    })
}

/// What the lines of the ledger name.
fn commit_of(args: &Args) -> io::Result<String> {
    if cfg!(feature = "planted") {
        return Err(io::Error::other("--ledger: a build with a bug has none"));
    }
    let of_checkout = || commit().map_err(|error| io::Error::other(format!("{error:#}")));
    let commit = args.commit.as_deref().map_or_else(of_checkout, |commit| Ok(named(commit)))?;
    if is_dirty(&commit) {
        println!("the checkout is changed: what is run now does not count, and will be run again");
    }
    Ok(commit)
}

fn done(args: &Args, commit: Option<&str>) -> io::Result<Done> {
    match (&args.ledger, commit) {
        (Some(path), Some(commit)) => Ok(ledger::done(&ledger::read(path)?, commit)),
        (Some(_), None) | (None, _) => Ok(Done::default()),
    }
}

async fn run_all(seeds: impl Iterator<Item = u64>, args: &Args, commit: Option<&str>) -> io::Result<Sum> {
    let mut runs = futures::stream::iter(seeds)
        .map(|seed| async move { (seed, child::run(seed, args, &Narrowing::default()).await) })
        .buffered(usize::from(args.jobs));
    let (mut sum, mut stretch) = (Sum::default(), Stretch::begin());
    while let Some((seed, output)) = runs.next().await {
        let output = output?;
        let report = output.as_ref().and_then(child::report);
        if report.as_ref().is_none_or(|report| report.valid == Valid::False) {
            show_red(seed, output.as_ref(), args);
            sum.ended_red.extend(output.is_some().then_some(seed));
        }
        sum.add(seed, report.as_ref());
        stretch.sum.add(seed, report.as_ref());
        if stretch.sum.seeds() == STRETCH {
            std::mem::replace(&mut stretch, Stretch::begin()).note(args, commit)?;
        }
    }
    stretch.note(args, commit)?;
    Ok(sum)
}

/// Seeds that the ledger gets one line about.
struct Stretch {
    sum: Sum,
    date: String,
    began: clock::Instant,
}

impl Stretch {
    fn begin() -> Stretch {
        Stretch { sum: Sum::default(), date: Wall(clock::wall_ms()).to_string(), began: clock::now() }
    }

    /// Adds its line to the ledger, if there are one and something to tell it.
    fn note(self, args: &Args, commit: Option<&str>) -> io::Result<()> {
        let Stretch { sum, date, began } = self;
        let (Some(path), Some(commit), Some(from)) = (&args.ledger, commit, sum.first()) else { return Ok(()) };
        let line = Line {
            commit: commit.to_owned(),
            date,
            from,
            seeds: sum.seeds() as u64,
            green: ledger::stretches(&sum.green),
            simulated_hours: sum.simulated_hours(),
            unknown: sum.unknown.into_keys().collect(),
            red: sum.red,
            real_hours: began.elapsed().as_secs_f64() / 3600.0,
            explained: None,
        };
        ledger::append(path, &line)
    }
}

/// What came of seeds, in their order.
#[derive(Default)]
struct Sum {
    green: Vec<u64>,
    /// With what they show too little of.
    unknown: BTreeMap<u64, String>,
    red: Vec<u64>,
    /// Those of the red ones that came to an end by themselves.
    ended_red: Vec<u64>,
    simulated_ms: u64,
    operations: u64,
    workloads: BTreeMap<Name, u64>,
    faults: BTreeMap<String, u64>,
    /// Of how many seeds a kind of fault has begun and was never in force.
    in_vain: BTreeMap<String, u64>,
    rare: Probes,
}

impl Sum {
    fn add(&mut self, seed: u64, report: Option<&Report>) {
        let Some(report) = report else { return self.red.push(seed) };
        match report.valid {
            Valid::True => self.green.push(seed),
            Valid::Unknown => drop(self.unknown.insert(seed, why_unknown(report))),
            Valid::False => self.red.push(seed),
        }
        *self.workloads.entry(report.workload).or_default() += 1;
        self.simulated_ms += report.simulated_ms;
        self.operations += report.operations.values().flatten().sum::<u64>();
        for (fault, times) in &report.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
        for fault in &report.in_vain {
            *self.in_vain.entry(fault.clone()).or_default() += 1;
        }
        self.rare.add(&report.rare);
    }

    fn seeds(&self) -> usize {
        self.green.len() + self.unknown.len() + self.red.len()
    }

    /// The lowest of them.
    fn first(&self) -> Option<u64> {
        let firsts = [self.green.first(), self.unknown.keys().next(), self.red.first()];
        firsts.into_iter().flatten().min().copied()
    }

    fn simulated_hours(&self) -> f64 {
        self.simulated_ms as f64 / 3_600_000.0
    }

    fn print(&self, real_hours: f64) {
        println!(
            "{} seeds, {:.2} simulated hours, {real_hours:.3} real hours, {} operations",
            self.seeds(),
            self.simulated_hours(),
            self.operations
        );
        for (workload, seeds) in &self.workloads {
            println!("{workload:>21}: {seeds} seeds");
        }
        for (fault, times) in &self.faults {
            println!("{fault:>21}: {times} times in force");
        }
        for (fault, seeds) in &self.in_vain {
            println!("{fault:>21}: never in force in {seeds} seeds that had it");
        }
        for rare in Rare::ALL.into_iter().filter(|rare| self.rare.times(*rare) > 0) {
            println!("{rare:>21}: {} times reached", self.rare.times(rare));
        }
        let never: Vec<&str> = self.rare.never_reached().into_iter().map(Rare::name).collect();
        println!("never reached: {}", if never.is_empty() { "none".to_owned() } else { never.join(", ") });
        for (seed, why) in &self.unknown {
            println!("seed {seed}: unknown: {why}");
        }
        println!("{} green, {} unknown, {} red", self.green.len(), self.unknown.len(), self.red.len());
        if !self.red.is_empty() {
            println!("red: {:?}", self.red);
        }
    }
}

fn why_unknown(report: &Report) -> String {
    let unknown = report.verdicts.iter().filter(|verdict| verdict.valid == Valid::Unknown);
    let lines: Vec<String> =
        unknown.map(|verdict| format!("{}: {}", verdict.checker, verdict.evidence.join("; "))).collect();
    lines.join("; ")
}

fn show_red(seed: u64, output: Option<&Output>, args: &Args) {
    let program = std::env::args().next().unwrap_or_else(|| "sim".into());
    println!("seed {seed}: red; repeat with: {program} --seed {seed} {}", args.passed_on().join(" "));
    let Some(output) = output else {
        println!("    it did not end within {:?}", child::CHILD_MAX);
        return;
    };
    println!("    {}", output.status);
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(REPORT)).collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().for_each(|line| println!("    {line}"));
    }
}
