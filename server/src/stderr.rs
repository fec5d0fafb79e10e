//! Standard error, on which nothing depends: a line that cannot be written, because its reader is gone or its disk is full,
//! is lost, and the node goes on.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line.
pub fn say(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// The text on one line: control characters, which names and paths may have, as escapes.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

/// Takes whatever is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lossy;

impl Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        drop(io::stderr().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_on_one_line() {
        for (text, line) in [
            ("DIR: it's \\ and \"ü\"", "DIR: it's \\ and \"ü\""),
            ("a\nkvd: b", "a\\nkvd: b"),
            ("\t\r\u{1b}[2J\u{85}", "\\t\\r\\u{1b}[2J\\u{85}"),
        ] {
            assert_eq!(one_line(text), line);
        }
    }
}
