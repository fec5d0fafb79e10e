//! Randomness: the operating system's, or a simulation's seeded stream.

use std::convert::Infallible;

use rand::{Rng, TryRng};

/// A random number.
pub fn next_u64() -> u64 {
    match crate::simulated() {
        Some(world) => world.random_u64(),
        None => rand::rng().next_u64(),
    }
}

/// A random number for ids that must never meet again.
pub fn next_u128() -> u128 {
    u128::from(next_u64()) << 64 | u128::from(next_u64())
}

/// The world's randomness as a `rand` generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorldRng;

impl TryRng for WorldRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(next_u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&next_u64().to_be_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
