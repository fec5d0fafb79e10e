//! What was measured, printed as a table and written as JSON with machine and commit.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use trefoil_world::clock;

use crate::load::Kind;

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
    /// User and system time of all three servers per operation.
    pub server_cpu_us: f64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Put => "put",
            Kind::Get => "get",
        };
        write!(
            f,
            "{kind:<4} {:>6} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>12.1} {:>7}",
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

    /// Fails when an operation at 1000 loops costs the servers more than `max_us`, or any operation failed.
    pub fn check(&self, kind: Kind, max_us: Option<f64>) -> anyhow::Result<()> {
        let Some(max_us) = max_us else { return Ok(()) };
        let row = self.rows.iter().find(|row| row.kind == kind && row.loops == 1000);
        let row = row.context("no load of 1000 loops was measured")?;
        if row.server_cpu_us > max_us || row.errors > 0 {
            bail!("{kind:?}: {:.1} µs of server CPU ({max_us} allowed), {} errors", row.server_cpu_us, row.errors);
        }
        Ok(())
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
