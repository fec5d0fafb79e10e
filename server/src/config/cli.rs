//! The command line of `kvd`: a node, or several in one process.
//!
//! Left out: the flags that are settings, which a file may hold too (`raw.rs`), and what is done about any of them
//! (`main.rs`, `dev.rs`).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::RawConfig;

/// The most nodes `kvd dev` runs.
pub const DEV_NODES_MAX: u16 = 9;

/// Trefoil's server.
#[derive(Debug, Parser)]
#[command(name = "kvd", version, about = "Trefoil's server", disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run several full nodes in this process, to try things out.
    Dev(Dev),
}

/// Flags of `kvd dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(DEV_NODES_MAX)))]
    pub nodes: u16,
    /// Where their data is kept between runs.
    #[arg(long, default_value = "trefoil-dev")]
    pub data_dir: PathBuf,
    /// The first node's client port; the next ones are 100 apart, peer ports one above.
    #[arg(long, default_value_t = 2379, value_parser = clap::value_parser!(u16).range(1..=64_000))]
    pub base_port: u16,
    /// error, warn, info, debug or trace.
    #[arg(long, default_value = "warn")]
    pub log_level: String,
}

/// Flags of a node.
#[derive(Debug, Args)]
pub struct Serve {
    /// A TOML file with any of these settings, named with underscores.
    #[arg(long, env = "KVD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the settings in force as TOML and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Check the settings and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Start a cluster of one that has lost acknowledged writes, under a new cluster id.
    #[arg(long)]
    pub accept_loss_of_acknowledged_writes: bool,
    #[command(flatten)]
    pub settings: RawConfig,
}
