//! A `kvctl export` that cannot write a file: the file that was there is as it was, and nothing else is left behind.
//!
//! A file over a limit of the system's stands for a full disk: the write fails in the middle of the file.

use std::fs;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::files::regular_files;
use crate::process::{finish, limit_files};
use crate::scenario::{Scenario, beside_others};

/// As much of a file can be written.
const FILE_BYTES_MAX: u64 = 64 << 10;
const TOO_LARGE: usize = 200 << 10;
const RUN_MAX: Duration = Duration::from_secs(20);
/// What an export that was killed leaves.
const LEFT: &str = ".kvctl-export-0123456789abcdef";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_is_as_it_was() {
    Scenario::begin("export_full::a_file_that_cannot_be_written_is_as_it_was");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let client = cluster.client().await;
    for (key, bytes) in [("e/large", TOO_LARGE), ("e/new", TOO_LARGE), ("e/small", 1)] {
        client.put(key, vec![b'n'; bytes]).await.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    }
    let target = cluster.folder("exported");
    fs::create_dir_all(&target).expect("a folder");
    for (name, content) in [("large", "old and good"), ("small", "old"), (LEFT, "half")] {
        fs::write(target.join(name), content).expect("a file");
    }

    let import = finish(cluster.kvctl(&["import", target.to_str().expect("a plain path"), "--prefix", "i/"]), RUN_MAX);
    let import = import.await;
    import.expect_code("kvctl import of what a killed export left", &[0]);
    let skipped = "skipped, since an export has not finished them: files: 1";
    assert!(import.stderr.contains(skipped), "expected '{skipped}', got:\n{}", import.stderr);

    let mut export = cluster.kvctl(&["export", "e/"]);
    export.arg(&target);
    limit_files(&mut export, FILE_BYTES_MAX);
    let export = finish(export, RUN_MAX).await;
    export.expect_code("kvctl export of files that cannot be written", &[3]);
    for key in ["e/large", "e/new"] {
        let said = format!("not written: {key}: ");
        assert!(export.stderr.contains(&said), "expected '{said}', got:\n{}", export.stderr);
    }
    let found: Vec<Vec<u8>> = regular_files(&target).into_keys().collect();
    assert_eq!(found, [b"large".to_vec(), b"small".to_vec()], "expected these files only");
    for (name, content) in [("large", "old and good"), ("small", "n")] {
        let found = fs::read_to_string(target.join(name)).expect("a file");
        assert_eq!(found, content, "expected {name} to be that");
    }
}
