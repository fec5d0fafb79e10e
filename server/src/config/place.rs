//! Where an address leads, however it is spelt: two spellings of one place are equal.
//!
//! Left out: looking names up. Two names of one machine, or a name and its number, are two places.

use std::net::IpAddr;

/// Where an address leads, however it is spelt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    host: Host,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    /// In lower case, and not looked up.
    Name(String),
}

impl Place {
    /// Nothing when `address` is not host:port.
    pub(super) fn of(address: &str) -> Option<Place> {
        let (host, port) = address.rsplit_once(':')?;
        let unreadable = |c: char| c.is_control() || c.is_whitespace();
        if host.is_empty() || host.contains(unreadable) || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = match bare.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip.to_canonical()),
            Err(_) => Host::Name(host.to_ascii_lowercase()),
        };
        Some(Place { host, port: port.parse().ok()? })
    }

    /// Whether it stands for every address of this machine, which is none that others can dial.
    pub(super) fn is_everywhere(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_unspecified(),
            Host::Name(_) => false,
        }
    }
}
