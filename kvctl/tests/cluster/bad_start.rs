//! Bad starts: each ends with a non-zero exit code and one clear line, and damages nothing.

use std::time::Duration;

use trefoil_world::net;

use crate::cluster::{Cluster, free_address};
use crate::files::sums;
use crate::process::{Kvd, Start};
use crate::scenario::{Scenario, beside_others};

/// A start that cannot be ends within this.
const REFUSED_MAX: Duration = Duration::from_secs(10);

/// Starts a `kvd` that must refuse, with a line that holds `why`.
async fn expect_refusal(cluster: &Cluster, what: &str, args: &[String], why: &str) {
    let mut process = Kvd::start(args, cluster.folder("refused.log"));
    let start = process.outcome(REFUSED_MAX).await;
    let log = process.log();
    match start {
        Start::Exited(status) => assert!(!status.success(), "{what}: expected a non-zero exit code, got {status}"),
        Start::Ready | Start::StaysOut => panic!("{what}: expected an exit, got {start:?}:\n{log}"),
    }
    let clear: Vec<&str> =
        log.lines().filter(|line| line.starts_with("kvd: ") || line.starts_with("error: ")).collect();
    assert!(clear.len() == 1 && clear[0].contains(why), "{what}: expected one line with '{why}', got:\n{log}");
    println!("{what}: {}", clear[0]);
}

/// `args` with another value of one flag.
fn with(args: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut args = args.to_vec();
    let at = args.iter().position(|arg| arg == flag).unwrap_or_else(|| panic!("expected {flag} among {args:?}"));
    args[at + 1] = value.to_owned();
    args
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_flags() {
    Scenario::begin("bad_start::wrong_flags");
    let _turn = beside_others().await;
    let cluster = Cluster::plan(3, &[]).await;
    let good = cluster.args(0);
    let unknown = [good.clone(), vec!["--no-such-flag".to_owned()]].concat();
    let not_a_number = [good.clone(), vec!["--weight".to_owned(), "heavy".to_owned()]].concat();
    let stranger = with(&good, "--initial-cluster", "n7=127.0.0.1:1");
    let twice = with(&good, "--initial-cluster", "n1=127.0.0.1:1,n1=127.0.0.1:2");
    expect_refusal(&cluster, "an unknown flag", &unknown, "--no-such-flag").await;
    expect_refusal(&cluster, "a weight that is no number", &not_a_number, "--weight").await;
    expect_refusal(&cluster, "a list without this node", &stranger, "--initial-cluster").await;
    expect_refusal(&cluster, "a list that names a node twice", &twice, "--initial-cluster").await;
    expect_refusal(&cluster, "an address that is none", &with(&good, "--listen-peer", "nowhere"), "--listen-peer")
        .await;
    assert!(!cluster.nodes[0].dir.exists(), "expected a refused start to create nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use() {
    Scenario::begin("bad_start::a_directory_in_use");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let second = with(&cluster.args(0), "--listen-client", &free_address().await);
    let peer = free_address().await;
    let second = with(&second, "--listen-peer", &peer);
    let second = with(&second, "--initial-cluster", &format!("n1={peer}"));
    expect_refusal(&cluster, "a directory in use", &second, "another process is using it").await;
    let client = cluster.client().await;
    client.put("k", "v").await.unwrap_or_else(|error| panic!("expected the first process to serve on: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use() {
    Scenario::begin("bad_start::a_port_in_use");
    let _turn = beside_others().await;
    let cluster = Cluster::plan(1, &[]).await;
    let good = cluster.args(0);
    let taken = net::listen("127.0.0.1:0").await.expect("a listener of the test's own");
    let address = taken.address().to_string();
    expect_refusal(&cluster, "a client port in use", &with(&good, "--listen-client", &address), "--listen-client")
        .await;
    let peer = with(&with(&good, "--listen-peer", &address), "--initial-cluster", &format!("n1={address}"));
    expect_refusal(&cluster, "a peer port in use", &peer, "--listen-peer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_place_of_the_database() {
    Scenario::begin("bad_start::a_file_in_place_of_the_database");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(1, &[]).await;
    cluster.terminate(0).await;
    let directory = cluster.nodes[0].dir.clone();
    std::fs::write(directory.join("mark"), b"nonsense").expect("to overwrite the mark");
    let before = sums(&directory);
    expect_refusal(&cluster, "a mark that is none", &cluster.args(0), "mark").await;
    let after = sums(&directory);
    // RocksDB's diary and the lock may change.
    let same = |name: &Vec<u8>| before.get(name) == after.get(name) || name.starts_with(b"db/LOG") || name == b"lock";
    assert!(before.keys().all(same), "expected a refused start to change nothing in {directory:?}");
}
