//! What a run of tests is given and says: the seed that it comes from, and lines for whoever watches.

use std::env;
use std::io::{self, Write};

use trefoil_world::random;

/// `SEED`, or a fresh one. Whoever uses it prints it.
pub fn seed() -> u64 {
    let given = env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    given.unwrap_or_else(random::next_u64)
}

/// Past the capture of tests that pass: what is not shown must be seen.
pub fn say(line: &str) {
    io::stderr().write_all(line.as_bytes()).expect("somebody listens");
}
