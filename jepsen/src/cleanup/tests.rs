//! Records of harnesses that live and that died, with processes of theirs.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::record::{State, place_of};
use super::*;

/// A process; killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start(stdin: Stdio) -> Sleeper {
        Sleeper(Command::new("sleep").arg("600").stdin(stdin).spawn().expect("a process"))
    }

    fn id(&self) -> ProcessId {
        ProcessId::of(self.0.id()).expect("it runs")
    }

    fn end(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// A folder for records.
struct Scene {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        Scene { root: folder.path().join("records"), _folder: folder }
    }

    fn records(&self) -> Records {
        Records::lock(&self.root).expect("a folder of ours")
    }

    /// A record as a harness makes it, of which the pid says nothing, and its lock.
    fn record(&self, name: &str, processes: &[ProcessId]) -> File {
        drop(self.records());
        let folder = self.root.join(run(name).to_string());
        fs::create_dir(&folder).expect("made");
        let state = State { harness: std::process::id(), processes: processes.to_vec() };
        fs::write(folder.join("state.json"), serde_json::to_vec(&state).expect("plain data")).expect("written");
        let lock = File::open(&folder).expect("it is there");
        lock.lock().expect("nobody else has it");
        lock
    }

    fn swept(&self) -> Swept {
        let mut swept = Swept::default();
        sweep_runs(&self.records(), &mut swept).expect("the records can be read");
        swept
    }

    fn runs(&self) -> Vec<String> {
        self.records().runs().expect("the records can be read").iter().map(RunId::to_string).collect()
    }
}

fn run(name: &str) -> RunId {
    RunId::parse(name).expect("a name")
}

/// The lock is given up as by a death, by others that have a copy too: one that is between fork and exec.
fn die(lock: File) {
    lock.unlock().expect("it was ours");
}

#[test]
fn who_holds_the_lock_lives_and_who_does_not_is_dead() {
    let scene = Scene::new();
    let (of_dead, of_living) = (Sleeper::start(Stdio::null()), Sleeper::start(Stdio::null()));
    die(scene.record("dead", &[of_dead.id()]));
    let _lock = scene.record("living", &[of_living.id()]);

    let swept = scene.swept();

    assert_eq!(swept.said, ["tfj-dead: its harness has died, removed", "tfj-living: under way, left alone"]);
    assert_eq!(swept.failed, [""; 0]);
    assert_eq!(ProcessId::of(of_dead.0.id()), None);
    assert!(of_living.id().lives());
    assert_eq!(scene.runs(), ["tfj-living"]);
}

#[test]
fn a_lock_goes_with_the_process_that_holds_it() {
    let scene = Scene::new();
    let lock = scene.record("a", &[]);
    let mut harness = Sleeper::start(Stdio::from(lock));
    assert_eq!(scene.swept().said, ["tfj-a: under way, left alone"]);
    harness.end();
    assert_eq!(scene.swept().said, ["tfj-a: its harness has died, removed"]);
    assert_eq!(scene.swept(), Swept::default());
}

#[test]
fn a_pid_that_another_process_has_now_is_not_killed() {
    let scene = Scene::new();
    let other = Sleeper::start(Stdio::null());
    die(scene.record("dead", &[ProcessId { started: other.id().started + 1, ..other.id() }]));
    assert_eq!(scene.swept().said.len(), 1);
    assert!(other.id().lives());
}

#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    let scene = Scene::new();
    for name in ["a", "b", "c"] {
        die(scene.record(name, &[]));
    }
    let broken = scene.root.join("tfj-b/state.json");
    fs::write(&broken, "{").expect("written");
    fs::write(scene.root.join("tfj-d"), "no folder").expect("written");

    let swept = scene.swept();

    assert_eq!(swept.said.len(), 2, "{swept:#?}");
    assert!(swept.failed[0].starts_with("tfj-b: ") && swept.failed[1].starts_with("tfj-d: "), "{swept:#?}");
    assert_eq!(scene.runs(), ["tfj-b", "tfj-d"]);
    fs::remove_file(broken).expect("removed");
    assert_eq!(scene.swept().said.len(), 1, "one without a state had started nothing");
}

#[test]
fn all_that_went_wrong_is_told() {
    let failed = |words: &'static str| Err(anyhow::Error::msg(words));
    assert!(all(vec![Ok(()), Ok(())]).is_ok());
    let error = all(vec![failed("one"), Ok(()), failed("two")]).expect_err("two have failed");
    assert_eq!(error.to_string(), "one; two");
}

#[test]
fn a_run_is_claimed_once_until_it_is_dropped() {
    let scene = Scene::new();
    let claim = || scene.records().claim(&run("a")).expect("written");
    let first = claim();
    assert!(first.is_some() && claim().is_none());
    assert_eq!(scene.swept().said, ["tfj-a: under way, left alone"]);
    drop(first);
    assert!(scene.runs().is_empty() && claim().is_some());
}

#[test]
fn records_that_others_can_reach_are_not_believed() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let scene = Scene::new();
    drop(scene.records());
    let link = scene.root.with_file_name("link");
    symlink(&scene.root, &link).expect("made");
    assert!(Records::lock(&link).is_err(), "a link may lead anywhere");
    fs::set_permissions(&scene.root, fs::Permissions::from_mode(0o755)).expect("it is ours");
    assert!(Records::lock(&scene.root).is_err_and(|error| error.to_string().contains("this user's alone")));
}

#[test]
fn records_are_where_nothing_outlives_the_system() {
    let (runtime, temporary) = (PathBuf::from("/run/user/7"), PathBuf::from("/tmp"));
    let cases = [
        (0, Some(&runtime), "/run/trefoil-jepsen"),
        (0, None, "/run/trefoil-jepsen"),
        (7, Some(&runtime), "/run/user/7/trefoil-jepsen"),
        (7, None, "/tmp/trefoil-jepsen-7"),
    ];
    for (user, runtime, expected) in cases {
        assert_eq!(place_of(user, runtime.map(PathBuf::as_path), &temporary), PathBuf::from(expected));
    }
}
