//! A process as others can tell it from all that had or will have its pid: by the time it started.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

/// How long a killed process may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// One process of this machine since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(super) pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub(super) started: u64,
}

impl ProcessId {
    /// The process that has this pid now; none when it has ended, waited for or not.
    pub(crate) fn of(pid: u32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The fields stand behind the name, which stands in parentheses and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ended = matches!(*fields.first()?, "Z" | "X");
        let started = fields.get(19)?.parse().ok()?;
        (!ended).then_some(ProcessId { pid, started })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn lives(&self) -> bool {
        ProcessId::of(self.pid) == Some(*self)
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be signalled, or is still there after [`GONE_MAX`].
    pub(super) fn kill(self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).context("a pid beyond those of Linux")?;
        // SAFETY: kill touches no memory of ours.
        if self.lives() && unsafe { libc::kill(pid, libc::SIGKILL) } != 0 {
            let error = io::Error::last_os_error();
            ensure!(!self.lives(), "cannot kill pid {pid}: {error}");
        }
        for _ in 0..GONE_MAX.as_millis() / POLL.as_millis() {
            if !self.lives() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!("pid {pid} is not gone {GONE_MAX:?} after it was killed")
    }
}
