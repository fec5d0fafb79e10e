//! Configuration: flags over environment over file over defaults.
//!
//! [`RawConfig`] is what was given, all optional; [`Config`] is what holds, checked. Every default stands in `raw.rs`;
//! here stands every bound of a queue, message or count that an operator may change, with the least and the most it may
//! be. What is legal and may yet be a mistake is a warning ([`Config::warnings`]). [`Cli`] is the command line.
//!
//! Left out: whether addresses resolve, ports are free and the directory can be used, which only a start shows.

mod cli;
mod place;
mod raw;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use trefoil_store::mvcc::Limits;

pub use self::cli::{Cli, Command, DEV_NODES_MAX, Dev, Serve};
use self::place::Place;
pub use self::raw::{FILE_BYTES_MAX, RawConfig};
use crate::raft::group::LogKeep;
use crate::stderr;

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

fn level(level: String) -> Result<String, BadSetting> {
    match ["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        true => Ok(level),
        false => Err(bad("log-level", format!("'{level}' is not error, warn, info, debug or trace"))),
    }
}
