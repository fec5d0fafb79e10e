//! The router between the nodes: drops what one node sends to another one, silently.
//!
//! It is a network namespace that forwards. A [`Cut`] is a policy rule in it (`ip rule … blackhole`): packets that
//! match are dropped without a word to the sender, those of established connections too. A rule's preference is made
//! of the cut, so a cut is made once, and all cuts can be told from the system's own rules and removed without
//! remembering them.
//!
//! Whether a cut is in force is seen by packets, sent from inside the nodes' namespaces: datagrams, counted where they
//! should come (`datagrams.rs`), tell each direction apart; a connection attempt tells one port apart, but needs both
//! directions.
//!
//! Invariants:
//!
//! * Cutting twice is cutting once; healing removes every cut, whoever made it.
//!
//! All of it blocks: a call takes milliseconds per cut, [`Router::reach`] up to half a second, [`Router::measure`] a tenth of
//! a second for each node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::datagrams::{self, End};
use super::iproute::{IpError, ip};
use super::subnet::Subnet;
use super::{CLIENT_PORT, Line, Measured, NODES_MAX, PEER_PORT, RunId, node_name};

/// Preferences of our rules. The system's are 0, 32766 and 32767.
const PREFERENCES: RangeInclusive<u32> = 1_000..=30_999;
/// How long a connection attempt waits: longer than a busy machine takes, shorter than a second attempt of TCP's.
const REACH_SECONDS: &str = "0.4";
/// What `timeout` exits with when the time was up.
const TIMED_OUT: i32 = 124;

/// What is dropped of what a node sends to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    All,
    /// What belongs to connections to either node's peer port.
    PeerPort,
}

/// What `from` sends to `to` is dropped. The other direction is not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    pub from: usize,
    pub to: usize,
    pub traffic: Traffic,
}

/// What a connection attempt tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Connected or refused: packets pass both ways.
    Answers,
    /// Nothing came back.
    Silent,
}

/// What one rule matches.
#[derive(Clone, Copy, Debug)]
enum Selector {
    All,
    ToPeerPort,
    FromPeerPort,
}

impl Traffic {
    fn selectors(self) -> &'static [Selector] {
        match self {
            Traffic::All => &[Selector::All],
            Traffic::PeerPort => &[Selector::ToPeerPort, Selector::FromPeerPort],
        }
    }

    /// A port that is cut with it.
    pub(crate) fn port(self) -> u16 {
        match self {
            Traffic::All => CLIENT_PORT,
            Traffic::PeerPort => PEER_PORT,
        }
    }
}

impl Selector {
    fn words(self) -> String {
        match self {
            Selector::All => String::new(),
            Selector::ToPeerPort => format!("ipproto tcp dport {PEER_PORT}"),
            Selector::FromPeerPort => format!("ipproto tcp sport {PEER_PORT}"),
        }
    }

    /// The first preference of its rules.
    fn base(self) -> u32 {
        match self {
            Selector::All => 1_000,
            Selector::ToPeerPort => 11_000,
            Selector::FromPeerPort => 21_000,
        }
    }
}

/// Of one cut's rules that with `selector`.
fn preference(cut: &Cut, selector: Selector) -> u32 {
    assert!(cut.from.max(cut.to) < NODES_MAX, "{cut:?} names a node beyond {NODES_MAX}");
    selector.base() + (cut.from * 100 + cut.to) as u32
}

/// The preferences of our rules in what `ip rule list` prints.
fn own_preferences(listing: &str) -> Vec<u32> {
    let preference = |line: &str| line.split_once(':')?.0.trim().parse::<u32>().ok();
    listing.lines().filter_map(preference).filter(|preference| PREFERENCES.contains(preference)).collect()
}

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Router {
    run: RunId,
    subnet: Subnet,
    nodes: usize,
}

impl Router {
    pub(super) fn new(run: RunId, subnet: Subnet, nodes: usize) -> Router {
        Router { run, subnet, nodes }
    }

    /// Puts cuts in force, beside those that are.
    ///
    /// # Errors
    /// A rule could not be added; those before it are in force.
    pub fn cut(&self, cuts: &[Cut]) -> anyhow::Result<()> {
        let mut known: BTreeSet<u32> = self.own()?.into_iter().collect();
        for cut in cuts {
            assert!(cut.from != cut.to, "no node is cut off from itself");
            for &selector in cut.traffic.selectors() {
                let preference = preference(cut, selector);
                if known.insert(preference) {
                    let (from, to) = (self.subnet.node(cut.from), self.subnet.node(cut.to));
                    let words = selector.words();
                    self.ip(&format!("rule add from {from} to {to} {words} blackhole pref {preference}"))?;
                }
            }
        }
        Ok(())
    }

    /// Removes all cuts; nothing is cut afterwards.
    ///
    /// # Errors
    /// A rule could not be removed.
    pub fn heal(&self) -> anyhow::Result<()> {
        for preference in self.own()? {
            self.ip(&format!("rule del pref {preference}"))?;
        }
        let left = self.own()?;
        ensure!(left.is_empty(), "rules {left:?} of {} are still there", self.run.router());
        Ok(())
    }

    /// Has every node send something to every other one, and tells what came. Cuts of the peer ports do not touch that.
    /// `cut`: the lines that are said to be cut.
    ///
    /// # Errors
    /// Nothing could be sent from a node, or its kernel was not heard.
    pub(super) fn measure(&self, cut: &BTreeSet<Line>) -> anyhow::Result<Measured> {
        let end = |node| End { namespace: self.run.node(node), address: self.subnet.node(node) };
        datagrams::measure(&(0..self.nodes).map(end).collect::<Vec<End>>(), cut)
    }

    /// What an attempt of `from` to connect to a port of `to` tells, within half a second. It tells the same when
    /// nobody listens there, or when who listens is stopped.
    ///
    /// # Errors
    /// The attempt could not be made, or ended in another way.
    pub fn reach(&self, from: usize, to: usize, port: u16) -> anyhow::Result<Reach> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.run.node(from), "timeout"]);
        connect(command, self.subnet.node(to), port)
    }

    /// The same, for an attempt of the harness.
    ///
    /// # Errors
    /// As [`Router::reach`].
    pub fn reach_from_harness(&self, to: usize, port: u16) -> anyhow::Result<Reach> {
        connect(Command::new("timeout"), self.subnet.node(to), port)
    }

    fn own(&self) -> Result<Vec<u32>, IpError> {
        Ok(own_preferences(&self.ip("rule list")?))
    }

    fn ip(&self, line: &str) -> Result<String, IpError> {
        ip(&format!("-n {} {line}", self.run.router()))
    }
}

/// The router's link to a node.
pub(super) fn link_to(node: usize) -> String {
    format!("to-{}", node_name(node))
}

/// `timeout` is a command that ends in that word.
fn connect(mut timeout: Command, host: Ipv4Addr, port: u16) -> anyhow::Result<Reach> {
    timeout.args([REACH_SECONDS, "bash", "-c", &format!("</dev/tcp/{host}/{port}")]);
    let attempt = timeout.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = attempt.context("cannot try to connect (ip, timeout and bash are needed)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(Reach::Answers),
        Some(TIMED_OUT) => Ok(Reach::Silent),
        Some(_) | None if stderr.contains("Connection refused") => Ok(Reach::Answers),
        Some(_) | None => bail!("connecting to {host}:{port} ended with {}: {}", output.status, stderr.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iproute2 prints rules.
    fn listing(preferences: &[u32]) -> String {
        let own = |preference| format!("{preference}:\tfrom 10.1.1.2 to 10.1.2.2 blackhole\n");
        let own: String = preferences.iter().map(own).collect();
        format!("0:\tfrom all lookup local\n{own}32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n")
    }

    #[test]
    fn every_rule_of_every_cut_is_known_as_ours_and_no_other_is() {
        let mut preferences = Vec::new();
        for (from, to) in (0..NODES_MAX).flat_map(|from| (0..NODES_MAX).map(move |to| (from, to))) {
            for traffic in [Traffic::All, Traffic::PeerPort] {
                let cut = Cut { from, to, traffic };
                preferences.extend(traffic.selectors().iter().map(|&selector| preference(&cut, selector)));
            }
        }
        let distinct: BTreeSet<u32> = preferences.iter().copied().collect();
        assert_eq!(distinct.len(), NODES_MAX * NODES_MAX * 3);
        assert_eq!(own_preferences(&listing(&preferences)), preferences);
        assert!(own_preferences(&listing(&[])).is_empty());
    }

    #[test]
    fn link_names_fit_the_kernel() {
        assert!(link_to(NODES_MAX - 1).len() <= 15);
    }
}
