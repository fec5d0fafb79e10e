//! Settings as one source gives them, all optional: flags and environment, a file, or the defaults.
//!
//! One source is laid over a weaker one, which holds where the stronger one says nothing. Every default stands here.
//!
//! Left out: whether the settings hold, which `Config::check` says of all of them together.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

/// The most a file of settings may have, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

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

/// A TOML error with its line, without the drawing.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let why = error.message().replace('\n', " ");
    line.map_or(why.clone(), |line| format!("line {line}: {why}"))
}
