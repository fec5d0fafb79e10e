//! A watcher: a load beside the workload's, which knows what it must see and is judged by that alone.
//!
//! Its tasks share what they have seen, and whether they were told to stop. What they ask, and what they take for a
//! violation, is theirs: `session.rs` and `folders.rs` are watchers. The client that compacts, which the harness has too, has
//! a frame of its own (`jepsen/src/compaction.rs`).
//!
//! Invariants:
//!
//! * With a violation the verdict is false, whatever else was seen. Without one it is true only if enough was answered.
//! * Of the violations the first ones are kept, and no more than are told.
//!
//! Left out: waiting for its tasks. One that was told to stop ends what it had begun, and the run does not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trefoil_jepsen::checker::Verdict;

/// Violations that are told.
const TOLD_MAX: usize = 10;

/// What a watcher has seen, and what that comes to.
pub trait Judged {
    const CHECKER: &'static str;

    fn violations(&self) -> &Violations;

    /// What was answered, if that is too little for a verdict.
    fn lacks(&self) -> Option<String>;
}

/// What must not have been seen, a line for a person each.
#[derive(Debug, Default)]
pub struct Violations(Vec<String>);

impl Violations {
    pub fn add(&mut self, what: String) {
        if self.0.len() < TOLD_MAX {
            self.0.push(what);
        }
    }

    pub fn told(&self) -> &[String] {
        &self.0
    }
}

/// See the file's head. Clones are the same watcher.
#[derive(Default)]
pub struct Watcher<S>(Arc<Shared<S>>);

#[derive(Default)]
struct Shared<S> {
    seen: Mutex<S>,
    stopped: AtomicBool,
}

impl<S> Clone for Watcher<S> {
    fn clone(&self) -> Watcher<S> {
        Watcher(Arc::clone(&self.0))
    }
}

impl<S: Judged> Watcher<S> {
    /// Nothing more is asked than what was begun.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Relaxed)
    }

    /// What was found; unknown when too little was answered.
    pub fn verdict(&self) -> Verdict {
        let seen = self.seen();
        match (seen.violations().told(), seen.lacks()) {
            ([], None) => Verdict::valid(S::CHECKER),
            ([], Some(why)) => Verdict::unknown(S::CHECKER, why),
            (violations, _) => Verdict::invalid(S::CHECKER, violations.to_vec()),
        }
    }

    pub fn seen(&self) -> MutexGuard<'_, S> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use trefoil_jepsen::checker::Valid;

    use super::*;

    #[derive(Default)]
    struct Answers {
        answers: u64,
        violations: Violations,
    }

    impl Judged for Answers {
        const CHECKER: &'static str = "answers";

        fn violations(&self) -> &Violations {
            &self.violations
        }

        fn lacks(&self) -> Option<String> {
            (self.answers == 0).then(|| "no answers".to_owned())
        }
    }

    /// How many answers there were and how many violations; the verdict, and how many lines it has.
    type Case = (u64, usize, Valid, usize);

    #[test]
    fn what_was_seen_is_judged() {
        let cases: [Case; 5] = [
            (1, 0, Valid::True, 0),
            (0, 0, Valid::Unknown, 1),
            (1, 1, Valid::False, 1),
            (0, 1, Valid::False, 1),
            (1, TOLD_MAX + 1, Valid::False, TOLD_MAX),
        ];
        for (answers, violations, valid, lines) in cases {
            let watcher: Watcher<Answers> = Watcher::default();
            watcher.seen().answers = answers;
            (0..violations).for_each(|number| watcher.clone().seen().violations.add(number.to_string()));
            let verdict = watcher.verdict();
            assert_eq!((verdict.valid, verdict.evidence.len()), (valid, lines), "{answers}, {violations}");
            assert_eq!(verdict.checker, Answers::CHECKER);
        }
    }

    #[test]
    fn clones_stop_together() {
        let watcher: Watcher<Answers> = Watcher::default();
        let task = watcher.clone();
        assert!(!task.is_stopped());
        watcher.stop();
        assert!(task.is_stopped());
    }
}
