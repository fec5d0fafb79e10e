//! Backends: where the nodes' processes run, and what can be done to the network between them.
//!
//! A backend gives each node a [`Place`]: words to put before its command, and addresses of its own. [`Namespaces`]
//! puts each node into a network namespace behind a [`Router`], which can drop what one node sends to another one.
//! [`Loopback`] runs them on the loopback interface, where [`Proxies`] may stand between them. [`Links`] is what either can
//! do to the network between nodes, and how it is measured what passes there ([`Measured`]); [`probe`] tells what of it works
//! here.
//!
//! Invariants:
//!
//! * All that is made bears the run's [`RunId`] in its name, and goes when the backend is dropped; what a killed
//!   harness leaves, `cleanup.rs` finds by the run's record, which is written first.
//! * Nothing of the root namespace is changed but for one link of the run's own, with its address and its route.
//!
//! Left out: faults between clients and nodes; lost, doubled and reordered packets.

mod capability;
mod datagrams;
mod iproute;
mod links;
mod loopback;
mod meter;
pub(crate) mod namespaces;
mod proxies;
mod router;
mod subnet;

use std::fmt;

use anyhow::{bail, ensure};

pub use capability::{Capabilities, probe};
pub use links::Links;
pub use loopback::Loopback;
pub use meter::{Measured, Metered};
pub use namespaces::Namespaces;
pub use proxies::{Break, Line, Proxies, Weather};
pub use router::{Cut, Reach, Router, Traffic};

use crate::cleanup::RunRecord;

/// Where every node serves clients; the nodes' hosts differ.
pub const CLIENT_PORT: u16 = 2379;
/// Where every node hears the other nodes.
pub const PEER_PORT: u16 = 2380;
/// The most nodes: a router's rules are numbered by pairs of them.
pub const NODES_MAX: usize = 99;

/// What all names of runs begin with, in the file system and among namespaces and links.
const PREFIX: &str = "tfj-";
const RUN_ID_CHARS_MAX: usize = 32;
/// How many runs of a kind a process may have at a time.
const RUNS_MAX: u32 = 1000;

/// A run's name on this machine; shown with its prefix (`tfj-1f`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// # Errors
    /// It is not 1 to 32 ASCII letters and digits.
    pub fn parse(text: &str) -> anyhow::Result<RunId> {
        let plain = (1..=RUN_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        ensure!(plain, "the run's name '{text}' is not 1 to {RUN_ID_CHARS_MAX} letters and digits");
        Ok(RunId(text.to_owned()))
    }

    /// The run that something with this name belongs to: a folder (`tfj-1f`), or a namespace (`tfj-1f-n2`).
    pub(crate) fn of_name(name: &str) -> Option<RunId> {
        let rest = name.strip_prefix(PREFIX)?;
        RunId::parse(rest.split_once('-').map_or(rest, |(run, _)| run)).ok()
    }

    /// The namespace of the router.
    fn router(&self) -> String {
        format!("{self}-rt")
    }

    /// The namespace of a node.
    fn node(&self, node: usize) -> String {
        format!("{self}-{}", node_name(node))
    }

    /// A number that differs from other runs', as a rule (FNV-1a).
    fn number(&self) -> u64 {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.0.bytes().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// The name of the node at a place of the cluster: `n1` is at 0.
pub fn node_name(node: usize) -> String {
    format!("n{}", node + 1)
}

/// Where a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    /// What its command begins with. It must end in an `exec`, so that the process started is the node.
    pub prefix: Vec<String>,
    /// Where clients reach it, from the root namespace (`host:port`).
    pub client: String,
    /// Where the other nodes reach it.
    pub peer: String,
    /// Where it hears them: elsewhere when a proxy stands before it.
    pub hears: String,
}

impl Place {
    fn new(node: usize, host: std::net::Ipv4Addr, prefix: Vec<String>) -> Place {
        Place {
            name: node_name(node),
            prefix,
            client: format!("{host}:{CLIENT_PORT}"),
            peer: format!("{host}:{PEER_PORT}"),
            hears: format!("{host}:{PEER_PORT}"),
        }
    }
}

/// Where a cluster runs; removed when dropped.
#[derive(Debug)]
pub enum Backend {
    Namespaces(Namespaces),
    Loopback(Loopback),
}

impl Backend {
    /// Makes a namespace for each of 1 to [`NODES_MAX`] nodes. Removes first what dead runs have left. Blocks, for some
    /// ten milliseconds per node. The run's name begins with `kind`, some letters.
    ///
    /// # Errors
    /// Not root, `kind` makes no name, others have something of the run's name, or a command of iproute2 failed: it is
    /// named, and all that was made is removed again.
    pub fn namespaces(kind: &str, nodes: usize) -> anyhow::Result<Backend> {
        Ok(Backend::Namespaces(Namespaces::build(kind, nodes)?))
    }

    /// Places for 1 to [`NODES_MAX`] nodes on the loopback interface, each at an address of its own.
    ///
    /// # Errors
    /// The number of nodes is another one, or the run's record could not be written.
    pub fn loopback(nodes: usize) -> anyhow::Result<Backend> {
        Ok(Backend::Loopback(Loopback::build(nodes)?))
    }

    /// The same, behind proxies.
    ///
    /// # Errors
    /// As [`Backend::loopback`]; or a proxy's port is in use.
    pub async fn proxied(nodes: usize) -> anyhow::Result<Backend> {
        Ok(Backend::Loopback(Loopback::proxied(nodes).await?))
    }

    /// One for each node, in their order.
    pub fn places(&self) -> &[Place] {
        match self {
            Backend::Namespaces(namespaces) => namespaces.places(),
            Backend::Loopback(loopback) => loopback.places(),
        }
    }

    /// What can be done to what nodes send to each other.
    ///
    /// # Errors
    /// There is nothing here, and why.
    pub fn links(&self) -> Result<Links, &'static str> {
        match self {
            Backend::Namespaces(namespaces) => Ok(Links::Router(namespaces.router().clone())),
            Backend::Loopback(loopback) => match loopback.proxies() {
                Some(proxies) => Ok(Links::Proxies(proxies.clone())),
                None => Err("on the loopback interface there is no network between the nodes to be cut"),
            },
        }
    }

    /// What `cleanup` goes by if this harness dies.
    pub(crate) fn record(&mut self) -> &mut RunRecord {
        match self {
            Backend::Namespaces(namespaces) => namespaces.record(),
            Backend::Loopback(loopback) => loopback.record(),
        }
    }
}

/// Whether this process may make namespaces.
pub(crate) fn is_root() -> bool {
    // SAFETY: it reads no memory of ours and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A name for a run that no other one has: of this process and a number. It begins with `kind`.
fn claim(kind: &str) -> anyhow::Result<(RunId, RunRecord)> {
    for number in 0..RUNS_MAX {
        let run = RunId::parse(&format!("{kind}{}x{number}", std::process::id()))?;
        if let Some(record) = RunRecord::claim(&run)? {
            return Ok((run, record));
        }
    }
    bail!("this process has {RUNS_MAX} runs of the kind '{kind}' already")
}

/// Checks a number of nodes.
fn ensure_possible(nodes: usize) -> anyhow::Result<()> {
    ensure!((1..=NODES_MAX).contains(&nodes), "a cluster has 1 to {NODES_MAX} nodes, not {nodes}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_run() {
        let run = RunId::parse("1f").expect("letters and digits");
        for name in [run.to_string(), run.router(), run.node(0), run.node(98)] {
            assert_eq!(RunId::of_name(&name), Some(run.clone()), "{name}");
        }
        for other in ["eth0", "tfj-", "tfj--n1", "tfj-a_b", "tfj-../etc", "xtfj-1f"] {
            assert_eq!(RunId::of_name(other), None, "{other}");
        }
        assert_ne!(run.number(), RunId::parse("20").expect("digits").number());
    }

    #[test]
    fn a_run_id_is_no_path() {
        for text in ["", "a-b", "a/b", "a b", "é", &"a".repeat(33)] {
            assert!(RunId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn on_the_loopback_nodes_differ_and_nothing_can_be_cut() {
        let backend = Backend::loopback(3).expect("places");
        let mut addresses: Vec<&String> = backend.places().iter().flat_map(|p| [&p.client, &p.peer]).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 6);
        assert!(backend.links().is_err());
        assert!(Backend::loopback(0).is_err() && Backend::loopback(NODES_MAX + 1).is_err());
    }
}
