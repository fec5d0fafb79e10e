//! Each invariant is broken once on purpose, on disks written by hand.

use std::time::Duration;

use trefoil_causality::Revision;
use trefoil_placement::Mode;
use trefoil_server::raft::types::{Membership, encode_applied, encode_log_id, encode_vote, log_id, vote};
use trefoil_store::codec::{put_bytes, put_u64};
use trefoil_store::engine::{Batch, Durability, Engine};

use super::*;

const TERM: u64 = 3;

/// What a replica's rows say.
struct Rows<'a> {
    replica: u64,
    /// Of its vote.
    term: u64,
    leader: u64,
    applied: u64,
    entries: &'a [(u64, &'a [u8])],
    revision: u64,
}

impl Default for Rows<'_> {
    fn default() -> Self {
        Rows { replica: 1, term: TERM, leader: 1, applied: 2, entries: &[(1, b"a"), (2, b"b")], revision: 2 }
    }
}

impl Rows<'_> {
    /// Writes them as one batch of a writer at `position`.
    fn write(&self, disk: &Disk, position: u64, durability: Durability) {
        let (replica, store) = (ReplicaId(self.replica), StoreNumber(1));
        let record = ReplicaRecord { partition: PartitionId::DEFAULT, store, mode: Mode::Leader };
        let applied = encode_applied(&Some(log_id(TERM, self.applied)), &Membership::default());
        let head = Head { revision: Revision(self.revision), ..Head::empty() };
        let mut batch = Batch::new();
        batch.put(Family::Node, key::node::POSITION, &position.to_be_bytes());
        batch.put(Family::Node, &key::node::replica(replica), &record.encode());
        batch.put(Family::Log, &key::log::vote(replica), &encode_vote(&vote(self.term, ReplicaId(self.leader), true)));
        batch.put(Family::State, &key::state::applied(store), &applied);
        batch.put(Family::State, &key::state::head(store), &head.encode());
        for (index, row) in self.entries {
            batch.put(Family::Log, &key::log::entry(replica, *index), row);
        }
        disk.engine().write(&batch, durability).expect("memory takes it");
    }
}

/// Looks at `first` on one node, then at `then` on it or on another one.
fn looks(first: &Rows<'_>, then: &Rows<'_>, same_node: bool) -> Result<(), String> {
    let mut invariants = Invariants::default();
    let (one, other) = (Disk::new(Duration::ZERO, false), Disk::new(Duration::ZERO, false));
    first.write(&one, 1, Durability::Sync);
    let line = invariants.look(0, 1, &one)?;
    assert!(line.is_some() && invariants.look(0, 1, &one)?.is_none(), "only what is new is looked at");
    let (node, disk) = if same_node { (0, &one) } else { (1, &other) };
    then.write(disk, 2, Durability::Sync);
    invariants.look(node, 1, disk).map(|_| ())
}

#[test]
fn what_does_not_hold_is_found() {
    let well = Rows::default;
    let cases: [(&str, Rows<'_>, bool, Option<&str>); 9] = [
        ("another replica with the same", Rows { replica: 2, ..well() }, false, None),
        ("one entry more", Rows { applied: 3, entries: &[(3, b"c")], revision: 3, ..well() }, true, None),
        (
            "a replica behind",
            Rows { replica: 2, applied: 1, entries: &[(1, b"a")], revision: 1, ..well() },
            false,
            None,
        ),
        ("another entry", Rows { replica: 2, entries: &[(2, b"x")], ..well() }, false, Some("another entry at 2")),
        ("another leader", Rows { replica: 2, leader: 2, ..well() }, false, Some("two leaders")),
        ("another state", Rows { replica: 2, revision: 9, ..well() }, false, Some("in state")),
        ("a hole in the log", Rows { applied: 4, entries: &[(4, b"d")], ..well() }, true, Some("not in its log")),
        ("an applied entry replaced", Rows { entries: &[(2, b"x")], ..well() }, true, Some("has lost entry 2")),
        ("going back", Rows { applied: 1, ..well() }, true, Some("went back")),
    ];
    for (what, then, same_node, expected) in cases {
        let found = looks(&well(), &then, same_node);
        match expected {
            None => assert_eq!(found, Ok(()), "{what}"),
            Some(words) => assert!(found.as_ref().is_err_and(|why| why.contains(words)), "{what}: {found:?}"),
        }
    }
}

/// Entry 3 is in a log, is applied elsewhere or not, and then another one stands in its place.
#[test]
fn a_log_may_lose_what_nobody_has_applied() {
    for applied_elsewhere in [false, true] {
        let mut invariants = Invariants::default();
        let (one, other) = (Disk::new(Duration::ZERO, false), Disk::new(Duration::ZERO, false));
        Rows { entries: &[(2, b"b"), (3, b"c")], ..Rows::default() }.write(&one, 1, Durability::Sync);
        invariants.look(0, 1, &one).expect("all is well");
        if applied_elsewhere {
            let rows = Rows { replica: 2, applied: 3, entries: &[(3, b"c")], revision: 3, ..Rows::default() };
            rows.write(&other, 1, Durability::Sync);
            invariants.look(1, 1, &other).expect("all is well");
        }
        Rows { entries: &[(3, b"y")], ..Rows::default() }.write(&one, 2, Durability::Sync);
        let found = invariants.look(0, 1, &one);
        assert_eq!(found.as_ref().is_err_and(|why| why.contains("lost entry 3")), applied_elsewhere, "{found:?}");
    }
}

/// An entry's row.
fn entry(body: u8) -> Vec<u8> {
    let mut row = vec![1];
    put_u64(&mut row, TERM);
    row.extend([2, body]);
    row
}

/// What a replica knows to be committed.
fn commit(disk: &Disk, replica: u64, term: u64, index: u64) {
    let mut batch = Batch::new();
    batch.put(Family::Log, &key::log::committed(ReplicaId(replica)), &encode_log_id(&log_id(term, index)));
    disk.engine().write(&batch, Durability::NoSync).expect("memory takes it");
}

/// Entry 3 is in a log, nobody has applied it, and it is known to be committed or not; then another one stands in its
/// place, there or in another log. An entry of another term than the committed one is not meant.
#[test]
fn what_is_known_to_be_committed_stays() {
    let (one, other) = (entry(b'c'), entry(b'y'));
    for (committed_term, stays) in [(None, false), (Some(TERM), true), (Some(TERM + 1), false)] {
        for replica in [1, 2] {
            let (mut invariants, disks) = (Invariants::default(), [0, 1].map(|_| Disk::new(Duration::ZERO, false)));
            for (disk, replica) in disks.iter().zip([1, 2]) {
                committed_term.into_iter().for_each(|term| commit(disk, replica, term, 3));
            }
            let rows = Rows { entries: &[(2, b"b"), (3, one.as_slice())], ..Rows::default() };
            rows.write(&disks[0], 1, Durability::Sync);
            invariants.look(0, 1, &disks[0]).expect("all is well");
            let node = replica as usize - 1;
            let rows = Rows { replica, entries: &[(2, b"b"), (3, other.as_slice())], ..Rows::default() };
            rows.write(&disks[node], 2, Durability::Sync);
            let found = invariants.look(node, 1, &disks[node]);
            let expected = if replica == 1 { "lost entry 3" } else { "another entry at 3" };
            assert_eq!(found.as_ref().is_err_and(|why| why.contains(expected)), stays, "{committed_term:?}: {found:?}");
        }
    }
}

#[test]
fn a_head_that_does_not_say_what_is_held_is_found() {
    let disk = Disk::new(Duration::ZERO, false);
    Rows::default().write(&disk, 1, Durability::Sync);
    assert_eq!(recount(&disk), Ok(()));
    let mut batch = Batch::new();
    batch.put(Family::Current, &key::current(StoreNumber(1), b"k"), b"row");
    disk.engine().write(&batch, Durability::NoSync).expect("memory takes it");
    assert!(recount(&disk).is_err_and(|why| why.contains("its head says")));
}

#[test]
fn a_vote_that_goes_back_is_found() {
    let later = Rows { term: TERM + 2, ..Rows::default() };
    let found = looks(&later, &Rows { term: TERM + 1, ..Rows::default() }, true);
    assert!(found.as_ref().is_err_and(|why| why.contains("went back from term")), "{found:?}");
    let found = looks(&later, &Rows { term: TERM - 1, ..Rows::default() }, false);
    assert!(found.as_ref().is_err_and(|why| why.contains("has seen only")), "{found:?}");
}

/// What a node keeps of its peer n2.
fn meet(disk: &Disk, storage: u128, start: u64) {
    let mut row = vec![1];
    put_bytes(&mut row, &storage.to_be_bytes());
    [start, 7, 70].into_iter().for_each(|number| put_u64(&mut row, number));
    let mut batch = Batch::new();
    batch.put(Family::Node, &key::node::peer(NodeId(2)), &row);
    disk.engine().write(&batch, Durability::NoSync).expect("memory takes it");
}

#[test]
fn a_peer_that_is_taken_for_another_one_is_found() {
    for (storage, start, expected) in [(5, 4, None), (5, 3, None), (5, 2, Some("start 3")), (6, 4, Some("storage id"))]
    {
        let (mut invariants, disk) = (Invariants::default(), Disk::new(Duration::ZERO, false));
        meet(&disk, 5, 3);
        assert!(invariants.look(0, 1, &disk).is_ok());
        meet(&disk, storage, start);
        let found = invariants.look(0, 1, &disk);
        match expected {
            None => assert!(found.is_ok(), "{found:?}"),
            Some(words) => assert!(found.as_ref().is_err_and(|why| why.contains(words)), "{found:?}"),
        }
    }
}

#[test]
fn a_new_life_may_begin_behind_the_last_one() {
    let mut invariants = Invariants::default();
    let disk = Disk::new(Duration::ZERO, false);
    Rows::default().write(&disk, 1, Durability::Sync);
    invariants.look(0, 1, &disk).expect("all is well");
    Rows { applied: 1, revision: 1, ..Rows::default() }.write(&disk, 2, Durability::Sync);
    assert!(invariants.look(0, 2, &disk).is_ok());
}

#[test]
fn a_mark_above_the_disk_is_found() {
    let disk = Disk::new(Duration::ZERO, false);
    let mut open = disk.open().expect("an empty disk opens");
    Rows::default().write(&disk, open.position + 1, Durability::NoSync);
    let mut invariants = Invariants::default();
    assert!(invariants.look(0, 1, &disk).is_ok());
    open.mark.note(open.position + 1).expect("memory takes it");
    Rows::default().write(&disk, open.position + 2, Durability::NoSync);
    let found = invariants.look(0, 1, &disk);
    assert!(found.as_ref().is_err_and(|why| why.contains("the mark says")), "{found:?}");
}
