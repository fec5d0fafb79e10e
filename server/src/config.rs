//! Configuration: flags over environment over file over defaults.
//!
//! [`RawConfig`] is what was given, all optional; [`Config`] is what holds, checked. Every default stands here, and so
//! does every bound of a queue, message or count that an operator may change, with the least and the most it may be.
//! What is legal and may yet be a mistake is a warning ([`Config::warnings`]).
//!
//! Left out: whether addresses resolve, ports are free and the directory can be used, which only a start shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use trefoil_store::mvcc::Limits;

use crate::raft::group::LogKeep;
use crate::stderr;

/// The most a file of settings may have, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The most nodes `kvd dev` runs.
pub const DEV_NODES_MAX: u16 = 9;

/// At least a record of the map, which nodes hand on to each other under the same limit; at most what lets a log entry
/// fit into a frame between peers many times over.
const MESSAGE_BYTES: RangeInclusive<usize> = (16 << 10)..=(16 << 20);
/// At least a key of the map's records.
const KEY_BYTES: RangeInclusive<usize> = 64..=(16 << 20);
const TXN_OPS: RangeInclusive<usize> = 1..=usize::MAX;
const CONNECTIONS: RangeInclusive<usize> = 1..=usize::MAX;
const STREAMS: RangeInclusive<u32> = 1..=u32::MAX;
/// At most the hour to which all deadlines are cut.
const REQUEST_TIMEOUT_MS: RangeInclusive<u64> = 10..=3_600_000;
/// Less would send a snapshot to a follower that is a few entries behind.
const LOG_ENTRIES: RangeInclusive<u64> = 16..=u64::MAX;
const LOG_BYTES: RangeInclusive<usize> = (16 << 10)..=usize::MAX;
/// At most a hundred years: the next comparison has a time.
const VERIFY_INTERVAL_S: RangeInclusive<u64> = 1..=3_153_600_000;
/// At least a chunk of a snapshot in a second: its sender gives up one that is not taken in ten.
const BULK_BYTES: RangeInclusive<usize> = (256 << 10)..=usize::MAX;

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

/// Settings as given by one source.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// This node's name, unique in the cluster.
    #[arg(long, env = "KVD_NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The folder of this node's data.
    #[arg(long, env = "KVD_DATA_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Where clients are served (host:port).
    #[arg(long, env = "KVD_LISTEN_CLIENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_client: Option<String>,
    /// Where the other nodes are heard (host:port).
    #[arg(long, env = "KVD_LISTEN_PEER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_peer: Option<String>,
    /// All nodes of a new cluster: name=peer-address, separated by commas. Without it, a cluster of one.
    #[arg(long, env = "KVD_INITIAL_CLUSTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_cluster: Option<String>,
    /// Where clients reach this node, if not at the listen address.
    #[arg(long, env = "KVD_ADVERTISE_CLIENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_client: Option<String>,
    /// Where the other nodes reach this node, if not at the listen address.
    #[arg(long, env = "KVD_ADVERTISE_PEER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_peer: Option<String>,
    /// The failure domain: copies are spread over zones.
    #[arg(long, env = "KVD_ZONE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// This node's share of the load, relative to the others.
    #[arg(long, env = "KVD_WEIGHT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// error, warn, info, debug or trace.
    #[arg(long, env = "KVD_LOG_LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// The largest request in bytes.
    #[arg(long, env = "KVD_MESSAGE_BYTES_MAX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_bytes_max: Option<usize>,
    /// The longest key in bytes.
    #[arg(long, env = "KVD_KEY_BYTES_MAX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_bytes_max: Option<usize>,
    /// The most compares, or operations of a branch, in one transaction.
    #[arg(long, env = "KVD_TXN_OPS_MAX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn_ops_max: Option<usize>,
    /// Client connections at a time.
    #[arg(long, env = "KVD_CONNECTIONS_MAX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<usize>,
    /// Requests at a time on one connection.
    #[arg(long, env = "KVD_STREAMS_MAX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams_max: Option<u32>,
    /// The deadline of requests that bring none, in milliseconds.
    #[arg(long, env = "KVD_REQUEST_TIMEOUT_MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
    /// Log entries kept for followers that fall behind.
    #[arg(long, env = "KVD_LOG_ENTRIES_KEPT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_entries_kept: Option<u64>,
    /// Bytes of log kept for followers that fall behind.
    #[arg(long, env = "KVD_LOG_BYTES_KEPT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_kept: Option<usize>,
    /// Seconds between two comparisons of the replicas a node leads.
    #[arg(long, env = "KVD_VERIFY_INTERVAL_S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_interval_s: Option<u64>,
    /// Bytes a second that snapshots and removals may write.
    #[arg(long, env = "KVD_BULK_BYTES_PER_SECOND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulk_bytes_per_second: Option<usize>,
    /// Below this much free disk space, puts are refused.
    #[arg(long, env = "KVD_FREE_SPACE_FLOOR_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_space_floor_bytes: Option<u64>,
}

impl RawConfig {
    /// What a file holds, of which the first [`FILE_BYTES_MAX`] bytes and one more are enough.
    ///
    /// # Errors
    /// Why these are no settings, on one line; of TOML with the line of the file.
    pub fn parse(content: Vec<u8>) -> Result<RawConfig, String> {
        if content.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("has more than {FILE_BYTES_MAX} bytes, the limit"));
        }
        let text = String::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
        toml::from_str(&text).map_err(|error| one_line(&error, &text))
    }

    /// These settings, and `weaker`'s where these say nothing.
    pub fn over(self, weaker: RawConfig) -> RawConfig {
        RawConfig {
            name: self.name.or(weaker.name),
            data_dir: self.data_dir.or(weaker.data_dir),
            listen_client: self.listen_client.or(weaker.listen_client),
            listen_peer: self.listen_peer.or(weaker.listen_peer),
            initial_cluster: self.initial_cluster.or(weaker.initial_cluster),
            advertise_client: self.advertise_client.or(weaker.advertise_client),
            advertise_peer: self.advertise_peer.or(weaker.advertise_peer),
            zone: self.zone.or(weaker.zone),
            weight: self.weight.or(weaker.weight),
            log_level: self.log_level.or(weaker.log_level),
            message_bytes_max: self.message_bytes_max.or(weaker.message_bytes_max),
            key_bytes_max: self.key_bytes_max.or(weaker.key_bytes_max),
            txn_ops_max: self.txn_ops_max.or(weaker.txn_ops_max),
            connections_max: self.connections_max.or(weaker.connections_max),
            streams_max: self.streams_max.or(weaker.streams_max),
            request_timeout_ms: self.request_timeout_ms.or(weaker.request_timeout_ms),
            log_entries_kept: self.log_entries_kept.or(weaker.log_entries_kept),
            log_bytes_kept: self.log_bytes_kept.or(weaker.log_bytes_kept),
            verify_interval_s: self.verify_interval_s.or(weaker.verify_interval_s),
            bulk_bytes_per_second: self.bulk_bytes_per_second.or(weaker.bulk_bytes_per_second),
            free_space_floor_bytes: self.free_space_floor_bytes.or(weaker.free_space_floor_bytes),
        }
    }

    /// What holds where nobody says otherwise.
    pub fn defaults() -> RawConfig {
        RawConfig {
            name: Some("n1".into()),
            data_dir: Some("trefoil-data".into()),
            listen_client: Some("127.0.0.1:2379".into()),
            listen_peer: Some("127.0.0.1:2380".into()),
            initial_cluster: None,
            advertise_client: None,
            advertise_peer: None,
            zone: Some(String::new()),
            weight: Some(1),
            log_level: Some("info".into()),
            message_bytes_max: Some(3 << 19),
            key_bytes_max: Some(64 << 10),
            txn_ops_max: Some(128),
            connections_max: Some(4096),
            streams_max: Some(1024),
            request_timeout_ms: Some(5000),
            log_entries_kept: Some(100_000),
            log_bytes_kept: Some(64 << 20),
            verify_interval_s: Some(86_400),
            bulk_bytes_per_second: Some(64 << 20),
            free_space_floor_bytes: Some(256 << 20),
        }
    }
}

/// Settings that hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_client: String,
    pub listen_peer: String,
    /// Name and peer address of every node of a new cluster, sorted by name; this node among them.
    pub initial_cluster: Vec<(String, String)>,
    pub advertise_client: String,
    pub advertise_peer: String,
    pub zone: String,
    pub weight: u32,
    pub log_level: String,
    pub message_bytes_max: usize,
    pub limits: Limits,
    pub connections_max: usize,
    pub streams_max: u32,
    pub request_timeout: Duration,
    pub log_keep: LogKeep,
    pub verify_interval: Duration,
    pub bulk_bytes_per_second: u64,
    pub free_space_floor_bytes: u64,
}

/// A setting that cannot hold, by its flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {why}")]
pub struct BadSetting {
    pub flag: &'static str,
    pub why: String,
}

impl Config {
    /// Checks settings that have been laid over the defaults.
    ///
    /// # Errors
    /// The first setting that cannot hold.
    pub fn check(raw: RawConfig) -> Result<Config, BadSetting> {
        let raw = raw.over(RawConfig::defaults());
        let name = given(raw.name, "name")?;
        if name.is_empty() || name.contains([',', '=', '/']) {
            return Err(bad("name", format!("'{name}' must not be empty nor contain ',', '=' or '/'")));
        }
        if name.contains(char::is_control) {
            return Err(bad("name", format!("'{}' has control characters", stderr::one_line(&name))));
        }
        let listen_client = address("listen-client", given(raw.listen_client, "listen-client")?)?;
        let listen_peer = address("listen-peer", given(raw.listen_peer, "listen-peer")?)?;
        if Place::of(&listen_client) == Place::of(&listen_peer) {
            return Err(bad("listen-peer", format!("is at one address with --listen-client, {listen_peer}")));
        }
        let advertise_client = advertised("advertise-client", raw.advertise_client, &listen_client)?;
        let advertise_peer = advertised("advertise-peer", raw.advertise_peer, &listen_peer)?;
        let initial_cluster = cluster(raw.initial_cluster, &name, &advertise_peer)?;
        Ok(Config {
            initial_cluster,
            name,
            data_dir: given(raw.data_dir, "data-dir")?,
            listen_client,
            listen_peer,
            advertise_client,
            advertise_peer,
            zone: given(raw.zone, "zone")?,
            weight: given(raw.weight, "weight")?,
            log_level: level(given(raw.log_level, "log-level")?)?,
            message_bytes_max: within("message-bytes-max", raw.message_bytes_max, MESSAGE_BYTES)?,
            limits: Limits {
                key_bytes_max: within("key-bytes-max", raw.key_bytes_max, KEY_BYTES)?,
                txn_ops_max: within("txn-ops-max", raw.txn_ops_max, TXN_OPS)?,
            },
            connections_max: within("connections-max", raw.connections_max, CONNECTIONS)?,
            streams_max: within("streams-max", raw.streams_max, STREAMS)?,
            request_timeout: Duration::from_millis(within(
                "request-timeout-ms",
                raw.request_timeout_ms,
                REQUEST_TIMEOUT_MS,
            )?),
            log_keep: LogKeep {
                entries: within("log-entries-kept", raw.log_entries_kept, LOG_ENTRIES)?,
                bytes: within("log-bytes-kept", raw.log_bytes_kept, LOG_BYTES)?,
            },
            verify_interval: Duration::from_secs(within(
                "verify-interval-s",
                raw.verify_interval_s,
                VERIFY_INTERVAL_S,
            )?),
            bulk_bytes_per_second: within("bulk-bytes-per-second", raw.bulk_bytes_per_second, BULK_BYTES)? as u64,
            free_space_floor_bytes: given(raw.free_space_floor_bytes, "free-space-floor-bytes")?,
        })
    }

    /// What is legal and may yet be a mistake, a line each. A list that has this node elsewhere is no error: the other
    /// address may lead here, too, and once the cluster has formed the list is only a hint.
    pub fn warnings(&self) -> Vec<String> {
        let me = self.initial_cluster.iter().find(|(name, _)| *name == self.name);
        let elsewhere = me.filter(|(_, at)| *at != self.advertise_peer);
        let warning = |(name, at): &(String, String)| {
            let told = &self.advertise_peer;
            format!(
                "--initial-cluster: {name} is at {at} there, but tells the others to reach it at {told}; while the \
                 cluster forms they look for it at {at}"
            )
        };
        elsewhere.map(warning).into_iter().collect()
    }
}

fn bad(flag: &'static str, why: impl Into<String>) -> BadSetting {
    BadSetting { flag, why: why.into() }
}

fn given<T>(value: Option<T>, flag: &'static str) -> Result<T, BadSetting> {
    value.ok_or_else(|| bad(flag, "is needed"))
}

fn within<T: Copy + Display + PartialOrd>(
    flag: &'static str,
    value: Option<T>,
    bounds: RangeInclusive<T>,
) -> Result<T, BadSetting> {
    let value = given(value, flag)?;
    let (least, most) = bounds.into_inner();
    if value < least {
        return Err(bad(flag, format!("must be at least {least}, not {value}")));
    }
    if value > most {
        return Err(bad(flag, format!("must be at most {most}, not {value}")));
    }
    Ok(value)
}

/// Where an address leads, however it is spelt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    /// In lower case, and not looked up.
    Name(String),
}

impl Place {
    /// Nothing when `address` is not host:port.
    fn of(address: &str) -> Option<Place> {
        let (host, port) = address.rsplit_once(':')?;
        let unreadable = |c: char| c.is_control() || c.is_whitespace();
        if host.is_empty() || host.contains(unreadable) || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = match bare.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip.to_canonical()),
            Err(_) => Host::Name(host.to_ascii_lowercase()),
        };
        Some(Place { host, port: port.parse().ok()? })
    }

    /// Whether it stands for every address of this machine, which is none that others can dial.
    fn is_everywhere(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_unspecified(),
            Host::Name(_) => false,
        }
    }
}

fn address(flag: &'static str, address: String) -> Result<String, BadSetting> {
    match Place::of(&address) {
        None => Err(bad(flag, format!("'{}' is not host:port", stderr::one_line(&address)))),
        Some(Place { port: 0, .. }) => Err(bad(flag, format!("'{address}' has port 0, which nobody can dial"))),
        Some(_) => Ok(address),
    }
}

/// An address that others are to dial.
fn dialable(flag: &'static str, given: String) -> Result<String, BadSetting> {
    let given = address(flag, given)?;
    match is_everywhere(&given) {
        true => Err(bad(flag, format!("{given} is no address others can dial"))),
        false => Ok(given),
    }
}

fn advertised(flag: &'static str, given: Option<String>, listen: &str) -> Result<String, BadSetting> {
    match given {
        Some(given) => dialable(flag, given),
        None if is_everywhere(listen) => {
            Err(bad(flag, format!("is needed, because {listen} is no address others can dial")))
        }
        None => Ok(listen.to_owned()),
    }
}

fn is_everywhere(address: &str) -> bool {
    Place::of(address).is_some_and(|place| place.is_everywhere())
}

fn cluster(given: Option<String>, name: &str, peer: &str) -> Result<Vec<(String, String)>, BadSetting> {
    const FLAG: &str = "initial-cluster";
    let Some(given) = given else { return Ok(vec![(name.to_owned(), peer.to_owned())]) };
    let mut nodes = Vec::new();
    for part in given.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let named = part.split_once('=').filter(|(node, _)| !node.is_empty());
        let (node, at) = named.ok_or_else(|| bad(FLAG, format!("'{part}' is not name=host:port")))?;
        nodes.push((node.to_owned(), dialable(FLAG, at.to_owned())?));
    }
    nodes.sort();
    let names: BTreeSet<&String> = nodes.iter().map(|(node, _)| node).collect();
    if names.len() != nodes.len() {
        return Err(bad(FLAG, "names a node twice"));
    }
    if !names.contains(&name.to_owned()) {
        return Err(bad(FLAG, format!("does not name this node, {name}")));
    }
    match at_one_address(&nodes) {
        Some(why) => Err(bad(FLAG, why)),
        None => Ok(nodes),
    }
}

/// Which two nodes are at one address, if any are.
fn at_one_address(nodes: &[(String, String)]) -> Option<String> {
    let mut taken = BTreeMap::new();
    nodes.iter().find_map(|(node, at)| {
        let other: &String = taken.insert(Place::of(at), node)?;
        Some(format!("{other} and {node} are at one address, {at}"))
    })
}

/// A TOML error with its line, without the drawing.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let why = error.message().replace('\n', " ");
    line.map_or(why.clone(), |line| format!("line {line}: {why}"))
}

fn level(level: String) -> Result<String, BadSetting> {
    match ["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        true => Ok(level),
        false => Err(bad("log-level", format!("'{level}' is not error, warn, info, debug or trace"))),
    }
}

#[cfg(test)]
mod tests;
