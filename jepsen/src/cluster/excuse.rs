//! Which ends of nodes are excused: those a fault has given reason to, and that came of it.
//!
//! A reason alone excuses nothing: a node may crash for another one while it has it. So the exit code must fit, and what
//! the node has said, or what the shim has done to its calls, must say that the end came of the fault.

use super::Node;
use super::disk::Word;

/// The exit code of a node whose disk has failed, or that cannot read what it stored.
const DISK: i32 = 74;
/// The exit code of a node that could not start.
const NOT_STARTED: i32 = 1;
/// What a node says last when it ends by itself.
const SAYS: &str = "kvd: ";
/// What it says then when it is not at its start.
const STOPS: &str = "stopping at once: ";
/// What a write or a sync that failed is called there.
const FAILED_CALLS: [&str; 2] = ["write-ahead log: ", "i/o: "];
/// What no call that failed makes of anything.
const CORRUPT: &str = "corrupt";

/// Why a node may end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its disk fails.
    DiskFails,
    /// It may find that its directory is not whole, and then does not start.
    Directory,
}

/// How a node has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    /// Nothing: by a signal.
    pub(super) code: Option<i32>,
    /// On stderr, since its start.
    pub(super) said: &'a str,
    /// Whether it had been ready.
    pub(super) ready: bool,
    /// How many calls of this process the shim has made fail.
    pub(super) calls_failed: u64,
}

impl EndReason {
    /// Whether it came to this end for this reason.
    pub(super) fn excuses(self, end: End<'_>) -> bool {
        let last = end.said.lines().next_back().and_then(|line| line.strip_prefix(SAYS));
        match self {
            EndReason::DiskFails => end.code == Some(DISK) && of_failed_calls(last, end.calls_failed),
            EndReason::Directory => end.code == Some(NOT_STARTED) && !end.ready && last.is_some(),
        }
    }
}

/// Its last words name a call that failed; or there was one, and they name nothing that it cannot have come to.
fn of_failed_calls(last: Option<&str>, calls_failed: u64) -> bool {
    let why = last.and_then(|line| line.strip_prefix(STOPS)).unwrap_or_default();
    let named = FAILED_CALLS.iter().any(|call| why.starts_with(call));
    !why.contains(CORRUPT) && (named || calls_failed > 0)
}

impl Node {
    /// How many calls of its last process the shim has made fail. What cannot be read has not happened.
    pub(super) fn calls_failed(&self) -> u64 {
        let Some(sidecar) = &self.sidecar else { return 0 };
        [Word::SyncsFailed, Word::WritesRefused].into_iter().filter_map(|word| sidecar.word(word).ok()).sum()
    }

    /// Has the shim count anew, for the next process.
    pub(super) fn forget_failed_calls(&self) -> anyhow::Result<()> {
        let Some(sidecar) = &self.sidecar else { return Ok(()) };
        sidecar.set(Word::SyncsFailed, 0)?;
        sidecar.set(Word::WritesRefused, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "INFO ready to serve client requests\n";

    /// Its last line, behind others.
    fn said(last: &str) -> String {
        format!("{READY}WARN nothing to do with it: write-ahead log: no\n{last}\n")
    }

    #[test]
    fn an_end_is_excused_by_a_call_that_failed() {
        // Exit code, last words, calls the shim made fail, and whether that excuses it.
        let cases = [
            (Some(74), "kvd: stopping at once: write-ahead log: IO error: Input/output error", 0, true),
            (Some(74), "kvd: stopping at once: i/o: No space left on device", 0, true),
            (Some(74), "kvd: stopping at once: r4 of partition 1/0 stopped: storage", 1, true),
            (Some(74), "kvd: stopping at once: r4 of partition 1/0 stopped: storage", 0, false),
            (Some(74), "kvd: stopping at once: replica r1: corrupt: a row", 0, false),
            (Some(74), "kvd: stopping at once: replica r1: corrupt: a row", 9, false),
            (Some(74), "kvd: stopping at once: write-ahead log: corrupt: i/o: a row", 9, false),
            // The last words were lost: the shim knows better.
            (Some(74), "WARN something else", 1, true),
            (Some(74), "WARN something else", 0, false),
            (Some(70), "kvd: stopping at once: panicked at write-ahead log: ", 1, false),
            (Some(1), "kvd: stopping at once: write-ahead log: no", 1, false),
            (None, "kvd: stopping at once: write-ahead log: no", 1, false),
        ];
        for (code, last, calls_failed, excused) in cases {
            let said = said(last);
            let end = End { code, said: &said, ready: true, calls_failed };
            assert_eq!(EndReason::DiskFails.excuses(end), excused, "{code:?}, {calls_failed} failed: {last}");
        }
    }

    #[test]
    fn a_node_that_does_not_start_is_excused_before_it_was_ready_and_with_a_reason() {
        let refused = "kvd: n1: the history ends before the mark";
        let cases = [
            (Some(1), false, refused, true),
            (Some(1), true, refused, false),
            (Some(1), false, "WARN something else", false),
            (Some(1), false, "", false),
            (Some(74), false, refused, false),
            (None, false, refused, false),
        ];
        for (code, ready, said, excused) in cases {
            let end = End { code, said, ready, calls_failed: 1 };
            assert_eq!(EndReason::Directory.excuses(end), excused, "{code:?}, ready: {ready}, {said}");
        }
    }
}
