//! What `sim` can be told to do, a file each; `arguments.rs` is the command line.

pub mod arguments;
pub mod check;
pub mod child;
pub mod many;
pub mod one;
pub mod smaller;

/// Exit codes, of which those of one seed are also what its parent goes by.
pub const GREEN: u8 = 0;
pub const RED: u8 = 1;
pub const UNKNOWN: u8 = 2;
pub const BAD_ARGUMENTS: u8 = 254;
pub const PROGRAM_FAILED: u8 = 255;

/// What the line begins with that a parent reads.
const REPORT: &str = "report: ";
