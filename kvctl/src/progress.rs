//! Bars of long work: on stderr, and only when it is a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar moves by itself.
const TICK_EVERY: Duration = Duration::from_millis(200);

/// Whether anybody sees a bar.
pub(crate) fn is_seen() -> bool {
    io::stderr().is_terminal()
}

/// Files, of so many; or, when nobody knows of how many, those that are done.
pub(crate) fn files(all: Option<u64>) -> ProgressBar {
    match all {
        Some(_) => bar(all, "{bar:40} {pos}/{len} files, {per_sec}, {eta} left"),
        None => bar(all, "{spinner} {pos} files, {per_sec}, {elapsed}"),
    }
}

/// Replicas that have answered, of so many, and how long the others have been at it: no server says how far it is.
pub(crate) fn replicas(all: u64) -> ProgressBar {
    let bar = bar(Some(all), "{spinner} {pos}/{len} replicas have answered, {elapsed}");
    if is_seen() {
        bar.enable_steady_tick(TICK_EVERY);
    }
    bar
}

fn bar(all: Option<u64>, template: &str) -> ProgressBar {
    if !is_seen() {
        return ProgressBar::hidden();
    }
    let bar = all.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let bar = match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    // It is there from the start, also when nothing moves it for long.
    bar.tick();
    bar
}
