//! A run that is interrupted takes its nodes down, removes its record, says so and exits with 255.

mod kvd;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use trefoil_jepsen::{cleanup, interrupt};

const POLL: Duration = Duration::from_millis(20);
/// A minute: longer than a node takes to be ready on a busy machine.
const POLLS_MAX: usize = 3000;
const READY_LINE: &str = "ready to serve client requests";

/// What it comes to, once it does.
fn until<T>(what: &str, mut comes: impl FnMut() -> Option<T>) -> T {
    for _ in 0..POLLS_MAX {
        if let Some(come) = comes() {
            return come;
        }
        std::thread::sleep(POLL);
    }
    panic!("waited for too long: {what}")
}

/// A harness with a run that would go on for long; killed when dropped.
struct Harness {
    child: Child,
    folder: tempfile::TempDir,
}

impl Harness {
    fn start() -> Harness {
        let folder = tempfile::tempdir().expect("a folder");
        let stderr = File::create(folder.path().join("stderr")).expect("made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen"));
        command.args(["test", "--workload", "register", "--backend", "loopback", "--no-faults", "--nodes", "1"]);
        command.args(["--time-limit", "600", "--rate", "10", "--concurrency", "1", "--seed", "1", "--kvd"]);
        command.arg(kvd::path());
        command.arg("--out").arg(folder.path().join("runs"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("it starts");
        Harness { child, folder }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).expect("it was made")
    }

    /// Whether its node has said that it is ready.
    fn is_ready(&self) -> bool {
        let Ok(runs) = fs::read_dir(self.folder.path().join("runs")) else { return false };
        let mut logs = runs.flatten().map(|run| fs::read_to_string(run.path().join("n1.1.log")).unwrap_or_default());
        logs.any(|log| log.contains(READY_LINE))
    }

    fn record(&self) -> PathBuf {
        cleanup::place().join(format!("tfj-lo{}x0", self.child.id()))
    }

    /// The pid of its node, as its record has it.
    fn node(&self) -> u64 {
        let state = fs::read(self.record().join("state.json")).expect("there is a record");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("it is JSON");
        state["processes"][0]["pid"].as_u64().expect("the node is in it")
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_interrupted_leaves_nothing() {
    for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM")] {
        let mut harness = Harness::start();
        until("the node is ready", || harness.is_ready().then_some(()));
        let node = PathBuf::from(format!("/proc/{}", harness.node()));
        assert!(node.exists());
        let pid = i32::try_from(harness.child.id()).expect("a pid");
        // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let status = until("it ends", || harness.child.try_wait().expect("it is ours"));
        let said = harness.said();
        assert_eq!(status.code(), Some(i32::from(interrupt::EXIT_CODE)), "{said}");
        assert!(said.contains(&format!("interrupted by {name}")), "{said}");
        assert!(!node.exists() && !harness.record().exists(), "{said}");
    }
}
