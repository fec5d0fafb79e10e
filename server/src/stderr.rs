//! Standard error, on which nothing depends: a line that cannot be written, because its reader is gone or its disk is full,
//! is lost, and the node goes on.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line.
pub fn say(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
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
