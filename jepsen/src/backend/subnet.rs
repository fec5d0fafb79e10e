//! Which addresses a run takes: a /16 of private addresses that no route of this machine touches.
//!
//! Pure: routes come in as `ip` lists them. Within the subnet the link between harness and router is the /24 numbered
//! 0, and the one between a node and the router is that of the node's number from 1. The router is host 1 of each
//! link.
//!
//! Left out: that two harnesses may choose at the same time. Adding the route is the claim, and only one can add it.

use std::fmt;
use std::net::Ipv4Addr;

/// Shorter routes are default routes, whatever they are called: they claim nothing.
const ROUTE_BITS_MIN: u32 = 8;
const SUBNET_BITS: u32 = 16;

/// `a.b.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet(u8, u8);

impl Subnet {
    /// The harness, in the root namespace.
    pub(crate) fn harness(self) -> Ipv4Addr {
        self.at(0, 2)
    }

    /// The router, as the harness sees it.
    pub(crate) fn gateway_of_harness(self) -> Ipv4Addr {
        self.at(0, 1)
    }

    pub(crate) fn node(self, node: usize) -> Ipv4Addr {
        self.at(link(node), 2)
    }

    /// The router, as a node sees it.
    pub(crate) fn gateway(self, node: usize) -> Ipv4Addr {
        self.at(link(node), 1)
    }

    fn at(self, link: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.0, self.1, link, host)
    }

    /// Whether none of `routes` leads to an address of it.
    pub(crate) fn is_free(self, routes: &[Route]) -> bool {
        !routes.iter().any(|route| route.touches(self))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{SUBNET_BITS}", self.at(0, 0))
    }
}

fn link(node: usize) -> u8 {
    u8::try_from(node + 1).expect("there are at most NODES_MAX nodes")
}

/// All subnets that may be taken, beginning at a place that depends on `start`.
pub(crate) fn candidates(start: u64) -> Vec<Subnet> {
    let ten = (1..=254).map(|second| Subnet(10, second));
    let mut all: Vec<Subnet> = ten.chain((16..=31).map(|second| Subnet(172, second))).collect();
    let first = (start % all.len() as u64) as usize;
    all.rotate_left(first);
    all
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    address: Ipv4Addr,
    bits: u32,
}

impl Route {
    fn parse(word: &str) -> Option<Route> {
        let (address, bits) = word.split_once('/').unwrap_or((word, "32"));
        Some(Route { address: address.parse().ok()?, bits: bits.parse::<u32>().ok().filter(|bits| *bits <= 32)? })
    }

    fn touches(self, subnet: Subnet) -> bool {
        if self.bits < ROUTE_BITS_MIN {
            return false;
        }
        let beyond = 32 - self.bits.min(SUBNET_BITS);
        u32::from(self.address) >> beyond == u32::from(subnet.at(0, 0)) >> beyond
    }
}

/// The routes that `ip -o -4 route show table all` lists. Before the destination stands a type, or nothing.
pub(crate) fn routes(listing: &str) -> Vec<Route> {
    listing.lines().filter_map(|line| line.split_whitespace().take(2).find_map(Route::parse)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
        default via 192.0.2.1 dev eth0 \n\
        0.0.0.0/1 via 10.8.0.1 dev tun0 \n\
        10.77.0.0/24 dev veth0 proto kernel scope link src 10.77.0.2 \n\
        10.128.0.0/9 via 10.77.0.1 dev veth0 \n\
        local 172.17.0.1 dev docker0 table local proto kernel scope host src 172.17.0.1 \n\
        unreachable 172.18.4.0/22 metric 1024 \n";

    #[test]
    fn a_subnet_is_free_when_no_route_touches_it() {
        let routes = routes(LISTING);
        assert_eq!(routes.len(), 5);
        for (subnet, free) in [
            (Subnet(10, 77), false),
            (Subnet(10, 76), true),
            (Subnet(10, 127), true),
            (Subnet(10, 128), false),
            (Subnet(10, 254), false),
            (Subnet(172, 17), false),
            (Subnet(172, 18), false),
            (Subnet(172, 19), true),
        ] {
            assert_eq!(subnet.is_free(&routes), free, "{subnet}");
        }
    }

    #[test]
    fn every_candidate_comes_once_wherever_it_begins() {
        for start in [0, 1, 269, 270, u64::MAX] {
            let mut all: Vec<String> = candidates(start).iter().map(Subnet::to_string).collect();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 270);
        }
        assert_ne!(candidates(0)[0], candidates(1)[0]);
    }

    #[test]
    fn addresses_of_one_link_share_a_24() {
        let subnet = Subnet(10, 7);
        assert_eq!(subnet.to_string(), "10.7.0.0/16");
        assert_eq!((subnet.gateway_of_harness(), subnet.harness()), (subnet.at(0, 1), subnet.at(0, 2)));
        assert_eq!((subnet.gateway(0), subnet.node(0)), (subnet.at(1, 1), subnet.at(1, 2)));
        assert_eq!(subnet.node(crate::backend::NODES_MAX - 1), subnet.at(99, 2));
    }
}
