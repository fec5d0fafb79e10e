//! Running iproute2's `ip`, and nothing but it. Every failure names the command and what it said.
//!
//! Left out: a bound on its time; it asks the kernel, which answers at once.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// What became of a command that did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpError {
    #[error("cannot run `ip {command}` (iproute2 is needed)")]
    NotRun { command: String, source: io::Error },
    #[error("`ip {command}` failed ({status}): {stderr}")]
    Refused { command: String, status: ExitStatus, stderr: String },
}

impl IpError {
    /// Whether it said these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        match self {
            IpError::NotRun { .. } => false,
            IpError::Refused { stderr, .. } => stderr.contains(words),
        }
    }
}

/// Runs `ip` with the words of `line`, none of which holds a blank; what it printed.
pub(crate) fn ip(line: &str) -> Result<String, IpError> {
    ip_words(&line.split_whitespace().collect::<Vec<_>>())
}

/// Writes `value` into a file of `/proc/sys`, as a namespace has it.
pub(crate) fn set_kernel(namespace: &str, file: &str, value: &str) -> Result<(), IpError> {
    let path = format!("/proc/sys/{file}");
    ip_words(&["netns", "exec", namespace, "sh", "-c", "echo \"$1\" > \"$0\"", &path, value]).map(|_| ())
}

fn ip_words(words: &[&str]) -> Result<String, IpError> {
    let command = words.join(" ");
    let output = match Command::new("ip").args(words).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(source) => return Err(IpError::NotRun { command, source }),
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(IpError::Refused { command, status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
