//! A test's form and seed, and whose turn it is.
//!
//! Tests run beside each other on few cores. Those that measure time take their turn alone; the others share it.

use std::env;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use trefoil_world::random;

static TURN: RwLock<()> = RwLock::const_new(());

/// Waits until no other test runs, and keeps them waiting.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// Waits until no test runs that must be alone.
pub async fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

/// How a test is run this time.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub full: bool,
    pub seed: u64,
}

impl Scenario {
    /// Reads form and seed, and prints how to repeat this run: libtest shows it with every failure.
    pub fn begin(test: &str) -> Scenario {
        let full = env::var("SHOW").is_ok_and(|show| show == "full");
        let given = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(random::next_u64);
        let show = if full { "SHOW=full " } else { "" };
        println!(
            "{test}: seed {seed}; to repeat: {show}SEED={seed} cargo test --release --workspace --test cluster -- \
             --exact {test} --nocapture"
        );
        Scenario { full, seed }
    }

    /// The figure of the form that is run.
    pub fn pick<T>(self, full: T, short: T) -> T {
        if self.full { full } else { short }
    }

    /// Random choices that come again with the same seed.
    pub fn dice(self) -> Dice {
        Dice(self.seed)
    }
}

/// A seeded stream of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// Up to `max` random bytes.
    pub fn bytes(&mut self, max: u64) -> Vec<u8> {
        let length = self.below(max + 1);
        (0..length).map(|_| self.roll() as u8).collect()
    }
}
