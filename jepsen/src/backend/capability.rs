//! What works on this machine: found out by doing it, with two nodes of a run of its own, and undone.

use std::fmt;

use anyhow::ensure;

use super::{Cut, Namespaces, Reach, Router, RunId, Traffic};

/// What works here, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The backend of namespaces.
    pub namespaces: Result<(), String>,
    /// All traffic between two nodes can be cut, one direction at a time.
    pub partitions: Result<(), String>,
    /// Traffic of the peer ports can be cut, and only that.
    pub peer_port_cut: Result<(), String>,
}

/// Probes this machine. Blocks, for up to some seconds.
pub fn probe() -> Capabilities {
    let run = RunId::parse(&format!("probe{}", std::process::id()));
    match run.and_then(|run| Namespaces::build(run, 2)) {
        Ok(namespaces) => Capabilities {
            namespaces: Ok(()),
            partitions: said(cut_works(namespaces.router(), Traffic::All)),
            peer_port_cut: said(cut_works(namespaces.router(), Traffic::PeerPort)),
        },
        Err(error) => {
            let why = || Err("there is no backend of namespaces".to_owned());
            Capabilities { namespaces: said(Err(error)), partitions: why(), peer_port_cut: why() }
        }
    }
}

fn said(result: anyhow::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("{error:#}"))
}

fn cut_works(router: &Router, traffic: Traffic) -> anyhow::Result<()> {
    let tried = try_cut(router, Cut { from: 0, to: 1, traffic });
    router.heal()?;
    tried?;
    ensure!(router.reach(0, 1, traffic.port())? == Reach::Answers, "a healed cut is still in force");
    Ok(())
}

fn try_cut(router: &Router, cut: Cut) -> anyhow::Result<()> {
    router.cut(&[cut])?;
    if let Some(difference) = router.difference(cut.traffic, &[cut].into())? {
        anyhow::bail!("with a rule for it, {difference}");
    }
    ensure!(router.reach(0, 1, cut.traffic.port())? == Reach::Silent, "a cut lets connections pass");
    if cut.traffic == Traffic::PeerPort {
        let other = router.reach(0, 1, Traffic::All.port())?;
        ensure!(other == Reach::Answers, "a cut of the peer port takes other ports along");
    }
    Ok(())
}

impl fmt::Display for Capabilities {
    /// A line for each backend and each kind of fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, state) in [
            ("backend namespaces", &self.namespaces),
            ("backend loopback", &Ok(())),
            ("kill, kill-all, pause", &Ok(())),
            ("partitions (namespaces)", &self.partitions),
            ("peer-port-cut (namespaces)", &self.peer_port_cut),
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
        let text = Capabilities { namespaces: why(), partitions: why(), peer_port_cut: Ok(()) }.to_string();
        assert_eq!(text.lines().filter(|line| line.ends_with(": no: not root")).count(), 2);
        assert_eq!(text.lines().filter(|line| line.ends_with(": yes")).count(), 3);
    }
}
