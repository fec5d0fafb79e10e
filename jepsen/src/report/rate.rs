//! Rates: how many operations ended a second, by outcome.

use super::plot::{Area, legend};
use super::scale::{Linear, Time, time_step};
use super::{Ended, Run};
use crate::history::Nanos;

const TOP: f64 = 12.0;
const BOTTOM: f64 = 220.0;
/// Steps of the plot are at most so many.
const STEPS: f64 = 120.0;

/// The plot with its legend.
pub(super) fn figure(run: &Run) -> String {
    if run.operations.iter().all(|operation| operation.ended.is_none()) {
        return "<p class=\"none\">No operation has ended.</p>\n".to_owned();
    }
    let time = Time::new(run.until());
    let step = time_step(time.seconds(), STEPS);
    let rates = Ended::ALL.map(|ended| rates(run, ended, step, time.seconds()));
    let most = rates.iter().flatten().copied().fold(0.0, f64::max);
    let scale = Linear::new(most, TOP, BOTTOM);
    let body: String = Ended::ALL
        .into_iter()
        .zip(&rates)
        .map(|(ended, rates)| line(ended, &stairs(rates, step, &time, &scale)))
        .collect();
    let area = Area { time, top: TOP, bottom: BOTTOM };
    let note = format!("<p class=\"note\">Operations a second, counted over {step} s.</p>\n");
    legend(run, sample)
        + &area.image(&run.faults, "operations a second by time and outcome", &scale.ticks(), &body)
        + &note
}

/// Per step, how many ended a second. Empty when none did at all. The last step may be short.
fn rates(run: &Run, ended: Ended, step: f64, seconds: f64) -> Vec<f64> {
    let steps = (seconds / step).ceil().max(1.0) as usize;
    let mut counts = vec![0.0; steps];
    for operation in run.operations.iter().filter(|operation| operation.outcome == ended) {
        if let Some((end, _)) = operation.ended {
            let place = (end.0 as f64 / 1e9 / step) as usize;
            counts[place.min(steps - 1)] += 1.0;
        }
    }
    if counts.iter().all(|count| *count == 0.0) {
        return Vec::new();
    }
    let width = |place: usize| (seconds - place as f64 * step).clamp(step / 10.0, step);
    counts.iter().enumerate().map(|(place, count)| count / width(place)).collect()
}

fn stairs(rates: &[f64], step: f64, time: &Time, scale: &Linear) -> String {
    let mut path = String::new();
    for (place, rate) in rates.iter().enumerate() {
        let x = |place: usize| time.x(Nanos((place as f64 * step * 1e9) as u64));
        let letter = if place == 0 { "M" } else { "L" };
        path += &format!("{letter}{:.1} {:.1}H{:.1}", x(place), scale.y(*rate), x(place + 1));
    }
    path
}

fn line(ended: Ended, path: &str) -> String {
    match path.is_empty() {
        true => String::new(),
        false => format!("<path class=\"line {}\" d=\"{path}\"/>\n", ended.name()),
    }
}

fn sample(ended: Ended) -> String {
    line(ended, "M0 5H16")
}
