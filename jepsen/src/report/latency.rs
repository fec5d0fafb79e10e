//! Latencies: each operation a point, by its invocation and how long it took.

use std::collections::BTreeSet;

use super::plot::{Area, legend};
use super::scale::{Log, Time};
use super::{Ended, Operation, Run};

const TOP: f64 = 12.0;
const BOTTOM: f64 = 320.0;

/// The plot with its legend. What has no completion is not in it, and is said not to be.
pub(super) fn figure(run: &Run) -> String {
    let took: Vec<(f64, u64, Ended)> = points(run);
    let (Some(least), Some(most)) = (took.iter().map(|point| point.1).min(), took.iter().map(|point| point.1).max())
    else {
        return "<p class=\"none\">No operation has ended.</p>\n".to_owned();
    };
    let area = Area { time: Time::new(run.until()), top: TOP, bottom: BOTTOM };
    let scale = Log::new(least, most, TOP, BOTTOM);
    let body: String = Ended::ALL.into_iter().map(|ended| cloud(&took, &scale, ended)).collect();
    let open = run.operations.len() - took.len();
    let note = match open {
        0 => String::new(),
        open => format!("<p class=\"note\">{open} without a completion are not shown.</p>\n"),
    };
    legend(run, sample) + &area.image(&run.faults, "latency by time and outcome", &scale.ticks(), &body) + &note
}

fn points(run: &Run) -> Vec<(f64, u64, Ended)> {
    let time = Time::new(run.until());
    let point = |operation: &Operation| {
        let (end, _) = operation.ended?;
        Some((time.x(operation.invoked), end.0.saturating_sub(operation.invoked.0), operation.outcome))
    };
    run.operations.iter().filter_map(point).collect()
}

/// All points of one outcome as one path. Points that fall on the same unit are drawn once, so that its size is
/// bounded.
fn cloud(took: &[(f64, u64, Ended)], scale: &Log, ended: Ended) -> String {
    let of = took.iter().filter(|point| point.2 == ended);
    let places: BTreeSet<(i64, i64)> = of.map(|(x, ns, _)| (x.round() as i64, scale.y(*ns).round() as i64)).collect();
    if places.is_empty() {
        return String::new();
    }
    let path: String = places.into_iter().map(|(x, y)| mark(ended, x, y)).collect();
    format!("<path class=\"mark {}\" d=\"{path}\"/>\n", ended.name())
}

/// A point, a cross, a triangle.
fn mark(ended: Ended, x: i64, y: i64) -> String {
    match ended {
        Ended::Ok => format!("M{x} {y}h.01"),
        Ended::Fail => format!("M{} {}l4 4m0-4l-4 4", x - 2, y - 2),
        Ended::Info => format!("M{x} {}l3.5 6h-7z", y - 4),
    }
}

fn sample(ended: Ended) -> String {
    format!("<path class=\"mark {}\" d=\"{}\"/>", ended.name(), mark(ended, 8, 5))
}
