//! Which operations a line of evidence is about.
//!
//! Checkers name operations in three ways: `event 4`, `T4` (a transaction asked for at event 4), and, of registers,
//! by process and invocation: `p3 read r1: … [1.000000 ms to …]`. What looks like a name and is none of the history
//! is text.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{Operation, Run};
use crate::checker::Valid;

/// Names of operations in a counter-example that are followed; the first ones.
const MARKED_MAX: usize = 40;

/// The operations of a run, by the names that evidence has for them.
pub(super) struct Marks<'a> {
    by_index: BTreeMap<usize, &'a Operation>,
    /// By process and invocation in nanoseconds.
    by_begin: BTreeMap<(u64, u64), usize>,
    marked: BTreeSet<usize>,
}

/// A name in a line, and the index of the operation it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Range<usize>,
    pub(super) index: usize,
}

impl<'a> Marks<'a> {
    pub(super) fn of(run: &'a Run) -> Marks<'a> {
        let by_index = run.operations.iter().map(|operation| (operation.index, operation)).collect();
        let begin = |operation: &Operation| ((operation.process.0, operation.invoked.0), operation.index);
        let by_begin = run.operations.iter().map(begin).collect();
        let mut marks = Marks { by_index, by_begin, marked: BTreeSet::new() };
        let wrong = run.verdicts.iter().filter(|verdict| verdict.valid == Valid::False);
        let named = wrong.flat_map(|verdict| &verdict.evidence).flat_map(|line| marks.find(line));
        let marked: BTreeSet<usize> = named.map(|mark| mark.index).take(MARKED_MAX).collect();
        marks.marked = marked;
        marks
    }

    /// The operations that the evidence against the run is about.
    pub(super) fn marked(&self) -> &BTreeSet<usize> {
        &self.marked
    }

    pub(super) fn operation(&self, index: usize) -> Option<&'a Operation> {
        self.by_index.get(&index).copied()
    }

    /// The names in a line, from left to right.
    pub(super) fn find(&self, line: &str) -> Vec<Mark> {
        let mut found: Vec<Mark> = self.by_process(line).into_iter().collect();
        let known = |index: &usize| self.by_index.contains_key(index);
        for (at, word) in words(line) {
            let number = match word.strip_prefix('T') {
                Some(number) => number,
                None if line[..at.start].ends_with("event ") => word,
                None => continue,
            };
            if let Some(index) = number.parse::<usize>().ok().filter(known) {
                found.push(Mark { at, index });
            }
        }
        found
    }

    /// A line that is an operation: `p3 … [1.000000 ms to …`.
    fn by_process(&self, line: &str) -> Option<Mark> {
        let start = line.len() - line.trim_start().len();
        let (name, rest) = line[start..].split_once(' ')?;
        let process: u64 = name.strip_prefix('p')?.parse().ok()?;
        let (_, begin) = rest.rsplit_once(" ms to ")?.0.rsplit_once('[')?;
        let (ms, ns) = begin.split_once('.')?;
        let invoked = ms.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(ns.parse().ok()?)?;
        let index = *self.by_begin.get(&(process, invoked))?;
        Some(Mark { at: start..start + name.len(), index })
    }
}

/// The words of letters and digits in a line, and where they are.
fn words(line: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let between = |letter: char| !letter.is_ascii_alphanumeric();
    let mut start = 0;
    line.split_inclusive(between).map(move |piece| {
        let word = piece.trim_end_matches(between);
        let at = start..start + word.len();
        start += piece.len();
        (at, word)
    })
}
