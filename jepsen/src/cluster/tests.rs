//! Clusters of processes that only say that they are ready: starting and taking down need no more of a node.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::signals::END_MAX;
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
    let script = "[ $2 = n2 ] && { echo said by $2 with ${13} >&2; exit 3; }; exec sleep 600";
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
    let script = "echo ready to serve client requests >&2; exec sleep 600";
    let mut cluster = start(script, folder.path()).await.expect("they are ready");
    assert_eq!(cluster.terminate(&BTreeSet::from([0])).await.expect("it stops"), 1);
    assert_eq!(cluster.kill(&BTreeSet::from([0, 1])).await.expect("it is gone"), 1);
    assert!(cluster.is_gone(0) && cluster.is_gone(1) && !cluster.is_gone(2));
    cluster.pause(&BTreeSet::from([2])).expect("signalled");
    cluster.stop().await;
    assert!(cluster.is_gone(2) && cluster.ended().is_empty(), "{:?}", cluster.ended());
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
async fn data_of_an_earlier_run_is_not_taken_for_this_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("n3")).expect("made");
    let error = start("exit 0", folder.path()).await.expect_err("n3 is there").to_string();
    assert!(error.contains("n3 holds data of an earlier run"), "{error}");
}
