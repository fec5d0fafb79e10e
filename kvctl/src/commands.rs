//! The commands, a file each.

mod cluster;
mod del;
mod export;
mod get;
mod import;
mod put;
mod scan;
mod txn;
mod unfinished;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;
use trefoil_client::{Client, EffectiveConsistency};

use crate::args::{Args, Command, Global};
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output, say};

/// Runs a command and prints what it found.
///
/// # Errors
/// See [`Failure`]: what it says, and its exit code, hold for the whole command.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let mut output = Output::new(args.global.output);
    let exit = choose(args, &mut output).await;
    // What was found before a failure is still worth seeing.
    output.flush()?;
    exit
}

async fn choose(args: Args, output: &mut Output) -> Result<Exit, Failure> {
    let global = args.global;
    match args.command {
        Command::Put(put) => put::run(put, &connect(&global).await?, output).await,
        Command::Get(get) => get::run(get, &connect(&global).await?, output).await,
        Command::Del(del) => del::run(del, &global, output).await,
        Command::Scan(scan) => scan::run(scan, &connect(&global).await?, output).await,
        Command::Txn => txn::run(&global, output).await,
        Command::Import(import) => import::run(import, &global, output).await,
        Command::Export(export) => export::run(export, &connect(&global).await?, output).await,
        Command::Cluster(question) => cluster::run(question, &global, output).await,
        Command::Completion { shell } => completion(shell, output),
        Command::Version => version(output),
    }
}

async fn connect(global: &Global) -> Result<Client, Failure> {
    let mut builder = Client::builder(global.endpoints.iter().map(String::as_str)).timeout(global.timeout());
    if let Some(keyspace) = &global.keyspace {
        builder = builder.keyspace(keyspace.as_str());
    }
    Ok(builder.connect().await?)
}

fn completion(shell: Shell, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kvctl", &mut script);
    output.raw(&script)?;
    Ok(Exit::Ok)
}

fn version(output: &mut Output) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match output.format {
        Format::Plain | Format::Table => output.line(format!("kvctl {version}").as_bytes())?,
        Format::Json => output.json(&json!({ "kvctl": version }))?,
    }
    Ok(Exit::Ok)
}

/// Says on stderr how far behind a stale read was.
fn tell_staleness(consistency: EffectiveConsistency) {
    match consistency {
        EffectiveConsistency::Linearizable => {}
        EffectiveConsistency::Stale { entries_behind, leader_silent_ms } => {
            let heard = leader_silent_ms.map_or("its leader was not heard yet".to_owned(), |silent| {
                format!("its leader was heard {silent} ms before")
            });
            say(format_args!("stale read: {entries_behind} entries behind; {heard}"));
        }
    }
}
