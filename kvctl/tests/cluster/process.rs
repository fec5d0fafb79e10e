//! Processes: a running `kvd` with its log, and commands that run to their end.
//!
//! Whatever is started here ends with its handle, also when a test panics, and is signalled by its own pid only.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trefoil_world::clock::{self, Instant};

use crate::wait::within;

/// What a node prints once it serves.
pub const READY_LINE: &str = "ready to serve client requests";

/// The program under test.
pub fn kvd_program() -> PathBuf {
    if let Some(given) = env::var_os("KVD_BIN") {
        return given.into();
    }
    let me = env::current_exe().expect("the path of this test binary");
    // target/release/deps/cluster-… lies one folder below the programs.
    let programs = me.parent().and_then(Path::parent).expect("a folder of programs above this test binary");
    programs.join("kvd")
}

/// A started `kvd`.
#[derive(Debug)]
pub struct Kvd {
    child: Child,
    log: PathBuf,
    /// Just before it was executed.
    pub begun: Instant,
}

/// What came of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Ready,
    Exited(ExitStatus),
    /// It runs, and is not ready.
    StaysOut,
}

impl Kvd {
    /// Starts it; its stderr goes to the file `log`.
    pub fn start(args: &[String], log: PathBuf) -> Kvd {
        let program = kvd_program();
        let stderr = File::create(&log).unwrap_or_else(|error| panic!("expected to create {log:?}: {error}"));
        let begun = clock::now();
        let child = Command::new(&program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("expected to start {program:?} (build it, or set KVD_BIN): {error}"));
        Kvd { child, log, begun }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of what it has said, for messages.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: i32) {
        if self.exited().is_none() {
            let pid = i32::try_from(self.child.id()).expect("a pid");
            // SAFETY: kill touches no memory; the child was not waited for yet, so the pid is still its own.
            let sent = unsafe { libc::kill(pid, signal) };
            assert_eq!(sent, 0, "expected to signal pid {pid}");
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// How it ends within `bound`.
    pub async fn exit(&mut self, bound: Duration) -> ExitStatus {
        match within(bound, async || self.exited()).await {
            Some(status) => status,
            None => panic!("expected pid {} to exit within {bound:?}; its log ends:\n{}", self.pid(), self.log_end()),
        }
    }

    /// What comes of the start within `bound`.
    pub async fn outcome(&mut self, bound: Duration) -> Start {
        let settled = within(bound, async || match self.exited() {
            Some(status) => Some(Start::Exited(status)),
            None if self.log().contains(READY_LINE) => Some(Start::Ready),
            None => None,
        });
        settled.await.unwrap_or(Start::StaysOut)
    }
}

impl Drop for Kvd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writing beyond `bytes` of a file is an error to the command, as on a disk that fails or is full.
pub fn limit_files(command: &mut Command, bytes: u64) {
    // SAFETY: what runs in the child before it becomes another program makes two system calls and allocates nothing.
    unsafe { command.pre_exec(move || limit_files_here(bytes)) };
}

fn limit_files_here(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: no handler is set, and the pointer is to what lives until the call returns.
    let limited = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN) != libc::SIG_ERR
            && libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) == 0
    };
    if limited { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a command left when it ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// Panics unless the exit code is one of `codes`.
    pub fn expect_code(&self, what: &str, codes: &[i32]) {
        let ended = self.code.is_some_and(|code| codes.contains(&code));
        let stdout = String::from_utf8_lossy(&self.stdout);
        let code = self.code;
        assert!(ended, "{what}: expected an exit code of {codes:?}, got {code:?}\n{stdout}\n{}", self.stderr);
    }
}

/// Runs a command to its end, which must come within `bound`.
pub async fn finish(command: Command, bound: Duration) -> Finished {
    finish_given(command, b"", bound).await
}

/// Runs a command that can read `stdin` to its end, which must come within `bound`.
pub async fn finish_given(command: Command, stdin: &[u8], bound: Duration) -> Finished {
    let said = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // One that reads none of it may have ended already.
            let _ = pipe.write_all(stdin).await;
        }
        child.wait_with_output().await
    };
    match clock::timeout(bound, run).await {
        Ok(Ok(output)) => Finished {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Ok(Err(error)) => panic!("expected to run {said}: {error}"),
        Err(_) => panic!("expected an end within {bound:?} of {said}"),
    }
}
