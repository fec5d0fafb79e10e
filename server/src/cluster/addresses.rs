//! Where the other nodes may be found.
//!
//! An address is a hint: whoever answers at it says who it is, and is believed or refused (`identity.rs`). The map has what
//! each node registered, and the flags this node was started with name the others; but a map that shows a new address was
//! committed by a quorum, which nodes at new addresses may be needed for. So the opening words have two more sources, which
//! need no quorum: where the speaker is reached, and what those it has met said of themselves. Whoever dials a node is
//! dialled back by it, and finds by it the others that dialled it before.
//!
//! Invariants:
//!
//! * What a node said itself comes before what the map says, and that before the flags. What was heard of it from another
//!   one comes first of all while it is of a later start, and not at all otherwise. Its own word ends what was heard of it
//!   before: nobody's hearsay outlasts it, whatever start it claims.
//! * Whoever cannot tell who answers an address tries the one first at which the node was believed last: hearsay is nobody's
//!   promise.
//! * Hearsay is never passed on, and one word of each kind is kept of a node; none that nobody could dial.
//! * No address comes twice.
//!
//! Left out: whom to listen to, which is `identity.rs`'s; resolving and dialling (`peer.rs`). Nothing is kept on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use trefoil_placement::NodeId;

use crate::cluster::map::ClusterMap;

/// The longest address that is taken from a peer, in bytes: a host's name has at most 253.
const HEARD_BYTES_MAX: usize = 300;

/// See the file's head.
pub struct AddressBook {
    own: String,
    map: Arc<ArcSwap<ClusterMap>>,
    given: BTreeMap<NodeId, String>,
    // Written where peers are believed, read by the tasks of all links; held for memory work only.
    heard: Mutex<BTreeMap<NodeId, Heard>>,
}

/// What was heard of a node.
#[derive(Default)]
struct Heard {
    said: Option<Word>,
    hearsay: Option<Word>,
}

/// Where a node was reached in one of its starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub start_count: u64,
    /// host:port.
    pub address: String,
}

impl AddressBook {
    /// `own` is where the others reach this node, `given` what its flags say of them (all host:port).
    pub fn new(own: String, map: Arc<ArcSwap<ClusterMap>>, given: BTreeMap<NodeId, String>) -> AddressBook {
        AddressBook { own, map, given, heard: Mutex::default() }
    }

    /// Where the others reach this node, as it tells them.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// The map that nodes are found by.
    pub fn map(&self) -> &Arc<ArcSwap<ClusterMap>> {
        &self.map
    }

    /// Takes note of what a believed node of this cluster says of itself, unless nobody could dial it; what others said
    /// of it is forgotten.
    pub fn hear(&self, node: NodeId, word: Word) {
        if is_dialable(&word.address) {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.insert(node, Heard { said: Some(word), hearsay: None });
        }
    }

    /// Takes note of what such a node says of another node of this cluster, unless nobody could dial it or something newer
    /// was heard.
    pub fn overhear(&self, node: NodeId, word: Word) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let hearsay = heard.get(&node).and_then(|heard| heard.hearsay.as_ref());
        let newer = hearsay.is_none_or(|known| known.start_count < word.start_count);
        if newer && is_dialable(&word.address) {
            heard.entry(node).or_default().hearsay = Some(word);
        }
    }

    /// What the nodes said of themselves.
    pub fn said(&self) -> Vec<(NodeId, Word)> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter_map(|(node, heard)| Some((*node, heard.said.clone()?))).collect()
    }

    /// Addresses at which to try a node, in this order, when the node that answers is asked who it is.
    pub fn of(&self, node: NodeId) -> Vec<String> {
        self.of_believed(node, None)
    }

    /// The same when it is not: first the one at which the node was believed last.
    pub fn of_believed(&self, node: NodeId, believed: Option<String>) -> Vec<String> {
        let (hearsay, said) = self.heard_of(node);
        let mapped = self.map.load().nodes.get(&node).map(|record| record.peer_address.clone());
        let mut addresses = Vec::new();
        for address in [believed, hearsay, said, mapped, self.given.get(&node).cloned()].into_iter().flatten() {
            if !address.is_empty() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Hearsay of a later start than the node's own word, and that word.
    fn heard_of(&self, node: NodeId) -> (Option<String>, Option<String>) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Heard { said, hearsay }) = heard.get(&node) else { return (None, None) };
        let later = |word: &&Word| said.as_ref().is_none_or(|said| said.start_count < word.start_count);
        let address = |word: &Word| word.address.clone();
        (hearsay.as_ref().filter(later).map(address), said.as_ref().map(address))
    }
}

/// Whether an address is host:port, of a host that can be another one's.
fn is_dialable(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let unreadable = |c: char| c.is_control() || c.is_whitespace();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let everywhere = ip.is_ok_and(|ip| ip.is_unspecified());
    let numbered = port.parse::<u16>().is_ok_and(|port| port != 0);
    address.len() <= HEARD_BYTES_MAX && !host.is_empty() && !host.contains(unreadable) && !everywhere && numbered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::identity::ClusterId;
    use crate::cluster::map::NodeRecord;

    const NODE: NodeId = NodeId(2);

    /// Of `NODE` the map says `mapped:1`, or nothing, and the flags `given:1`.
    fn book(mapped: bool) -> AddressBook {
        let record = NodeRecord {
            name: "n2".into(),
            client_address: "client:1".into(),
            peer_address: "mapped:1".into(),
            zone: String::new(),
            weight: 1,
        };
        let mut map = ClusterMap::unknown(ClusterId(7));
        if mapped {
            map.nodes.insert(NODE, record);
        }
        let given = BTreeMap::from([(NODE, "given:1".to_owned())]);
        AddressBook::new("own:1".into(), Arc::new(ArcSwap::from_pointee(map)), given)
    }

    fn word(start_count: u64, address: &str) -> Word {
        Word { start_count, address: address.into() }
    }

    /// Who says it, in which start the node was then, and the address.
    enum By {
        Itself(u64, &'static str),
        Another(u64, &'static str),
    }
    use By::{Another, Itself};

    #[test]
    fn the_latest_word_comes_first() {
        const FAR: u64 = u64::MAX;
        let cases: [(bool, &[By], &[&str]); 13] = [
            (true, &[], &["mapped:1", "given:1"]),
            (false, &[], &["given:1"]),
            (true, &[Itself(1, "said:1")], &["said:1", "mapped:1", "given:1"]),
            (true, &[Itself(1, "before:1"), Itself(2, "said:1")], &["said:1", "mapped:1", "given:1"]),
            (true, &[Itself(1, "given:1")], &["given:1", "mapped:1"]),
            (true, &[Itself(1, "mapped:1")], &["mapped:1", "given:1"]),
            (true, &[Itself(1, "said:1"), Itself(2, ""), Itself(3, "0.0.0.0:1")], &["said:1", "mapped:1", "given:1"]),
            (true, &[Another(1, "told:1")], &["told:1", "mapped:1", "given:1"]),
            (true, &[Itself(1, "said:1"), Another(2, "told:1")], &["told:1", "said:1", "mapped:1", "given:1"]),
            (true, &[Another(2, "told:1"), Itself(2, "said:1")], &["said:1", "mapped:1", "given:1"]),
            (true, &[Another(2, "told:1"), Another(1, "older:1")], &["told:1", "mapped:1", "given:1"]),
            (true, &[Another(FAR, "lie:1"), Itself(1, "said:1")], &["said:1", "mapped:1", "given:1"]),
            (
                true,
                &[Another(FAR, "lie:1"), Itself(1, "said:1"), Another(2, "told:1")],
                &["told:1", "said:1", "mapped:1", "given:1"],
            ),
        ];
        for (place, (mapped, words, expected)) in cases.into_iter().enumerate() {
            let book = book(mapped);
            for by in words {
                match *by {
                    Itself(start, address) => book.hear(NODE, word(start, address)),
                    Another(start, address) => book.overhear(NODE, word(start, address)),
                }
            }
            assert_eq!(book.of(NODE), expected, "case {place}");
            assert_eq!(book.of(NodeId(3)), Vec::<String>::new(), "nothing is known of another node");
        }
    }

    #[test]
    fn where_a_node_was_believed_comes_before_hearsay() {
        let book = book(true);
        book.hear(NODE, word(1, "said:1"));
        book.overhear(NODE, word(2, "told:1"));
        let others = ["told:1", "said:1", "mapped:1", "given:1"];
        for (believed, expected) in [
            (None, others.to_vec()),
            (Some("before:1"), [&["before:1"][..], &others].concat()),
            (Some("said:1"), vec!["said:1", "told:1", "mapped:1", "given:1"]),
            (Some("told:1"), others.to_vec()),
        ] {
            assert_eq!(book.of_believed(NODE, believed.map(str::to_owned)), expected, "believed at {believed:?}");
        }
    }

    #[test]
    fn hearsay_is_not_passed_on() {
        let book = book(true);
        book.overhear(NODE, word(2, "told:1"));
        assert!(book.said().is_empty(), "the node itself said nothing");
        book.hear(NODE, word(1, "said:1"));
        assert_eq!(book.said(), [(NODE, word(1, "said:1"))]);
    }

    #[test]
    fn what_nobody_could_dial_is_passed_over() {
        let name = |length: usize| format!("{}:1", "h".repeat(length - 2));
        let (longest, longer) = (name(HEARD_BYTES_MAX), name(HEARD_BYTES_MAX + 1));
        let cases: [(&str, bool); 16] = [
            ("host:2380", true),
            ("127.0.0.1:2380", true),
            ("[::1]:2380", true),
            (longest.as_str(), true),
            (longer.as_str(), false),
            ("", false),
            ("host", false),
            (":2380", false),
            ("host:", false),
            ("host:0", false),
            ("host:65536", false),
            ("host:port", false),
            ("0.0.0.0:2380", false),
            ("[::]:2380", false),
            ("two hosts:2380", false),
            ("line\n:2380", false),
        ];
        for (address, expected) in cases {
            assert_eq!(is_dialable(address), expected, "{address:?}");
        }
    }
}
