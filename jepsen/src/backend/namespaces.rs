//! Nodes in network namespaces, one each, behind a router namespace.
//!
//! ```text
//! root namespace ── tfj-<number> ─ root ── tfj-<run>-rt ── to-n1 ─ eth0 ── tfj-<run>-n1
//!                                                     └─── to-n2 ─ eth0 ── tfj-<run>-n2  …
//! ```
//!
//! Each link is a pair of virtual interfaces with a /24 of its own (`subnet.rs`). All that nodes send to each other,
//! and all that clients in the root namespace send to nodes, passes the router, where it can be dropped
//! (`router.rs`). Only iproute2 is needed: no firewall, no bridge, no queueing discipline.
//!
//! Invariants:
//!
//! * The run's record is written before anything is made, and removed after all else.
//! * Nothing is made when something of the run's name is there, and nothing is removed that was not made here.
//! * The router forwards whatever its rules do not drop. In particular it does not check sources against the way back:
//!   that way may be cut, and a cut of one direction would become one of both.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::iproute::{ip, set_kernel};
use super::router::{Reach, Router, link_to};
use super::subnet::{self, Subnet};
use super::{CLIENT_PORT, Place, RunId, claim, ensure_possible, is_root};
use crate::cleanup::{self, RunRecord};

/// Where iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";
/// The first packets over a fresh link may come to nothing.
const REACH_ATTEMPTS: u32 = 10;

/// See the file's head.
#[derive(Debug)]
pub struct Namespaces {
    // Dropped in this order.
    _made: Made,
    places: Vec<Place>,
    router: Router,
    record: RunRecord,
}

impl Namespaces {
    /// Makes them; see [`super::Backend::namespaces`].
    pub(super) fn build(kind: &str, nodes: usize) -> anyhow::Result<Namespaces> {
        ensure_possible(nodes)?;
        ensure!(is_root(), "network namespaces need root");
        for left in cleanup::sweep().context("cannot look for what dead runs have left")?.failed {
            eprintln!("jepsen: what a dead run has left cannot be removed: {left}");
        }
        let (run, record) = claim(kind)?;
        let there = there_is(&run)?;
        ensure!(
            there.is_empty(),
            "{} is there, and no run of this harness has made it; see `jepsen cleanup`",
            there.join(", ")
        );
        let mut made = Made::default();
        let subnet = make_router(&run, &mut made)?;
        for node in 0..nodes {
            make_node(&run, subnet, node, &mut made)?;
        }
        let router = Router::new(run.clone(), subnet, nodes);
        let place = |node| {
            let prefix = ["ip", "netns", "exec", &run.node(node)].map(str::to_owned);
            Place::new(node, subnet.node(node), prefix.to_vec())
        };
        let places: Vec<Place> = (0..nodes).map(place).collect();
        for node in 0..nodes {
            until_reached(&router, node)?;
        }
        Ok(Namespaces { _made: made, places, router, record })
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    pub(super) fn record(&mut self) -> &mut RunRecord {
        &mut self.record
    }
}

/// What was made for a run so far; removed when dropped.
#[derive(Debug, Default)]
struct Made {
    link: Option<String>,
    namespaces: Vec<String>,
}

impl Made {
    fn namespace(&mut self, name: &str) -> anyhow::Result<()> {
        ip(&format!("netns add {name}"))?;
        self.namespaces.push(name.to_owned());
        Ok(())
    }

    /// From the root namespace to `root` in another one.
    fn link(&mut self, name: &str, namespace: &str) -> anyhow::Result<()> {
        ip(&format!("link add {name} type veth peer name root netns {namespace}"))?;
        self.link = Some(name.to_owned());
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = remove_all(self.link.as_deref(), &self.namespaces) {
            eprintln!("jepsen: not all namespaces are removed (`jepsen cleanup` does it): {error:#}");
        }
    }
}

/// The router with its link to the root namespace. The subnet is claimed by the route to it.
fn make_router(run: &RunId, made: &mut Made) -> anyhow::Result<Subnet> {
    let (router, link) = (run.router(), link_of(run));
    made.namespace(&router)?;
    // Read when an interface is made.
    set_kernel(&router, "net/ipv4/conf/all/rp_filter", "0")?;
    set_kernel(&router, "net/ipv4/conf/default/rp_filter", "0")?;
    set_kernel(&router, "net/ipv4/ip_forward", "1")?;
    ip(&format!("-n {router} link set lo up"))?;
    made.link(&link, &router)?;
    ip(&format!("-n {router} link set root up"))?;
    ip(&format!("link set {link} up"))?;
    let subnet = claim_subnet(run, &link)?;
    ip(&format!("-n {router} addr add {}/24 dev root", subnet.gateway_of_harness()))?;
    ip(&format!("addr add {}/24 dev {link}", subnet.harness()))?;
    Ok(subnet)
}

fn claim_subnet(run: &RunId, link: &str) -> anyhow::Result<Subnet> {
    let routes = subnet::routes(&ip("-o -4 route show table all")?);
    for subnet in subnet::candidates(run.number()) {
        if !subnet.is_free(&routes) {
            continue;
        }
        match ip(&format!("route add {subnet} via {} dev {link} onlink", subnet.gateway_of_harness())) {
            Ok(_) => return Ok(subnet),
            // Another harness has taken it since the routes were listed.
            Err(error) if error.says("File exists") => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("routes of this machine touch every /16 of 10.0.0.0/8 and 172.16.0.0/12")
}

fn make_node(run: &RunId, subnet: Subnet, node: usize, made: &mut Made) -> anyhow::Result<()> {
    let (router, namespace, link, gateway) = (run.router(), run.node(node), link_to(node), subnet.gateway(node));
    made.namespace(&namespace)?;
    ip(&format!("-n {router} link add {link} type veth peer name eth0 netns {namespace}"))?;
    ip(&format!("-n {router} addr add {gateway}/24 dev {link}"))?;
    ip(&format!("-n {router} link set {link} up"))?;
    ip(&format!("-n {namespace} addr add {}/24 dev eth0", subnet.node(node)))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!("-n {namespace} link set eth0 up"))?;
    ip(&format!("-n {namespace} route add default via {gateway}"))?;
    Ok(())
}

/// Nobody listens yet: a refusal shows that packets pass both ways.
fn until_reached(router: &Router, node: usize) -> anyhow::Result<()> {
    for _ in 0..REACH_ATTEMPTS {
        match router.reach_from_harness(node, CLIENT_PORT)? {
            Reach::Answers => return Ok(()),
            Reach::Silent => {}
        }
    }
    bail!("packets between the root namespace and {} do not pass: does a firewall drop them?", super::node_name(node))
}

/// The run's link in the root namespace; the kernel allows 15 characters.
fn link_of(run: &RunId) -> String {
    format!("{}{:08x}", super::PREFIX, run.number() as u32)
}

/// The names of all namespaces of this machine.
pub(crate) fn existing() -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(NAMES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(NAMES),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.context(NAMES)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// The processes in the namespaces of a run.
pub(crate) fn processes(run: &RunId) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for name in of_run(run)? {
        found.extend(ip(&format!("netns pids {name}"))?.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
    }
    Ok(found)
}

/// Removes what there is of a run: its link, with it its address and its route, and its namespaces.
pub(crate) fn remove(run: &RunId) -> anyhow::Result<()> {
    remove_all(Some(link_of(run).as_str()), &of_run(run)?)
}

/// The link goes with its address and its route, if it is there.
fn remove_all(link: Option<&str>, namespaces: &[String]) -> anyhow::Result<()> {
    if let Some(link) = link.filter(|link| is_link(link)) {
        ip(&format!("link del {link}"))?;
    }
    for name in namespaces {
        ip(&format!("netns del {name}"))?;
    }
    Ok(())
}

fn is_link(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// What there is that bears a run's name.
fn there_is(run: &RunId) -> anyhow::Result<Vec<String>> {
    let link = Some(link_of(run)).filter(|link| is_link(link));
    Ok(of_run(run)?.into_iter().chain(link).collect())
}

fn of_run(run: &RunId) -> anyhow::Result<Vec<String>> {
    let mut names = existing()?;
    names.retain(|name| RunId::of_name(name).as_ref() == Some(run));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only root can show it, where there are namespaces.
    #[test]
    fn what_others_have_made_is_refused_and_stays() {
        let foreign = format!("tfj-foreign{}x0-n2", std::process::id());
        if ip(&format!("netns add {foreign}")).is_err() {
            return;
        }
        let refused = Namespaces::build("foreign", 2).map(drop).map_err(|error| error.to_string());
        let left = existing().expect("they can be listed");
        ip(&format!("netns del {foreign}")).expect("it is still there");
        assert!(refused.as_ref().is_err_and(|error| error.contains(&foreign)), "{refused:?}");
        let ours = left.iter().filter(|name| name.starts_with(&foreign[..foreign.len() - 1]));
        assert_eq!(ours.collect::<Vec<_>>(), [&foreign]);
    }

    #[test]
    fn the_links_name_fits_the_kernel() {
        for run in ["a", "ffffff", &"z".repeat(32)] {
            assert!(link_of(&RunId::parse(run).expect("a name")).len() <= 15);
        }
    }
}
