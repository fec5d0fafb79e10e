//! Streams that never end, and streams that cannot be written: what `kvctl` reads is bounded, its exit code tells what it
//! cannot say, and nothing ends a node for a line it cannot write.

use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use trefoil_world::clock;

use crate::cluster::Cluster;
use crate::process::{finish, kvd_program};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const RUN_MAX: Duration = Duration::from_secs(20);
/// A node serves within this, and stops within this.
const NODE_MAX: Duration = Duration::from_secs(30);
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// The same command with streams that a shell redirects, such as by `>/dev/full`.
pub fn redirected(command: &Command, how: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {how}"));
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// An answer that cannot be printed: a write was done all the same, so that it is not "nothing done".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kvctl_with_a_full_stdout() {
    Scenario::begin("streams::kvctl_with_a_full_stdout");
    let _turn = beside_others().await;
    let one = Cluster::form(1, &[]).await;
    let lines: [(&[&str], i32); 8] = [
        (&["put", "k", "v"], 5),
        (&["get", "k"], 3),
        (&["del", "k"], 5),
        (&["cluster", "nodes"], 3),
        (&["version"], 3),
        (&["--version"], 3),
        (&["--help"], 3),
        (&["get", "--help"], 3),
    ];
    for (line, code) in lines {
        let done = finish(redirected(&one.kvctl(line), ">/dev/full"), RUN_MAX).await;
        done.expect_code(&format!("kvctl {line:?} with a full stdout"), &[code]);
        let clear = "kvctl: cannot write the output: No space left on device (os error 28)\n";
        assert_eq!(done.stderr, clear, "expected of kvctl {line:?} with a full stdout one line (right)");
    }
}

/// What cannot be said changes nothing of how a command ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kvctl_with_a_full_stderr() {
    Scenario::begin("streams::kvctl_with_a_full_stderr");
    let _turn = beside_others().await;
    let one = Cluster::form(1, &[]).await;
    let lines: [(&[&str], i32); 4] = [
        (&["put", "k", "v"], 0),
        (&["put", "k", "v", "--if-absent"], 1),
        (&["get", "k", "--no-such-flag"], 2),
        (&["put", "", "v"], 3),
    ];
    for (line, code) in lines {
        let done = finish(redirected(&one.kvctl(line), "2>/dev/full"), RUN_MAX).await;
        done.expect_code(&format!("kvctl {line:?} with a full stderr"), &[code]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kvctl_with_a_stdin_that_never_ends() {
    Scenario::begin("streams::kvctl_with_a_stdin_that_never_ends");
    let _turn = beside_others().await;
    let one = Cluster::form(1, &[]).await;
    for (line, what) in [(&["txn"][..], "the transaction"), (&["put", "k", "-"], "the value")] {
        let done = finish(redirected(&one.kvctl(line), "</dev/zero"), RUN_MAX).await;
        done.expect_code(&format!("kvctl {line:?} that reads without end"), &[2]);
        let clear = format!("kvctl: {what} on stdin has more than 67108864 bytes, the most that is read\n");
        assert_eq!(done.stderr, clear, "expected of kvctl {line:?} one line (right)");
    }
}

/// Its lines are lost, and it serves and stops as others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_write_its_lines() {
    Scenario::begin("streams::a_node_that_cannot_write_its_lines");
    let _turn = beside_others().await;
    let cases = [
        (Lost::Closed, "debug"),
        (Lost::Full, "debug"),
        (Lost::Full, "trace"),
        (Lost::Unread, "debug"),
        (Lost::Unread, "trace"),
    ];
    for (lost, level) in cases {
        let cluster = Cluster::plan(1, &["--log-level", level]).await;
        let mut kvd = Command::new(kvd_program());
        kvd.args(cluster.args(0));
        let mut child = lost.start(&kvd);
        let address = &cluster.nodes[0].client;
        until(&format!("a put at a node whose stderr is {lost:?}"), NODE_MAX, async || {
            let ended = child.try_wait().expect("a child can be waited for");
            assert_eq!(ended, None, "expected a node whose stderr is {lost:?} to go on");
            let mut kv = raw::kv(address).await?;
            kv.put(bounded(raw::put("k", "v"), ATTEMPT_MAX)).await.ok()
        })
        .await;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("a pid of a child that runs");
        // SAFETY: kill touches no memory; the child was not waited for to its end, so the pid is still its own.
        let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(sent, 0, "expected to signal pid {pid}");
        let ended = clock::timeout(NODE_MAX, child.wait()).await.expect("an end in time");
        let status = ended.expect("a child can be waited for");
        assert!(status.success(), "expected a clean stop of a node whose stderr is {lost:?}, got {status}");
        println!("a node whose stderr is {lost:?} took a put and stopped");
    }
}

/// What becomes of the lines of a node.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Closed,
    Full,
    /// A pipe whose reader is gone.
    Unread,
}

impl Lost {
    fn start(self, kvd: &Command) -> tokio::process::Child {
        let command = match self {
            Lost::Closed => redirected(kvd, "2>&-"),
            Lost::Full => redirected(kvd, "2>/dev/full"),
            Lost::Unread => {
                let (_, writer) = io::pipe().expect("a pipe");
                let mut command = redirected(kvd, "");
                command.stderr(writer);
                command
            }
        };
        let said = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command.spawn().unwrap_or_else(|error| panic!("expected to start {said}: {error}"))
    }
}
