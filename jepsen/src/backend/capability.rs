//! What works on this machine: found out by doing it, with two nodes of a run of its own, and undone.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::proxies::OWNERS;
use super::{Cut, Line, Namespaces, Reach, Router, RunId, Traffic};
use crate::cleanup::RunRecord;
use crate::cluster::Shim;

/// What works here, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend of namespaces.
    pub namespaces: Result<(), String>,
    /// All traffic between two nodes can be cut, one direction at a time.
    pub partitions: Result<(), String>,
    /// Traffic of the peer ports can be cut, and only that.
    pub peer_port_cut: Result<(), String>,
    /// The owner of a connection can be found, which proxies need.
    pub proxies: Result<(), String>,
    /// The preload shim loads into the server.
    pub shim: Result<(), String>,
}

/// Probes this machine, for nodes that run `kvd`, and the shim at `shim` or else the one beside this program. Blocks, for
/// up to some seconds.
pub fn probe(kvd: &Path, shim: Option<&Path>) -> Capabilities {
    let (proxies, shim) = (said(owners_can_be_found()), said(shim_loads(kvd, shim)));
    match Namespaces::build("probe", 2) {
        Ok(namespaces) => Capabilities {
            namespaces: Ok(()),
            partitions: said(cut_works(namespaces.router(), Traffic::All)),
            peer_port_cut: said(cut_works(namespaces.router(), Traffic::PeerPort)),
            proxies,
            shim,
        },
        Err(error) => {
            let why = || Err("there is no backend of namespaces".to_owned());
            Capabilities { namespaces: said(Err(error)), partitions: why(), peer_port_cut: why(), proxies, shim }
        }
    }
}

fn owners_can_be_found() -> anyhow::Result<()> {
    fs::read(OWNERS).with_context(|| format!("cannot read {OWNERS}")).map(drop)
}

fn shim_loads(kvd: &Path, shim: Option<&Path>) -> anyhow::Result<()> {
    let kvd = kvd.canonicalize().with_context(|| format!("there is no program {}", kvd.display()))?;
    let run = RunId::parse(&format!("shim{}", std::process::id()))?;
    let record = RunRecord::claim(&run)?.with_context(|| format!("{run} is under way"))?;
    Shim::find(shim)?.loads_into(&kvd, &record.folder().join("probe"))
}

fn said(result: anyhow::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("{error:#}"))
}

fn cut_works(router: &Router, traffic: Traffic) -> anyhow::Result<()> {
    let tried = try_cut(router, Cut { from: 0, to: 1, traffic });
    router.heal()?;
    tried?;
    expect(router, &BTreeSet::new()).context("a cut that was healed")?;
    ensure!(router.reach(0, 1, traffic.port())? == Reach::Answers, "a healed cut is still in force");
    Ok(())
}

fn try_cut(router: &Router, cut: Cut) -> anyhow::Result<()> {
    router.cut(&[cut])?;
    ensure!(router.reach(0, 1, cut.traffic.port())? == Reach::Silent, "a cut lets connections pass");
    match cut.traffic {
        Traffic::All => expect(router, &[Line::of(&cut)].into()),
        Traffic::PeerPort => {
            let other = router.reach(0, 1, Traffic::All.port())?;
            ensure!(other == Reach::Answers, "a cut of the peer port takes other ports along");
            expect(router, &BTreeSet::new())
        }
    }
}

/// Nothing passes on these lines, and something does on all others.
fn expect(router: &Router, cut: &BTreeSet<Line>) -> anyhow::Result<()> {
    match router.measure(cut)?.unlike(cut) {
        None => Ok(()),
        Some(unlike) => bail!("{unlike}"),
    }
}

impl fmt::Display for Capabilities {
    /// A line for each backend and each kind of fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, state) in [
            ("backend namespaces", &self.namespaces),
            ("backend loopback", &Ok(())),
            ("kill, kill-all, pause", &Ok(())),
            ("amnesia, truncation, old-copy, snapshot-under-fire", &Ok(())),
            ("partitions (namespaces)", &self.partitions),
            ("peer-port-cut (namespaces)", &self.peer_port_cut),
            ("partitions, peer-port-cut (loopback, proxies)", &self.proxies),
            ("slow-links, drip, reset, half-open (loopback, proxies)", &self.proxies),
            ("power-loss, sync-error, disk-full (preload shim)", &self.shim),
        ] {
            match state {
                Ok(()) => writeln!(f, "{what}: yes")?,
                Err(why) => writeln!(f, "{what}: no: {why}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_says_why() {
        let why = || Err("not root".to_owned());
        let (namespaces, partitions) = (why(), why());
        let text =
            Capabilities { namespaces, partitions, peer_port_cut: Ok(()), proxies: Ok(()), shim: Ok(()) }.to_string();
        assert_eq!(text.lines().filter(|line| line.ends_with(": no: not root")).count(), 2);
        assert_eq!(text.lines().filter(|line| line.ends_with(": yes")).count(), 7);
    }
}
