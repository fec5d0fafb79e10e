//! Histories by hand, and random ones of processes that move between replicas, against what each pair of calls says.

use super::Shown::{Read, StaleRead, Wrote};
use super::*;
use crate::checker::Valid;
use crate::generator::Dice;
use crate::history::Nanos;

type Asked = Operation<Shown, ()>;

/// One call after another: whose, and what it has shown.
fn history(calls: &[(u64, Shown)]) -> Vec<Asked> {
    let operation = |(index, (process, shown)): (usize, &(u64, Shown))| {
        let (invoked, completed) = (Nanos(10 * index as u64), Some(Nanos(10 * index as u64 + 5)));
        let process = Process(*process);
        Operation { index, process, call: *shown, invoked, completed, outcome: Outcome::Ok(()) }
    };
    calls.iter().enumerate().map(operation).collect()
}

fn judged(operations: &[Asked]) -> Verdict {
    never_back(operations, |shown, ()| Some(*shown))
}

#[test]
fn a_process_sees_all_that_it_was_shown() {
    /// What processes were shown, and the verdict.
    type Case = (&'static str, &'static [(u64, Shown)], Valid);
    let cases: [Case; 13] = [
        ("nothing happened", &[], Valid::Unknown),
        ("no read was stale", &[(0, Wrote(4)), (0, Read(5))], Valid::Unknown),
        ("the same again", &[(0, StaleRead(5)), (0, StaleRead(5)), (0, StaleRead(7))], Valid::True),
        ("it read, then read stale", &[(0, Read(5)), (0, StaleRead(5))], Valid::True),
        ("it wrote, then read stale", &[(0, Wrote(5)), (0, StaleRead(6))], Valid::True),
        (
            "another one is behind",
            &[(0, Wrote(9)), (1, StaleRead(3)), (0, StaleRead(9)), (1, StaleRead(3))],
            Valid::True,
        ),
        ("a stale read after a stale one", &[(0, StaleRead(5)), (0, StaleRead(4))], Valid::False),
        ("a stale read after a newer read", &[(0, Read(5)), (0, StaleRead(4))], Valid::False),
        ("its own write is not there", &[(0, StaleRead(3)), (0, Wrote(5)), (0, StaleRead(4))], Valid::False),
        ("a read after a newer stale one", &[(0, StaleRead(5)), (0, Read(4))], Valid::False),
        ("it was shown long ago", &[(0, Wrote(5)), (1, Wrote(6)), (0, Read(5)), (0, StaleRead(2))], Valid::False),
        ("it rose again", &[(0, StaleRead(5)), (0, StaleRead(4)), (0, StaleRead(6))], Valid::False),
        ("a write is not for us to judge", &[(0, StaleRead(5)), (0, Wrote(4)), (0, StaleRead(5))], Valid::True),
    ];
    for (name, calls, valid) in cases {
        let verdict = judged(&history(calls));
        assert_eq!(verdict.valid, valid, "{name}: {:#?}", verdict.evidence);
    }
}

#[test]
fn only_what_was_answered_was_shown() {
    for outcome in [Outcome::Fail("refused".into()), Outcome::Info("timeout".into())] {
        let mut calls = history(&[(0, Wrote(9)), (0, StaleRead(3))]);
        calls[0].outcome = outcome;
        assert_eq!(judged(&calls).valid, Valid::True);
    }
    let nothing = never_back(&history(&[(0, StaleRead(5)), (0, StaleRead(3))]), |_, ()| None);
    assert_eq!(nothing.valid, Valid::Unknown);
}

#[test]
fn what_went_back_is_told_with_what_was_shown_before() {
    let verdict = judged(&history(&[(2, Wrote(5)), (2, StaleRead(4))]));
    let told = [
        "a stale read went back: p2 was shown revision 5, then revision 4",
        "  shown 5 by event 0 (p2, 0 to 5 ns)",
        "  shown 4 by event 1 (p2, 10 to 15 ns)",
    ];
    assert_eq!(verdict.evidence, told);
    let many: Vec<(u64, Shown)> = (0..7).flat_map(|process| [(process, Read(2)), (process, StaleRead(1))]).collect();
    let last = judged(&history(&many)).evidence.pop();
    assert_eq!(last.as_deref(), Some("a stale read went back: and 4 more"));
}

/// Three processes whose stale reads go to replicas that lag behind, but wait for the context.
fn simulated(dice: &mut Dice) -> Vec<(u64, Shown)> {
    let (mut store, mut replicas, mut contexts) = (1_u64, [1_u64; 3], [0_u64; 3]);
    let mut calls = Vec::new();
    for _ in 0..1 + dice.below(12) {
        let (process, replica) = (dice.below(3), dice.below(3) as usize);
        let context = &mut contexts[process as usize];
        let reached = *dice.pick(&[replicas[replica], (replicas[replica] + store) / 2, store]);
        replicas[replica] = reached.max(*context);
        let shown = match dice.below(4) {
            0 => {
                store += 1;
                Wrote(store)
            }
            1 => Read(store),
            _ => StaleRead(replicas[replica]),
        };
        *context = shown.revision();
        calls.push((process, shown));
    }
    calls
}

/// Whether a read shows less than an earlier call of its process did: each pair is looked at.
fn goes_back(calls: &[(u64, Shown)]) -> bool {
    let mut pairs = (0..calls.len()).flat_map(|later| (0..later).map(move |earlier| (calls[earlier], calls[later])));
    pairs.any(|((one, before), (other, after))| {
        one == other && !matches!(after, Wrote(_)) && after.revision() < before.revision()
    })
}

fn expected(calls: &[(u64, Shown)]) -> Valid {
    let stale = calls.iter().any(|(_, shown)| matches!(shown, StaleRead(_)));
    match (goes_back(calls), stale) {
        (true, _) => Valid::False,
        (false, true) => Valid::True,
        (false, false) => Valid::Unknown,
    }
}

fn spoil(dice: &mut Dice, calls: &mut [(u64, Shown)]) {
    let place = dice.below(calls.len() as u64) as usize;
    let near = |dice: &mut Dice, revision: u64| (revision + dice.below(5)).saturating_sub(2);
    let (process, shown) = &mut calls[place];
    match dice.below(4) {
        0 => *process = dice.below(3),
        _ => {
            *shown = match *shown {
                Wrote(revision) => Wrote(near(dice, revision)),
                Read(revision) => Read(near(dice, revision)),
                StaleRead(revision) => StaleRead(near(dice, revision)),
            };
        }
    }
}

#[test]
fn false_exactly_when_a_read_went_back() {
    let mut counts: BTreeMap<Valid, u64> = BTreeMap::new();
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let mut calls = simulated(&mut dice);
        assert!(!goes_back(&calls), "seed {seed}: it waits for the context: {calls:?}");
        for _ in 0..2 {
            let verdict = judged(&history(&calls));
            assert_eq!(verdict.valid, expected(&calls), "seed {seed}: {calls:?}: {:#?}", verdict.evidence);
            *counts.entry(verdict.valid).or_default() += 1;
            spoil(&mut dice, &mut calls);
        }
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 200), "{counts:?}");
}
