//! `kvctl` at a terminal: a terminal finds nothing to obey in keys, values and messages, and long work has a bar.
//!
//! What goes elsewhere, byte for byte, is the transcripts' part. A terminal puts a carriage return before each newline.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use trefoil_world::{clock, task};

use crate::cluster::Cluster;
use crate::process::finish;
use crate::scenario::{Scenario, beside_others};

const RUN_MAX: Duration = Duration::from_secs(20);

const KEY: &str = "k\u{1b}[2J";
const VALUE: &[u8] = b"a\x1b]0;t\x07\n\tb\xff";
/// Command lines, their exit code, and what a terminal is given.
const SHOWN: [(&[&str], i32, &[u8]); 6] = [
    (&["get", KEY], 0, b"a\\u{1b}]0;t\\u{7}\r\n\tb\\xff\r\n"),
    (&["get", KEY, "--raw"], 0, b"a\x1b]0;t\x07\r\n\tb\xff"),
    (&["scan"], 0, b"k\\u{1b}[2J\ta\\u{1b}]0;t\\u{7}\\n\\tb\\xff\r\n"),
    (&["scan", "--keys-only"], 0, b"k\\u{1b}[2J\r\n"),
    (&["txn"], 0, b"SUCCESS\r\n\r\nk\\u{1b}[2J\r\na\\u{1b}]0;t\\u{7}\\n\\tb\\xff\r\n"),
    (&["get", "k", "--keyspace", "no\u{1b}[2J"], 3, b"kvctl: no keyspace 'no\\u{1b}[2J'\r\n"),
];
const TXN: &str = "\nget \"k\\x1b[2J\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shown_is_obeyed() {
    Scenario::begin("kvctl_transcripts::terminal::nothing_shown_is_obeyed");
    let _turn = beside_others().await;
    let one = Cluster::form(1, &[]).await;
    let put = one.client().await.put(KEY, VALUE).await;
    put.unwrap_or_else(|error| panic!("expected a put to be taken: {error}"));
    let stdin = one.folder("txn");
    fs::write(&stdin, TXN).expect("a file");
    for (line, code, expected) in SHOWN {
        let stdin = File::open(&stdin).expect("a file");
        let (ended, shown) = show(one.kvctl(line), stdin.into()).await;
        let (shown, expected) = (shown.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!((ended, shown), (Some(code), expected), "expected of kvctl {line:?} at a terminal (right)");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_work_has_a_bar() {
    Scenario::begin("kvctl_transcripts::terminal::long_work_has_a_bar");
    let _turn = beside_others().await;
    let one = Cluster::form(1, &[]).await;
    let (from, to) = (one.folder("from"), one.folder("to"));
    fs::create_dir(&from).expect("a folder");
    fs::write(from.join("file"), b"1").expect("a file");
    let (from, to) = (from.to_str().expect("a plain path"), to.to_str().expect("a plain path"));
    let lines: [(&[&str], &str); 3] = [
        (&["import", from], "0/1 files, "),
        (&["export", "", to], "0/1 files, "),
        (&["cluster", "verify"], " replicas have answered, "),
    ];
    for (line, bar) in lines {
        let (ended, shown) = show(one.kvctl(line), Stdio::null()).await;
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(ended, Some(0), "expected kvctl {line:?} to work at a terminal: {shown:?}");
        assert!(shown.contains(bar), "expected '{bar}' of kvctl {line:?} at a terminal, got {shown:?}");
        let elsewhere = finish(one.kvctl(line), RUN_MAX).await;
        assert_eq!(elsewhere.stderr, "", "expected kvctl {line:?} to say nothing elsewhere");
    }
}

/// Runs a command whose stdout and stderr are a terminal; its exit code, and what the terminal was given.
async fn show(command: Command, stdin: Stdio) -> (Option<i32>, Vec<u8>) {
    let said = format!("{command:?}");
    let (mut ours, theirs) = terminal();
    let stderr = theirs.try_clone().expect("a second handle");
    let mut command = tokio::process::Command::from(command);
    command.stdin(stdin).stdout(theirs).stderr(stderr).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("expected to run {said}: {error}"));
    // It has handles of the terminal, and reading ends only when nobody has.
    drop(command);
    let reading = task::spawn(task::blocking(move || {
        let mut shown = Vec::new();
        // With the last handle the terminal is gone, which is an error.
        let _ = ours.read_to_end(&mut shown);
        shown
    }));
    let Ok(status) = clock::timeout(RUN_MAX, child.wait()).await else {
        panic!("expected an end within {RUN_MAX:?} of {said}");
    };
    let shown = reading.await.expect("a task that ends").expect("a thread that ends");
    (status.expect("a child can be waited for").code(), shown)
}

/// A terminal: the side that is given what is shown, and the side that programs write to.
fn terminal() -> (File, File) {
    let ours = open("/dev/ptmx");
    let mut name = [0; 64];
    // SAFETY: the descriptor is open, and `ptsname_r` writes no more than `name` holds, a zero at the end.
    let name = unsafe {
        let unlocked = libc::unlockpt(ours.as_raw_fd());
        let named = libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr(), name.len());
        assert_eq!((unlocked, named), (0, 0), "expected a terminal of our own");
        CStr::from_ptr(name.as_ptr())
    };
    let theirs = open(name.to_str().expect("a plain path"));
    (ours, theirs)
}

/// Opens a side of a terminal, without making it this process's own.
fn open(path: &str) -> File {
    let opened = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    opened.unwrap_or_else(|error| panic!("expected to open {path}: {error}"))
}
