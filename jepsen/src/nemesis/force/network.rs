//! Whether links are cut, and whether they are open again.
//!
//! Something is offered on every line between nodes, after the cut was made: on lines that are cut nothing of it passes,
//! on all others something does. A machine that is busy may be late: a window in which it is otherwise is followed by
//! another one, a few times.
//!
//! Between proxies it is the harness that cuts, and its own words that are measured. So the nodes are asked too: those that
//! were connected must say that they no longer are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use futures::future::join_all;
use trefoil_client::NodeId;
use trefoil_world::{clock, net};

use super::{Done, POLL, links};
use crate::backend::{Cut, Line, Links, Reach, Traffic, node_name};
use crate::cluster::{Cluster, status};
use crate::nemesis::fault::Fault;
use crate::target::Target;

/// How many windows there are at most. What was on its way when a cut was made may pass in the first one.
const WINDOWS_MAX: u32 = 3;
/// How long a connection to a client port may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long nodes may take until two of those that are to be cut off are connected: they may just have been healed.
const CONNECTED_MAX: Duration = Duration::from_secs(5);
/// How long they may take to notice that they are cut off: each second they want a sign of life, and wait two for it.
const NOTICED_MAX: Duration = Duration::from_secs(8);

/// What nodes said before a cut between them.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Who of those that are to be cut off from each other said to be connected to whom.
    connected: BTreeSet<Line>,
    /// Where each node is that answered: then it may not.
    places: BTreeMap<NodeId, usize>,
}

/// What those say that a fault cuts off from each other, before it does. Nothing where nobody is asked.
pub(super) async fn before(cluster: &Cluster, fault: &Fault) -> anyhow::Result<Before> {
    if !is_told(cluster)? {
        return Ok(Before::default());
    }
    let (pairs, until) = (pairs(&fault.cuts().iter().map(Line::of).collect()), clock::now() + CONNECTED_MAX);
    let mut statuses = cluster.statuses();
    loop {
        let answers = statuses.ask_all().await;
        let places = status::places(&answers);
        let said = status::connections(&answers, &places);
        let connected: BTreeSet<Line> = pairs.iter().copied().filter(|line| said.get(line) == Some(&true)).collect();
        if !connected.is_empty() || clock::now() >= until {
            return Ok(Before { connected, places });
        }
        clock::sleep(POLL).await;
    }
}

/// Whether nodes are asked, and tell, who is connected to whom.
fn is_told(cluster: &Cluster) -> anyhow::Result<bool> {
    Ok(match (links(cluster)?, cluster.target()) {
        (Links::Proxies(_), Target::Trefoil) => true,
        (Links::Router(_), Target::Trefoil | Target::Etcd) | (Links::Proxies(_), Target::Etcd) => false,
    })
}

/// Those that were connected before they were cut off say that they are not, whether or not the others answer. In words;
/// nothing where nobody is asked.
async fn noticed(cluster: &Cluster, Before { connected, places }: &Before) -> anyhow::Result<String> {
    if !is_told(cluster)? {
        return Ok(String::new());
    }
    ensure!(!connected.is_empty(), "no two of the nodes that are cut off from each other were connected before");
    let (mut left, until) = (connected.clone(), clock::now() + NOTICED_MAX);
    let mut statuses = cluster.statuses();
    loop {
        let said = status::connections(&statuses.ask_all().await, places);
        left.retain(|line| said.get(line) != Some(&false));
        let Some(Line { from, to }) = left.first() else { break };
        let (from, to) = (node_name(*from), node_name(*to));
        ensure!(clock::now() < until, "{from} does not say in {NOTICED_MAX:?} that it is not connected to {to}");
        clock::sleep(POLL).await;
    }
    Ok(format!("; nodes say that {} connections are lost", connected.len()))
}

/// All that is to be cut is, as [`probe_cuts`] and the nodes have it.
pub(super) async fn probe_partition(
    cluster: &Cluster,
    fault: &Fault,
    done: &Done,
    cuts: &BTreeSet<Cut>,
) -> anyhow::Result<String> {
    let seen = probe_cuts(cluster, fault, Traffic::All, cuts).await?;
    Ok(seen + &noticed(cluster, &done.before).await?)
}

/// All that is to be cut is, and nothing else; and connections over each link that the fault cuts come to nothing.
async fn probe_cuts(
    cluster: &Cluster,
    fault: &Fault,
    traffic: Traffic,
    cuts: &BTreeSet<Cut>,
) -> anyhow::Result<String> {
    let links = links(cluster)?;
    let measured = measure(&links, cuts).await?;
    let mut pairs = pairs(&fault.cuts().iter().map(Line::of).collect());
    // Who is down or stopped answers nobody.
    pairs.retain(|line| !cluster.is_gone(line.to) && !cluster.is_paused(line.to));
    ensure!(!pairs.is_empty(), "no node at the end of a line that is cut runs");
    let reached = attempts(&links, &pairs, traffic).await?;
    if let Some(Line { from, to }) = reached.first() {
        return Err(anyhow!("{} still connects to {}", node_name(*from), node_name(*to)));
    }
    Ok(format!("{measured}; {} attempts to connect over them had no answer", pairs.len()))
}

/// The same for the peer port; other ports are open.
pub(super) async fn probe_peer_port_cut(
    cluster: &Cluster,
    fault: &Fault,
    done: &Done,
    cuts: &BTreeSet<Cut>,
) -> anyhow::Result<String> {
    let seen = probe_cuts(cluster, fault, Traffic::PeerPort, cuts).await?;
    expect_peer_ports(&links(cluster)?, cluster.nodes().len(), cuts).await?;
    expect_client_ports(cluster).await?;
    let noticed = noticed(cluster, &done.before).await?;
    Ok(format!("{seen}; all client ports take connections{noticed}"))
}

/// Nothing is cut.
pub(super) async fn probe_open(cluster: &Cluster, traffic: Traffic) -> anyhow::Result<String> {
    let (links, nothing) = (links(cluster)?, BTreeSet::new());
    let measured = measure(&links, &nothing).await?;
    match traffic {
        Traffic::All => {}
        Traffic::PeerPort => expect_peer_ports(&links, cluster.nodes().len(), &nothing).await?,
    }
    Ok(measured)
}

/// What was seen, when it is as under these cuts.
async fn measure(links: &Links, cuts: &BTreeSet<Cut>) -> anyhow::Result<String> {
    let silent = links.silent(cuts);
    let mut unlike = String::new();
    for _ in 0..WINDOWS_MAX {
        let measured = links.measure(silent.clone()).await?;
        match measured.unlike(&silent) {
            None => return Ok(measured.told(&silent)),
            Some(why) => unlike = why,
        }
    }
    Err(anyhow!(unlike))
}

/// Each two nodes between which a line is cut, both ways: a connection needs both directions.
fn pairs(cut: &BTreeSet<Line>) -> BTreeSet<Line> {
    cut.iter().flat_map(|line| [*line, Line { from: line.to, to: line.from }]).collect()
}

/// On which of these lines an attempt to connect had an answer.
async fn attempts(links: &Links, lines: &BTreeSet<Line>, traffic: Traffic) -> anyhow::Result<Vec<Line>> {
    let attempts = lines.iter().map(|line| links.reach(line.from, line.to, traffic.port()));
    let mut reached = Vec::new();
    for (line, reach) in lines.iter().zip(join_all(attempts).await) {
        match reach? {
            Reach::Answers => reached.push(*line),
            Reach::Silent => {}
        }
    }
    Ok(reached)
}

/// All peer ports that these cuts do not touch answer. What passes through proxies is all for peer ports: that was
/// measured.
async fn expect_peer_ports(links: &Links, nodes: usize, cuts: &BTreeSet<Cut>) -> anyhow::Result<()> {
    match links {
        Links::Proxies(_) => return Ok(()),
        Links::Router(_) => {}
    }
    let cut = pairs(&cuts.iter().map(Line::of).collect());
    let mut open: BTreeSet<Line> = (0..nodes).flat_map(|node| Line::of_node(node, nodes)).collect();
    open.retain(|line| !cut.contains(line));
    for _ in 0..WINDOWS_MAX {
        for line in attempts(links, &open, Traffic::PeerPort).await? {
            open.remove(&line);
        }
    }
    match open.first() {
        None => Ok(()),
        Some(Line { from, to }) => Err(anyhow!("{} cannot connect to {}", node_name(*from), node_name(*to))),
    }
}

/// All client ports of nodes that are there take connections.
async fn expect_client_ports(cluster: &Cluster) -> anyhow::Result<()> {
    let there = (0..cluster.nodes().len()).filter(|&node| !cluster.is_gone(node));
    for place in there.map(|node| &cluster.nodes()[node].place) {
        let connected = clock::timeout(CONNECT_MAX, net::dial(&place.client)).await;
        ensure!(connected.is_ok_and(|stream| stream.is_ok()), "nobody connects to the client port of {}", place.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_made_from_both_ends_of_a_line_that_is_cut() {
        let line = |from, to| Line { from, to };
        let cut = BTreeSet::from([line(0, 1), line(1, 0), line(2, 0)]);
        assert_eq!(pairs(&cut), BTreeSet::from([line(0, 1), line(1, 0), line(0, 2), line(2, 0)]));
        assert!(pairs(&BTreeSet::new()).is_empty());
    }
}
