//! Transcripts of `kvctl`: command lines, what they read, and what they must print and exit with.
//!
//! Data is on stdout and all else on stderr, a line each that begins with `kvctl: `; only the parser of the command
//! line says more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;

use crate::process::{Finished, finish_given};

/// A run that takes longer failed.
const RUN_MAX: Duration = Duration::from_secs(20);

/// What stdout must be.
#[derive(Clone, Copy, Debug)]
enum Print {
    Bytes(&'static [u8]),
    /// This text and a newline.
    Text(&'static str),
    /// Anything with this in it.
    Part(&'static str),
    /// One line, with this in it.
    Line(&'static str),
}

/// One run of `kvctl`.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The arguments, with a space between two.
    line: &'static [u8],
    stdin: &'static [u8],
    code: i32,
    stdout: Print,
    /// A part of each line on stderr.
    stderr: &'static [&'static str],
}

/// A run that ends with this code and, unless told otherwise, reads, prints and says nothing.
pub fn run(code: i32, line: &'static [u8]) -> Run {
    Run { line, stdin: b"", code, stdout: Print::Bytes(b""), stderr: &[] }
}

impl Run {
    /// It is given this on stdin.
    pub fn reads(self, stdin: &'static [u8]) -> Run {
        Run { stdin, ..self }
    }

    /// It prints this text and a newline.
    pub fn prints(self, text: &'static str) -> Run {
        Run { stdout: Print::Text(text), ..self }
    }

    /// It prints these bytes.
    pub fn prints_bytes(self, bytes: &'static [u8]) -> Run {
        Run { stdout: Print::Bytes(bytes), ..self }
    }

    /// It prints something with this in it.
    pub fn prints_part(self, part: &'static str) -> Run {
        Run { stdout: Print::Part(part), ..self }
    }

    /// It prints one line, with this in it.
    pub fn prints_line(self, part: &'static str) -> Run {
        Run { stdout: Print::Line(part), ..self }
    }

    /// It says on stderr so many lines, each with such a part.
    pub fn says(self, stderr: &'static [&'static str]) -> Run {
        Run { stderr, ..self }
    }

    /// The command: one word, or two of `cluster`.
    fn command(&self) -> String {
        let line = String::from_utf8_lossy(self.line);
        let words = if line.starts_with("cluster ") { 2 } else { 1 };
        line.split(' ').take(words).collect::<Vec<_>>().join(" ")
    }

    /// Runs it and compares.
    async fn check(&self, mut command: Command) {
        command.args(self.line.split(|byte| *byte == b' ').map(OsStr::from_bytes));
        let done = finish_given(command, self.stdin, RUN_MAX).await;
        let what = format!("kvctl {}", String::from_utf8_lossy(self.line));
        done.expect_code(&what, &[self.code]);
        self.check_stdout(&what, &done);
        self.check_stderr(&what, &done);
    }

    fn check_stdout(&self, what: &str, done: &Finished) {
        let shown = String::from_utf8_lossy(&done.stdout);
        let right = match self.stdout {
            Print::Bytes(bytes) => done.stdout == bytes,
            Print::Text(text) => done.stdout.strip_suffix(b"\n") == Some(text.as_bytes()),
            Print::Part(part) => shown.contains(part),
            Print::Line(part) => shown.contains(part) && shown.lines().count() == 1,
        };
        assert!(right, "{what}: expected on stdout {:?}, got {shown:?}; on stderr {:?}", self.stdout, done.stderr);
    }

    fn check_stderr(&self, what: &str, done: &Finished) {
        let mut said: Vec<&str> = done.stderr.lines().collect();
        if said.first().is_some_and(|line| line.starts_with("error: ")) {
            said.truncate(1);
        } else {
            let marked = said.iter().all(|line| line.starts_with("kvctl: "));
            assert!(marked, "{what}: expected each line on stderr to begin with 'kvctl: ', got {said:?}");
        }
        let right =
            said.len() == self.stderr.len() && said.iter().zip(self.stderr).all(|(line, part)| line.contains(part));
        assert!(right, "{what}: expected on stderr a line with each of {:?}, got {said:?}", self.stderr);
    }
}

/// The exit codes each command was seen to end with.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<String, BTreeSet<i32>>);

impl Seen {
    /// Runs one after the other, since each builds on those before it.
    pub async fn in_turn(&mut self, runs: &[Run], kvctl: impl Fn() -> Command) {
        for run in runs {
            run.check(kvctl()).await;
            self.note(run);
        }
    }

    /// Runs all of them at once: those that have to wait for a deadline.
    pub async fn at_once(&mut self, runs: &[Run], kvctl: impl Fn() -> Command) {
        join_all(runs.iter().map(|run| run.check(kvctl()))).await;
        runs.iter().for_each(|run| self.note(run));
    }

    fn note(&mut self, run: &Run) {
        self.0.entry(run.command()).or_default().insert(run.code);
    }

    /// Each of these commands was seen to end with each of its codes.
    pub fn expect(&self, expected: &[(&str, &[i32])]) {
        for (command, codes) in expected {
            let seen: Vec<i32> = self.0.get(*command).into_iter().flatten().copied().collect();
            println!("kvctl {command}: exit codes {seen:?}");
            assert_eq!(seen, *codes, "expected runs of kvctl {command} with each of its exit codes");
        }
    }
}
