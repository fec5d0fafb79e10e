//! Line 1: a newcomer's first minutes. What README's "Quick start" shows is what happens.
//!
//! Left out: `make run` and `make setup`, which need a fresh machine; what they start is started here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::time::Duration;

use trefoil_world::{clock, net};

use crate::process::{Finished, READY_LINE, finish, kvd_program};
use crate::scenario::{Dice, Scenario, beside_others};
use crate::wait::{until, within};

const NODES: u16 = 3;
const READY_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(20);
const RUN_MAX: Duration = Duration::from_secs(20);
/// How soon after a start the map shows every replica as live.
const MAP_MAX: Duration = Duration::from_secs(10);
/// What README has for the ports and the folder of a dev cluster.
const README_PORTS: [u16; 3] = [2379, 2479, 2579];
const README_FOLDER: &str = "trefoil-dev";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_minutes() {
    let scenario = Scenario::begin("cluster_1::first_minutes");
    let _turn = beside_others().await;
    let mut dice = scenario.dice();
    let root = tempfile::tempdir().expect("a fresh directory");
    let mut steps = quick_start().into_iter();
    let run = steps.next().expect("a first step of README's quick start");
    assert_eq!(run.command, "make run", "expected README's quick start to begin so");

    let first = Dev::start(root.path(), "first", free_base(&mut dice).await).await;
    expect_hints(&first, &run.prints);
    let mut played = 0;
    for step in steps.filter(|step| step.command.starts_with("kvctl ")) {
        play(&first, &step).await;
        played += 1;
    }
    assert!(played > 0, "expected README's quick start to run kvctl");
    println!("{played} commands of README's quick start print what it says");
    expect_status(&first).await;
    let put = first.kvctl("kvctl put greeting kept").await;
    put.expect_code("kvctl put greeting kept", &[0]);
    let revision = revision_of(&put);
    let base = first.base;
    assert_eq!(first.interrupt().await.code(), Some(0), "expected Ctrl-C to end it cleanly");

    let second = Dev::start(root.path(), "second", other_base(&mut dice, base).await).await;
    expect_hints(&second, &run.prints);
    let got = second.kvctl("kvctl get greeting").await;
    got.expect_code("kvctl get greeting", &[0]);
    assert_eq!(got.stdout, b"kept\n", "expected what was put before the restart");
    let put = second.kvctl("kvctl put greeting hello").await;
    put.expect_code("kvctl put greeting hello", &[0]);
    assert_eq!(revision_of(&put), revision + 1, "expected a second run to go on where the first one ended");
    assert_eq!(second.interrupt().await.code(), Some(0), "expected Ctrl-C to end it cleanly");
}

/// The number in `revision 7`.
fn revision_of(put: &Finished) -> u64 {
    let said = String::from_utf8_lossy(&put.stdout);
    let number = said.trim_end().strip_prefix("revision ").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("expected 'revision N', got {said:?}"))
}

/// A command README shows, and the lines it shows behind it.
#[derive(Debug)]
struct Step {
    command: String,
    prints: Vec<String>,
}

/// All commands of README's section "Quick start".
fn quick_start() -> Vec<Step> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("expected to read {path}: {error}"));
    let mut sections = text.split("\n## ");
    let section = sections.find(|section| section.starts_with("Quick start"));
    let section = section.expect("a section 'Quick start' in README.md");
    let mut steps: Vec<Step> = Vec::new();
    let mut in_block = false;
    for line in section.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            steps.push(Step { command: command.to_owned(), prints: Vec::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| in_block) {
            step.prints.push(line.to_owned());
        }
    }
    steps
}

/// Runs one command of README and compares what it prints.
async fn play(dev: &Dev, step: &Step) {
    let Step { command, prints } = step;
    if command == "kvctl cluster verify" {
        return expect_equal(&dev.kvctl(command).await);
    }
    let mut done = dev.kvctl(command).await;
    if command == "kvctl cluster map" {
        // README shows a cluster that has come to rest.
        let rest = async || {
            let done = dev.kvctl(command).await;
            (lines(&done.stdout) == *prints).then_some(done)
        };
        if let Some(rested) = within(MAP_MAX, rest).await {
            done = rested;
        }
    }
    let (says, shows): (Vec<&str>, Vec<&str>) =
        prints.iter().map(String::as_str).partition(|line| line.starts_with("kvctl: "));
    let code = i32::from(!says.is_empty());
    done.expect_code(command, &[code]);
    assert_eq!(lines(&done.stdout), shows, "{command}: expected on stdout what README shows");
    let said: Vec<&str> = done.stderr.lines().collect();
    assert_eq!(said, says, "{command}: expected on stderr what README shows");
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(|line| line.trim_end().to_owned()).collect()
}

/// README tells in words what `kvctl cluster verify` prints: a line per replica, each ending in `equal`.
fn expect_equal(done: &Finished) {
    done.expect_code("kvctl cluster verify", &[0]);
    let lines = lines(&done.stdout);
    let rows = lines.get(1..).unwrap_or_default();
    assert_eq!(rows.len(), 6, "expected a line per replica behind the head, got {lines:#?}");
    assert!(rows.iter().all(|row| row.ends_with(" equal")), "expected each to end in 'equal', got {lines:#?}");
}

/// The last hint: README shows no output of it.
async fn expect_status(dev: &Dev) {
    let done = dev.kvctl("kvctl cluster status").await;
    done.expect_code("kvctl cluster status", &[0]);
    let lines = lines(&done.stdout);
    let head: Vec<&str> = lines.first().map(|head| head.split_whitespace().take(4).collect()).unwrap_or_default();
    assert_eq!(head, ["PARTITION", "REPLICA", "NODE", "ROLE"], "expected a head, got {lines:#?}");
    for partition in ["_meta/0", "default/0"] {
        let rows = lines.iter().filter(|line| line.starts_with(partition)).count();
        assert_eq!(rows, usize::from(NODES), "expected a row per replica of {partition}, got {lines:#?}");
    }
}

/// What `kvd dev` prints is what README shows, but for ports and folder, and every hint it gives is one README gives.
fn expect_hints(dev: &Dev, shown: &[String]) {
    let (ready, hints): (Vec<&String>, Vec<&String>) = shown.iter().partition(|line| line.ends_with(READY_LINE));
    let folder = dev.folder.to_str().expect("a plain path");
    let ours = |line: &&String| {
        let line = line.replace(README_FOLDER, folder);
        let ports = README_PORTS.iter().zip(dev.client_ports());
        ports.fold(line, |line, (readme, port)| {
            line.replace(&format!("127.0.0.1:{readme}"), &format!("127.0.0.1:{port}"))
        })
    };
    let expected: Vec<String> = hints.iter().map(ours).collect();
    let stdout = fs::read(&dev.stdout).expect("a file of what it printed");
    assert_eq!(lines(&stdout), expected, "expected kvd dev to print what README shows");
    let stderr = dev.stderr();
    for line in ready {
        let count = stderr.lines().filter(|said| said == line).count();
        assert_eq!(count, 1, "expected '{line}' once on stderr, got:\n{stderr}");
    }
}

/// A running `kvd dev`. It is killed with its handle.
#[derive(Debug)]
struct Dev {
    child: tokio::process::Child,
    base: u16,
    folder: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Dev {
    /// Starts it and waits until each of its nodes is ready.
    async fn start(root: &Path, name: &str, base: u16) -> Dev {
        let folder = root.join("data");
        let (stdout, stderr) = (root.join(format!("{name}.out")), root.join(format!("{name}.err")));
        let file =
            |path: &Path| File::create(path).unwrap_or_else(|error| panic!("expected to create {path:?}: {error}"));
        let program = kvd_program();
        let child = tokio::process::Command::new(&program)
            .args(["dev", "--nodes", &NODES.to_string(), "--base-port", &base.to_string(), "--data-dir"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(file(&stdout))
            .stderr(file(&stderr))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("expected to start {program:?} (build it, or set KVD_BIN): {error}"));
        let mut dev = Dev { child, base, folder, stdout, stderr };
        let ready = within(READY_MAX, async || {
            let exited = dev.child.try_wait().expect("a child can be waited for");
            assert_eq!(exited, None, "expected kvd dev to run; it said:\n{}", dev.stderr());
            let said = dev.stderr();
            let says = |line: String| said.lines().any(|said| said == line);
            (1..=NODES).all(|number| says(format!("n{number}: {READY_LINE}"))).then_some(())
        });
        let ready = ready.await;
        assert!(ready.is_some(), "expected {NODES} ready nodes within {READY_MAX:?}; they said:\n{}", dev.stderr());
        dev
    }

    fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn client_ports(&self) -> impl Iterator<Item = u16> {
        let base = self.base;
        (0..NODES).map(move |number| base + number * 100)
    }

    /// Runs a command line of README against it.
    async fn kvctl(&self, line: &str) -> Finished {
        let endpoints: Vec<String> = self.client_ports().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = process::Command::new(env!("CARGO_BIN_EXE_kvctl"));
        command.env("KVCTL_ENDPOINTS", endpoints.join(",")).args(line.split_whitespace().skip(1));
        finish(command, RUN_MAX).await
    }

    /// Ctrl-C, and waits for the end.
    async fn interrupt(mut self) -> ExitStatus {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).expect("the pid of a running child");
        // SAFETY: kill touches no memory; the child was not waited for yet, so the pid is still its own.
        let sent = unsafe { libc::kill(pid, libc::SIGINT) };
        assert_eq!(sent, 0, "expected to signal pid {pid}");
        match clock::timeout(STOP_MAX, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("expected kvd dev to end within {STOP_MAX:?}; it said:\n{}", self.stderr()),
        }
    }
}

/// A port that is free, and so are all others a dev cluster takes from there on. They lie below those that
/// `free_address` gives to tests that run meanwhile.
async fn free_base(dice: &mut Dice) -> u16 {
    until("free ports for a dev cluster", READY_MAX, async || {
        let base = 4000 + u16::try_from(dice.below(5500)).expect("a small number");
        for port in (0..NODES).flat_map(|number| [base + number * 100, base + number * 100 + 1]) {
            net::listen(&format!("127.0.0.1:{port}")).await.ok()?;
        }
        Some(base)
    })
    .await
}

/// The same, not `base`.
async fn other_base(dice: &mut Dice, base: u16) -> u16 {
    loop {
        let other = free_base(dice).await;
        if other != base {
            return other;
        }
    }
}
