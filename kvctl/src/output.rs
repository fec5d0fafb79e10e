//! Printing what was found: for people (plain, table) or for programs (JSON, one object a line).
//!
//! A command describes its findings as a [`Sheet`]; how that looks is decided here. What is streamed is printed pair by
//! pair, with the other methods of [`Output`].

use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use clap::ValueEnum;
use comfy_table::Table;
use serde_json::{Map, Value};
use trefoil_client::KeyValue;

use crate::encoding;

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
            Cell::Text(text) => text.clone(),
            Cell::Number(number) => number.to_string(),
            Cell::Flag(flag) => flag.to_string(),
            Cell::Bytes(bytes) => visible(bytes),
            Cell::Absent => "-".to_owned(),
        }
    }
}

/// Text as it is, but nothing that would move the cursor.
fn visible(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
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

/// Stdout.
pub struct Output {
    pub format: Format,
    out: Box<dyn Write>,
}

impl Output {
    /// Prints on stdout.
    pub fn new(format: Format) -> Output {
        Output { format, out: Box::new(BufWriter::new(io::stdout())) }
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
        writeln!(self.out, "{value}")
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
            Format::Plain | Format::Table => self.line(text.as_bytes()),
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
    fn control_characters_are_shown() {
        assert_eq!(visible(b"a\x1b[2J\nb"), "a\\u{1b}[2J\\nb");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        assert_eq!(widths(&[vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]]), [3, 2]);
    }
}
