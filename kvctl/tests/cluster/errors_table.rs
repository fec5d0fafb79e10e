//! The tables of docs/errors.md, and a ledger that checks answers of a real server against them line by line.
//!
//! A [`Case`] is one message of one row. `cluster_10/errors.rs` sees to it that every message has one.

use tonic::{Code, Status};

use crate::{checkout, raw};

const PATH: &str = "docs/errors.md";

/// A row of the table "Requests".
#[derive(Clone, Debug)]
pub struct Row {
    pub condition: String,
    pub code: String,
    pub reason: String,
    /// What it may say: `…` and numbers stand for whatever is there.
    pub messages: Vec<String>,
    /// `trefoil-outcome`.
    pub outcome: &'static str,
    pub kvctl: String,
}

/// The table "Requests". The row of malformed fields has the messages that stand below the table.
pub fn requests() -> Vec<Row> {
    rows("Requests").into_iter().map(request).collect()
}

fn request(cells: Vec<String>) -> Row {
    let cells = <[String; 6]>::try_from(cells);
    let [condition, code, reason, messages, assumed, kvctl] =
        cells.unwrap_or_else(|cells| panic!("expected six cells in each row of 'Requests', got {cells:?}"));
    let reason = reason.trim_matches('`').to_owned();
    let messages = if reason == "MALFORMED" { malformed() } else { quoted(&messages) };
    assert!(!messages.is_empty(), "expected a message in the row '{condition}'");
    Row { outcome: outcome(&assumed), condition, code, reason, messages, kvctl }
}

fn outcome(assumed: &str) -> &'static str {
    match assumed {
        "refused" => "refused",
        assumed if assumed.starts_with("unknown") => "unknown",
        assumed if assumed.ends_with("not done") => "not-done",
        assumed => panic!("expected one of the three outcomes, got '{assumed}'"),
    }
}

/// The messages of malformed fields, in the paragraph that begins with their word.
fn malformed() -> Vec<String> {
    const BEGIN: &str = "`MALFORMED` messages:";
    let section = section("Requests");
    let begin = section.find(BEGIN).unwrap_or_else(|| panic!("expected a paragraph '{BEGIN}' in {PATH}"));
    let paragraph = section[begin + BEGIN.len()..].split("\n\n").next().unwrap_or_default();
    quoted(&paragraph.replace('\n', " "))
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The cells of each row of a section's table.
pub fn rows(heading: &str) -> Vec<Vec<String>> {
    let section = section(heading);
    // The first two lines are the head.
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn section(heading: &str) -> String {
    let text = checkout::text(PATH);
    let heading = format!("## {heading}");
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "expected a section '{heading}' in {PATH}");
    lines.take_while(|line| !line.starts_with("## ")).collect::<Vec<_>>().join("\n")
}

/// Whether a message is what the documented one stands for.
pub fn says(documented: &str, message: &str) -> bool {
    let (documented, message) = (without_numbers(documented), without_numbers(message));
    let mut parts = documented.split('…');
    let Some(mut rest) = parts.next().and_then(|first| message.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(character),
        }
    }
    out
}

/// One message of one row of "Requests".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// A part of the row's condition that no other row of this reason has.
    pub condition: &'static str,
    pub reason: &'static str,
    /// As documented.
    pub message: &'static str,
}

impl Case {
    pub const fn new(condition: &'static str, reason: &'static str, message: &'static str) -> Case {
        Case { condition, reason, message }
    }

    /// Its row.
    ///
    /// # Panics
    /// When there is none, or the row has another message.
    pub fn row(self, rows: &[Row]) -> &Row {
        let rows: Vec<&Row> = rows.iter().filter(|row| self.is_of(row)).collect();
        assert_eq!(rows.len(), 1, "expected one row in {PATH} for {self:?}");
        let documented = rows[0].messages.iter().any(|message| message == self.message);
        assert!(documented, "expected the message of {self:?} in its row, which has {:?}", rows[0].messages);
        rows[0]
    }

    /// Whether the row is of this reason and condition.
    pub fn is_of(self, row: &Row) -> bool {
        row.reason == self.reason && row.condition.contains(self.condition)
    }

    /// Whether an answer is this one: for what may be answered otherwise at first.
    pub fn is(self, status: &Status) -> bool {
        raw::words(status).2 == self.reason && says(self.message, status.message())
    }
}

/// Which of a test's cases were provoked.
#[derive(Debug)]
pub struct Ledger {
    rows: Vec<Row>,
    missing: Vec<Case>,
}

impl Ledger {
    /// A test is to provoke these.
    pub fn open(cases: impl IntoIterator<Item = Case>) -> Ledger {
        Ledger { rows: requests(), missing: cases.into_iter().collect() }
    }

    /// An answer must be as the case's row says.
    pub fn check(&mut self, case: Case, status: &Status) {
        let row = case.row(&self.rows);
        let (code, outcome, reason) = raw::words(status);
        let Row { condition, .. } = row;
        println!("{condition}: {code:?} {outcome} {reason}: {}", status.message());
        assert_eq!(reason, row.reason, "{condition}: expected this reason; got {status:?}");
        assert!(is_code(&row.code, code), "{condition}: expected code {}; got {status:?}", row.code);
        assert_eq!(outcome, row.outcome, "{condition}: expected this outcome; got {status:?}");
        assert!(says(case.message, status.message()), "{condition}: expected '{}'; got {status:?}", case.message);
        self.missing.retain(|missing| *missing != case);
    }

    /// All of them must have been provoked.
    pub fn close(self) {
        assert!(self.missing.is_empty(), "expected these to have been provoked too: {:?}", self.missing);
    }
}

/// Whether a code has this name in gRPC's spelling.
pub fn is_code(name: &str, code: Code) -> bool {
    name.replace('_', "").eq_ignore_ascii_case(&format!("{code:?}"))
}

#[test]
fn documented_messages_stand_for_others() {
    for (documented, message, stands) in [
        ("a key is empty", "a key is empty", true),
        ("a key is empty", "a key is empty now", false),
        ("revision 4 has been compacted", "revision 12345 has been compacted", true),
        ("not available: …", "not available: whatever", true),
        ("node … is of cluster …, …", "node 3 is of cluster 7, alas", true),
        ("node … is of cluster …, …", "node 3 is of a cluster", false),
    ] {
        assert_eq!(says(documented, message), stands, "expected '{documented}' to stand for '{message}': {stands}");
    }
    assert!(is_code("INVALID_ARGUMENT", Code::InvalidArgument) && !is_code("UNKNOWN", Code::Unavailable));
}
