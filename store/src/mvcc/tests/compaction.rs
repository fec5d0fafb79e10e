//! Compaction: what the floor may be, and what a scrub leaves.

use trefoil_causality::Revision;

use super::{Store, delete, put};
use crate::command::Refusal;
use crate::mvcc::{Head, compact};

#[test]
fn compaction_bounds() {
    let mut head = Head { revision: Revision(5), ..Head::empty() };
    for (asked, expected) in [
        (6, Err(Refusal::FutureRevision { asked: 6, newest: 5 })),
        (3, Ok(())),
        (3, Err(Refusal::Compacted { asked: 3, floor: 3 })),
        (2, Err(Refusal::Compacted { asked: 2, floor: 3 })),
        (5, Ok(())),
    ] {
        assert_eq!(compact(&mut head, Revision(asked)), expected, "{asked}");
    }
}

#[test]
fn a_tombstone_at_the_floor_stays_until_the_floor_passes() {
    let mut store = Store::new();
    for op in [put("a", "1"), delete("a"), put("b", "1")] {
        assert!(store.run(&op).is_ok());
    }
    for (floor, left) in [(3, vec![3, 4]), (4, vec![4])] {
        assert_eq!(compact(&mut store.head, Revision(floor)), Ok(()));
        store.scrub(1);
        let revisions: Vec<u64> = store.history().0.iter().map(|(id, ..)| id.revision.0).collect();
        assert_eq!(revisions, left, "floor {floor}");
    }
}
