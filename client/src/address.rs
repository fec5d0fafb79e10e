//! Where a node can be reached: `host:port`, checked once, when it comes in.
//!
//! Names stay names: they are resolved at each dial, by the world.

use std::cmp::Ordering;
use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use crate::error::{Error, Kind, Outcome};

/// A host and a port.
///
/// Ordered and not hashed: connections end in the order of the map that holds them, and the nodes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(Authority);

impl Address {
    /// Reads `host:port` or `http://host:port`.
    pub(crate) fn parse(text: &str) -> Result<Address, Error> {
        if text.starts_with("https://") {
            return Err(invalid(text, "TLS is not supported yet"));
        }
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let authority: Authority = bare.parse().map_err(|_| invalid(text, "expected host:port"))?;
        if authority.port_u16().is_none() || authority.host().is_empty() || bare.contains('@') {
            return Err(invalid(text, "expected host:port"));
        }
        Ok(Address(authority))
    }

    /// What is dialled.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The address as HTTP/2 wants it.
    pub(crate) fn uri(&self) -> Uri {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.0.clone())
            .path_and_query(PathAndQuery::from_static("/"))
            .build()
            .expect("scheme, authority and path make a URI")
    }

    /// What two addresses are compared by: the case of letters does not count.
    fn folded(&self) -> impl Iterator<Item = u8> {
        self.as_str().bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Address) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Address) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn invalid(text: &str, why: &str) -> Error {
    Error::new(Kind::InvalidEndpoint, Outcome::Refused, format!("endpoint '{text}': {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports_with_and_without_scheme() {
        for text in ["127.0.0.1:2379", "http://localhost:1", "[::1]:2379", "http://n1:2379/"] {
            assert!(Address::parse(text).is_ok(), "{text}");
        }
        for text in ["", "localhost", "https://n1:2379", ":2379", "n1:99999", "a b:1", "u@n1:1", "n1:1/path"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert_eq!(Address::parse("http://n1:2379/").map(|a| a.to_string()).ok().as_deref(), Some("n1:2379"));
    }

    #[test]
    fn the_order_is_that_of_equality() {
        let at = |text: &str| Address::parse(text).expect("an address");
        for (left, right, expected) in [
            ("n1:1", "N1:1", Ordering::Equal),
            ("n1:1", "n2:1", Ordering::Less),
            ("n1:2", "N1:1", Ordering::Greater),
            ("n1:1", "n1:11", Ordering::Less),
        ] {
            assert_eq!(at(left).cmp(&at(right)), expected, "{left} {right}");
            assert_eq!(at(left) == at(right), expected.is_eq(), "{left} {right}");
        }
    }
}
