//! `kvbench`: throughput, latency and server CPU of a three-process cluster on this machine.
//!
//! Closed loops send one unary request of one random key each through `trefoil-client`. The figure that is stable on a
//! shared machine is the servers' CPU time per operation; throughput and percentiles go with it. Results are printed
//! and written to a file with machine and commit.
//!
//! The yardstick is the protocol's own cost, measured first: the same loops against a process of this program that
//! answers at once (`echo.rs`).
//!
//! Left out: comparison with etcd, which comes with the etcd API.

mod cluster;
mod echo;
mod load;
mod process;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use trefoil_client::Client;

use crate::cluster::Cluster;
use crate::echo::EchoProcess;
use crate::load::{Kind, Load};
use crate::report::Report;

// As kvd has it: this program is also the echo server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections to each server.
const CONNECTIONS: usize = 5;
/// An echo costs the same at all times: its loads need no longer.
const ECHO_SECONDS_MAX: u64 = 10;

/// Trefoil's load generator.
#[derive(Debug, Parser)]
#[command(name = "kvbench", version)]
struct Args {
    /// The server to measure.
    #[arg(long, env = "KVD_BIN", required_unless_present = "serve_echo")]
    kvd: Option<PathBuf>,
    /// Seconds measured, for each kind and number of loops; of echoes 10 at most.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Closed loops, separated by commas.
    #[arg(long, default_value = "1,64,1000", value_delimiter = ',')]
    loops: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Distinct keys.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Where the results go.
    #[arg(long, default_value = "docs/bench/latest.json")]
    out: PathBuf,
    /// Fail when a put at 1000 loops costs the servers more than this, in microseconds of CPU.
    #[arg(long)]
    put_us_max: Option<f64>,
    /// Fail when a linearizable get at 1000 loops costs the servers more than this, in microseconds of CPU.
    #[arg(long)]
    get_us_max: Option<f64>,
    /// Measure nothing; be the echo server at this address.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    serve_echo: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match &args.serve_echo {
        Some(address) => echo::serve(address, args.value_bytes).await,
        None => run(&args).await,
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let kvd = args.kvd.as_deref().context("--kvd is missing")?;
    let mut report = Report::new(args.value_bytes, args.keys);
    println!("{}", Report::HEADER);
    measure_echo(args, &mut report).await?;
    measure_cluster(kvd, args, &mut report).await?;
    report.write(&args.out)?;
    report.ratios().for_each(|ratio| println!("{ratio}"));
    report.check(Kind::Put, args.put_us_max)?;
    report.check(Kind::Get, args.get_us_max)
}

async fn measure_echo(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let echo = EchoProcess::start(args.value_bytes).await?;
    let client = connect(vec![echo.endpoint.clone()]).await?;
    args.measure(Kind::Echo, &client, || echo.cpu(), report).await
}

async fn measure_cluster(kvd: &Path, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(kvd).await?;
    let client = connect(cluster.endpoints.clone()).await?;
    for kind in [Kind::Put, Kind::Get] {
        args.measure(kind, &client, || cluster.cpu(), report).await?;
    }
    Ok(())
}

async fn connect(endpoints: Vec<String>) -> anyhow::Result<Client> {
    let builder = Client::builder(endpoints).connections(CONNECTIONS).timeout(Duration::from_secs(10));
    Ok(builder.connect().await?)
}

impl Args {
    /// Measures a kind of load at each number of loops. `cpu` is what the servers took since they started.
    async fn measure(
        &self,
        kind: Kind,
        client: &Client,
        cpu: impl Fn() -> anyhow::Result<Duration>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        for &loops in &self.loops {
            let load = Load { kind, loops, keys: self.keys, value_bytes: self.value_bytes };
            load.run(client, Duration::from_secs(self.warm_up)).await?;
            let before = cpu()?;
            let measured = load.run(client, self.time(kind)).await?;
            let row = measured.row(kind, loops, cpu()? - before);
            println!("{row}");
            report.rows.push(row);
        }
        Ok(())
    }

    /// How long a load is measured.
    fn time(&self, kind: Kind) -> Duration {
        Duration::from_secs(match kind {
            Kind::Echo => self.seconds.min(ECHO_SECONDS_MAX),
            Kind::Put | Kind::Get => self.seconds,
        })
    }
}
