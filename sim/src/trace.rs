//! The trace: what happened in a run, line by line, and the sum by which two runs of a seed are compared.
//!
//! A line is a simulated time and what happened then. Nothing of the real world may be in it: no wall time, no address
//! in memory, no order of a hash map.

use std::fmt::Display;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// What happened. Clones write into the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    sum: Sha256,
    count: u64,
    shown: bool,
}

impl Trace {
    /// An empty trace; `shown` lines are also printed as they come.
    pub fn new(shown: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Lines { sum: Sha256::new(), count: 0, shown })))
    }

    /// Notes what happened at this simulated time, in milliseconds.
    pub fn line(&self, at_ms: u64, what: impl Display) {
        let line = format!("{at_ms:>7} {what}\n");
        let mut lines = self.lock();
        lines.sum.update(line.as_bytes());
        lines.count += 1;
        if lines.shown {
            // A reader that has gone away needs no trace.
            drop(std::io::stdout().write_all(line.as_bytes()));
        }
    }

    /// How many lines there are.
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// The SHA-256 of all lines, in hexadecimal.
    pub fn sha256(&self) -> String {
        self.lock().sum.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_and_its_time_count() {
        let sum = |lines: &[(u64, &str)]| {
            let trace = Trace::new(false);
            lines.iter().for_each(|(at_ms, what)| trace.line(*at_ms, what));
            trace.sha256()
        };
        assert_eq!(sum(&[(1, "a"), (2, "b")]), sum(&[(1, "a"), (2, "b")]));
        assert_ne!(sum(&[(1, "a"), (2, "b")]), sum(&[(2, "b"), (1, "a")]));
        assert_ne!(sum(&[(1, "a")]), sum(&[(2, "a")]));
    }
}
