//! The counter-example: what a checker found, in its own words, what the anomaly's name means, and the operations in
//! full.

use std::collections::{BTreeMap, BTreeSet};

use super::html::{duration, moment, text};
use super::marks::{Mark, Marks};
use super::{Operation, Run, section};
use crate::checker::{Valid, Verdict};

/// What the names that evidence begins with mean.
const MEANINGS: [(&str, &str); 27] = [
    ("G0", "Dirty write: the appends of transactions are in different orders in different lists."),
    ("G1a", "Aborted read: what a transaction appended that was surely not done has been read."),
    ("G1b", "Intermediate read: a list was read amid the appends of one transaction."),
    ("G1c", "Circular information flow: each transaction has seen, or comes after, the one before it in a circle."),
    ("G-single", "Read skew: a transaction has seen a part of what another one did, and missed another part."),
    ("G-nonadjacent", "Two or more transactions missed what others did, never one right after the other."),
    ("G2-item", "Write skew: transactions each missed what the others did."),
    ("unwritten", "Something was read that nobody wrote."),
    ("duplicate-elements", "One append took effect more than once."),
    ("torn-append", "A later append of a transaction was read without its earlier one."),
    ("internal", "A transaction contradicts itself: it does not see its own appends, or not the same twice."),
    ("incompatible-order", "Two reads of one list cannot be of one history of it: neither begins with the other."),
    ("lost-update", "Two transactions read the same version and both wrote: the second undid the first."),
    ("unexpected", "An element was read that was never added, or whose add surely failed."),
    ("duplicated", "An element stands in the set more than once."),
    ("lost", "An element whose add was acknowledged, or which was read, is gone."),
    ("stale", "A read that began after an element was known did not see it."),
    ("incomparable", "Of two reads each has an element the other lacks: no order of adds explains both."),
    ("too little", "A counter was seen below what had surely been added before."),
    ("too much", "A counter was seen above all that can have been added by then."),
    ("wrong sum", "Money was made or lost: a read saw a part of a transfer."),
    ("wrong accounts", "A read has not all accounts."),
    ("negative balance", "A transfer was done for which there was no money."),
    ("register", "No order of the operations, each at one moment between its call and its end, explains all replies."),
    ("recovery", "After all faults were healed the cluster must serve again within a bound."),
    ("crashes", "A node ended that nobody killed, or did not stop in order."),
    ("alarms", "A node has raised an alarm for which no fault accounts."),
];

/// The findings of each checker that says `false`; nothing for a run without any.
pub(super) fn section_of(run: &Run, marks: &Marks<'_>, shown: &BTreeSet<usize>) -> String {
    let wrong = run.verdicts.iter().filter(|verdict| verdict.valid == Valid::False);
    let findings: String = wrong.map(|verdict| finding(verdict, marks, shown)).collect();
    match findings.is_empty() {
        true => String::new(),
        false => section("example", "Counter-example", &findings),
    }
}

fn finding(verdict: &Verdict, marks: &Marks<'_>, shown: &BTreeSet<usize>) -> String {
    let line = |line: &String| {
        let depth = if line.starts_with(' ') { " class=\"deeper\"" } else { "" };
        format!("<li{depth}>{}</li>\n", linked(line.trim_start(), marks, shown))
    };
    let lines: String = verdict.evidence.iter().map(line).collect();
    let named = verdict.evidence.iter().flat_map(|line| marks.find(line));
    let named: BTreeSet<usize> = named.map(|mark| mark.index).filter(|index| marks.marked().contains(index)).collect();
    format!(
        "<h3>{}</h3>\n{}<ul class=\"evidence\">\n{lines}</ul>\n{}",
        text(&verdict.checker),
        meanings(verdict),
        in_full(named.into_iter().filter_map(|index| marks.operation(index)).collect(), shown),
    )
}

/// What the names in the evidence mean, each once.
fn meanings(verdict: &Verdict) -> String {
    let heads = verdict.evidence.iter().map(|line| line.split(':').next().unwrap_or_default());
    let names: BTreeMap<&str, &str> = heads.chain([verdict.checker.as_str()]).filter_map(meaning).collect();
    let items: String =
        names.into_iter().map(|(name, words)| format!("<dt>{}</dt><dd>{}</dd>\n", text(name), text(words))).collect();
    match items.is_empty() {
        true => String::new(),
        false => format!("<dl class=\"meanings\">\n{items}</dl>\n"),
    }
}

/// The name that a line begins with, and its meaning. A class of cycles may have its order behind it.
fn meaning(head: &str) -> Option<(&str, &'static str)> {
    let base = head.strip_suffix("-process").or(head.strip_suffix("-realtime")).unwrap_or(head);
    let base = if base.starts_with("register ") { "register" } else { base };
    let (name, words) = MEANINGS.iter().find(|(name, _)| *name == base)?;
    Some((if base == "register" { *name } else { head }, *words))
}

/// A line whose operations lead to the timeline.
fn linked(line: &str, marks: &Marks<'_>, shown: &BTreeSet<usize>) -> String {
    let mut found = marks.find(line);
    found.retain(|mark| shown.contains(&mark.index));
    found.sort_by_key(|mark| mark.at.start);
    let mut markup = String::new();
    let mut done = 0;
    for Mark { at, index } in found {
        markup += &format!("{}<a href=\"#e{index}\">{}</a>", text(&line[done..at.start]), text(&line[at.clone()]));
        done = at.end;
    }
    markup + &text(&line[done..]).to_string()
}

fn in_full(operations: Vec<&Operation>, shown: &BTreeSet<usize>) -> String {
    if operations.is_empty() {
        return String::new();
    }
    let rows: String = operations.into_iter().map(|operation| row(operation, shown)).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr><th class=\"number\">event</th><th>process</th><th>asked</th>\
         <th>came</th><th>outcome</th><th class=\"number\">began</th><th class=\"number\">took</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn row(operation: &Operation, shown: &BTreeSet<usize>) -> String {
    let Operation { index, process, part, asked, came, invoked, ended, outcome, .. } = operation;
    let place = match shown.contains(index) {
        true => format!("<a href=\"#e{index}\">{index}</a>"),
        false => index.to_string(),
    };
    let part = part.map_or(String::new(), |part| format!("k{part} "));
    let took = ended.map_or("—".to_owned(), |(end, _)| duration(end.0.saturating_sub(invoked.0)));
    format!(
        "<tr><td class=\"number\">{place}</td><td>{process}</td><td class=\"code\">{part}{}</td>\
         <td class=\"code\">{}</td><td><span class=\"outcome {}\">{}</span></td>\
         <td class=\"number\">{}</td><td class=\"number\">{took}</td></tr>\n",
        text(asked),
        text(came),
        outcome.name(),
        outcome.meaning(),
        moment(invoked.0),
    )
}
