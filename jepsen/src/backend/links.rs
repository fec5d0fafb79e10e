//! What can be done to what nodes send to each other, whoever does it: a router between namespaces, or proxies on the
//! loopback interface.

use std::collections::BTreeSet;

use trefoil_world::task;

use super::{Cut, Proxies, Reach, Router, Traffic};

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

    /// Where what is dropped of `traffic` between all nodes differs from `expected`, which holds all cuts that should be
    /// in force, of any traffic.
    ///
    /// # Errors
    /// There is no saying.
    pub async fn difference(&self, traffic: Traffic, expected: BTreeSet<Cut>) -> anyhow::Result<Option<String>> {
        match self {
            Links::Router(router) => {
                let router = router.clone();
                task::blocking(move || router.difference(traffic, &expected)).await?
            }
            Links::Proxies(proxies) => Ok(proxies.difference(&expected)),
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
