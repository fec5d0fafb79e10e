//! `kvd`: arguments, configuration, node, exit code; nothing else.
//!
//! Exit codes: 0 stopped on request, 1 could not start, 2 wrong usage or settings, 70 stopped at once because an
//! invariant was broken, 74 stopped at once because the disk or a replica failed.

use std::ffi::{OsString, c_int, c_long};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing::warn;
use tracing_subscriber::EnvFilter;
use trefoil_server::config::{BadSetting, Cli, Command, Config, FILE_BYTES_MAX, RawConfig, Serve};
use trefoil_server::node::{Node, Ports};
use trefoil_server::writer::Fatal;
use trefoil_server::{dev, disk, stderr};

// A request is a few dozen small allocations; the system's allocator was a tenth of a put's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's option for how long freed memory is kept before the system gets it back, and the milliseconds it is
/// set to. Memtables are freed and filled again within seconds: each page that was given back meanwhile is a fault, and is
/// zeroed, which took a tenth of a put.
const PURGE_DELAY: c_int = 15;
const PURGE_DELAY_MS: c_long = 10_000;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

const EXIT_NOT_STARTED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_BROKEN: i32 = 70;
const EXIT_DISK: i32 = 74;

fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// The whole program. `bin/kvd-planted.rs` runs it with other arguments.
pub fn run_with(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // SAFETY: sets a number, while there is one thread.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
    end_at_a_panic();
    let ended = match Cli::try_parse_from(arguments) {
        Ok(cli) => run(cli),
        Err(wrong) if wrong.use_stderr() => wrong.exit(),
        // Help, or the version.
        Err(answer) => printed(answer.print()).map(|()| Ended::BeforeServing),
    };
    match ended {
        Ok(Ended::BeforeServing) => ExitCode::SUCCESS,
        // All is on disk. Ending here spares the tasks that still hold the database its destruction under their feet.
        // SAFETY: ends the process without running anything else.
        Ok(Ended::Stopped) => unsafe { libc::_exit(0) },
        Err(error) => {
            stderr::say(format_args!("kvd: {}", stderr::one_line(&format!("{error:#}"))));
            let usage = error.downcast_ref::<BadSetting>().is_some() || error.downcast_ref::<BadFile>().is_some();
            let code = if usage { EXIT_USAGE } else { EXIT_NOT_STARTED };
            // A node that had been started still holds its database, as above.
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(code)) }
        }
    }
}

/// The file of `--config` holds no settings.
#[derive(Debug, thiserror::Error)]
#[error("--config {}: {why}", .path.display())]
struct BadFile {
    path: PathBuf,
    why: String,
}

/// A broken invariant in one task leaves the others with half a node: all of it ends.
fn end_at_a_panic() {
    std::panic::set_hook(Box::new(|panic| {
        stderr::say(format_args!("kvd: stopping at once: {panic}"));
        // SAFETY: ends the process without running anything else.
        unsafe { libc::_exit(EXIT_BROKEN) }
    }));
}

/// How a run came to its end.
enum Ended {
    /// The settings were only shown or checked.
    BeforeServing,
    /// The nodes were stopped, and left nothing to replay.
    Stopped,
}

fn run(cli: Cli) -> anyhow::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        Some(Command::Dev(flags)) => {
            log_to_stderr(&flags.log_level)?;
            runtime.block_on(async {
                let nodes = dev::start(&flags, fatal()).await?;
                until_stopped().await?;
                stop_all(nodes).await
            })?;
        }
        None => {
            let Some(config) = configure(&cli.serve)? else { return Ok(Ended::BeforeServing) };
            log_to_stderr(&config.log_level)?;
            runtime.block_on(async {
                let ports = Ports::listen(&config).await?;
                let disk = disk::open(&config.data_dir, &config.name, cli.serve.accept_loss_of_acknowledged_writes)?;
                config.warnings().iter().for_each(|warning| warn!("{warning}"));
                let directory = config.data_dir.display().to_string();
                let node = Node::start(config, ports, disk, fatal()).await.context(directory)?;
                until_stopped().await?;
                node.stop().await
            })?;
        }
    }
    Ok(Ended::Stopped)
}

/// The settings in force; nothing when they were only to be shown or checked.
fn configure(serve: &Serve) -> anyhow::Result<Option<Config>> {
    let file = serve.config.as_deref().map(read_settings).transpose()?.unwrap_or_default();
    let raw = serve.settings.clone().over(file);
    let config = Config::check(raw.clone())?;
    if serve.check_config {
        config.warnings().iter().for_each(|warning| stderr::say(format_args!("kvd: warning: {warning}")));
    }
    if serve.print_config {
        let settings = toml::to_string(&raw.over(RawConfig::defaults()))?;
        printed(io::stdout().write_all(settings.as_bytes()))?;
    }
    Ok((!serve.print_config && !serve.check_config).then_some(config))
}

/// Reads no more than a file of settings may have, since it may be a device or a pipe that never ends.
fn read_settings(path: &Path) -> anyhow::Result<RawConfig> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content));
    read.with_context(|| format!("--config {}", path.display()))?;
    Ok(RawConfig::parse(content).map_err(|why| BadFile { path: path.to_owned(), why })?)
}

/// What was to be printed on stdout was, unless whoever reads it has seen enough.
fn printed(written: io::Result<()>) -> anyhow::Result<()> {
    match written.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        flushed => flushed.context("cannot write to stdout"),
    }
}

fn log_to_stderr(level: &str) -> anyhow::Result<()> {
    // Asked for a level this build has no lines of, the filter says so on stderr, and panics when it cannot.
    let level = level.parse::<LevelFilter>()?.min(STATIC_MAX_LEVEL);
    // The Raft library reports what this server reports itself, and complains at every stop.
    let filter = EnvFilter::try_new(format!("{level},openraft=off,h2=error,hyper=warn,tower=warn"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| stderr::Lossy).with_target(false);
    // It would panic likewise over a line that cannot be formatted.
    lines.log_internal_errors(false).init();
    Ok(())
}

/// After a failed write the process ends at once: nothing may be flushed, closed or answered.
fn fatal() -> Fatal {
    Arc::new(|why| {
        stderr::say(format_args!("kvd: stopping at once: {why}"));
        // SAFETY: ends the process without running anything else.
        unsafe { libc::_exit(EXIT_DISK) }
    })
}

async fn until_stopped() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn stop_all(nodes: Vec<Node>) -> anyhow::Result<()> {
    for stopped in futures::future::join_all(nodes.into_iter().map(Node::stop)).await {
        stopped?;
    }
    Ok(())
}
