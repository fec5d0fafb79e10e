//! The report of a run: one HTML file a person can read, without anything from elsewhere and without scripts.
//!
//! The verdict comes first, with the models it is about; then, of a run that is invalid, the counter-example; then
//! what the verdict rests on: gates, counts, faults and whether a probe saw them at work; then plots and a timeline;
//! last how to run it again and what else the run has left. [`Run`] is plain data; [`recorded`] has what a history
//! tells. Each part of the page is a module here: `example`, `tables`, `latency`, `rate`, `lanes`, `timeline`.
//!
//! Invariants:
//!
//! * Whatever a run has recorded is text in the page: markup in it is shown, never obeyed (`html`).
//! * The page's size is bounded by the plots' areas and the timeline's bound, but for the list of faults.
//! * Nothing is told by colour alone: outcomes have their marks, verdicts and gates their words.
//!
//! Left out: judging. The page shows verdicts, and finds in their evidence which operations they are about (`marks`).

mod example;
mod gather;
pub(crate) mod html;
mod lanes;
mod latency;
mod marks;
mod measure;
mod plot;
mod rate;
mod scale;
mod tables;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

pub use gather::{Recorded, recorded};
pub use tables::links;

use crate::checker::{Valid, Verdict, worst};
use crate::coverage::Gate;
use crate::edn::Form;
use crate::history::{Event, Nanos, Process};
use crate::wall::Wall;
use crate::workload::Workload;
use html::text;
use marks::Marks;
use timeline::Window;

/// All that a report tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub workload: String,
    pub seed: u64,
    pub began: Wall,
    /// How long it took from the first event to the last one.
    pub lasted: Nanos,
    /// What was run, and where: names and values.
    pub facts: Vec<(String, String)>,
    /// The words of the command that runs it again.
    pub command: Vec<String>,
    pub valid: Valid,
    pub verdicts: Vec<Verdict>,
    pub gates: Vec<Gate>,
    /// In the order of their invocations.
    pub operations: Vec<Operation>,
    /// In the order in which they came.
    pub faults: Vec<Fault>,
    /// What else the run has left: paths relative to the report.
    pub files: Vec<String>,
}

/// A call and what came of it, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Of its invocation, in the history.
    pub index: usize,
    pub process: Process,
    /// As what it counts.
    pub kind: &'static str,
    /// Which of the workload's independent objects it is about.
    pub part: Option<u64>,
    pub asked: String,
    /// The reply, or why there is none.
    pub came: String,
    pub invoked: Nanos,
    /// When it ended, and where in the history; absent when it has no completion.
    pub ended: Option<(Nanos, usize)>,
    pub outcome: Ended,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    Ok,
    Fail,
    Info,
}

impl Ended {
    pub const ALL: [Ended; 3] = [Ended::Ok, Ended::Fail, Ended::Info];

    /// As Jepsen has it; also the page's class.
    fn name(self) -> &'static str {
        match self {
            Ended::Ok => "ok",
            Ended::Fail => "fail",
            Ended::Info => "info",
        }
    }

    /// What it means.
    fn meaning(self) -> &'static str {
        match self {
            Ended::Ok => "done",
            Ended::Fail => "surely not done",
            Ended::Info => "outcome unknown",
        }
    }
}

/// A fault from its injection to its healing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: String,
    /// Whom it hit.
    pub detail: String,
    pub injected: Nanos,
    pub force: Force,
    /// Absent when the run ended before.
    pub healed: Option<Nanos>,
}

/// Whether a fault was at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Force {
    /// It was injected, and no probe has seen it: why, if one looked.
    Unseen { why: String },
    /// A probe has seen it: what it saw.
    Seen { at: Nanos, what: String },
    /// It was not injected: why.
    Unsupported { why: String },
}

impl Run {
    /// When the run ended, at least a nanosecond after its start: what plots divide by.
    fn until(&self) -> Nanos {
        let ends = self.operations.iter().filter_map(|operation| operation.ended.map(|(end, _)| end));
        let last = ends.chain(self.faults.iter().filter_map(|fault| fault.healed)).max();
        Nanos(self.lasted.0.max(last.map_or(0, |last| last.0)).max(1))
    }

    /// The page.
    pub fn html(&self) -> String {
        let marks = Marks::of(self);
        let window = Window::of(self, marks.marked());
        let shown: BTreeSet<usize> = window.shown().map(|operation| operation.index).collect();
        let title = format!("{} {}: {}", self.workload, self.seed, self.valid);
        [
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
            "<meta name=\"color-scheme\" content=\"light dark\"/>\n",
            &format!("<title>{}</title>\n", text(&title)),
            &format!("<style>\n{}</style>\n</head>\n<body>\n<main>\n", include_str!("report/style.css")),
            &tables::head(self),
            &example::section_of(self, &marks, &shown),
            &tables::checkers(self),
            &tables::gates(self),
            &tables::operations(self),
            &section("faults", "Faults", &(lanes::figure(self) + &tables::faults(self))),
            &section("latency", "Latency", &latency::figure(self)),
            &section("rate", "Rate", &rate::figure(self)),
            &section("timeline", "Timeline", &window.html(self)),
            &tables::again(self),
            "</main>\n</body>\n</html>\n",
        ]
        .concat()
    }
}

/// What a history does not tell of its run.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub seed: u64,
    pub began: Wall,
    /// What was run, and where: names and values.
    pub facts: Vec<(String, String)>,
    /// The words of the command that runs it again.
    pub command: Vec<String>,
    pub verdicts: Vec<Verdict>,
    pub gates: Vec<Gate>,
}

/// Writes `report.html` into a run's folder, with links to what is there already.
///
/// # Errors
/// The folder cannot be read, or the file not be written.
pub fn save<W>(folder: &Path, history: &[Event<W::Call, W::Reply>], about: About) -> io::Result<()>
where
    W: Workload,
    W::Call: Form<Reply = W::Reply>,
{
    let kind = |call: &W::Call, reply: Option<&W::Reply>| match reply {
        None => W::kind(call),
        Some(reply) => W::kind_of_success(call, reply),
    };
    let Recorded { operations, faults, lasted } = recorded(history, kind);
    let About { seed, began, facts, command, verdicts, gates } = about;
    let run = Run {
        workload: W::NAME.to_string(),
        seed,
        began,
        lasted,
        facts,
        command,
        valid: worst(&verdicts),
        verdicts,
        gates,
        operations,
        faults,
        files: links(folder)?,
    };
    fs::write(folder.join("report.html"), run.html())
}

/// A part of the page; `body` is markup.
fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n", text(title))
}
