//! The rules of lines, as values: what is cut, which weather there is, which connections are broken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::backend::Cut;
use crate::generator::Dice;

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    pub from: usize,
    pub to: usize,
}

impl Line {
    pub(crate) fn of(cut: &Cut) -> Line {
        Line { from: cut.from, to: cut.to }
    }

    pub(super) fn back(self) -> Line {
        Line { from: self.to, to: self.from }
    }

    /// Both directions between every two nodes.
    pub(super) fn all(nodes: usize) -> BTreeSet<Line> {
        (0..nodes).flat_map(|node| Line::of_node(node, nodes)).collect()
    }

    /// Both directions between a node and each of the others.
    pub fn of_node(node: usize, nodes: usize) -> BTreeSet<Line> {
        let others = (0..nodes).filter(move |&other| other != node);
        others.flat_map(|other| [Line { from: node, to: other }, Line { from: other, to: node }]).collect()
    }
}

/// How bytes get through a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Later by `delay`, and by up to `jitter` more, which `seed` chooses.
    Slow { delay: Duration, jitter: Duration, seed: u64 },
    /// So many a second, above 0.
    Drip { bytes_per_second: u64 },
}

impl Weather {
    /// How much later what is read now gets through.
    pub(super) fn later(self, dice: &mut Dice) -> Duration {
        match self {
            Weather::Slow { delay, jitter, .. } => {
                delay + Duration::from_micros(dice.below(jitter.as_micros() as u64 + 1))
            }
            Weather::Drip { .. } => Duration::ZERO,
        }
    }
}

/// How a connection is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Break {
    /// Both ends are closed with bytes unread: a reset.
    Reset,
    /// The far end is closed. The node's own end stays open and silent, until all is healed.
    HalfOpen,
}

/// What holds now.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) cuts: BTreeSet<Line>,
    pub(super) weather: BTreeMap<Line, Weather>,
    /// Of each node the number of the last time its connections were broken, and how.
    broken: BTreeMap<usize, (u64, Break)>,
    /// Counts the times connections were broken.
    breaks: u64,
    /// The breaks up to this number are healed.
    healed: u64,
    /// The proxies are ending.
    pub(super) over: bool,
}

impl Rules {
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.weather.clear();
        self.healed = self.breaks;
    }

    pub(super) fn break_all(&mut self, node: usize, how: Break) {
        self.breaks += 1;
        self.broken.insert(node, (self.breaks, how));
    }

    /// The last time connections between these nodes were broken: its number, whose they were, and how. 0: never.
    pub(super) fn last_break(&self, nodes: [usize; 2]) -> (u64, Option<(usize, Break)>) {
        let times = nodes.iter().filter_map(|node| self.broken.get(node).map(|&(number, how)| (number, *node, how)));
        times.max().map_or((0, None), |(number, node, how)| (number, Some((node, how))))
    }

    /// Whether all was healed since the break of this number.
    pub(super) fn is_healed(&self, number: u64) -> bool {
        number <= self.healed
    }

    pub(super) fn is_open(&self, line: Line) -> bool {
        !self.cuts.contains(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_break_is_told_from_those_before_it() {
        let mut rules = Rules::default();
        assert_eq!(rules.last_break([0, 1]), (0, None));
        rules.break_all(1, Break::Reset);
        let (first, _) = rules.last_break([0, 1]);
        rules.break_all(0, Break::HalfOpen);
        let (second, by) = rules.last_break([0, 1]);
        assert!(second > first && by == Some((0, Break::HalfOpen)));
        assert!(!rules.is_healed(first));
        rules.heal();
        assert!(rules.is_healed(first) && rules.is_healed(second));
        rules.break_all(1, Break::Reset);
        let (third, by) = rules.last_break([0, 1]);
        assert!(third > second && by == Some((1, Break::Reset)), "healing takes no number back");
        assert!(!rules.is_healed(third), "it came after the healing");
        assert_eq!(rules.last_break([2, 3]), (0, None));
    }

    #[test]
    fn slow_lines_are_late_by_what_they_were_told_and_not_all_the_same() {
        let (delay, jitter) = (Duration::from_millis(20), Duration::from_millis(5));
        let (weather, mut dice) = (Weather::Slow { delay, jitter, seed: 7 }, Dice::new(7));
        let late: BTreeSet<Duration> = (0..100).map(|_| weather.later(&mut dice)).collect();
        assert!(late.len() > 10 && late.iter().all(|late| (delay..=delay + jitter).contains(late)), "{late:?}");
        assert_eq!(Weather::Drip { bytes_per_second: 1 }.later(&mut dice), Duration::ZERO);
    }

    #[test]
    fn a_node_has_two_lines_with_each_other_one() {
        let lines = Line::of_node(1, 3);
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| (line.from == 1) != (line.to == 1) && lines.contains(&line.back())));
        assert_eq!((Line::all(3).len(), Line::all(1).len()), (6, 0));
    }
}
