//! One seed, in this process.

use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use trefoil_jepsen::checker::Valid;
use trefoil_sim::probes::Rare;
use trefoil_sim::trace::Trace;
use trefoil_sim::{Planted, Report, system};
use trefoil_world::clock;

use super::arguments::{Args, Plant};
use super::{BAD_ARGUMENTS, RED, REPORT, child};

/// Runs it and prints what came of it.
pub fn run(seed: u64, args: &Args) -> u8 {
    end_at_a_panic(seed);
    #[cfg(feature = "planted")]
    eprintln!("{}", trefoil_world::planted::plant(args.bug));
    let began = clock::now();
    let taken_over = system::take_over(args.entropy.unwrap_or(seed));
    if let Some(level) = &args.log
        && let Err(error) = log_to_stderr(level)
    {
        eprintln!("sim: --log: {error}");
        return BAD_ARGUMENTS;
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
    child::exit_code(report.valid)
}

/// A broken invariant in one task leaves the others with half a node: the run is red and over.
fn end_at_a_panic(seed: u64) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("seed {seed}: red: {panic}");
        std::process::exit(i32::from(RED));
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
    for fault in &report.in_vain {
        println!("{fault:>12}: never in force");
    }
    for (rare, times) in Rare::ALL.map(|rare| (rare, report.rare.times(rare))) {
        println!("{rare:>21}: {times} times reached");
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
