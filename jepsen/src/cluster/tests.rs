//! Clusters of processes that only say that they are ready: starting and taking down need no more of a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::signals::{Down, END_MAX};
use super::start::POLL;
use super::*;
use crate::backend::Loopback;
use crate::cleanup::ProcessId;

/// Starts three processes that run a shell's script in place of a node.
async fn start(script: &str, folder: &Path) -> anyhow::Result<Cluster> {
    let backend = Backend::Loopback(Loopback::with_prefix(3, &["sh", "-c", script])?);
    Cluster::start(backend, Path::new("/bin/sh"), folder, &["--flag".to_owned()]).await
}

#[tokio::test]
async fn a_node_that_ends_by_itself_is_noted_and_can_be_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = start("echo ready to serve client requests >&2; exec sleep 600", folder.path()).await;
    let cluster = cluster.as_mut().expect("they are ready");
    let pid = cluster.nodes[1].id.expect("it was started");
    cluster.nodes[1].process.as_mut().expect("it runs").signal(libc::SIGKILL).expect("signalled");
    let until = clock::now() + END_MAX;
    while !cluster.is_gone(1) {
        assert!(clock::now() < until, "{pid:?} is not gone");
        clock::sleep(POLL).await;
    }
    assert_eq!([0, 1, 2].map(|node| cluster.is_alive(node).expect("it is said")), [true, false, true]);
    assert_eq!(cluster.ended().len(), 1);
    assert!(cluster.ended()[0].starts_with("n2 ended by itself (signal: 9"), "{:?}", cluster.ended());
    cluster.restart().await.expect("it is ready");
    assert!(cluster.is_alive(1).expect("it is said") && !pid.lives());
    assert_eq!(cluster.ended().len(), 1);
    assert!(folder.path().join("n2.2.log").exists() && !folder.path().join("n1.2.log").exists());
}

#[tokio::test]
async fn a_node_that_cannot_start_is_an_error_with_its_words() {
    let folder = tempfile::tempdir().expect("a folder");
    // $2 is the name: --name n2.
    let script = "[ $2 = n2 ] && { echo said by $2 with ${15} >&2; exit 3; }; exec sleep 600";
    let error = start(script, folder.path()).await.expect_err("n2 ends");
    assert!(matches!(error.downcast_ref(), Some(NotServing::Ended(ended)) if ended.len() == 1), "{error:?}");
    let error = error.to_string();
    for words in ["n2 ended by itself", "exit status: 3", "said by n2 with --flag"] {
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_node_that_is_taken_down_has_not_ended_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = start(&stopping_with("0"), folder.path()).await.expect("they are ready");
    assert_eq!(cluster.terminate(&BTreeSet::from([0])).await.expect("it stops"), 1);
    assert_eq!(cluster.kill(&BTreeSet::from([0, 1])).await.expect("it is gone"), 1);
    assert!(cluster.is_gone(0) && cluster.is_gone(1) && !cluster.is_gone(2));
    cluster.pause(&BTreeSet::from([2])).expect("signalled");
    cluster.stop().await.expect("it is said");
    assert!(cluster.is_gone(2) && cluster.ended().is_empty(), "{:?}", cluster.ended());
}

/// A script that stops with this code when it is told to.
fn stopping_with(code: &str) -> String {
    format!("trap 'exit {code}' TERM; echo ready to serve client requests >&2; while :; do sleep 0.05; done")
}

#[tokio::test]
async fn a_node_that_does_not_stop_in_order_is_noted() {
    let folder = tempfile::tempdir().expect("a folder");
    // $2 is the name: --name n2.
    let script = format!("[ $2 = n2 ] && code=70 || code=0; {}", stopping_with("$code"));
    let mut cluster = start(&script, folder.path()).await.expect("they are ready");
    cluster.stop().await.expect("it is said");
    assert!((0..3).all(|node| cluster.is_gone(node)));
    assert_eq!(cluster.ended().len(), 1, "{:?}", cluster.ended());
    let told = "n2 was told to stop, and did not do so in order (exit status: 70); its log ends:";
    assert!(cluster.ended()[0].starts_with(told), "{:?}", cluster.ended());
}

#[tokio::test]
async fn a_node_that_had_ended_before_it_was_killed_is_noted_and_not_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = start(&stopping_with("70"), folder.path()).await.expect("they are ready");
    let process = cluster.nodes[1].process.as_mut().expect("it runs");
    process.signal(libc::SIGTERM).expect("signalled");
    let status = process.end(clock::now() + END_MAX).await.expect("it is said");
    assert!(!cluster.judge(1, Down::Kill, status).expect("it is gone"));
    assert!(cluster.ended()[0].starts_with("n2 ended by itself (exit status: 70)"), "{:?}", cluster.ended());
}

#[tokio::test]
async fn no_process_outlives_its_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "echo ready to serve client requests >&2; trap '' TERM; exec sleep 600";
    let cluster = start(script, folder.path()).await.expect("they are ready");
    let ids: Vec<ProcessId> = cluster.nodes.iter().filter_map(|node| node.id).collect();
    assert!(ids.len() == 3 && ids.iter().all(ProcessId::lives));
    drop(cluster);
    assert!(!ids.iter().any(ProcessId::lives));
}

#[tokio::test]
async fn what_nodes_may_have_on_disk_is_known_beside_their_logs() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "echo ready to serve client requests >&2; exec sleep 600";
    let cluster = start(script, folder.path()).await.expect("they are ready");
    let folders = cluster.folders();
    let names = |node: usize| ["", ".original", ".old", ".disk"].map(|what| format!("n{node}{what}"));
    let expected: Vec<String> = (1..=3).flat_map(names).collect();
    let found: Vec<String> =
        folders.iter().map(|path| path.file_name().expect("a name").display().to_string()).collect();
    assert_eq!(found, expected);
    assert!(folders.iter().all(|path| path.is_absolute()), "{folders:?}");
}

#[tokio::test]
async fn data_of_an_earlier_run_is_not_taken_for_this_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("n3")).expect("made");
    let error = start("exit 0", folder.path()).await.expect_err("n3 is there").to_string();
    assert!(error.contains("n3 holds data of an earlier run"), "{error}");
}
