use std::cell::RefCell;

use bytes::Bytes;
use trefoil_client::Revision;

use super::*;
use crate::cluster::status::tests::status;

/// Name, index and sum of replicas, which are at the revision of their index; no numbers of a node that does not answer.
fn look<const N: usize>(replicas: [(&str, Option<(u64, u64)>); N]) -> Look {
    let applied = |(index, content_sum)| Applied { index, revision: index, content_sum };
    Look::Replicas(replicas.map(|(name, said)| (name.to_owned(), said.map(applied))).into())
}

/// All three, at 9.
fn agreed() -> Agreed {
    Agreed { holders: ["n1", "n2", "n3"].map(str::to_owned).into(), revision: 9 }
}

fn at(index: u64, sum: u64) -> Option<(u64, u64)> {
    Some((index, sum))
}

#[test]
fn two_looks_tell_whether_replicas_are_equal() {
    let equal = look([("n1", at(9, 5)), ("n2", at(9, 5)), ("n3", at(9, 5))]);
    let other = look([("n1", at(9, 5)), ("n2", at(9, 6)), ("n3", at(9, 5))]);
    let behind = look([("n1", at(9, 5)), ("n2", at(7, 6)), ("n3", at(9, 5))]);
    let silent = look([("n1", at(9, 5)), ("n2", None), ("n3", at(9, 5))]);
    let earlier = look([("n1", at(8, 4)), ("n2", at(8, 4)), ("n3", at(8, 4))]);
    let nothing = Look::Nothing("nobody answers".into());
    let different = ["replicas that have applied 9 entries differ: content sum 0000000000000005 on n1 n3, \
                      0000000000000006 on n2"];
    let restless = [1, 2, 3].map(|node| format!("the replica of n{node} is not at rest"));
    let restless: [&str; 3] = [&restless[0], &restless[1], &restless[2]];
    let not_yet = |lines: &[&str]| Compared::NotYet(lines.iter().map(|line| (*line).to_owned()).collect());
    let cases = [
        (&equal, &equal, Compared::Equal(agreed())),
        // They were equal at once, but nobody knows whether index and sum belong together.
        (&earlier, &equal, not_yet(&restless)),
        (&nothing, &equal, not_yet(&restless)),
        (&other, &other, Compared::Different(different.map(str::to_owned).into())),
        // n2 has applied an entry between the two numbers it said.
        (&earlier, &other, not_yet(&restless)),
        (&equal, &other, not_yet(&["the replica of n2 is not at rest"])),
        (&behind, &behind, not_yet(&["the replica of n2 has applied 7 of 9 entries"])),
        (&equal, &silent, not_yet(&["n2 does not say how its replica is"])),
        (&silent, &silent, not_yet(&["n2 does not say how its replica is"])),
        (&equal, &nothing, not_yet(&["nobody answers"])),
        (&look([]), &look([]), not_yet(&["no node holds a replica of the default partition"])),
    ];
    for (before, now, expected) in cases {
        assert_eq!(compare(before, now), expected, "{before:?}, then {now:?}");
    }
}

#[test]
fn a_difference_of_some_is_found_before_all_have_caught_up() {
    let looked = look([("n1", at(9, 5)), ("n2", at(9, 6)), ("n3", at(4, 1)), ("n4", None)]);
    assert!(matches!(compare(&looked, &looked), Compared::Different(lines) if lines.len() == 1));
}

#[test]
fn who_holds_a_replica_is_for_the_map_to_say() {
    let without = NodeStatus { replicas: Vec::new(), ..status(2, (1, 1)) };
    let statuses = [Some(status(1, (1, 1))), Some(without), None, Some(status(4, (1, 1)))];
    let holders = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<BTreeSet<NodeId>>();
    let (one, four) = (("n1", at(1, 0)), ("n4", at(1, 0)));
    for (holders, expected) in [
        (Some(holders(&[1, 3, 4])), look([one, ("n3", None), four])),
        (Some(holders(&[1, 2])), look([one, ("n2", None), ("n3", None)])),
        (Some(holders(&[])), look([("n3", None)])),
        (None, look([one, ("n2", None), ("n3", None), four])),
    ] {
        assert_eq!(seen(holders.as_ref(), &statuses), expected, "{holders:?}");
    }
}

/// Three nodes that answer as told.
struct Told {
    /// What reads through each node find; an error is no answer, to puts either.
    reads: [Result<&'static str, &'static str>; 3],
    /// How many puts through each node come to nothing first.
    lost: RefCell<[u32; 3]>,
    /// What is seen, one look after the other, the last one for ever.
    looks: Vec<Look>,
    /// The values at one key that full reads find, node by node; an error is no answer.
    shown: [Result<&'static str, &'static str>; 3],
}

impl Nodes for Told {
    fn count(&self) -> usize {
        self.reads.len()
    }

    async fn put(&self, node: usize, key: String) -> Result<(), String> {
        assert_eq!(key, format!("recovery/n{}", node + 1));
        let mut lost = self.lost.borrow_mut();
        if lost[node] > 0 {
            lost[node] -= 1;
            return Err("lost".into());
        }
        self.reads[node].map(|_| ()).map_err(str::to_owned)
    }

    async fn get(&self, node: usize, _: String) -> Result<Option<String>, String> {
        self.reads[node].map(|found| Some(found.to_owned())).map_err(str::to_owned)
    }

    async fn look(&mut self) -> Look {
        match self.looks.len() {
            1 => self.looks[0].clone(),
            _ => self.looks.remove(0),
        }
    }

    async fn show(&self, node: usize, revision: u64) -> Result<Vec<KeyValue>, String> {
        let put = Revision(revision);
        let pair = |value: &'static str| KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(value.as_bytes()),
            create_revision: put,
            mod_revision: put,
            version: 1,
            lease: 0,
        };
        self.shown[node].map(|value| vec![pair(value)]).map_err(str::to_owned)
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_serve_is_named() {
    let late = "90s after the last healing began";
    let equal = look([("n1", at(9, 5)), ("n2", at(9, 5))]);
    let behind = look([("n1", at(9, 5)), ("n2", at(3, 1))]);
    let different = look([("n1", at(9, 5)), ("n2", at(9, 4))]);
    let cases = [
        ([Ok(TEXT); 3], [0, 0, 0], vec![equal.clone()], vec![]),
        ([Ok(TEXT); 3], [3, 0, 9], vec![behind.clone(), behind.clone(), equal.clone()], vec![]),
        (
            [Ok(TEXT), Err("no leader"), Ok("something else")],
            [0, 0, 0],
            vec![behind],
            vec![
                format!("{late} n2 has answered no put: no leader"),
                "n3: \"recovered\" was put at recovery/n3, and a linearizable read then found Some(\"something else\")"
                    .to_owned(),
                format!("{late} the replica of n2 has applied 3 of 9 entries"),
            ],
        ),
        (
            [Ok(TEXT); 3],
            [0, 0, 0],
            vec![equal, different],
            vec![
                "replicas that have applied 9 entries differ: content sum 0000000000000004 on n2, \
                 0000000000000005 on n1"
                    .to_owned(),
            ],
        ),
    ];
    for (reads, lost, looks, expected) in cases {
        let (began, until) = (clock::now(), clock::now() + RECOVERY_MAX);
        let mut nodes = Told { reads, lost: RefCell::new(lost), looks, shown: [Ok("v"); 3] };
        assert_eq!(findings(&mut nodes, until).await, expected);
        let waited = expected.iter().any(|line| line.starts_with(late));
        assert_eq!(began.elapsed() >= RECOVERY_MAX, waited, "what is known at once is said at once");
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_with_equal_sums_are_read_whole() {
    let of_three = look([("n1", at(9, 5)), ("n2", at(9, 5)), ("n3", at(9, 5))]);
    let of_two = look([("n1", at(9, 5)), ("n3", at(9, 5))]);
    let late = "90s after the last healing began n3 has not shown all that it holds: compacted";
    let cases = [
        (&of_three, [Ok("v"), Ok("v"), Ok("v")], None),
        (&of_three, [Ok("v"), Ok("w"), Ok("v")], Some("full reads at revision 9 differ: n1 shows 1 keys, n2 1; ")),
        (&of_three, [Ok("v"), Ok("v"), Err("compacted")], Some(late)),
        // Who holds none is not asked.
        (&of_two, [Ok("v"), Err("no replica"), Ok("v")], None),
    ];
    for (looked, shown, expected) in cases {
        let until = clock::now() + RECOVERY_MAX;
        let looks = vec![looked.clone()];
        let mut nodes = Told { reads: [Ok(TEXT); 3], lost: RefCell::new([0; 3]), looks, shown };
        let found = findings(&mut nodes, until).await;
        match expected {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(words) => assert!(found.len() == 1 && found[0].starts_with(words), "{words}: {found:?}"),
        }
    }
}
