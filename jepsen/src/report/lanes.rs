//! Faults over time: a lane for each kind, a bar for each fault; from when a probe saw it at work the bar is full.

use super::html::text;
use super::plot::Area;
use super::scale::{LEFT, Time};
use super::{Fault, Force, Run};

/// A lane's height; in it the base of its name, and the top and bottom of its bars.
const LANE: f64 = 30.0;
const NAME: f64 = 12.0;
const BAR: (f64, f64) = (16.0, 26.0);

/// The lanes; nothing for a run without faults.
pub(super) fn figure(run: &Run) -> String {
    let mut names: Vec<&str> = run.faults.iter().map(|fault| fault.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    let area = Area { time: Time::new(run.until()), top: 0.0, bottom: LANE * names.len() as f64 };
    let lane = |(place, name): (usize, &&str)| {
        let top = LANE * place as f64;
        let own = run.faults.iter().filter(|fault| fault.name == **name);
        let bars: String = own.map(|fault| bars(&area, fault, (top + BAR.0, top + BAR.1))).collect();
        format!("<text class=\"lane\" x=\"{LEFT}\" y=\"{:.0}\">{}</text>\n{bars}", top + NAME, text(name))
    };
    let body: String = names.iter().enumerate().map(lane).collect();
    area.image(&[], "faults by time and kind", &[], &body)
}

/// From injection to healing; and on it, from when it was seen at work.
fn bars(area: &Area, fault: &Fault, y: (f64, f64)) -> String {
    match &fault.force {
        Force::Unsupported { .. } => area.bar(fault, fault.injected, y, "bar unsupported"),
        Force::Unseen { .. } => area.bar(fault, fault.injected, y, "bar injected"),
        Force::Seen { at, .. } => {
            area.bar(fault, fault.injected, y, "bar injected") + &area.bar(fault, *at, y, "bar in-force")
        }
    }
}
