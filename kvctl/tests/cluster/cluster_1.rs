//! Line 1: a newcomer's first minutes. What README's "Quick start" shows is what happens.
//!
//! The full form enters README's own `make run`, with README's ports and folder; the short one starts what `make run`
//! does on free ports, so that it runs beside anything. `.ci/fresh-clone` runs the full form in a clone just made.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use trefoil_world::{clock, net};

use crate::checkout;
use crate::process::{Finished, READY_LINE, finish, kvd_program};
use crate::scenario::{Dice, Scenario, beside_others};
use crate::wait::{until, within};

const NODES: u16 = 3;
const READY_MAX: Duration = Duration::from_secs(30);
/// The same, when cargo first sees that nothing is to be built.
const BUILD_MAX: Duration = Duration::from_secs(120);
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

    let first = match scenario.full {
        true => Dev::make_run(root.path()).await,
        false => Dev::start(root.path(), "first", &root.path().join("data"), free_base(&mut dice).await).await,
    };
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
    let (base, folder) = (first.base, first.folder.clone());
    first.interrupt().await;

    let second = Dev::start(root.path(), "second", &folder, other_base(&mut dice, base).await).await;
    expect_hints(&second, &run.prints);
    let got = second.kvctl("kvctl get greeting").await;
    got.expect_code("kvctl get greeting", &[0]);
    assert_eq!(got.stdout, b"kept\n", "expected what was put before the restart");
    let put = second.kvctl("kvctl put greeting hello").await;
    put.expect_code("kvctl put greeting hello", &[0]);
    assert_eq!(revision_of(&put), revision + 1, "expected a second run to go on where the first one ended");
    second.interrupt().await;
    if scenario.full {
        fs::remove_dir_all(&folder).unwrap_or_else(|error| panic!("expected to remove {folder:?}: {error}"));
    }
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
    let text = checkout::text("README.md");
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
    let folder = dev.folder_shown.to_str().expect("a plain path");
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

/// A running `kvd dev`, at the head of a process group that is killed with its handle.
#[derive(Debug)]
struct Dev {
    child: tokio::process::Child,
    base: u16,
    folder: PathBuf,
    /// The folder as `kvd dev` names it.
    folder_shown: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Dev {
    /// Enters `make run` in the checkout. Make writes its own lines beside those of `kvd`.
    async fn make_run(root: &Path) -> Dev {
        let checkout = checkout::folder();
        let folder = checkout.join(README_FOLDER);
        assert!(!folder.exists(), "expected no data of an earlier run, but there is {folder:?}");
        let mut make = tokio::process::Command::new("make");
        make.args(["--silent", "run"]).current_dir(checkout);
        let mut dev = Dev::spawn(make, root, "first", &folder, README_PORTS[0]);
        dev.folder_shown = README_FOLDER.into();
        dev.ready(BUILD_MAX).await
    }

    /// Starts what `make run` starts, on ports from `base` on.
    async fn start(root: &Path, name: &str, folder: &Path, base: u16) -> Dev {
        let mut kvd = tokio::process::Command::new(kvd_program());
        kvd.args(["dev", "--nodes", &NODES.to_string(), "--base-port", &base.to_string(), "--data-dir"]).arg(folder);
        Dev::spawn(kvd, root, name, folder, base).ready(READY_MAX).await
    }

    fn spawn(mut command: tokio::process::Command, root: &Path, name: &str, folder: &Path, base: u16) -> Dev {
        let (stdout, stderr) = (root.join(format!("{name}.out")), root.join(format!("{name}.err")));
        let file =
            |path: &Path| File::create(path).unwrap_or_else(|error| panic!("expected to create {path:?}: {error}"));
        command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr)).process_group(0).kill_on_drop(true);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("expected to start {command:?} (build it, or set KVD_BIN): {error}"));
        Dev { child, base, folder: folder.to_owned(), folder_shown: folder.to_owned(), stdout, stderr }
    }

    /// Waits until each of its nodes is ready.
    async fn ready(mut self, max: Duration) -> Dev {
        let ready = within(max, async || {
            let exited = self.child.try_wait().expect("a child can be waited for");
            assert_eq!(exited, None, "expected kvd dev to run; it said:\n{}", self.stderr());
            let said = self.stderr();
            let says = |line: String| said.lines().any(|said| said == line);
            (1..=NODES).all(|number| says(format!("n{number}: {READY_LINE}"))).then_some(())
        });
        let ready = ready.await;
        assert!(ready.is_some(), "expected {NODES} ready nodes within {max:?}; they said:\n{}", self.stderr());
        self
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

    /// Sends a signal to the whole group, unless it has ended.
    fn signal(&self, signal: i32) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        // SAFETY: killpg touches no memory; the child leads its group and was not waited for, so the id is still its own.
        let sent = unsafe { libc::killpg(pid, signal) };
        assert_eq!(sent, 0, "expected to signal group {pid}");
    }

    /// Ctrl-C, which reaches the whole process group, and waits for the clean end of all nodes.
    async fn interrupt(mut self) {
        self.signal(libc::SIGINT);
        let ended = clock::timeout(STOP_MAX, self.child.wait()).await;
        let said = self.stderr();
        let Ok(status) = ended else { panic!("expected kvd dev to end within {STOP_MAX:?}; it said:\n{said}") };
        let status = status.expect("a child can be waited for");
        // Make gives way to the signal itself, when what it ran has ended.
        let ends = status.code() == Some(0) || status.signal() == Some(libc::SIGINT);
        assert!(ends, "expected Ctrl-C to end it cleanly, got {status}; it said:\n{said}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
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
