//! Who is believed and who is not, and why, as cases of what is known and what is claimed.

use trefoil_placement::NodeId;
use trefoil_proto::peer::Hello;

use super::StorageId;
use super::judge::{Refused, Seen, judge, run_at};

fn seen(storage: u128, start_count: u64, run: u64) -> Seen {
    Seen { storage: StorageId(storage), start_count, run, position: 70 }
}

/// What is known of a peer, and what somebody claims who was started with these run ids.
fn judged(known: Option<Seen>, storage: u128, runs: &[u64]) -> Result<bool, Refused> {
    let hello = Hello { start_count: runs.len() as u64, runs: runs.to_vec(), ..Hello::default() };
    let claimed = seen(storage, hello.start_count, *runs.last().expect("started once"));
    judge(NodeId(2), known, claimed, |count| run_at(&hello, count))
}

#[test]
fn a_peer_is_believed_only_as_itself() {
    assert_eq!(judged(None, 1, &[9]), Ok(true));
    assert_eq!(judged(Some(seen(1, 0, 0)), 1, &[9]), Ok(true), "known from the founding record only");
    assert_eq!(judged(Some(seen(1, 1, 9)), 1, &[9]), Ok(false));
    assert_eq!(judged(Some(seen(1, 1, 9)), 1, &[9, 8]), Ok(true));
    assert!(matches!(judged(Some(seen(1, 1, 9)), 2, &[9]), Err(Refused::OtherStorage { .. })));
    assert!(matches!(judged(Some(seen(1, 3, 7)), 1, &[9, 8]), Err(Refused::OldCopy { .. })));
    assert!(matches!(judged(Some(seen(1, 2, 8)), 1, &[9, 5]), Err(Refused::SecondCopy { .. })));
    assert!(matches!(judged(Some(seen(1, 2, 8)), 1, &[9, 5, 4, 3]), Err(Refused::SecondCopy { .. })));
    let forgotten = Seen { start_count: 2000, ..seen(1, 0, 3) };
    let judged = judge(NodeId(2), Some(seen(1, 2, 8)), forgotten, |_| None);
    assert_eq!(judged, Ok(true), "started too often since to remember that start");
}

#[test]
fn a_peer_with_less_than_it_once_said_has_lost_its_tail() {
    let runs = [9, 8];
    let claim = |position| Seen { position, ..seen(1, 2, 8) };
    let judged =
        |position| judge(NodeId(2), Some(seen(1, 1, 9)), claim(position), |count| Some(runs[count as usize - 1]));
    assert_eq!(judged(70), Ok(true));
    assert_eq!(judged(71), Ok(true));
    assert_eq!(judged(69), Err(Refused::LostTail { node: NodeId(2), known: 70, claimed: 69 }));
    assert!(judged(69).is_err_and(|refused| refused.proves_amnesia()));
    for (position, proves) in [(69, true), (70, false)] {
        let other = Seen { run: 7, ..claim(position) };
        let refused = judge(NodeId(2), Some(seen(1, 2, 8)), other, |_| Some(7));
        assert!(refused.is_err_and(|refused| refused.proves_amnesia() == proves), "another start 2 at {position}");
    }
    let overtaken = judge(NodeId(2), Some(seen(1, 2, 8)), claim(69), |count| Some(runs[count as usize - 1]));
    assert_eq!(overtaken, Ok(false), "an older word of the same start");
}
