//! What all plots have in common: their frame, the ticks, the faults in the background, the legend.

use super::html::{moment, text};
use super::scale::{LEFT, RIGHT, Tick, Time, WIDTH};
use super::{Ended, Fault, Force, Run};
use crate::history::Nanos;

/// Room below a plot's area for the labels of time.
pub(super) const FOOT: f64 = 24.0;

/// A plot's area, from top to bottom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) time: Time,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Area {
    /// An image of this area; `body` is markup, drawn above the shades of `faults` and the lines of `ticks`. `name`
    /// is for those who do not see it.
    pub(super) fn image(&self, faults: &[Fault], name: &str, ticks: &[Tick], body: &str) -> String {
        let height = self.bottom + FOOT;
        let shades: String = faults.iter().map(|fault| self.shade(fault)).collect();
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n\
             {shades}{}{}{body}</svg>\n",
            text(name),
            self.across(ticks),
            self.along(),
        )
    }

    /// A fault as a shade over all the area's height, from when it was seen at work. Nothing for what was never
    /// injected.
    fn shade(&self, fault: &Fault) -> String {
        let (from, class) = match &fault.force {
            Force::Seen { at, .. } => (*at, "shade seen"),
            Force::Unseen { .. } => (fault.injected, "shade unseen"),
            Force::Unsupported { .. } => return String::new(),
        };
        self.bar(fault, from, (self.top, self.bottom), class)
    }

    /// A box from `from` until the fault was healed, at least a unit wide; pointed at, it tells the fault.
    pub(super) fn bar(&self, fault: &Fault, from: Nanos, y: (f64, f64), class: &str) -> String {
        let (left, right) = (self.time.x(from), fault.healed.map_or(RIGHT, |healed| self.time.x(healed)));
        format!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{}</title></rect>\n",
            y.0,
            (right - left).max(1.0),
            y.1 - y.0,
            text(&told(fault)),
        )
    }

    /// Lines from left to right with their labels.
    fn across(&self, ticks: &[Tick]) -> String {
        let line = |Tick { at, label }: &Tick| {
            format!(
                "<path class=\"grid-line\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>\
                 <text class=\"tick end\" x=\"{:.0}\" y=\"{:.1}\">{}</text>\n",
                LEFT - 8.0,
                at + 4.0,
                text(label),
            )
        };
        ticks.iter().map(line).collect()
    }

    /// The labels of time, and the line they stand below.
    fn along(&self) -> String {
        let (bottom, low) = (self.bottom, self.bottom + 16.0);
        let mark = |Tick { at, label }: &Tick| {
            format!(
                "<path class=\"axis\" d=\"M{at:.1} {bottom}v4\"/>\
                 <text class=\"tick middle\" x=\"{at:.1}\" y=\"{low}\">{}</text>\n",
                text(label),
            )
        };
        let marks: String = self.time.ticks().iter().map(mark).collect();
        format!("<path class=\"axis\" d=\"M{LEFT} {bottom}H{RIGHT}\"/>\n{marks}")
    }
}

/// A fault in words.
pub(super) fn told(fault: &Fault) -> String {
    let until = fault.healed.map_or("the end".into(), |healed| moment(healed.0));
    let force = match &fault.force {
        Force::Unseen { why } => format!("not seen at work: {why}"),
        Force::Seen { at, what } => format!("seen at work at {}: {what}", moment(at.0)),
        Force::Unsupported { why } => format!("never put in force: {why}"),
    };
    format!("{} {}, from {} to {until}; {force}", fault.name, fault.detail, moment(fault.injected.0))
}

/// What the marks of a plot mean: each outcome, drawn by `mark` in a box of 16 by 10, and the shades if there are
/// faults.
pub(super) fn legend(run: &Run, mark: impl Fn(Ended) -> String) -> String {
    let sample = |body: String, words: &str| {
        format!("<li><svg viewBox=\"0 0 16 10\" aria-hidden=\"true\">{body}</svg>{}</li>\n", text(words))
    };
    let mut items: String = Ended::ALL
        .into_iter()
        .map(|ended| sample(mark(ended), &format!("{}: {}", ended.name(), ended.meaning())))
        .collect();
    if run.faults.iter().any(|fault| matches!(fault.force, Force::Seen { .. })) {
        let shade = "<rect class=\"shade seen\" width=\"16\" height=\"10\"/>".to_owned();
        items += &sample(shade, "a fault, seen at work");
    }
    if run.faults.iter().any(|fault| matches!(fault.force, Force::Unseen { .. })) {
        let shade = "<rect class=\"shade unseen\" width=\"16\" height=\"10\"/>".to_owned();
        items += &sample(shade, "a fault nobody saw at work");
    }
    format!("<ul class=\"legend\">\n{items}</ul>\n")
}
