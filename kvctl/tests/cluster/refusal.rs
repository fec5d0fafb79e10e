//! Starts that must be refused: with a code, one clear line, and a directory that is left as it was.

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::files::{differences, tree};
use crate::process::{Kvd, Start};

/// A start that cannot be ends within this.
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// The codes of `docs/errors.md`.
pub const NOT_STARTED: i32 = 1;
pub const USAGE: i32 = 2;

/// How a start must be refused.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    pub what: &'a str,
    pub code: i32,
    /// How its line begins, behind `kvd: ` or clap's `error: `.
    pub says: &'a str,
}

impl Refusal<'_> {
    /// Starts a `kvd` that must refuse. Returns its line.
    pub async fn expect(self, cluster: &Cluster, args: &[String]) -> String {
        let Refusal { what, code, says } = self;
        let mut process = Kvd::start(args, cluster.folder("refused.log"));
        let start = process.outcome(REFUSED_MAX).await;
        let log = process.log();
        let Start::Exited(status) = start else { panic!("{what}: expected an exit, got {start:?}:\n{log}") };
        assert_eq!(status.code(), Some(code), "{what}: expected exit code {code}, got {status}:\n{log}");
        let line = log.lines().next().unwrap_or_default();
        let said = line.strip_prefix("kvd: ").or_else(|| line.strip_prefix("error: "));
        let clear = said.is_some_and(|said| said.starts_with(says));
        assert!(clear, "{what}: expected a line that begins with '{says}', got:\n{log}");
        // The parser of flags shows the place on lines of its own.
        let shows_place = line.starts_with("error: ");
        assert!(shows_place || log.lines().count() == 1, "{what}: expected one line and no more, got:\n{log}");
        println!("{what}: {code}, {line}");
        line.to_owned()
    }

    /// The same, and nothing in the data directory may change.
    pub async fn expect_unchanged(self, cluster: &Cluster, args: &[String]) -> String {
        let directory = PathBuf::from(value(args, "--data-dir"));
        let before = tree(&directory);
        let line = self.expect(cluster, args).await;
        let changed = differences(&before, &tree(&directory));
        assert!(changed.is_empty(), "{}: expected {directory:?} to be left as it was, not {changed:?}", self.what);
        line
    }
}

/// The value of a flag.
fn value<'a>(args: &'a [String], flag: &str) -> &'a str {
    &args[place(args, flag) + 1]
}

/// `args` with another value of one flag.
pub fn with(args: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut args = args.to_vec();
    let at = place(&args, flag) + 1;
    args[at] = value.to_owned();
    args
}

fn place(args: &[String], flag: &str) -> usize {
    args.iter().position(|arg| arg == flag).unwrap_or_else(|| panic!("expected {flag} among {args:?}"))
}
