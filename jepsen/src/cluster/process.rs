//! One process of a node, with its log.
//!
//! Invariants:
//!
//! * It is signalled by its own pid only, and only before it was waited for.
//! * It does not outlive its handle. Nor does it outlive the harness: the kernel kills it with the thread that started
//!   it. So it must be started on a thread that lives as long as the run, a runtime's own, never on one of those for
//!   blocking work, which end when there is none.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use trefoil_world::clock;

use super::Program;
use crate::backend::Place;
use crate::cleanup::ProcessId;

const POLL: Duration = Duration::from_millis(10);
const LOG_END_LINES: usize = 20;

/// A started program, killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts it with these variables in its environment; what it says goes to the file `log`.
    pub(super) fn start(
        place: &Place,
        program: &Program,
        args: &[String],
        environment: Vec<(OsString, OsString)>,
        log: &Path,
    ) -> anyhow::Result<Process> {
        let stderr = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut words = place.prefix.iter().map(OsStr::new).chain([program.path().as_os_str()]);
        let mut command = Command::new(words.next().expect("the program at least is a word"));
        command.args(words).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // Settings of whoever started the harness are none of the cluster's.
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(program.settings().as_bytes()) {
                command.env_remove(name);
            }
        }
        command.envs(environment);
        // A group of its own: an interrupt at the terminal is the harness'.
        command.process_group(0);
        die_with_this_thread(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {} with {command:?}", place.name))?;
        Ok(Process { child })
    }

    /// Sends a signal, unless it has ended.
    pub(super) fn signal(&mut self, signal: i32) -> anyhow::Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).context("a pid beyond those of Linux")?;
        // SAFETY: kill touches no memory; the child was not waited for yet, so the pid is still its own.
        match unsafe { libc::kill(pid, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).with_context(|| format!("cannot signal pid {pid}")),
        }
    }

    /// How it ended, if it has.
    pub(super) fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for pid {}", self.child.id()))
    }

    /// How it ended, as soon as it has; nothing when it is still there at that time.
    pub(super) async fn end(&mut self, until: clock::Instant) -> anyhow::Result<Option<ExitStatus>> {
        loop {
            let exited = self.exited()?;
            if exited.is_some() || clock::now() >= until {
                return Ok(exited);
            }
            clock::sleep(POLL).await;
        }
    }

    /// It, as the system tells it from others; none when it has ended.
    pub(super) fn id(&self) -> Option<ProcessId> {
        ProcessId::of(self.child.id())
    }

    /// Whether all its threads are stopped.
    pub(super) fn is_stopped(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return false };
        threads.flatten().all(|thread| {
            // The state stands behind the name, which stands in parentheses.
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, behind)| behind.trim_start().starts_with('T'))
        })
    }

    /// kill -9, without waiting.
    pub(super) fn kill(&mut self) {
        // It may have ended, and been waited for, already.
        let _ = self.child.kill();
    }
}

/// What stands in a node's log.
pub(super) fn said(log: &Path) -> String {
    fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The last lines of a log.
pub(super) fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_END_LINES)..].join("\n")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // The same holds here.
        let _ = self.child.wait();
    }
}

/// Has the kernel kill the process when this thread ends.
fn die_with_this_thread(command: &mut Command) {
    let harness = std::process::id();
    // SAFETY: between fork and exec only prctl and getppid are called, which may be; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The harness may have died before the kernel was told.
            match u32::try_from(libc::getppid()) {
                Ok(parent) if parent == harness => Ok(()),
                Ok(_) | Err(_) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
}
