//! Time. Monotonic time and timers are tokio's, so that a paused runtime can move them; wall time is the world's.

use std::time::{SystemTime, UNIX_EPOCH};

pub use tokio::time::{
    Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, sleep_until, timeout, timeout_at,
};

/// Monotonic time. Call it inside a runtime: a simulation's clock is its runtime's.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970. May jump in either direction: never compare two readings to measure a duration.
pub fn wall_ms() -> u64 {
    match crate::simulated() {
        Some(world) => world.wall_ms(),
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
    }
}
