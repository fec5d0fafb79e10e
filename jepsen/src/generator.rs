//! Seeded choices: all that is random in a run comes from one number.

/// A stream of numbers (splitmix64, Steele, Lea and Flood 2014): the same seed, the same stream.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        self.roll() % bound
    }

    pub fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// One of `choices`, of which there is at least one.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Every order is as likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// A stream of its own, for a part whose choices must not depend on how often others choose.
    pub fn split(&mut self) -> Dice {
        Dice(self.roll())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_the_same_choices() {
        let choices = |seed| {
            let mut dice = Dice::new(seed);
            let mut order: Vec<u64> = (0..10).collect();
            dice.shuffle(&mut order);
            (order, dice.below(100), dice.flag(), *dice.pick(&[1, 2, 3]))
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
    }
}
