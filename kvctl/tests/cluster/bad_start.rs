//! Bad starts: each ends with its exit code and one clear line, and damages nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trefoil_world::net;

use crate::cluster::{Cluster, free_address};
use crate::files::{below, live_log, regular_files, remove, replace_with_copy};
use crate::log_record;
use crate::process::{Kvd, READY_LINE};
use crate::refusal::{NOT_STARTED, Refusal, USAGE, with};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// A node says every 5 s what it waits for.
const SAID_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings() {
    Scenario::begin("bad_start::wrong_settings");
    let _turn = beside_others().await;
    let cluster = Cluster::plan(3, &[]).await;
    let good = cluster.args(0);
    let plus = |flags: &[&str]| -> Vec<String> {
        good.iter().cloned().chain(flags.iter().map(|&flag| flag.to_owned())).collect()
    };
    let nonsense = cluster.folder("nonsense.toml");
    fs::write(&nonsense, "colour = 'red'\n").expect("a file of settings");
    let (nonsense, missing) = (text(&nonsense), text(&cluster.folder("missing.toml")));
    let no_toml = format!("--config {nonsense}: line 1: ");
    let no_file = format!("--config {missing}: No such file or directory");
    let two = "n1=127.0.0.1:1,n1=127.0.0.1:2";
    let shared = "n1=127.0.0.1:1,n2=127.0.0.1:1";
    let without_end = "--config /dev/zero: has more than 1048576 bytes, the limit";
    let respelt = "n1=127.0.0.1:2380,n2=127.0.0.1:02380";
    let cases: [(i32, Vec<String>, &str); 23] = [
        (USAGE, plus(&["--no-such-flag"]), "unexpected argument '--no-such-flag'"),
        (USAGE, plus(&["--weight", "heavy"]), "invalid value 'heavy' for '--weight"),
        (USAGE, plus(&["--key-bytes-max", "0"]), "--key-bytes-max: must be at least 64, not 0"),
        (USAGE, plus(&["--message-bytes-max", "1"]), "--message-bytes-max: must be at least 16384, not 1"),
        (USAGE, plus(&["--log-entries-kept", "1"]), "--log-entries-kept: must be at least 16, not 1"),
        (USAGE, plus(&["--request-timeout-ms", "0"]), "--request-timeout-ms: must be at least 10, not 0"),
        (USAGE, plus(&["--log-level", "loud"]), "--log-level: 'loud' is not error, warn, info, debug or trace"),
        (USAGE, with(&good, "--name", "a,b"), "--name: 'a,b' must not be empty nor contain ',', '=' or '/'"),
        (USAGE, with(&good, "--initial-cluster", "n7=127.0.0.1:1"), "--initial-cluster: does not name this node, n1"),
        (USAGE, with(&good, "--initial-cluster", two), "--initial-cluster: names a node twice"),
        (USAGE, with(&good, "--initial-cluster", shared), "--initial-cluster: n1 and n2 are at one address"),
        (USAGE, with(&good, "--initial-cluster", "n1"), "--initial-cluster: 'n1' is not name=host:port"),
        (USAGE, with(&good, "--listen-peer", "nowhere"), "--listen-peer: 'nowhere' is not host:port"),
        (USAGE, with(&good, "--listen-client", "0.0.0.0:1"), "--advertise-client: is needed"),
        (USAGE, with(&good, "--name", "a\nkvd: b"), r"--name: 'a\nkvd: b' has control characters"),
        (USAGE, with(&good, "--initial-cluster", respelt), "--initial-cluster: n1 and n2 are at one address"),
        (USAGE, with(&good, "--listen-peer", "127.0.0.1:0"), "--listen-peer: '127.0.0.1:0' has port 0"),
        (USAGE, with(&good, "--listen-peer", &cluster.nodes[0].client), "--listen-peer: is at one address with"),
        (USAGE, plus(&["--advertise-client", "[::]:1"]), "--advertise-client: [::]:1 is no address others can dial"),
        (NOT_STARTED, plus(&["--config", "no\nsuch"]), r"--config no\nsuch: No such file or directory"),
        (USAGE, plus(&["--config", nonsense.as_str()]), no_toml.as_str()),
        (USAGE, plus(&["--config", "/dev/zero"]), without_end),
        (NOT_STARTED, plus(&["--config", missing.as_str()]), no_file.as_str()),
    ];
    for (code, args, says) in cases {
        Refusal { what: "wrong settings", code, says }.expect_unchanged(&cluster, &args).await;
    }
    assert!(!cluster.nodes[0].dir.exists(), "expected a refused start to create nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use() {
    Scenario::begin("bad_start::a_directory_in_use");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let peer = free_address().await;
    let second = with(&cluster.args(0), "--listen-client", &free_address().await);
    let second = with(&with(&second, "--listen-peer", &peer), "--initial-cluster", &format!("n1={peer}"));
    let says = format!("{}: another process is using it", text(&cluster.nodes[0].dir));
    Refusal { what: "a directory in use", code: NOT_STARTED, says: &says }.expect(&cluster, &second).await;
    put_whose(&cluster, "the first process's").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_name() {
    Scenario::begin("bad_start::a_directory_of_another_name");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(2, &[]).await;
    put_whose(&cluster, "kept").await;
    cluster.kill_all().await;
    let (good, nodes) = (cluster.args(0), &cluster.nodes);
    for name in ["n2", "n9"] {
        let list = format!("{name}={}", nodes[0].peer);
        let args = with(&with(&good, "--name", name), "--initial-cluster", &list);
        let says = format!("{}: this is the directory of n1, not of {name}; ", text(&nodes[0].dir));
        Refusal { what: "another name", code: NOT_STARTED, says: &says }.expect_unchanged(&cluster, &args).await;
    }
    cluster.start_all().await;
    expect_whose(&cluster, "kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use() {
    Scenario::begin("bad_start::a_port_in_use");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(1, &[]).await;
    put_whose(&cluster, "kept").await;
    cluster.kill(0).await;
    let good = cluster.args(0);
    let taken = net::listen("127.0.0.1:0").await.expect("a listener of the test's own");
    let address = taken.address().to_string();
    let peer = with(&with(&good, "--listen-peer", &address), "--initial-cluster", &format!("n1={address}"));
    for (flag, args) in [("--listen-client", with(&good, "--listen-client", &address)), ("--listen-peer", peer)] {
        let says = format!("{flag} {address}: Address already in use");
        Refusal { what: "a port in use", code: NOT_STARTED, says: &says }.expect_unchanged(&cluster, &args).await;
    }
    cluster.start(0).await;
    expect_whose(&cluster, "kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_usable_directory() {
    Scenario::begin("bad_start::no_usable_directory");
    let _turn = beside_others().await;
    let cluster = Cluster::plan(1, &[]).await;
    let (good, directory) = (cluster.args(0), &cluster.nodes[0].dir);
    fs::write(directory, "a file").expect("a file in place of the directory");
    let says = format!("{}: File exists", text(directory));
    Refusal { what: "a file in place", code: NOT_STARTED, says: &says }.expect_unchanged(&cluster, &good).await;
    let inside = text(&directory.join("inside"));
    let says = format!("{inside}: Not a directory");
    let args = with(&good, "--data-dir", &inside);
    Refusal { what: "a place in a file", code: NOT_STARTED, says: &says }.expect_unchanged(&cluster, &args).await;
    // SAFETY: reads the process's own user id.
    if unsafe { libc::geteuid() } == 0 {
        println!("permissions hold nobody off who is root");
        return;
    }
    fs::remove_file(directory).expect("to remove the file");
    fs::create_dir(directory).expect("a directory");
    allow(directory, 0);
    let says = format!("{}/lock: Permission denied", text(directory));
    Refusal { what: "a locked directory", code: NOT_STARTED, says: &says }.expect(&cluster, &good).await;
    allow(directory, 0o700);
    assert!(regular_files(directory).is_empty(), "expected nothing in a directory that could not be used");
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("to set permissions");
}

/// A directory that must be refused: what is done to a good one, and what is then said of it, which stands in for DIR.
type Spoiled = (&'static str, fn(&Path), &'static str);

const SPOILED: [Spoiled; 10] = [
    ("a newer data format", newer_format, "DIR/db: data format 2 is newer than this version's 1"),
    ("a newer family", newer_family, "DIR/db: corrupt: column family 'later' is of a newer data format"),
    ("no mark", |dir| delete(dir, "mark"), "DIR/mark: the mark is missing beside a database"),
    ("a mark of nonsense", |dir| write(dir, "mark", b"nonsense"), "DIR/mark: the mark has 8 bytes instead of 96"),
    ("an empty mark", |dir| write(dir, "mark", &[0; 96]), "DIR/mark: neither slot of the mark is readable"),
    ("a foreign mark", foreign_mark, "DIR/mark: the mark belongs to another directory"),
    ("no database", |dir| remove(&dir.join("db")), "DIR/db: the database is missing beside its mark"),
    ("a file as database", file_as_database, "DIR/db: the database is missing beside its mark"),
    ("no CURRENT", |dir| delete(dir, "db/CURRENT"), "DIR/db: corrupt: DIR/db: CURRENT is missing"),
    ("no manifest", |dir| delete_path(&manifest(dir)), "DIR/db: i/o: IO error: No such file or directory"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_directory() {
    Scenario::begin("bad_start::a_spoiled_directory");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(2, &[]).await;
    put_whose(&cluster, "kept").await;
    cluster.kill_all().await;
    let (good, directory) = (cluster.args(0), cluster.nodes[0].dir.clone());
    let pristine = cluster.folder("pristine");
    replace_with_copy(&directory, &pristine);
    for (what, spoil, says) in SPOILED {
        replace_with_copy(&pristine, &directory);
        spoil(&directory);
        let says = says.replace("DIR", &text(&directory));
        Refusal { what, code: NOT_STARTED, says: &says }.expect_unchanged(&cluster, &good).await;
    }
    replace_with_copy(&pristine, &directory);
    cluster.start_all().await;
    expect_whose(&cluster, "kept").await;
}

/// The row `format` of the family `node`, as the newest start wrote it: key and value with their lengths.
pub fn newer_format(directory: &Path) {
    let log = below(directory, &live_log(directory));
    log_record::replace(&log, b"\x06format\x04\0\0\0\x01", b"\x06format\x04\0\0\0\x02");
}

/// A family that this version does not know.
pub fn newer_family(directory: &Path) {
    log_record::replace(&manifest(directory), b"\x05index", b"\x05later");
}

/// The mark of the node beside it.
pub fn foreign_mark(directory: &Path) {
    fs::copy(directory.with_file_name("n2").join("mark"), directory.join("mark")).expect("the other node's mark");
}

fn file_as_database(directory: &Path) {
    remove(&directory.join("db"));
    write(directory, "db", b"a file");
}

/// The database's list of its files.
pub fn manifest(directory: &Path) -> PathBuf {
    let mut files = regular_files(directory).into_iter();
    let found = files.find(|(name, _)| name.starts_with(b"db/MANIFEST-"));
    found.unwrap_or_else(|| panic!("expected a manifest below {directory:?}")).1
}

pub fn write(directory: &Path, name: &str, content: &[u8]) {
    let path = directory.join(name);
    fs::write(&path, content).unwrap_or_else(|error| panic!("expected to write {path:?}: {error}"));
}

pub fn delete(directory: &Path, name: &str) {
    delete_path(&directory.join(name));
}

pub fn delete_path(path: &Path) {
    fs::remove_file(path).unwrap_or_else(|error| panic!("expected to remove {path:?}: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster() {
    Scenario::begin("bad_start::a_directory_of_another_cluster");
    let _turn = beside_others().await;
    let (mut ours, mut theirs) = tokio::join!(Cluster::form(3, &[]), Cluster::form(3, &[]));
    put_whose(&ours, "ours").await;
    put_whose(&theirs, "theirs").await;
    // Were its own cluster running, the stray directory would find it at the addresses it remembers.
    theirs.kill_all().await;
    ours.terminate(1).await;
    let args = with(&ours.args(1), "--data-dir", &text(&theirs.nodes[1].dir));
    let mut stray = Kvd::start(&args, ours.folder("stray.log"));
    const WHY: &str = "it is of another cluster";
    until("a line of the stray node that says why it is not ready", SAID_MAX, async || {
        let log = stray.log();
        log.lines().any(|line| line.contains("not ready: ") && line.contains(WHY)).then_some(())
    })
    .await;
    for node in [0, 2] {
        let log = ours.nodes[node].running().log();
        let refused = log.lines().any(|line| line.contains("connection of node 2 refused") && line.contains(WHY));
        assert!(refused, "expected the other side to say in one line that it refuses, too:\n{log}");
    }
    let log = stray.log();
    assert!(!log.contains(READY_LINE), "expected a directory of another cluster never to be ready:\n{log}");
    assert_eq!(stray.exited(), None, "expected the stray node to wait:\n{log}");
    expect_whose(&ours, "ours").await;
    drop(stray);
    ours.start(1).await;
    ours.expect_equal_replicas().await;
    theirs.start_all().await;
    expect_whose(&theirs, "theirs").await;
    theirs.expect_equal_replicas().await;
    println!("a directory of another cluster: refused by both sides, and both clusters are as they were");
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}

async fn put_whose(cluster: &Cluster, whose: &'static str) {
    let put = cluster.client().await.put("whose", whose).await;
    put.unwrap_or_else(|error| panic!("expected a put to be taken: {error}"));
}

async fn expect_whose(cluster: &Cluster, whose: &str) {
    let found = cluster.client().await.get("whose").await;
    let found = found.unwrap_or_else(|error| panic!("expected a get to be answered: {error}"));
    let value = found.value().map(|value| &value[..]);
    assert_eq!(value, Some(whose.as_bytes()), "expected the cluster's own data");
}
