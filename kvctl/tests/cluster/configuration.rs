//! Where settings come from: flags over environment over file over defaults; showing and checking them touches
//! nothing. A listener that others can reach is warned of, and a node that is elsewhere in its own list.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Cluster, READY_MAX, free_address};
use crate::process::{Finished, Kvd, Start, finish, finish_given, kvd_program};
use crate::refusal::{USAGE, with};
use crate::scenario::{Scenario, beside_others};

const RUN_MAX: Duration = Duration::from_secs(10);
const EXPOSED: &str = "beyond loopback";

const FILE: &str = "\
name = 'in-file'
zone = 'in-file'
weight = 2
streams_max = 77
";

/// Names and values.
type Environment = &'static [(&'static str, &'static str)];
type Arguments = &'static [&'static str];

/// Runs `kvd` in a folder with nothing in its environment but this.
async fn kvd(folder: &Path, environment: &[(&str, &str)], args: &[&str]) -> Finished {
    let mut command = Command::new(kvd_program());
    command.env_clear().envs(environment.iter().copied()).args(args).current_dir(folder);
    finish(command, RUN_MAX).await
}

/// What lies in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("to list a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// The settings that `--print-config` shows.
fn shown(done: &Finished) -> Vec<String> {
    done.expect_code("kvd --print-config", &[0]);
    assert_eq!(done.stderr, "", "expected nothing but the settings");
    String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stronger_source_wins() {
    Scenario::begin("configuration::the_stronger_source_wins");
    let _turn = beside_others().await;
    let root = tempfile::tempdir().expect("a fresh directory");
    let folder = root.path();
    let defaults = shown(&kvd(folder, &[], &["--print-config"]).await);
    fs::write(folder.join("file.toml"), FILE).expect("a file of settings");
    let environment = [
        ("KVD_NAME", "in-environment"),
        ("KVD_ZONE", "in-environment"),
        ("KVD_TXN_OPS_MAX", "11"),
        ("KVD_REQUEST_TIMEOUT_MS", "1234"),
    ];
    let flags = ["--name", "in-flag", "--weight", "3", "--txn-ops-max", "12", "--key-bytes-max", "99"];
    let args: Vec<&str> = flags.into_iter().chain(["--config", "file.toml", "--print-config"]).collect();
    let mixed = shown(&kvd(folder, &environment, &args).await);
    let given = [
        ("name", "\"in-flag\""),
        ("zone", "\"in-environment\""),
        ("weight", "3"),
        ("txn_ops_max", "12"),
        ("key_bytes_max", "99"),
        ("request_timeout_ms", "1234"),
        ("streams_max", "77"),
    ];
    let expected: Vec<String> = defaults
        .iter()
        .map(|line| {
            let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("expected 'key = value', got '{line}'"));
            let value = given.iter().find(|(given, _)| *given == key).map_or(value, |(_, value)| value);
            format!("{key} = {value}")
        })
        .collect();
    println!("{}", mixed.join("\n"));
    assert_eq!(mixed, expected, "expected the strongest source's value for each key, and defaults for the rest");
    let changed = defaults.iter().zip(&expected).filter(|(default, mixed)| default != mixed).count();
    assert_eq!(changed, given.len(), "expected each given value to differ from its default");

    // What was printed is a file of settings, and the environment may name it.
    fs::write(folder.join("printed.toml"), mixed.join("\n")).expect("a file of settings");
    let again = shown(&kvd(folder, &[("KVD_CONFIG", "printed.toml")], &["--print-config"]).await);
    assert_eq!(again, mixed, "expected the printed settings to mean themselves");
    let weaker =
        shown(&kvd(folder, &[("KVD_NAME", "in-environment")], &["--config", "file.toml", "--print-config"]).await);
    for line in ["name = \"in-environment\"", "zone = \"in-file\"", "weight = 2"] {
        assert!(weaker.iter().any(|shown| shown == line), "expected {line} among {weaker:#?}");
    }
    let left: BTreeSet<String> = ["file.toml", "printed.toml"].map(str::to_owned).into();
    assert_eq!(names(folder), left, "expected showing settings to create nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checking_settings_touches_nothing() {
    Scenario::begin("configuration::checking_settings_touches_nothing");
    let _turn = beside_others().await;
    let root = tempfile::tempdir().expect("a fresh directory");
    let folder = root.path();
    let files = [
        ("good.toml", FILE),
        ("zero.toml", "key_bytes_max = 0\n"),
        ("kind.toml", "weight = 1\nzone = 3\n"),
        ("unknown.toml", "colour = 'red'\n"),
        ("broken.toml", "name = \n"),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("a file of settings");
    }
    let before = names(folder);
    let good: [(Environment, Arguments); 4] = [
        (&[], &[]),
        (&[], &["--config", "good.toml"]),
        (&[("KVD_CONFIG", "good.toml"), ("KVD_WEIGHT", "9")], &["--data-dir", "new/folder"]),
        (&[("KVD_TXN_OPS_MAX", "0")], &["--txn-ops-max", "1"]),
    ];
    for (environment, args) in good {
        let done = kvd(folder, environment, &[args, &["--check-config"]].concat()).await;
        done.expect_code(&format!("good settings {environment:?} {args:?}"), &[0]);
        assert_eq!((done.stdout.as_slice(), done.stderr.as_str()), (&b""[..], ""), "expected nothing to be said");
    }
    let bad: [(Environment, Arguments, &str); 7] = [
        (&[], &["--txn-ops-max", "0", "--data-dir", "new"], "--txn-ops-max: must be at least 1, not 0"),
        (&[("KVD_NAME", "a,b")], &[], "--name: 'a,b' must not be empty nor contain ',', '=' or '/'"),
        (&[], &["--config", "zero.toml"], "--key-bytes-max: must be at least 64, not 0"),
        (&[], &["--config", "kind.toml"], "--config kind.toml: line 2: "),
        (&[("KVD_CONFIG", "unknown.toml")], &[], "--config unknown.toml: line 1: "),
        (&[], &["--config", "broken.toml"], "--config broken.toml: line 1: "),
        (&[], &["--listen-peer", "0.0.0.0:2380"], "--advertise-peer: is needed"),
    ];
    for (environment, args, says) in bad {
        for question in ["--check-config", "--print-config"] {
            let what = format!("bad settings {environment:?} {args:?} {question}");
            let done = kvd(folder, environment, &[args, &[question]].concat()).await;
            done.expect_code(&what, &[USAGE]);
            assert!(done.stdout.is_empty(), "{what}: expected nothing on stdout");
            let said: Vec<&str> = done.stderr.lines().collect();
            let clear = said.len() == 1 && said[0].strip_prefix("kvd: ").is_some_and(|said| said.starts_with(says));
            assert!(clear, "{what}: expected one line that says '{says}', got {said:?}");
        }
    }
    assert_eq!(names(folder), before, "expected checking settings to create nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_beyond_loopback_are_warned_of() {
    Scenario::begin("configuration::listeners_beyond_loopback_are_warned_of");
    let _turn = beside_others().await;
    for (client, peer) in [(true, true), (true, false), (false, true), (false, false)] {
        let cluster = Cluster::plan(1, &[]).await;
        let mut args = cluster.args(0);
        let mut exposed = Vec::new();
        for (beyond, kind) in [(client, "client"), (peer, "peer")] {
            if beyond {
                let reached = free_address().await;
                let listen = reached.replace("127.0.0.1", "0.0.0.0");
                args = with(&args, &format!("--listen-{kind}"), &listen);
                args.extend([format!("--advertise-{kind}"), reached.clone()]);
                if kind == "peer" {
                    args = with(&args, "--initial-cluster", &format!("n1={reached}"));
                }
                exposed.push(listen);
            }
        }
        let mut process = Kvd::start(&args, cluster.folder("exposed.log"));
        let start = process.outcome(READY_MAX).await;
        let log = process.log();
        assert_eq!(start, Start::Ready, "expected it to be ready:\n{log}");
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains(EXPOSED)).collect();
        assert_eq!(warnings.len(), exposed.len(), "expected a warning for each of {exposed:?} and no other:\n{log}");
        for listen in exposed {
            let said =
                |line: &&&str| line.contains("WARN") && line.contains(&format!("listening at {listen}, {EXPOSED}"));
            assert_eq!(warnings.iter().filter(said).count(), 1, "expected one warning of {listen}:\n{log}");
        }
    }
}

/// A file of settings need not be a regular one: a shell hands over a pipe for `<(…)`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_may_come_through_a_pipe() {
    Scenario::begin("configuration::settings_may_come_through_a_pipe");
    let _turn = beside_others().await;
    let mut command = Command::new(kvd_program());
    command.env_clear().args(["--config", "/dev/stdin", "--print-config"]);
    let printed = shown(&finish_given(command, FILE.as_bytes(), RUN_MAX).await);
    for line in ["name = \"in-file\"", "zone = \"in-file\"", "weight = 2", "streams_max = 77"] {
        assert!(printed.iter().any(|shown| shown == line), "expected {line} among {printed:#?}");
    }
}

/// A list that has the node elsewhere than the others are told is legal: both addresses may lead to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_elsewhere_in_its_list_is_warned_of() {
    Scenario::begin("configuration::a_node_elsewhere_in_its_list_is_warned_of");
    let _turn = beside_others().await;
    let cluster = Cluster::plan(1, &[]).await;
    let good = cluster.args(0);
    let elsewhere = with(&good, "--initial-cluster", "n1=127.0.0.1:1");
    let warning = format!(
        "--initial-cluster: n1 is at 127.0.0.1:1 there, but tells the others to reach it at {}; while the cluster forms \
         they look for it at 127.0.0.1:1",
        cluster.nodes[0].peer
    );
    for (args, said) in [(&good, String::new()), (&elsewhere, format!("kvd: warning: {warning}\n"))] {
        let mut check = Command::new(kvd_program());
        check.args(args).arg("--check-config");
        let done = finish(check, RUN_MAX).await;
        done.expect_code("kvd --check-config", &[0]);
        assert_eq!(done.stderr, said, "expected a warning only of a node that is elsewhere");
    }
    let mut process = Kvd::start(&elsewhere, cluster.folder("elsewhere.log"));
    let start = process.outcome(READY_MAX).await;
    let log = process.log();
    assert_eq!(start, Start::Ready, "expected it to be ready all the same:\n{log}");
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains(&warning)).count();
    assert_eq!(warned, 1, "expected the warning once:\n{log}");
}
