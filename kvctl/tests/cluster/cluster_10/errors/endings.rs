//! The table "kvctl's exit codes". What each command does with each code is `kvctl_transcripts.rs`'s.

use std::fs;
use std::time::Duration;

use crate::cluster::{Cluster, free_address};
use crate::errors_table::rows;
use crate::process::finish;
use crate::scenario::{Scenario, beside_others};

const DOCUMENTED: [[&str; 2]; 6] = [
    ["0", "done"],
    ["1", "not found; a condition or compare did not hold"],
    [
        "2",
        "the command line or the input makes no sense, an endpoint is not `host:port`, or `--yes` is needed and there is \
         no terminal",
    ],
    [
        "3",
        "refused or failed, not done; also a read that got no answer or whose answer cannot be written to stdout, \
         `import`/`export` that left something out, `cluster verify` that found a difference or could not ask",
    ],
    ["4", "no endpoint answered, nothing done"],
    ["5", "a write's outcome is unknown; also a write that was done, but whose answer cannot be written to stdout"],
];

/// Command lines at a cluster of one, in order. An unknown outcome, a read that got no answer, and nodes that could not
/// be asked take a larger cluster: `silent_leader.rs`, `kvctl_transcripts.rs`.
const ENDINGS: [(i32, &[&str]); 10] = [
    (0, &["put", "k", "v"]),
    (0, &["get", "k"]),
    (1, &["get", "missing"]),
    (1, &["put", "k", "v", "--if-absent"]),
    (2, &["get"]),
    (2, &["get", "k", "--endpoints", "nowhere"]),
    (2, &["del", "--prefix", "k"]),
    (3, &["put", "", "v"]),
    (3, &["import", FILES]),
    (4, &["get", "k", "--timeout", "1s", "--endpoints", NOBODY]),
];

/// Stands for a folder with a file that is too large.
const FILES: &str = "FILES";
/// Stands for an address where nobody listens.
const NOBODY: &str = "NOBODY";
const RUN_MAX: Duration = Duration::from_secs(20);

#[test]
fn the_table_is_as_these_tests_have_it() {
    assert_eq!(rows("kvctl's exit codes"), DOCUMENTED, "expected docs/errors.md (left) to say what is tested here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_exit_code() {
    Scenario::begin("cluster_10::errors::endings::each_exit_code");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let (files, nobody) = (cluster.folder("files"), free_address().await);
    fs::create_dir(&files).expect("a folder");
    fs::write(files.join("too-large"), vec![b'x'; 3 << 19]).expect("a file");
    let files = files.to_str().expect("a plain path");
    for (code, args) in ENDINGS {
        let args: Vec<&str> = args
            .iter()
            .map(|&arg| match arg {
                FILES => files,
                NOBODY => nobody.as_str(),
                other => other,
            })
            .collect();
        finish(cluster.kvctl(&args), RUN_MAX).await.expect_code(&format!("kvctl {}", args.join(" ")), &[code]);
    }
    println!("{} command lines ended as documented", ENDINGS.len());
}
