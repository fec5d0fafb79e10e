//! Scales: from times, durations and rates to places in a plot, and where their ticks are. Pure arithmetic.

use crate::history::Nanos;

/// Units of a plot's width. The page scales it.
pub(super) const WIDTH: f64 = 1040.0;
/// Where the plot's area begins and ends.
pub(super) const LEFT: f64 = 64.0;
pub(super) const RIGHT: f64 = WIDTH - 16.0;

/// Ticks of time are at most so many.
const TIME_TICKS: f64 = 12.0;
/// Steps of time ticks, in seconds.
const TIME_STEPS: [f64; 21] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0, 3600.0,
];
const NS_PER_S: f64 = 1e9;

/// A tick: where it is, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// The smallest of the usual steps of which `length` (seconds) has at most `count`.
pub(super) fn time_step(length: f64, count: f64) -> f64 {
    let step = TIME_STEPS.iter().copied().find(|step| length / step <= count);
    step.unwrap_or_else(|| (length / count / 3600.0).ceil() * 3600.0)
}

/// Time from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    until: f64,
}

impl Time {
    /// From 0 to `until`, which is above 0.
    pub(super) fn new(until: Nanos) -> Time {
        assert!(until.0 > 0, "a plot without time has no scale");
        Time { until: until.0 as f64 }
    }

    pub(super) fn x(&self, time: Nanos) -> f64 {
        LEFT + (RIGHT - LEFT) * (time.0 as f64 / self.until).min(1.0)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.until / NS_PER_S
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let step = time_step(self.seconds(), TIME_TICKS);
        let count = (self.seconds() / step).floor() as u64;
        let tick = |number: u64| {
            let seconds = number as f64 * step;
            Tick { at: self.x(Nanos((seconds * NS_PER_S) as u64)), label: format!("{} s", plain(seconds, step)) }
        };
        (0..=count).map(tick).collect()
    }
}

/// A number with as many decimals as its step has.
fn plain(number: f64, step: f64) -> String {
    let whole = |number: f64| (number - number.round()).abs() < 1e-9;
    let decimals = [1.0, 10.0, 100.0, 1000.0].iter().position(|shift| whole(step * shift)).unwrap_or(4);
    format!("{number:.decimals$}")
}

/// Durations from bottom to top, logarithmic, in whole decades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    low: i32,
    high: i32,
    top: f64,
    bottom: f64,
}

impl Log {
    /// For durations from `least` to `most` nanoseconds.
    pub(super) fn new(least: u64, most: u64, top: f64, bottom: f64) -> Log {
        let low = (least.max(1) as f64).log10().floor() as i32;
        let high = (most.max(1) as f64).log10().ceil() as i32;
        Log { low, high: high.max(low + 1), top, bottom }
    }

    pub(super) fn y(&self, ns: u64) -> f64 {
        let part = ((ns.max(1) as f64).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.bottom - (self.bottom - self.top) * part.clamp(0.0, 1.0)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        (self.low..=self.high).map(|decade| Tick { at: self.at(decade), label: decade_label(decade) }).collect()
    }

    fn at(&self, decade: i32) -> f64 {
        let part = f64::from(decade - self.low) / f64::from(self.high - self.low);
        self.bottom - (self.bottom - self.top) * part
    }
}

/// 10^`decade` nanoseconds.
fn decade_label(decade: i32) -> String {
    let (unit, exponent) = match decade {
        ..=2 => ("ns", decade),
        3..=4 => ("µs", decade - 3),
        5..=8 => ("ms", decade - 6),
        9.. => ("s", decade - 9),
    };
    format!("{} {unit}", 10_f64.powi(exponent))
}

/// Quantities from bottom (0) to top.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    step: f64,
    count: u32,
    top: f64,
    bottom: f64,
}

impl Linear {
    /// For quantities up to `most`, in four to ten steps.
    pub(super) fn new(most: f64, top: f64, bottom: f64) -> Linear {
        let most = most.max(1.0);
        let magnitude = 10_f64.powf(most.log10().floor());
        let rough = most / magnitude;
        let step = magnitude
            * if rough <= 2.0 {
                0.5
            } else if rough <= 5.0 {
                1.0
            } else {
                2.0
            };
        Linear { step, count: (most / step).ceil() as u32, top, bottom }
    }

    pub(super) fn y(&self, quantity: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (quantity / (self.step * f64::from(self.count))).clamp(0.0, 1.0)
    }

    pub(super) fn ticks(&self) -> Vec<Tick> {
        let tick = |number: u32| {
            let quantity = f64::from(number) * self.step;
            Tick { at: self.y(quantity), label: plain(quantity, self.step) }
        };
        (0..=self.count).map(tick).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn time_has_few_round_ticks() {
        let cases: [(u64, &[&str]); 4] = [
            (1_000_000, &["0.000 s", "0.001 s"]),
            (
                5_000_000_000,
                &["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s", "2.5 s", "3.0 s", "3.5 s", "4.0 s", "4.5 s", "5.0 s"],
            ),
            (61_000_000_000, &["0 s", "10 s", "20 s", "30 s", "40 s", "50 s", "60 s"]),
            (
                3_600_000_000_000,
                &[
                    "0 s", "300 s", "600 s", "900 s", "1200 s", "1500 s", "1800 s", "2100 s", "2400 s", "2700 s",
                    "3000 s", "3300 s", "3600 s",
                ],
            ),
        ];
        for (until, expected) in cases {
            assert_eq!(labels(&Time::new(Nanos(until)).ticks()), expected);
        }
        assert_eq!(time_step(1e6, 12.0), 86_400.0);
        let time = Time::new(Nanos(100));
        assert_eq!([0, 50, 100, 200].map(|at| time.x(Nanos(at))), [LEFT, (LEFT + RIGHT) / 2.0, RIGHT, RIGHT]);
    }

    #[test]
    fn durations_go_by_decades() {
        let scale = Log::new(150_000, 2_000_000_000, 0.0, 100.0);
        assert_eq!(labels(&scale.ticks()), ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        assert_eq!([100_000, 10_000_000, 10_000_000_000].map(|ns| scale.y(ns).round()), [100.0, 60.0, 0.0]);
        assert_eq!([0, u64::MAX].map(|ns| scale.y(ns)), [100.0, 0.0]);
        assert_eq!(labels(&Log::new(0, 0, 0.0, 100.0).ticks()), ["1 ns", "10 ns"]);
    }

    #[test]
    fn rates_begin_at_nothing() {
        let cases: [(f64, &[&str]); 4] = [
            (0.0, &["0.0", "0.5", "1.0"]),
            (180.0, &["0", "50", "100", "150", "200"]),
            (421.0, &["0", "100", "200", "300", "400", "500"]),
            (999.0, &["0", "200", "400", "600", "800", "1000"]),
        ];
        for (most, expected) in cases {
            let scale = Linear::new(most, 0.0, 100.0);
            assert_eq!(labels(&scale.ticks()), expected);
            assert_eq!(scale.y(0.0), 100.0);
        }
    }
}
