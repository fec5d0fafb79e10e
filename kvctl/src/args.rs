//! The command line, as checked types.
//!
//! Keys and values are bytes as the shell hands them over. A prefix is always `--prefix`: behind the key (`del a/
//! --prefix`) or with it (`del --prefix a/`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use trefoil_client::{Consistency, Context, KeyRange, Revision};

use crate::encoding;
use crate::exit::Failure;
use crate::output::Format;

/// Reads, writes and looks after a Trefoil cluster.
///
/// Exit codes: 0 ok, 1 not found or compare false, 2 usage, 3 refused or failed and nothing done, 4 no endpoint
/// answered and nothing done, 5 a write's outcome is unknown.
///
/// On a terminal, and in tables, control characters of keys and values are printed escaped, such as \u{1b}, and bytes
/// that are no UTF-8 such as \xff; get leaves line ends and tabs. Into a file or a pipe plain output has bytes as they
/// are, and get --raw has them so everywhere.
#[derive(Debug, Parser)]
#[command(name = "kvctl", version)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands take.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Any nodes of the cluster, host:port
    #[arg(long, global = true, env = "KVCTL_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// The keyspace; unless given, keys are of "default", and cluster status, map and verify look at all keyspaces
    #[arg(long, global = true, value_parser = NonEmptyStringValueParser::new())]
    pub keyspace: Option<String>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Plain)]
    pub output: Format,
    /// How long each request may take, such as 500ms, 5s, 2m; unless given 5s, and 10m for a replica in cluster verify
    #[arg(long, global = true, value_parser = duration)]
    pub timeout: Option<Duration>,
}

impl Global {
    /// How long a request may take that every node answers soon.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }
}

/// How long a request may take unless the caller says how long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a key
    Put(Put),
    /// Print a key's value
    Get(Get),
    /// Remove a key, or all keys of a prefix or range
    Del(Del),
    /// Print keys and values in order
    Scan(Scan),
    /// Carry out a transaction from stdin: etcdctl's three blocks, or JSON
    Txn,
    /// Store each regular file below a directory
    Import(Import),
    /// Write keys back as files below a directory
    Export(Export),
    /// Look at the cluster
    #[command(subcommand)]
    Cluster(Cluster),
    /// Print a shell's completion script
    Completion { shell: Shell },
    /// Print the version
    Version,
}

impl Command {
    /// Whether it may change keys.
    pub fn writes(&self) -> bool {
        match self {
            Command::Put(_) | Command::Del(_) | Command::Txn | Command::Import(_) => true,
            Command::Completion { .. }
            | Command::Get(_)
            | Command::Scan(_)
            | Command::Export(_)
            | Command::Cluster(_)
            | Command::Version => false,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Put {
    #[arg(value_parser = raw_bytes())]
    pub key: Bytes,
    /// The value; - reads it from stdin
    #[arg(value_parser = raw_bytes())]
    pub value: Bytes,
    #[command(flatten)]
    pub condition: Condition,
}

#[derive(Debug, clap::Args)]
pub struct Get {
    #[arg(value_parser = raw_bytes())]
    pub key: Bytes,
    /// Print the value as it is, without a newline
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    pub reading: Reading,
}

#[derive(Debug, clap::Args)]
pub struct Del {
    #[command(flatten)]
    pub range: Range,
    #[command(flatten)]
    pub condition: Condition,
    /// Do not ask before removing a prefix or range
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, clap::Args)]
pub struct Scan {
    #[command(flatten)]
    pub range: Range,
    /// At most this many pairs; 0 for all
    #[arg(long, default_value_t = 0)]
    pub limit: u64,
    /// From the last key to the first
    #[arg(long)]
    pub reverse: bool,
    /// Leave out the values
    #[arg(long)]
    pub keys_only: bool,
    /// Print only how many keys there are
    #[arg(long, conflicts_with = "keys_only")]
    pub count_only: bool,
    #[command(flatten)]
    pub reading: Reading,
}

#[derive(Debug, clap::Args)]
pub struct Import {
    /// Where the files are
    pub dir: PathBuf,
    /// Goes before each file's path to make its key; nothing is put between them
    #[arg(long, default_value = "", value_parser = raw_bytes())]
    pub prefix: Bytes,
}

#[derive(Debug, clap::Args)]
pub struct Export {
    /// Which keys; taken off to make each file's path
    #[arg(value_parser = raw_bytes())]
    pub prefix: Bytes,
    /// Where to write the files
    pub dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Cluster {
    /// Partitions with their leaders, replicas, lag and alarms
    Status,
    /// The nodes and whether they answer
    Nodes,
    /// Which node holds which partition
    Map,
    /// Compare the whole content of all replicas
    Verify,
}

/// When a write is to be carried out.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Condition {
    /// Only when the key does not exist
    #[arg(long, conflicts_with = "if_revision")]
    pub if_absent: bool,
    /// Only when the key's newest put is the one at this revision
    #[arg(long, value_name = "N")]
    pub if_revision: Option<u64>,
}

impl Condition {
    /// Whether there is one.
    pub fn is_set(self) -> bool {
        self.if_absent || self.if_revision.is_some()
    }
}

/// How a read is to be done.
#[derive(Clone, Debug, clap::Args)]
pub struct Reading {
    /// The state at this revision instead of now
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// How fresh the answer must be
    #[arg(long, value_enum, default_value_t = Freshness::Linearizable)]
    pub consistency: Freshness,
    /// A stale read waits until the replica has seen what this has; from an earlier reply
    #[arg(long, value_name = "TOKEN", value_parser = encoding::context)]
    pub context: Option<Context>,
}

impl Reading {
    /// The revision to read at.
    pub fn revision(&self) -> Option<Revision> {
        self.revision.map(Revision)
    }

    /// The context, empty when there is none.
    pub fn context(&self) -> Context {
        self.context.clone().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Freshness {
    Linearizable,
    Stale,
}

impl From<Freshness> for Consistency {
    fn from(freshness: Freshness) -> Consistency {
        match freshness {
            Freshness::Linearizable => Consistency::Linearizable,
            Freshness::Stale => Consistency::Stale,
        }
    }
}

/// The lowest key there can be.
const LOWEST: &[u8] = &[0];

/// Which keys.
#[derive(Clone, Debug, clap::Args)]
pub struct Range {
    /// The key; to scan, the first one
    #[arg(value_parser = raw_bytes())]
    pub key: Option<Bytes>,
    /// All keys that begin with KEY, or with this
    #[arg(long, value_name = "PREFIX", num_args = 0..=1, value_parser = raw_bytes())]
    pub prefix: Option<Option<Bytes>>,
    /// From KEY up to, but not including, this one
    #[arg(long, value_name = "END", value_parser = raw_bytes())]
    pub before: Option<Bytes>,
}

impl Range {
    /// What a scan means by it: without `--prefix` or `--before`, from KEY on.
    ///
    /// # Errors
    /// `Usage` when the parts contradict each other.
    pub fn to_scan(&self) -> Result<KeyRange, Failure> {
        match (&self.key, &self.prefix, &self.before) {
            (None, None | Some(None), None) => Ok(KeyRange::all()),
            (Some(from), None, None) => Ok(KeyRange::From(from.clone())),
            (None, None, Some(before)) => Ok(KeyRange::Between(Bytes::from_static(LOWEST), before.clone())),
            (_, _, _) => self.neighbours(),
        }
    }

    /// What a delete means by it: without `--prefix` or `--before`, KEY alone.
    ///
    /// # Errors
    /// `Usage` when the parts contradict each other, or there are none.
    pub fn to_delete(&self) -> Result<KeyRange, Failure> {
        match (&self.key, &self.prefix, &self.before) {
            (Some(key), None, None) => Ok(KeyRange::Key(key.clone())),
            (_, _, _) => self.neighbours(),
        }
    }

    fn neighbours(&self) -> Result<KeyRange, Failure> {
        match (&self.key, &self.prefix, &self.before) {
            (Some(prefix), Some(None), None) | (None, Some(Some(prefix)), None) => Ok(KeyRange::Prefix(prefix.clone())),
            (Some(from), None, Some(before)) => Ok(KeyRange::Between(from.clone(), before.clone())),
            (_, Some(_), Some(_)) => Err(usage("--prefix and --before exclude each other")),
            (Some(_), Some(Some(_)), None) => Err(usage("give KEY --prefix, or --prefix PREFIX, not both")),
            (None, Some(None), None) => Err(usage("--prefix needs to know which one; '' means all keys")),
            (None, None, _) | (Some(_), None, None) => Err(usage("which keys? Give KEY or --prefix PREFIX")),
        }
    }
}

fn usage(why: &str) -> Failure {
    Failure::Usage(why.to_owned())
}

fn raw_bytes() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|text: OsString| Bytes::from(text.into_vec()))
}

/// Reads `500ms`, `5s`, `2m`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("'{text}': expected such as 500ms, 5s, 2m"))?;
    let read = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    let sensible = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
    read.filter(|read| sensible.contains(read)).ok_or_else(|| format!("'{text}': expected 1ms to 1440m"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn range(words: &[&str]) -> Range {
        let args = Args::try_parse_from(["kvctl", "del"].iter().chain(words)).expect("a command line");
        let Command::Del(del) = args.command else { panic!("not a del") };
        del.range
    }

    #[test]
    fn the_definition_holds() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_prefix_is_always_prefix() {
        assert_eq!(range(&["a/", "--prefix"]).to_delete().ok(), Some(KeyRange::prefix("a/")));
        assert_eq!(range(&["--prefix", "a/"]).to_delete().ok(), Some(KeyRange::prefix("a/")));
        assert_eq!(range(&["--prefix", ""]).to_delete().ok(), Some(KeyRange::all()));
        assert_eq!(range(&["a"]).to_delete().ok(), Some(KeyRange::key("a")));
        assert_eq!(range(&["a"]).to_scan().ok(), Some(KeyRange::from_key("a")));
        assert_eq!(range(&["a", "--before", "b"]).to_delete().ok(), Some(KeyRange::between("a", "b")));
        assert_eq!(range(&[]).to_scan().ok(), Some(KeyRange::all()));
    }

    #[test]
    fn a_keyspace_has_a_name() {
        let keyspace = |words: &[&str]| {
            let args = Args::try_parse_from(["kvctl", "get", "k"].iter().chain(words));
            args.map(|args| args.global.keyspace).map_err(|error| error.to_string())
        };
        assert_eq!(keyspace(&[]), Ok(None));
        assert_eq!(keyspace(&["--keyspace", "default"]), Ok(Some("default".to_owned())));
        for words in [&["--keyspace", ""][..], &["--keyspace="]] {
            assert!(keyspace(words).is_err_and(|why| why.contains("--keyspace <KEYSPACE>")), "{words:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let cases: [&[&str]; 4] = [&[], &["--prefix"], &["a", "--prefix", "b"], &["a", "--prefix", "--before", "b"]];
        for words in cases {
            assert!(range(words).to_delete().is_err(), "{words:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for text in ["", "s", "-1s", "5 s", "5h", "0s", "99999999999999m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
