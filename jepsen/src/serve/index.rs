//! The list of runs, newest first, from the `results.json` each has left.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::checker::Valid;
use crate::report::html::{count, link, text};

/// What is listed of a run. Results of older builds may lack some of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Sum {
    workload: String,
    seed: u64,
    valid: Valid,
    #[serde(default)]
    date: String,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    operations: BTreeMap<String, [u64; 3]>,
    #[serde(default)]
    faults: BTreeMap<String, u64>,
}

/// A folder of the store.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    name: String,
    /// Absent when there are no results, or none that can be read: it is under way, or it broke off.
    sum: Option<Sum>,
    has_report: bool,
}

/// The page that lists the runs of a store.
///
/// # Errors
/// The store cannot be read.
pub(super) fn page(store: &Path) -> io::Result<String> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            runs.push(run(entry.file_name().to_string_lossy().into_owned(), &entry.path()));
        }
    }
    Ok(listed(runs))
}

fn run(name: String, path: &Path) -> Run {
    let results = fs::read(path.join("results.json")).ok();
    let sum = results.and_then(|results| serde_json::from_slice(&results).ok());
    Run { name, sum, has_report: path.join("report.html").is_file() }
}

fn listed(mut runs: Vec<Run>) -> String {
    // Dates sort as text; what has none is older than all.
    let date = |run: &Run| run.sum.as_ref().map_or(String::new(), |sum| sum.date.clone());
    runs.sort_by_key(|run| std::cmp::Reverse((date(run), run.name.clone())));
    let rows: String = runs.iter().map(row).collect();
    let columns = "<th>began</th><th>workload</th><th>verdict</th><th class=\"number\">seed</th>\
        <th class=\"number\">seconds</th><th class=\"number\">ok</th><th class=\"number\">fail</th>\
        <th class=\"number\">info</th><th>faults in force</th><th>files</th>";
    let body = match runs.is_empty() {
        true => "<p class=\"none\">There is no run in this store.</p>\n".to_owned(),
        false => table(columns, &rows),
    };
    document("Runs", &body)
}

fn row(run: &Run) -> String {
    let folder = format!("{}/", run.name);
    let files = format!("<a href=\"{}\">{}</a>", text(&link(&folder)), text(&folder));
    let Some(sum) = &run.sum else {
        return format!("<tr><td></td><td></td><td>no results</td>{}<td>{files}</td></tr>\n", "<td></td>".repeat(6));
    };
    let (class, word) = match sum.valid {
        Valid::True => ("true", "✓ true"),
        Valid::False => ("false", "✗ false"),
        Valid::Unknown => ("unknown", "? unknown"),
    };
    let date = match run.has_report {
        true => format!("<a href=\"{}\">{}</a>", text(&link(&format!("{folder}report.html"))), text(&sum.date)),
        false => text(&sum.date).to_string(),
    };
    let ended = |place: usize| count(sum.operations.values().map(|counts| counts[place]).sum());
    let faults: Vec<String> = sum.faults.iter().map(|(name, times)| format!("{name} {times}")).collect();
    format!(
        "<tr><td>{date}</td><td>{}</td><td><span class=\"word {class}\">{word}</span></td><td class=\"number\">{}</td>\
         <td class=\"number\">{:.0}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td class=\"number\">{}</td><td>{}</td><td>{files}</td></tr>\n",
        text(&sum.workload),
        sum.seed,
        sum.seconds,
        ended(0),
        ended(1),
        ended(2),
        text(&faults.join(", ")),
    )
}

pub(super) fn table(columns: &str, rows: &str) -> String {
    format!("<div class=\"wide\"><table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n")
}

/// A page with a title; `body` is markup.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{0}</title>\n\
         <style>\n{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n{body}</main>\n</body>\n</html>\n",
        text(title),
        include_str!("../report/style.css"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_run_comes_first_and_one_without_results_last() {
        let run = |name: &str, date: &str| {
            let operations = BTreeMap::from([("read".into(), [1000, 2, 3]), ("write".into(), [1, 0, 0])]);
            let faults = BTreeMap::from([("kill".into(), 4)]);
            let (workload, date) = ("<b>".into(), date.into());
            let sum = Sum { workload, seed: 7, valid: Valid::False, date, seconds: 61.4, operations, faults };
            Run { name: name.into(), sum: Some(sum), has_report: name == "old" }
        };
        let broken = Run { name: "broken".into(), sum: None, has_report: false };
        let page = listed(vec![run("old", "2026-01-01T00:00:00Z"), broken, run("new", "2026-01-02T00:00:00Z")]);
        let place = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words}"));
        assert!(place("./new/") < place("./old/") && place("./old/") < place("./broken/"));
        assert!(page.contains("<a href=\"./old/report.html\">2026-01-01T00:00:00Z</a>"));
        assert!(!page.contains("./new/report.html"));
        assert!(page.contains(
            "<td>&lt;b&gt;</td><td><span class=\"word false\">✗ false</span></td><td class=\"number\">7</td>\
             <td class=\"number\">61</td><td class=\"number\">1\u{202f}001</td><td class=\"number\">2</td>\
             <td class=\"number\">3</td><td>kill 4</td>"
        ));
    }

    #[test]
    fn an_empty_store_is_said_to_be_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(page(folder.path()).expect("it is there").contains("There is no run in this store."));
        fs::create_dir(folder.path().join("a-run")).expect("made");
        fs::write(folder.path().join("a-run/results.json"), "{").expect("written");
        assert!(page(folder.path()).expect("it is there").contains("no results"));
    }

    #[test]
    fn older_results_can_be_read() {
        let sum: Sum = serde_json::from_str(r#"{"workload":"set","seed":1,"valid":"true","more":[]}"#).expect("a sum");
        assert_eq!((sum.workload.as_str(), sum.valid, sum.seconds), ("set", Valid::True, 0.0));
    }
}
