//! What a search walks along, and what it remembers of where it was.
//!
//! [`Line`] is a doubly linked list of beginnings and ends in the order of time. An operation that is taken leaves it, and
//! comes back to its place when it is put back; the last one taken is put back first. [`Numbers`] is a set that is nearly
//! full below some number and empty above: its key is as long as what lies between.

use crate::history::Nanos;

/// A beginning has its operation's number, an end its time.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Begin(usize),
    End(Nanos),
}

pub(super) struct Line {
    entries: Vec<Entry>,
    /// By entry. One more than there are entries: the last one is both ends of the line.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// By operation: the entries of its beginning and of its end.
    spans: Vec<(usize, usize)>,
}

impl Line {
    /// Operation `n` has the `n`th interval.
    pub(super) fn new(intervals: impl Iterator<Item = (Nanos, Nanos)>) -> Line {
        let mut moments: Vec<(Nanos, bool, usize)> = Vec::new();
        for (number, (invoked, completed)) in intervals.enumerate() {
            moments.extend([(invoked, false, number), (completed, true, number)]);
        }
        // At equal times beginnings come first: closed intervals that touch are concurrent.
        moments.sort_unstable();
        let count = moments.len();
        let mut line = Line {
            entries: Vec::with_capacity(count),
            next: (0..=count).map(|entry| (entry + 1) % (count + 1)).collect(),
            previous: (0..=count).map(|entry| (entry + count) % (count + 1)).collect(),
            spans: vec![(0, 0); count / 2],
        };
        for (entry, (time, ends, number)) in moments.into_iter().enumerate() {
            if ends {
                line.spans[number].1 = entry;
                line.entries.push(Entry::End(time));
            } else {
                line.spans[number].0 = entry;
                line.entries.push(Entry::Begin(number));
            }
        }
        line
    }

    /// Not of a line that has become empty.
    pub(super) fn first(&self) -> usize {
        self.next[self.entries.len()]
    }

    /// Of a beginning: there is an end behind it.
    pub(super) fn after(&self, entry: usize) -> usize {
        self.next[entry]
    }

    pub(super) fn entry(&self, entry: usize) -> Entry {
        self.entries[entry]
    }

    pub(super) fn begin(&self, number: usize) -> usize {
        self.spans[number].0
    }

    /// Numbers of the operations that begin before the first end.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = usize> {
        let mut entry = self.first();
        std::iter::from_fn(move || match self.entries.get(entry)? {
            Entry::Begin(number) => {
                entry = self.next[entry];
                Some(*number)
            }
            Entry::End(_) => None,
        })
    }

    pub(super) fn take(&mut self, number: usize) {
        let (begin, end) = self.spans[number];
        for entry in [begin, end] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last [`take`](Line::take) that is not undone yet.
    pub(super) fn put_back(&mut self, number: usize) {
        let (begin, end) = self.spans[number];
        for entry in [end, begin] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous] = entry;
            self.previous[next] = entry;
        }
    }
}

/// A set of numbers, 64 to a word. The last word is never empty.
#[derive(Default)]
pub(super) struct Numbers {
    words: Vec<u64>,
    /// So many words at the beginning are full.
    full: usize,
}

/// Of a number in its word.
fn bit(number: usize) -> u64 {
    1 << (number % 64)
}

impl Numbers {
    #[cfg(test)]
    fn holds(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| *word & bit(number) != 0)
    }

    pub(super) fn insert(&mut self, number: usize) {
        let word = number / 64;
        self.words.resize(self.words.len().max(word + 1), 0);
        self.words[word] |= bit(number);
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
    }

    /// A number that is in the set.
    pub(super) fn remove(&mut self, number: usize) {
        let word = number / 64;
        self.words[word] &= !bit(number);
        self.full = self.full.min(word);
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// Equal for equal sets, and for no others.
    pub(super) fn key(&self) -> (usize, Vec<u64>) {
        (self.full, self.words[self.full..].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::generator::Dice;

    #[test]
    fn keys_tell_sets_apart() {
        const COUNT: usize = 300;
        let mut dice = Dice::new(7);
        let mut order: Vec<usize> = (0..COUNT).collect();
        order.chunks_mut(40).for_each(|part| dice.shuffle(part));
        let (mut numbers, mut taken) = (Numbers::default(), 0);
        let (mut keys, mut sizes) = (BTreeMap::new(), BTreeSet::new());
        for _ in 0..20_000 {
            if taken == 0 || taken < COUNT && dice.below(100) < 51 {
                numbers.insert(order[taken]);
                taken += 1;
            } else {
                taken -= 1;
                numbers.remove(order[taken]);
            }
            assert!((0..COUNT).all(|place| numbers.holds(order[place]) == (place < taken)));
            assert_eq!(*keys.entry(numbers.key()).or_insert(taken), taken, "two sets have one key");
            sizes.insert(taken);
            assert_eq!(keys.len(), sizes.len(), "one set has two keys");
        }
        assert!(keys.keys().any(|(full, _)| *full > 2) && sizes.contains(&0));
    }

    #[test]
    fn what_is_put_back_is_where_it_was() {
        let mut line =
            Line::new([(0, 4), (1, 1), (1, 9), (4, 5)].map(|(from, to)| (Nanos(from), Nanos(to))).into_iter());
        assert_eq!(line.beginnings().collect::<Vec<_>>(), [0, 1, 2]);
        line.take(1);
        assert_eq!(line.beginnings().collect::<Vec<_>>(), [0, 2, 3], "what touches the first end is concurrent");
        line.take(0);
        line.put_back(0);
        line.put_back(1);
        assert_eq!(line.beginnings().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
