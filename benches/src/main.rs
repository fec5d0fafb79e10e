//! `kvbench`: throughput, latency and server CPU of a three-process cluster on this machine.
//!
//! Closed loops send one unary request of one random key each through `trefoil-client`. The figure that is stable on a
//! shared machine is the servers' CPU time per operation; throughput and percentiles go with it. Results are printed
//! and written to a file with machine and commit.
//!
//! Left out: comparison with etcd and with the protocol's own cost, which comes with the etcd API.

mod cluster;
mod load;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cluster::Cluster;
use crate::load::{Kind, Load};
use crate::report::Report;

/// Connections in all, over the three nodes.
const CONNECTIONS: usize = 15;

/// Trefoil's load generator.
#[derive(Debug, Parser)]
#[command(name = "kvbench", version)]
struct Args {
    /// The server to measure.
    #[arg(long, env = "KVD_BIN")]
    kvd: PathBuf,
    /// Seconds measured, for each kind and number of loops.
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cluster = Cluster::start(&args.kvd).await?;
    let client = trefoil_client::Client::builder(cluster.endpoints.clone())
        .connections(CONNECTIONS / 3)
        .timeout(Duration::from_secs(10))
        .connect()
        .await?;
    let mut report = Report::new(args.value_bytes, args.keys);
    println!("{}", Report::HEADER);
    for kind in [Kind::Put, Kind::Get] {
        for &loops in &args.loops {
            let load = Load { kind, loops, keys: args.keys, value_bytes: args.value_bytes };
            load.run(&client, Duration::from_secs(args.warm_up)).await?;
            let before = cluster.cpu()?;
            let measured = load.run(&client, Duration::from_secs(args.seconds)).await?;
            let row = measured.row(kind, loops, cluster.cpu()? - before);
            println!("{row}");
            report.rows.push(row);
        }
    }
    report.write(&args.out)?;
    report.check(Kind::Put, args.put_us_max)?;
    report.check(Kind::Get, args.get_us_max)
}
