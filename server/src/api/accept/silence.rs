//! For how long a reader has taken nothing while something waited for it: pure, told the time.
//!
//! It begins anew with each look that finds that something was taken, or that nothing waits.

use trefoil_world::clock;

use crate::api::READER_PATIENCE;

/// How long a reader has taken nothing of what waits for it.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<clock::Instant>,
    /// Bytes taken by the last look.
    taken: u64,
}

impl Silence {
    /// Looks at a reader that has taken so much in all, and for whom something waits, or not.
    pub(super) fn is_too_long(&mut self, now: clock::Instant, awaited: bool, taken: u64) -> bool {
        let took = std::mem::replace(&mut self.taken, taken) != taken;
        if took || !awaited || self.since.is_none() {
            self.since = awaited.then_some(now);
        }
        self.since.is_some_and(|since| now - since >= READER_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reader_is_given_up_when_it_takes_nothing_of_what_waits() {
        // At each look: the seconds since the first, whether something waits, bytes taken so far, whether it is given up.
        let scenarios: [&[(u64, bool, u64, bool)]; 5] = [
            &[(0, true, 0, false), (29, true, 0, false), (30, true, 0, true)],
            &[
                (0, false, 0, false),
                (40, false, 0, false),
                (80, true, 0, false),
                (109, true, 0, false),
                (110, true, 0, true),
            ],
            &[(0, true, 0, false), (25, true, 1, false), (50, true, 1, false), (55, true, 1, true)],
            &[
                (0, true, 0, false),
                (25, false, 0, false),
                (50, true, 0, false),
                (75, true, 0, false),
                (80, true, 0, true),
            ],
            &[(0, true, 7, false), (20, true, 8, false), (40, true, 9, false), (60, true, 10, false)],
        ];
        let start = clock::now();
        for looks in scenarios {
            let mut silence = Silence::default();
            for &(seconds, awaited, taken, given_up) in looks {
                let now = start + Duration::from_secs(seconds);
                assert_eq!(silence.is_too_long(now, awaited, taken), given_up, "{looks:?}: at {seconds}");
            }
        }
    }
}
