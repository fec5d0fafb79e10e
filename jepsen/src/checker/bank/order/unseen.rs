//! Transfers that may have been done and that nobody saw: what they can have moved in one account.
//!
//! An account's version tells how many transfers it was in, its balance how much these moved together. Where that is more
//! than what is known accounts for, some of these transfers must have been in between.
//!
//! Left out: that a transfer can have been done only once, and in both of its accounts at one revision; for three or more
//! of them, whether their sum can be made exactly.

use std::collections::BTreeMap;

/// Of one account.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// By what a transfer moves: the lowest revision above which one can have been done.
    floors: BTreeMap<i128, u64>,
    /// What each moves, ascending.
    moved: Vec<i128>,
    /// Sums of the first ones of these, from that of none on.
    sums: Vec<i128>,
}

impl Unseen {
    /// Each with the revision above which it can have been done, and with what it moves.
    pub(super) fn new(transfers: Vec<(u64, i128)>) -> Unseen {
        let mut unseen = Unseen::default();
        for (floor, moved) in transfers {
            let lowest = unseen.floors.entry(moved).or_insert(floor);
            *lowest = floor.min(*lowest);
            unseen.moved.push(moved);
        }
        unseen.moved.sort_unstable();
        unseen.sums.push(0);
        for moved in &unseen.moved {
            unseen.sums.extend(unseen.sums.last().map(|sum| sum + moved));
        }
        unseen
    }

    /// Whether so many of them, done below a revision, can have moved so much together. It may say so when they cannot.
    pub(super) fn can_have(&self, count: u64, moved: i128, below: u64) -> bool {
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= self.moved.len()) else { return false };
        match count {
            0 => moved == 0,
            1 => self.is_possible(moved, below),
            2 => self.floors.keys().any(|one| self.is_possible(*one, below) && self.is_possible(moved - one, below)),
            _ => (self.lowest(count)..=self.highest(count)).contains(&moved),
        }
    }

    fn is_possible(&self, moved: i128, below: u64) -> bool {
        self.floors.get(&moved).is_some_and(|floor| floor.saturating_add(1) < below)
    }

    fn lowest(&self, count: usize) -> i128 {
        self.sums[count]
    }

    fn highest(&self, count: usize) -> i128 {
        let all = self.moved.len();
        self.sums[all] - self.sums[all - count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Dice;

    #[test]
    fn what_some_of_them_move_is_possible() {
        let unseen = Unseen::new(vec![(3, 5), (7, -2), (9, 5)]);
        /// How many, what they move, below which revision, and whether they can have.
        type Case = (u64, i128, u64, bool);
        let cases: [Case; 13] = [
            (0, 0, 20, true),
            (0, 1, 20, false),
            (1, 5, 20, true),
            (1, 5, 5, true),
            (1, 5, 4, false),
            (1, 4, 20, false),
            (2, 3, 20, true),
            (2, 3, 8, false),
            (2, 4, 20, false),
            (3, 8, 20, true),
            (3, 13, 20, false),
            (4, 8, 20, false),
            (u64::MAX, 8, 20, false),
        ];
        for (count, moved, below, can) in cases {
            assert_eq!(unseen.can_have(count, moved, below), can, "{count} of them, {moved}, below {below}");
        }
        assert!(Unseen::new(vec![]).can_have(0, 0, 1) && !Unseen::new(vec![]).can_have(1, 0, 9));
    }

    /// Every choice of some of them that were invoked early enough is possible.
    #[test]
    fn no_choice_is_missed() {
        for seed in 0..500 {
            let mut dice = Dice::new(seed);
            let count = dice.below(6);
            let transfers: Vec<(u64, i128)> =
                (0..count).map(|_| (dice.below(10), i128::from(dice.below(9)) - 4)).collect();
            let unseen = Unseen::new(transfers.clone());
            let below = 2 + dice.below(10);
            let choices = 1_u32 << count;
            for choice in 0..choices {
                let chosen: Vec<(u64, i128)> = (0_u32..)
                    .zip(&transfers)
                    .filter(|(bit, _)| (choice >> bit) & 1 == 1)
                    .map(|(_, one)| *one)
                    .collect();
                if chosen.iter().all(|(floor, _)| floor + 1 < below) {
                    let moved: i128 = chosen.iter().map(|(_, moved)| moved).sum();
                    assert!(
                        unseen.can_have(chosen.len() as u64, moved, below),
                        "seed {seed}: {chosen:?} below {below}"
                    );
                }
            }
        }
    }
}
