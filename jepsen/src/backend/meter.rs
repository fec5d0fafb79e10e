//! What passed on lines, as it was measured: the only thing that tells whether a line is cut.
//!
//! Something is offered on every line, and what comes out at its other end is counted. Rules that were made, and what a
//! table says of itself, do not count. Pure; who counts are the proxies and the router.

use std::collections::{BTreeMap, BTreeSet};

use super::{Line, node_name};

/// One line, in a window of time: bytes of a proxy's line, datagrams of a router's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// What was given in at one end.
    pub offered: u64,
    /// What came out at the other one.
    pub passed: u64,
}

/// All lines between nodes, in one window of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured(pub BTreeMap<Line, Metered>);

impl Measured {
    /// Where it is not as when these lines, and no others, are cut: in words, of the first such line. A line on which
    /// nothing was offered proves nothing, and is one.
    pub fn unlike(&self, cut: &BTreeSet<Line>) -> Option<String> {
        let unknown = cut.iter().find(|line| !self.0.contains_key(line));
        if let Some(Line { from, to }) = unknown {
            return Some(format!("nobody has measured what {} sends to {}", node_name(*from), node_name(*to)));
        }
        self.0.iter().find_map(|(line, metered)| {
            let why = wrong(*metered, cut.contains(line))?;
            Some(format!("of what {} sends to {} {why}", node_name(line.from), node_name(line.to)))
        })
    }

    /// What was seen, given that it is as when these lines are cut.
    pub fn told(&self, cut: &BTreeSet<Line>) -> String {
        let offered: u64 = cut.iter().filter_map(|line| self.0.get(line)).map(|metered| metered.offered).sum();
        let open = self.0.keys().filter(|line| !cut.contains(line)).count();
        match cut.len() {
            0 => format!("all {open} lines pass what is offered"),
            lines => format!("on {lines} lines nothing passes of {offered} offered; {open} others pass"),
        }
    }
}

fn wrong(metered: Metered, cut: bool) -> Option<String> {
    let Metered { offered, passed } = metered;
    match (offered, passed, cut) {
        (0, _, _) => Some("there was nothing".to_owned()),
        (_, 0, false) => Some(format!("nothing passes ({offered} offered)")),
        (_, 1.., true) => Some(format!("{passed} of {offered} pass")),
        (_, 0, true) | (_, 1.., false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_when_something_was_offered_and_nothing_passed() {
        // What was offered and what passed from n1 to n2, whether it should be cut, and what is wrong.
        let cases = [
            (9, 0, true, None),
            (9, 9, false, None),
            (9, 1, false, None),
            (0, 0, true, Some("there was nothing")),
            (0, 0, false, Some("there was nothing")),
            (9, 0, false, Some("nothing passes (9 offered)")),
            (9, 9, true, Some("9 of 9 pass")),
            (9, 1, true, Some("1 of 9 pass")),
        ];
        let (there, back) = (Line { from: 0, to: 1 }, Line { from: 1, to: 0 });
        for (offered, passed, cut, wrong) in cases {
            let other = Metered { offered: 1, passed: 1 };
            let measured = Measured(BTreeMap::from([(there, Metered { offered, passed }), (back, other)]));
            let cut = if cut { BTreeSet::from([there]) } else { BTreeSet::new() };
            let said = wrong.map(|wrong| format!("of what n1 sends to n2 {wrong}"));
            assert_eq!(measured.unlike(&cut), said, "{measured:?}");
        }
    }

    #[test]
    fn a_line_nobody_has_measured_is_not_known_to_be_cut() {
        let cut = BTreeSet::from([Line { from: 2, to: 0 }]);
        assert!(Measured::default().unlike(&cut).is_some_and(|said| said.contains("n3 sends to n1")));
        assert_eq!(Measured::default().unlike(&BTreeSet::new()), None);
    }

    #[test]
    fn what_was_seen_is_said_with_what_was_offered() {
        let line = |from, to| Line { from, to };
        let metered = |passed| Metered { offered: 7, passed };
        let measured =
            Measured(BTreeMap::from([(line(0, 1), metered(0)), (line(1, 0), metered(0)), (line(0, 2), metered(7))]));
        let cut = BTreeSet::from([line(0, 1), line(1, 0)]);
        assert_eq!(measured.unlike(&cut), None);
        assert_eq!(measured.told(&cut), "on 2 lines nothing passes of 14 offered; 1 others pass");
        assert_eq!(measured.told(&BTreeSet::new()), "all 3 lines pass what is offered");
    }
}
