//! A set of keys made of ranges, for asking whether one key lies in any of many.
//!
//! Invariant: the ranges kept are not empty, and there is a gap between any two. So the only one that can hold a key
//! is the last that starts at or below it, and a question costs one look-up however many ranges were added.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// Start to end; `None` ends nowhere.
    ranges: BTreeMap<Bytes, Option<Bytes>>,
}

impl Cover {
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        let mut starting_at_or_below = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        starting_at_or_below.next_back().is_some_and(|(_, end)| end.as_ref().is_none_or(|end| &end[..] > key))
    }

    /// Adds `from..to`; nothing when that is empty.
    pub(super) fn add(&mut self, mut from: Bytes, mut to: Option<Bytes>) {
        if to.as_ref().is_some_and(|to| *to <= from) {
            return;
        }
        while let Some((start, end)) = self.last_touching(&from, to.as_ref()) {
            self.ranges.remove(&start);
            from = from.min(start);
            to = later(to, end);
        }
        self.ranges.insert(from, to);
    }

    /// Adds everything `other` holds.
    pub(super) fn absorb(&mut self, other: Cover) {
        for (from, to) in other.ranges {
            self.add(from, to);
        }
    }

    /// The last kept range that overlaps `from..to` or borders on it.
    fn last_touching(&self, from: &Bytes, to: Option<&Bytes>) -> Option<(Bytes, Option<Bytes>)> {
        let last_start = to.map_or(Bound::Unbounded, Bound::Included);
        let (start, end) = self.ranges.range::<Bytes, _>((Bound::Unbounded, last_start)).next_back()?;
        let touches = end.as_ref().is_none_or(|end| end >= from);
        touches.then(|| (start.clone(), end.clone()))
    }
}

/// The later of two ends.
fn later(a: Option<Bytes>, b: Option<Bytes>) -> Option<Bytes> {
    Some(a?.max(b?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_any_range_holds(ranges in prop::collection::vec((0u8..12, prop::option::of(0u8..12)), 0..8)) {
            let mut cover = Cover::default();
            for &(from, to) in &ranges {
                cover.add(vec![from].into(), to.map(|to| vec![to].into()));
            }
            for key in 0..13 {
                let expected = ranges.iter().any(|&(from, to)| from <= key && to.is_none_or(|to| key < to));
                prop_assert_eq!(cover.contains(&[key]), expected, "{} in {:?}", key, cover);
            }
        }
    }
}
