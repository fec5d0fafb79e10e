//! Where operations stand among the store's revisions, and what real time asks of that.
//!
//! A store that says its revisions gives one order of all that it did. What is answered makes a revision known from its
//! end on; whatever is invoked later was done, or has looked, after it. [`floors`] says what was known when, in one sweep
//! over the times, and [`too_low`] who stands below that.
//!
//! Invariants:
//!
//! * Equal times count as at the same time: what ends when another begins makes nothing known to it.
//! * What has no end makes nothing known, though its place may be known from others.
//!
//! Left out: what stood in the store at a revision, which each checker knows of its own workload.

use crate::history::{Nanos, Operation, Outcome};

/// Where an operation stands among the revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It made this revision.
    Made(u64),
    /// It looked at the state of this revision.
    LookedAt(u64),
}

impl Place {
    pub(super) fn revision(self) -> u64 {
        match self {
            Place::Made(revision) | Place::LookedAt(revision) => revision,
        }
    }

    /// The revision of the state that it found.
    pub(super) fn found(self) -> u64 {
        match self {
            Place::Made(revision) => revision.saturating_sub(1),
            Place::LookedAt(revision) => revision,
        }
    }

    fn is_after(self, floor: Floor) -> bool {
        match self {
            Place::Made(revision) => revision > floor.revision,
            Place::LookedAt(revision) => revision >= floor.revision,
        }
    }
}

/// A revision that was known, and which operation had made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Floor {
    pub(super) revision: u64,
    /// Its place in the list of operations.
    pub(super) by: usize,
}

/// By operation: the highest revision that was known when it was invoked, if any was. `places`: by operation, as far as
/// they are known.
pub(super) fn floors<C, R>(operations: &[Operation<C, R>], places: &[Option<Place>]) -> Vec<Option<Floor>> {
    let mut known = known(operations, places).into_iter().peekable();
    let mut begun: Vec<usize> = (0..operations.len()).collect();
    begun.sort_by_key(|number| operations[*number].invoked);
    let mut floors = vec![None; operations.len()];
    let mut highest: Option<Floor> = None;
    for number in begun {
        while let Some((_, floor)) = known.next_if(|(time, _)| *time < operations[number].invoked) {
            highest = highest.max(Some(floor));
        }
        floors[number] = highest;
    }
    floors
}

/// From when on which revisions were known, in the order of times.
fn known<C, R>(operations: &[Operation<C, R>], places: &[Option<Place>]) -> Vec<(Nanos, Floor)> {
    let mut known: Vec<(Nanos, Floor)> = Vec::new();
    for (by, (operation, place)) in operations.iter().zip(places).enumerate() {
        if let (Outcome::Ok(_), Some(time), Some(place)) = (&operation.outcome, operation.completed, place) {
            known.push((time, Floor { revision: place.revision(), by }));
        }
    }
    known.sort_unstable();
    known
}

/// The operations whose place contradicts real time: their places in the list, where they stand, and what they should
/// have come after.
pub(super) fn too_low(places: &[Option<Place>], floors: &[Option<Floor>]) -> Vec<(usize, Place, Floor)> {
    let both = places.iter().zip(floors).enumerate();
    let both = both.filter_map(|(number, (place, floor))| Some((number, (*place)?, (*floor)?)));
    both.filter(|(_, place, floor)| !place.is_after(*floor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Dice;
    use crate::history::Process;

    type Asked = Operation<(), ()>;

    fn asked(invoked: u64, completed: Option<u64>) -> Asked {
        let outcome = match completed {
            Some(_) => Outcome::Ok(()),
            None => Outcome::Info("timeout".into()),
        };
        let completed = completed.map(Nanos);
        Operation { index: 0, process: Process(0), call: (), invoked: Nanos(invoked), completed, outcome }
    }

    #[test]
    fn what_ended_before_is_known() {
        let (made, looked) = (|revision| Some(Place::Made(revision)), |revision| Some(Place::LookedAt(revision)));
        let floor = |revision, by| Some(Floor { revision, by });
        /// The operations with their places, and the floor of the last one.
        type Case = (&'static str, Vec<(Asked, Option<Place>)>, Option<Floor>);
        let last = || (asked(10, Some(19)), Some(Place::Made(9)));
        let cases: [Case; 6] = [
            ("nothing was", vec![last()], None),
            ("it ended earlier", vec![(asked(0, Some(9)), made(4)), last()], floor(4, 0)),
            ("it ended just then", vec![(asked(0, Some(10)), made(4)), last()], None),
            ("a look tells too", vec![(asked(0, Some(9)), looked(4)), last()], floor(4, 0)),
            ("it has no end", vec![(asked(0, None), made(4)), last()], None),
            (
                "the highest counts",
                vec![(asked(0, Some(5)), made(4)), (asked(6, Some(9)), made(3)), last()],
                floor(4, 0),
            ),
        ];
        for (name, operations, expected) in cases {
            let (operations, places): (Vec<Asked>, Vec<Option<Place>>) = operations.into_iter().unzip();
            assert_eq!(floors(&operations, &places).last(), Some(&expected), "{name}");
        }
    }

    #[test]
    fn a_write_must_be_above_and_a_look_not_below() {
        let floor = Floor { revision: 5, by: 7 };
        let cases = [
            (Some(Place::Made(6)), true),
            (Some(Place::Made(5)), false),
            (Some(Place::LookedAt(5)), true),
            (Some(Place::LookedAt(4)), false),
            (None, true),
        ];
        for (place, fits) in cases {
            assert_eq!(too_low(&[place], &[Some(floor)]).is_empty(), fits, "{place:?}");
            assert!(too_low(&[place], &[None]).is_empty(), "{place:?}: nothing was known");
        }
    }

    fn random(dice: &mut Dice) -> (Asked, Option<Place>) {
        let begin = dice.below(20);
        let operation = asked(begin, (dice.below(5) > 0).then(|| begin + dice.below(8)));
        let place = match dice.below(3) {
            0 => None,
            1 => Some(Place::Made(dice.below(9))),
            _ => Some(Place::LookedAt(dice.below(9))),
        };
        (operation, place)
    }

    #[test]
    fn the_sweep_finds_what_each_pair_says() {
        let mut known = 0;
        for seed in 0..2_000 {
            let mut dice = Dice::new(seed);
            let count = 1 + dice.below(8);
            let (operations, places): (Vec<Asked>, Vec<Option<Place>>) = (0..count).map(|_| random(&mut dice)).unzip();
            for (number, floor) in floors(&operations, &places).into_iter().enumerate() {
                let earlier = operations.iter().zip(&places).enumerate();
                let earlier = earlier
                    .filter(|(_, (other, _))| other.completed.is_some_and(|end| end < operations[number].invoked));
                let revisions = earlier.filter_map(|(by, (_, place))| Some((place.as_ref()?.revision(), by)));
                let expected = revisions.max().map(|(revision, by)| Floor { revision, by });
                assert_eq!(floor, expected, "seed {seed}, operation {number}");
                known += u64::from(floor.is_some());
            }
        }
        assert!(known > 1_000, "only {known} floors");
    }
}
