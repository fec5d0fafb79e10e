//! Whether a full read of each replica finds the same: the sums that replicas keep are carried on from change to change,
//! and say nothing of rows that were lost or changed on the disk since.
//!
//! Each node that holds a replica is asked for all keys of the keyspace at one revision, which all of them have, through
//! itself and without asking the others. What they have shown is compared by [`differences`], without asking anybody.
//!
//! Left out: revisions before that one.

use futures::future::join_all;
use trefoil_client::KeyValue;
use trefoil_world::clock;

use super::{Agreed, Nodes, insist, late};
use crate::backend::node_name;

/// As many characters of a value are told.
const TOLD_MAX: usize = 100;

/// What a replica has shown, by the name of its node.
type Shown = (String, Vec<KeyValue>);

/// Who does not show all that it holds, and who shows something else than another one.
pub(super) async fn differing(nodes: &impl Nodes, agreed: &Agreed, until: clock::Instant) -> Vec<String> {
    let revision = agreed.revision;
    let show = |node: usize| async move {
        let name = node_name(node);
        let shown = insist(until, || nodes.show(node, revision)).await;
        let shown = shown.map_err(|why| late(&format!("{name} has not shown all that it holds: {why}")))?;
        Ok::<Shown, String>((name, shown))
    };
    let holders = (0..nodes.count()).filter(|node| agreed.holders.contains(&node_name(*node)));
    let (mut shown, mut findings) = (Vec::new(), Vec::new());
    for of_node in join_all(holders.map(show)).await {
        match of_node {
            Ok(of_node) => shown.push(of_node),
            Err(line) => findings.push(line),
        }
    }
    findings.extend(differences(revision, &shown));
    findings
}

/// A line for each replica that has not shown the same as the first one.
fn differences(revision: u64, shown: &[Shown]) -> Vec<String> {
    let Some(((first, of_first), others)) = shown.split_first() else { return Vec::new() };
    let line = |(name, pairs): &Shown| {
        let (here, there) = first_difference(of_first, pairs)?;
        Some(format!(
            "full reads at revision {revision} differ: {first} shows {} keys, {name} {}; where they part {first} has {}, {name} {}",
            of_first.len(),
            pairs.len(),
            told(here),
            told(there),
        ))
    };
    others.iter().filter_map(line).collect()
}

/// What stands in the same place of both, the first time that it is not the same; nothing where one has come to its end.
fn first_difference<'a>(
    one: &'a [KeyValue],
    other: &'a [KeyValue],
) -> Option<(Option<&'a KeyValue>, Option<&'a KeyValue>)> {
    let places = 0..one.len().max(other.len());
    places.map(|place| (one.get(place), other.get(place))).find(|(one, other)| one != other)
}

fn told(pair: Option<&KeyValue>) -> String {
    let Some(pair) = pair else { return "nothing".to_owned() };
    let key = String::from_utf8_lossy(&pair.key);
    let value: String = String::from_utf8_lossy(&pair.value).chars().take(TOLD_MAX).collect();
    let KeyValue { create_revision, mod_revision, version, lease, .. } = pair;
    let (created, put) = (create_revision.0, mod_revision.0);
    format!("{key:?} (created at {created}, put at {put}, version {version}, lease {lease}): {value:?}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trefoil_client::Revision;

    use super::*;

    /// A key with its newest put and its value.
    fn pair((key, put, value): (&'static str, u64, &'static str)) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            create_revision: Revision(2),
            mod_revision: Revision(put),
            version: 3,
            lease: 0,
        }
    }

    type Pairs = Vec<(&'static str, u64, &'static str)>;

    #[test]
    fn who_shows_something_else_is_named_with_the_first_that_differs() {
        let whole = || vec![("a", 4, "x"), ("b", 5, "y"), ("c", 7, "z")];
        let a_b = || vec![("a", 4, "x"), ("b", 5, "y")];
        let cases: [(Pairs, Option<&str>); 6] = [
            (whole(), None),
            (
                a_b(),
                Some(
                    "n1 shows 3 keys, n3 2; where they part n1 has \"c\" (created at 2, put at 7, version 3, \
                          lease 0): \"z\", n3 nothing",
                ),
            ),
            (vec![], Some("n3 0; where they part n1 has \"a\"")),
            (vec![("a", 4, "x"), ("b", 6, "y"), ("c", 7, "z")], Some("n3 \"b\" (created at 2, put at 6,")),
            (vec![("a", 4, "w"), ("b", 6, "y"), ("c", 7, "z")], Some("lease 0): \"w\"")),
            (vec![("a", 4, "x"), ("c", 7, "z")], Some("n1 has \"b\"")),
        ];
        let of = |name: &str, pairs: Pairs| -> Shown { (name.to_owned(), pairs.into_iter().map(pair).collect()) };
        for (other, expected) in cases {
            let found = differences(9, &[of("n1", whole()), of("n2", whole()), of("n3", other)]);
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(words) => assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}"),
            }
            assert!(found.iter().all(|line| line.starts_with("full reads at revision 9 differ: ")), "{found:?}");
        }
        assert!(differences(9, &[]).is_empty() && differences(9, &[of("n1", whole())]).is_empty());
    }

    #[test]
    fn long_values_are_not_told_whole() {
        let long = KeyValue { value: Bytes::from(vec![b'v'; 1000]), ..pair(("k", 4, "")) };
        let told = told(Some(&long));
        assert_eq!(told.matches('v').count(), TOLD_MAX + "version".matches('v').count(), "{told}");
    }
}
