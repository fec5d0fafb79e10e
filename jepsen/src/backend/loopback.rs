//! Nodes on the loopback interface: for machines without root. Processes can be killed and stopped, and their disks made to
//! fail; the network between them cannot be touched.
//!
//! Linux answers at every address of 127.0.0.0/8. Each node has one of its own, so ports are never taken by others: not
//! by another run, and not by an outgoing connection while a node is down.
//!
//! Behind proxies (`proxies.rs`) what nodes send to each other can be held, delayed and broken off too: each node then hears
//! its peers at another port than the one that it tells them, which is its proxy's.

use std::net::Ipv4Addr;

use anyhow::Context;

use super::proxies::Serving;
use super::{Place, Proxies, RunId, claim, ensure_possible};
use crate::cleanup::RunRecord;

/// Where a node behind a proxy really hears the other nodes.
const BEHIND_PORT: u16 = 2381;

/// See the file's head.
#[derive(Debug)]
pub struct Loopback {
    places: Vec<Place>,
    proxies: Option<Serving>,
    record: RunRecord,
}

impl Loopback {
    /// See [`super::Backend::loopback`].
    pub(super) fn build(nodes: usize) -> anyhow::Result<Loopback> {
        Loopback::with_prefix(nodes, &[])
    }

    /// See [`super::Backend::proxied`].
    pub(super) async fn proxied(nodes: usize) -> anyhow::Result<Loopback> {
        Loopback::with_prefix(nodes, &[])?.behind_proxies().await
    }

    /// The same, behind proxies.
    pub(crate) async fn behind_proxies(mut self) -> anyhow::Result<Loopback> {
        for place in &mut self.places {
            let (host, _) = place.peer.rsplit_once(':').expect("a place has a host and a port");
            place.hears = format!("{host}:{BEHIND_PORT}");
        }
        let addresses = self.places.iter().map(|place| (place.peer.clone(), place.hears.clone())).collect();
        self.proxies = Some(Serving::start(addresses).await.context("cannot listen for the nodes")?);
        Ok(self)
    }

    /// Nodes whose commands begin with `prefix`.
    pub(crate) fn with_prefix(nodes: usize, prefix: &[&str]) -> anyhow::Result<Loopback> {
        ensure_possible(nodes)?;
        let (run, record) = claim("lo")?;
        let prefix: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
        let place = |node| Place::new(node, host(&run, node), prefix.clone());
        Ok(Loopback { places: (0..nodes).map(place).collect(), proxies: None, record })
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn proxies(&self) -> Option<&Proxies> {
        self.proxies.as_ref().map(Serving::proxies)
    }

    pub(super) fn record(&mut self) -> &mut RunRecord {
        &mut self.record
    }
}

/// `127.a.b.n`; `a` is above 0, out of the way of those who use 127.0.0.1.
fn host(run: &RunId, node: usize) -> Ipv4Addr {
    let number = run.number();
    let node = u8::try_from(node + 1).expect("there are at most NODES_MAX nodes");
    Ipv4Addr::new(127, (1 + number % 254) as u8, (number >> 16) as u8, node)
}
