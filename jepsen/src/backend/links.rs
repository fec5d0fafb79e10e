//! What can be done to what nodes send to each other, whoever does it: a router between namespaces, or proxies on the
//! loopback interface; and what passes there, as it is measured.

use std::collections::BTreeSet;

use trefoil_world::task;

use super::{Cut, Line, Measured, Proxies, Reach, Router, Traffic};

/// See the file's head.
#[derive(Clone, Debug)]
pub enum Links {
    Router(Router),
    Proxies(Proxies),
}

impl Links {
    /// Puts cuts in force, beside those that are.
    ///
    /// # Errors
    /// One could not be; those before it are in force.
    pub async fn cut(&self, cuts: Vec<Cut>) -> anyhow::Result<()> {
        match self {
            Links::Router(router) => {
                let router = router.clone();
                task::blocking(move || router.cut(&cuts)).await?
            }
            Links::Proxies(proxies) => {
                proxies.cut(&cuts);
                Ok(())
            }
        }
    }

    /// Undoes all that was done, whoever did it.
    ///
    /// # Errors
    /// Something could not be undone.
    pub async fn heal(&self) -> anyhow::Result<()> {
        match self {
            Links::Router(router) => {
                let router = router.clone();
                task::blocking(move || router.heal()).await?
            }
            Links::Proxies(proxies) => {
                proxies.heal();
                Ok(())
            }
        }
    }

    /// The lines on which [`Links::measure`] finds nothing to pass when these cuts are in force. What is measured of a
    /// router is not TCP: cuts of the peer port do not touch it.
    pub fn silent(&self, cuts: &BTreeSet<Cut>) -> BTreeSet<Line> {
        let touches = |traffic| match (self, traffic) {
            (Links::Router(_), Traffic::PeerPort) => false,
            (Links::Router(_), Traffic::All) | (Links::Proxies(_), _) => true,
        };
        cuts.iter().filter(|cut| touches(cut.traffic)).map(Line::of).collect()
    }

    /// Offers something on every line between nodes, and tells what passed: packets between namespaces, bytes through
    /// proxies, the nodes' own among them. The window begins with the call. Nothing is asked of the nodes: they may be
    /// down. It waits long enough for what should pass, which is all but `cut`.
    ///
    /// # Errors
    /// Nothing could be offered.
    pub async fn measure(&self, cut: BTreeSet<Line>) -> anyhow::Result<Measured> {
        match self {
            Links::Router(router) => {
                let router = router.clone();
                task::blocking(move || router.measure(&cut)).await?
            }
            Links::Proxies(proxies) => Ok(proxies.measure(&cut).await),
        }
    }

    /// What an attempt of `from` to connect to a port of `to` tells, within half a second. It tells the same when nobody
    /// listens there, or when who listens is stopped. Proxies have one port.
    ///
    /// # Errors
    /// The attempt could not be made.
    pub async fn reach(&self, from: usize, to: usize, port: u16) -> anyhow::Result<Reach> {
        match self {
            Links::Router(router) => {
                let router = router.clone();
                task::blocking(move || router.reach(from, to, port)).await?
            }
            Links::Proxies(proxies) => Ok(proxies.reach(from, to).await),
        }
    }

    /// The proxies.
    ///
    /// # Errors
    /// There are none on this backend.
    pub fn proxies(&self) -> Result<&Proxies, &'static str> {
        match self {
            Links::Router(_) => Err("a router drops packets, it does not delay them, and breaks no connections"),
            Links::Proxies(proxies) => Ok(proxies),
        }
    }
}
