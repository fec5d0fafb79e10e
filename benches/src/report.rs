//! What was measured, printed as a table and written as JSON with machine and commit.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use trefoil_world::clock;

use crate::load::Kind;

/// Server CPU of an echo at 1000 loops, in microseconds, on the machine the bounds were set on.
const ECHO_US: f64 = 20.0;

/// One load's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub kind: Kind,
    pub loops: usize,
    pub operations: u64,
    pub errors: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// User and system time of all servers per operation: of three, for an echo of one.
    pub server_cpu_us: f64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<4} {:>6} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>12.1} {:>7}",
            self.kind.name(),
            self.loops,
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.p999_ms,
            self.max_ms,
            self.server_cpu_us,
            self.errors
        )
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    date_ms: u64,
    commit: String,
    cpu: String,
    cores: usize,
    value_bytes: usize,
    keys: u64,
    pub rows: Vec<Row>,
}

impl Report {
    pub const HEADER: &str = "kind  loops      ops/s    p50 ms    p99 ms  p99.9 ms    max ms  server µs/op  errors";

    pub fn new(value_bytes: usize, keys: u64) -> Report {
        Report {
            date_ms: clock::wall_ms(),
            commit: commit(),
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            value_bytes,
            keys,
            rows: Vec::new(),
        }
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// How much more than an echo each other operation costs the servers, at as many loops: a line each.
    pub fn ratios(&self) -> impl Iterator<Item = String> {
        self.rows.iter().filter(|row| row.kind != Kind::Echo).filter_map(move |row| {
            let echo = self.rows.iter().find(|echo| echo.kind == Kind::Echo && echo.loops == row.loops)?;
            let ratio = row.server_cpu_us / echo.server_cpu_us;
            Some(format!("{}/echo at {} loops: {ratio:.1}", row.kind.name(), row.loops))
        })
    }

    /// How much slower this machine is than the one the bounds were set on, by what an echo costs; at least 1.
    pub fn slowness(&self) -> f64 {
        let echo = self.at_1000_loops(Kind::Echo).map_or(ECHO_US, |row| row.server_cpu_us);
        (echo / ECHO_US).max(1.0)
    }

    /// Fails when an operation at 1000 loops costs the servers more than `max_us` on the machine the bounds were set
    /// on, or any operation failed.
    pub fn check(&self, kind: Kind, max_us: Option<f64>) -> anyhow::Result<()> {
        let Some(max_us) = max_us else { return Ok(()) };
        let row = self.at_1000_loops(kind).context("no load of 1000 loops was measured")?;
        let (cost, allowed) = (row.server_cpu_us, max_us * self.slowness());
        println!(
            "{}: {cost:.1} µs of server CPU; {max_us} allowed where an echo costs {ECHO_US}, here {allowed:.0}",
            kind.name()
        );
        if cost > allowed || row.errors > 0 {
            bail!("{}: {cost:.1} µs of server CPU ({allowed:.0} allowed), {} errors", kind.name(), row.errors);
        }
        Ok(())
    }

    fn at_1000_loops(&self, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.kind == kind && row.loops == 1000)
    }
}

fn commit() -> String {
    let output = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(|| "unknown".into(), |line| line.trim_start_matches([' ', '\t', ':']).to_owned())
}
