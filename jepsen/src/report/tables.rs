//! The parts of the report that are words and tables.

use std::fs;
use std::io;
use std::path::Path;

use super::html::{count, duration, link, moment, text};
use super::measure::Counts;
use super::{Fault, Force, Run, section};
use crate::checker::{Valid, Verdict};
use crate::coverage::Gate;

/// Words with which the page begins.
pub(super) fn head(run: &Run) -> String {
    let (class, mark, word) = match run.valid {
        Valid::True => ("true", "✓", "Valid"),
        Valid::False => ("false", "✗", "Invalid"),
        Valid::Unknown => ("unknown", "?", "Unknown"),
    };
    let facts = [("workload", run.workload.clone()), ("seed", run.seed.to_string()), ("began", run.began.to_string())];
    let own = facts.iter().map(|(name, value)| fact(name, value));
    let facts: String = own.chain(run.facts.iter().map(|(name, value)| fact(name, value))).collect();
    format!(
        "<header class=\"verdict {class}\">\n<p class=\"mark\" aria-hidden=\"true\">{mark}</p>\n<div>\n\
         <h1>{word}</h1>\n<p>{}</p>\n</div>\n</header>\n<dl class=\"facts\">\n{facts}{}</dl>\n{CONTENTS}",
        text(&summary(run)),
        fact("lasted", &moment(run.until().0)),
    )
}

const CONTENTS: &str = "<nav><a href=\"#checkers\">Checkers</a> <a href=\"#gates\">Gates</a> \
    <a href=\"#operations\">Operations</a> <a href=\"#faults\">Faults</a> <a href=\"#latency\">Latency</a> \
    <a href=\"#rate\">Rate</a> <a href=\"#timeline\">Timeline</a> <a href=\"#again\">Run it again</a></nav>\n";

fn fact(name: &str, value: &str) -> String {
    format!("<div><dt>{}</dt><dd>{}</dd></div>\n", text(name), text(value))
}

/// What the verdict says, in a sentence.
fn summary(run: &Run) -> String {
    let names = |valid: Valid| {
        let of = run.verdicts.iter().filter(|verdict| verdict.valid == valid);
        of.map(|verdict| verdict.checker.as_str()).collect::<Vec<_>>().join("; ")
    };
    match run.valid {
        Valid::True => format!("Checked, and nothing found against it: {}.", names(Valid::True)),
        Valid::False => format!("Found wrong: {}.", names(Valid::False)),
        Valid::Unknown if run.verdicts.is_empty() => "Nobody has judged this run.".to_owned(),
        Valid::Unknown => format!("Nothing found wrong, but undecided: {}.", names(Valid::Unknown)),
    }
}

/// Each checker, with what it checks the history against, and its word.
pub(super) fn checkers(run: &Run) -> String {
    let row = |verdict: &Verdict| {
        let (class, word) = match verdict.valid {
            Valid::True => ("true", "✓ true"),
            Valid::False => ("false", "✗ false"),
            Valid::Unknown => ("unknown", "? unknown"),
        };
        let said = verdict.evidence.first().map_or("", String::as_str);
        format!(
            "<tr><td>{}</td><td><span class=\"word {class}\">{word}</span></td><td>{}</td></tr>\n",
            text(&verdict.checker),
            text(said),
        )
    };
    let rows: String = run.verdicts.iter().map(row).collect();
    table("checkers", "Checkers", "<th>checker (model)</th><th>verdict</th><th>first finding</th>", &rows)
}

/// What must have happened for the run to prove anything.
pub(super) fn gates(run: &Run) -> String {
    let row = |gate: &Gate| {
        let (class, word) = if gate.is_met() { ("true", "✓ met") } else { ("unknown", "✗ not met") };
        format!(
            "<tr><td>{}</td><td><span class=\"word {class}\">{word}</span></td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td></tr>\n",
            text(&gate.name),
            count(gate.wanted),
            count(gate.seen),
        )
    };
    let rows: String = run.gates.iter().map(row).collect();
    let columns =
        "<th>gate</th><th>met</th><th class=\"number\">wanted, times</th><th class=\"number\">seen, times</th>";
    table("gates", "Coverage gates", columns, &rows)
}

/// Counts and latencies by kind.
pub(super) fn operations(run: &Run) -> String {
    let kinds = Counts::by_kind(&run.operations);
    let mut rows: String = kinds.iter().map(|(kind, counts)| counts_row(kind, counts, "")).collect();
    rows += &counts_row("all", &Counts::all(&run.operations), " class=\"sum\"");
    let columns = "<th>operation</th><th class=\"number\">ok</th><th class=\"number\">fail</th>\
        <th class=\"number\">info</th><th class=\"number\">together</th><th class=\"number\">median</th>\
        <th class=\"number\">99 %</th><th class=\"number\">longest</th>";
    table("operations", "Operations", columns, &rows)
}

fn counts_row(kind: &str, counts: &Counts, class: &str) -> String {
    let number = |number: u64| format!("<td class=\"number\">{}</td>", count(number));
    let numbers: String = [counts.ok, counts.fail, counts.info, counts.total()].into_iter().map(number).collect();
    let quantile = |permille| counts.quantile(permille).map_or("—".to_owned(), duration);
    let took = |permille| format!("<td class=\"number\">{}</td>", quantile(permille));
    format!("<tr{class}><td>{}</td>{numbers}{}{}{}</tr>\n", text(kind), took(500), took(990), took(1000))
}

/// Faults that are shown without unfolding them.
const UNFOLDED_MAX: usize = 12;

/// Each fault, folded when they are many.
pub(super) fn faults(run: &Run) -> String {
    if run.faults.is_empty() {
        return "<p class=\"none\">There was no fault.</p>\n".to_owned();
    }
    let seen = run.faults.iter().filter(|fault| matches!(fault.force, Force::Seen { .. })).count();
    let rows: String = run.faults.iter().map(fault_row).collect();
    let open = if run.faults.len() > UNFOLDED_MAX { "" } else { " open=\"\"" };
    format!(
        "<details{open}>\n<summary>{} faults, {seen} of them seen at work by a probe</summary>\n<div class=\"wide\">\
         <table>\n<thead><tr><th>fault</th><th>whom</th><th class=\"number\">injected</th>\
         <th class=\"number\">healed</th><th>probe</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n\
         </details>\n",
        run.faults.len(),
    )
}

fn fault_row(fault: &Fault) -> String {
    let (class, word, words) = match &fault.force {
        Force::Seen { at, what } => ("true", format!("✓ in force at {}", moment(at.0)), what),
        Force::Unseen { why } => ("unknown", "✗ not seen".to_owned(), why),
        Force::Unsupported { why } => ("unknown", "✗ not put in force".to_owned(), why),
    };
    format!(
        "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td><span class=\"word {class}\">{word}</span> {}</td></tr>\n",
        text(&fault.name),
        text(&fault.detail),
        moment(fault.injected.0),
        fault.healed.map_or("—".to_owned(), |healed| moment(healed.0)),
        text(words),
    )
}

/// The command, and what else the run has left.
pub(super) fn again(run: &Run) -> String {
    let command: Vec<String> = run.command.iter().map(|word| quoted(word)).collect();
    let item = |path: &String| format!("<li><a href=\"{}\">{}</a></li>\n", text(&link(path)), text(path));
    let files: String = run.files.iter().map(item).collect();
    let body = format!(
        "<pre>{}</pre>\n<p class=\"note\">The seed gives the same choices again; when they meet the cluster is the \
         operating system's.</p>\n<h3>Files</h3>\n<ul class=\"files\">\n{files}</ul>\n",
        text(&command.join(" ")),
    );
    section("again", "Run it again", &body)
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+,./:@%".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

fn table(id: &str, title: &str, columns: &str, rows: &str) -> String {
    let body = format!(
        "<div class=\"wide\"><table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    );
    section(id, title, &body)
}

/// What a run's folder holds that a person may want to read, by name: results, histories, logs of nodes. Not the nodes'
/// data.
///
/// # Errors
/// The folder cannot be read.
pub fn links(folder: &Path) -> io::Result<Vec<String>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = [".json", ".jsonl", ".edn", ".log"].iter().any(|end| name.ends_with(end));
        if wanted && entry.file_type()?.is_file() {
            links.push(name);
        } else if name == "independent" {
            links.push(name + "/");
        }
    }
    links.sort();
    Ok(links)
}
