//! The timeline: operations side by side as they overlapped, a row for each beginning and each end, a lane for each
//! process.
//!
//! Rows are events, not equal times: what overlapped is seen, how long it took is read. A run has too many operations
//! to show them all: shown are those around the counter-example, of the same independent object where it is about
//! one, or else the first ones; the page says which.

use std::collections::{BTreeMap, BTreeSet};

use super::html::{count, moment, text};
use super::{Ended, Fault, Force, Operation, Run};
use crate::history::{Nanos, Process};

/// Operations shown, and neighbours of each that is marked, on either side.
const SHOWN_MAX: usize = 240;
const AROUND: usize = 6;

/// The operations that are shown.
pub(super) struct Window<'a> {
    /// In the order of their invocations, each with how many before it are left out.
    shown: Vec<(usize, &'a Operation)>,
    marked: BTreeSet<usize>,
    note: String,
}

/// What a row begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row<'a> {
    Begin(&'a Operation),
    End(&'a Operation),
    Fault(&'a Fault, &'static str),
    LeftOut(usize),
}

impl<'a> Window<'a> {
    /// Around the operations in `marked`, or from the beginning when there are none.
    pub(super) fn of(run: &'a Run, marked: &BTreeSet<usize>) -> Window<'a> {
        let part = one_part(run, marked);
        let all: Vec<&Operation> =
            run.operations.iter().filter(|operation| part.is_none() || operation.part == part).collect();
        let places: BTreeSet<usize> = match marked.is_empty() {
            true => (0..all.len().min(SHOWN_MAX)).collect(),
            false => around(&all, marked),
        };
        let mut next = 0;
        let mut shown = Vec::new();
        for place in places {
            shown.push((place - next, all[place]));
            next = place + 1;
        }
        let note = note(run, part, shown.len(), marked.len());
        Window { shown, marked: marked.clone(), note }
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = &'a Operation> {
        self.shown.iter().map(|(_, operation)| *operation)
    }

    /// The grid.
    pub(super) fn html(&self, run: &'a Run) -> String {
        if self.shown.is_empty() {
            return "<p class=\"none\">There is no operation.</p>\n".to_owned();
        }
        let rows = self.rows(run);
        let lanes = lanes(&rows);
        let last = rows.len() + 1;
        let ends: BTreeMap<usize, usize> = rows.iter().zip(1..).filter_map(|(row, at)| end(row, at)).collect();
        let mut cells = String::new();
        for (row, at) in rows.iter().zip(1..) {
            match row {
                Row::Begin(operation) => {
                    let until = ends.get(&operation.index).map_or(last, |end| end + 1);
                    cells += &time(operation.invoked, at);
                    cells += &self.cell(operation, (at, until), lanes[&operation.index]);
                }
                Row::End(_) => {}
                Row::Fault(fault, what) => cells += &fault_row(fault, what, at),
                Row::LeftOut(number) => {
                    cells +=
                        &format!("<i class=\"gap\" style=\"grid-row:{at}\">{} left out</i>\n", count(*number as u64));
                }
            }
        }
        let width = lanes.values().max().map_or(1, |lane| lane + 1);
        let note = text(&self.note);
        format!("<p class=\"note\">{note}</p>\n<div class=\"lanes\" style=\"--lanes:{width}\">\n{cells}</div>\n")
    }

    /// In the order of their times. What came at the same time is in the order of the history, faults last.
    fn rows(&self, run: &'a Run) -> Vec<Row<'a>> {
        let mut rows: Vec<((Nanos, usize), Row<'a>)> = Vec::new();
        for &(left_out, operation) in &self.shown {
            let begin = (operation.invoked, 2 * operation.index);
            if left_out > 0 {
                rows.push((begin, Row::LeftOut(left_out)));
            }
            rows.push(((begin.0, begin.1 + 1), Row::Begin(operation)));
            rows.extend(operation.ended.map(|(end, index)| ((end, 2 * index), Row::End(operation))));
        }
        let from = self.shown.first().map_or(Nanos(0), |(_, operation)| operation.invoked);
        let until = rows.iter().map(|((at, _), _)| *at).max().unwrap_or(from);
        let faults = run.faults.iter().flat_map(phases);
        rows.extend(faults.filter(|((at, _), _)| (from..=until).contains(at)));
        rows.sort_by_key(|(at, _)| *at);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn cell(&self, operation: &Operation, rows: (usize, usize), lane: usize) -> String {
        let Operation { index, process, part, asked, came, outcome, .. } = operation;
        let marked = if self.marked.contains(index) { " marked" } else { "" };
        let part = part.map_or(String::new(), |part| format!("k{part} "));
        let open = if *outcome == Ended::Info { " open" } else { "" };
        let words = format!("{part}{asked} → {came}");
        format!(
            "<div id=\"e{index}\" class=\"op {}{open}{marked}\" style=\"grid-row:{}/{};grid-column:{}\" \
             title=\"{}\"><b>{process}</b> {}</div>\n",
            outcome.name(),
            rows.0,
            rows.1,
            lane + 2,
            text(&told(operation)),
            text(&words),
        )
    }
}

/// The independent object that all the marked are about.
fn one_part(run: &Run, marked: &BTreeSet<usize>) -> Option<u64> {
    let about = run.operations.iter().filter(|operation| marked.contains(&operation.index));
    let parts: BTreeSet<Option<u64>> = about.map(|operation| operation.part).collect();
    match parts.len() {
        1 => parts.into_iter().next().flatten(),
        _ => None,
    }
}

/// The places of the marked and of their neighbours.
fn around(all: &[&Operation], marked: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut places = BTreeSet::new();
    for (place, operation) in all.iter().enumerate() {
        if marked.contains(&operation.index) && places.len() < SHOWN_MAX {
            places.extend(place.saturating_sub(AROUND)..(place + AROUND + 1).min(all.len()));
        }
    }
    places
}

fn note(run: &Run, part: Option<u64>, shown: usize, marked: usize) -> String {
    let all = count(run.operations.len() as u64);
    let about = part.map_or(String::new(), |part| format!(" of object k{part}"));
    match (marked, shown == run.operations.len()) {
        (_, true) => format!("All {all} operations."),
        (0, false) => format!("The first {shown} of {all} operations."),
        (_, false) => {
            format!("{shown} of {all} operations: those the counter-example is about, and their neighbours{about}.")
        }
    }
}

/// When a fault was injected, seen, healed. That comes after all else of its time.
fn phases(fault: &Fault) -> impl Iterator<Item = ((Nanos, usize), Row<'_>)> {
    let healed = fault.healed.map(|at| (at, "healed"));
    let phases = match &fault.force {
        Force::Unsupported { .. } => [Some((fault.injected, "not put in force")), None, None],
        Force::Unseen { .. } => [Some((fault.injected, "injected")), None, healed],
        Force::Seen { at, .. } => [Some((fault.injected, "injected")), Some((*at, "in force")), healed],
    };
    phases.into_iter().flatten().map(move |(at, what)| ((at, usize::MAX), Row::Fault(fault, what)))
}

fn end(row: &Row<'_>, at: usize) -> Option<(usize, usize)> {
    match row {
        Row::End(operation) => Some((operation.index, at)),
        Row::Begin(_) | Row::Fault(..) | Row::LeftOut(_) => None,
    }
}

/// The lane of each operation: a process keeps its own until the last one of it that is shown has ended.
fn lanes(rows: &[Row<'_>]) -> BTreeMap<usize, usize> {
    let mut last: BTreeMap<Process, usize> = BTreeMap::new();
    for row in rows {
        if let Row::Begin(operation) = row {
            last.insert(operation.process, operation.index);
        }
    }
    let mut of: BTreeMap<Process, usize> = BTreeMap::new();
    let mut lanes = BTreeMap::new();
    for row in rows {
        match row {
            Row::Begin(operation) => {
                let taken: BTreeSet<usize> = of.values().copied().collect();
                let free = (0..).find(|lane| !taken.contains(lane)).expect("there is no last lane");
                lanes.insert(operation.index, *of.entry(operation.process).or_insert(free));
            }
            Row::End(operation) if last.get(&operation.process) == Some(&operation.index) => {
                of.remove(&operation.process);
            }
            Row::End(_) | Row::Fault(..) | Row::LeftOut(_) => {}
        }
    }
    lanes
}

fn time(at: Nanos, row: usize) -> String {
    format!("<i class=\"time\" style=\"grid-row:{row}\">{}</i>\n", moment(at.0))
}

fn fault_row(fault: &Fault, what: &str, row: usize) -> String {
    let words = format!("{} {what}: {}", fault.name, fault.detail);
    format!("<i class=\"fault\" style=\"grid-row:{row}\">{}</i>\n", text(&words))
}

/// An operation in full.
pub(super) fn told(operation: &Operation) -> String {
    let Operation { index, process, asked, came, invoked, ended, outcome, .. } = operation;
    let ended = ended.map_or("no completion".into(), |(end, _)| format!("to {}", moment(end.0)));
    format!("event {index}, {process}: {asked} → {came} ({}), {} {ended}", outcome.meaning(), moment(invoked.0))
}
