//! Printing what was found: for people (plain, table) or for programs (JSON, one object a line).
//!
//! A command describes its findings as a [`Sheet`]; how that looks is decided here. What is streamed is printed pair by
//! pair, with the other methods of [`Output`].
//!
//! Bytes of keys and values go through as they are to where a script may read them, which is plain output that is not
//! shown on a terminal. On a terminal, in sheets, and on stderr, they stand escaped (`visible.rs`).

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};

use bytes::Bytes;
use clap::ValueEnum;
use comfy_table::Table;
use serde_json::{Map, Value};
use trefoil_client::KeyValue;

use crate::{encoding, visible};

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Plain,
    Table,
    Json,
}

/// One thing in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Number(u64),
    Flag(bool),
    Bytes(Bytes),
    Absent,
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => Value::from(text.as_str()),
            Cell::Number(number) => Value::from(*number),
            Cell::Flag(flag) => Value::from(*flag),
            Cell::Bytes(bytes) => encoding::to_json(bytes),
            Cell::Absent => Value::Null,
        }
    }

    fn text(&self) -> String {
        match self {
            Cell::Text(text) => visible::line(text.as_bytes()),
            Cell::Number(number) => number.to_string(),
            Cell::Flag(flag) => flag.to_string(),
            Cell::Bytes(bytes) => visible::line(bytes),
            Cell::Absent => "-".to_owned(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Cell {
        Cell::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Cell {
        Cell::Flag(flag)
    }
}

impl From<Option<u64>> for Cell {
    fn from(number: Option<u64>) -> Cell {
        number.map_or(Cell::Absent, Cell::Number)
    }
}

/// Rows under column names. The names are also the keys of JSON objects.
#[derive(Clone, Debug)]
pub struct Sheet {
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl Sheet {
    /// No rows yet.
    pub fn new(columns: &'static [&'static str]) -> Sheet {
        Sheet { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.columns.len(), "a cell per column");
        self.rows.push(row);
    }

    fn titles(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.replace('_', " ").to_uppercase()).collect()
    }
}

/// The columns of a pair.
pub const PAIR: &[&str] = &["key", "value", "create_revision", "mod_revision", "version", "lease"];

/// A pair as a row.
pub fn pair_row(pair: &KeyValue) -> Vec<Cell> {
    vec![
        Cell::Bytes(pair.key.clone()),
        Cell::Bytes(pair.value.clone()),
        pair.create_revision.0.into(),
        pair.mod_revision.0.into(),
        pair.version.into(),
        pair.lease.into(),
    ]
}

/// A pair as a JSON object.
pub fn pair_json(pair: &KeyValue) -> Value {
    object(PAIR, &pair_row(pair))
}

fn object(columns: &[&str], row: &[Cell]) -> Value {
    let fields: Map<String, Value> =
        columns.iter().zip(row).map(|(column, cell)| ((*column).to_owned(), cell.json())).collect();
    Value::Object(fields)
}

/// JSON as it is, but for the control characters that its strings may have unescaped.
fn json_line(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Says something on stderr, on a line of its own. A line that cannot be written is lost: the exit code tells, too.
pub fn say(what: impl Display) {
    drop(writeln!(io::stderr(), "kvctl: {}", visible::line(what.to_string().as_bytes())));
}

/// Stdout.
pub struct Output {
    pub format: Format,
    out: Box<dyn Write>,
    /// Whether it is for the eye: bytes of keys and values are escaped.
    shown: bool,
}

impl Output {
    /// Prints on stdout.
    pub fn new(format: Format) -> Output {
        let shown = format == Format::Table || io::stdout().is_terminal();
        Output { format, out: Box::new(BufWriter::new(io::stdout())), shown }
    }

    /// Prints rows under their column names.
    ///
    /// # Errors
    /// As for all of these: when stdout fails.
    pub fn sheet(&mut self, sheet: &Sheet) -> io::Result<()> {
        match self.format {
            Format::Plain => self.aligned(sheet),
            Format::Table => self.bordered(sheet),
            Format::Json => sheet.rows.iter().try_for_each(|row| self.json(&object(sheet.columns, row))),
        }
    }

    /// Prints one JSON object.
    pub fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{}", json_line(value))
    }

    /// Prints a key or value that stands on a line with others.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.shown { self.raw(visible::line(bytes).as_bytes()) } else { self.raw(bytes) }
    }

    /// Prints a value that stands alone, on as many lines as it has, and a newline.
    pub fn text(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.shown { self.line(visible::text(bytes).as_bytes()) } else { self.line(bytes) }
    }

    /// Prints bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Prints bytes and a newline.
    pub fn line(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw(bytes)?;
        self.raw(b"\n")
    }

    /// Prints a sentence about the data: a line, or an object with one field.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        match self.format {
            Format::Plain | Format::Table => self.line(visible::line(text.as_bytes()).as_bytes()),
            Format::Json => self.json(&object(&["note"], &[text.into()])),
        }
    }

    /// Hands over what was printed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn aligned(&mut self, sheet: &Sheet) -> io::Result<()> {
        let mut lines = vec![sheet.titles()];
        lines.extend(sheet.rows.iter().map(|row| row.iter().map(Cell::text).collect()));
        let widths = widths(&lines);
        for line in &lines {
            let padded: Vec<String> =
                line.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}", width = *width)).collect();
            writeln!(self.out, "{}", padded.join("  ").trim_end())?;
        }
        Ok(())
    }

    fn bordered(&mut self, sheet: &Sheet) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(sheet.titles());
        for row in &sheet.rows {
            table.add_row(row.iter().map(Cell::text));
        }
        writeln!(self.out, "{table}")
    }
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    (0..columns)
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|text| text.chars().count()).max().unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_its_columns_order_and_bytes() {
        let row = [Cell::Bytes(Bytes::from_static(&[0xff])), 7_u64.into(), Cell::Absent, Cell::Flag(true)];
        let printed = object(&["key", "a", "b", "c"], &row).to_string();
        assert_eq!(printed, r#"{"key":{"base64":"/w=="},"a":7,"b":null,"c":true}"#);
    }

    #[test]
    fn json_of_control_characters_is_the_same_json_without_them() {
        let value = Value::from("\u{1b}[2J \u{7f} \u{9b}2J é");
        let line = json_line(&value);
        assert_eq!(line, r#""\u001b[2J \u007f \u009b2J é""#);
        assert_eq!(serde_json::from_str::<Value>(&line).ok(), Some(value));
    }

    #[test]
    fn cells_do_nothing_to_a_terminal() {
        assert_eq!(Cell::Bytes(Bytes::from_static(b"\x1b[2J")).text(), "\\u{1b}[2J");
        assert_eq!(Cell::from("\u{9b}2J").text(), "\\u{9b}2J");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        assert_eq!(widths(&[vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]]), [3, 2]);
    }
}
