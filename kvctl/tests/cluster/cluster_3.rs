//! Line 3b: a disk that fails to sync. The node ends itself and says why; the others go on; it comes back.
//!
//! strace makes every sync call of one process fail with EIO.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::load::Load;
use crate::scenario::{Scenario, alone};
use crate::wait::until;

/// A node whose disk fails ends within this.
const END_MAX: Duration = Duration::from_secs(10);
/// The exit code of a node whose disk failed, and how its line says what it met first, as in docs/errors.md.
const EXIT_DISK: i32 = 74;
const STOPPING: &str = "kvd: stopping at once: ";
const MET: [&str; 2] = ["write-ahead log: i/o: ", "i/o: "];
const PATIENCE: Duration = Duration::from_secs(20);

/// An strace that makes sync calls fail; dropping it ends it, and so the failures.
struct FailingSync {
    strace: Child,
    said: PathBuf,
}

impl FailingSync {
    /// Attaches to a process and waits until every sync of it fails.
    async fn of(pid: u32, said: PathBuf) -> FailingSync {
        let stderr = File::create(&said).expect("a file for what strace says");
        let calls = "fsync,fdatasync,sync_file_range";
        let started = Command::new("strace")
            .args(["-f", "-p", &pid.to_string(), "-o", "/dev/null"])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error=EIO")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn();
        let strace =
            started.unwrap_or_else(|error| panic!("expected to start strace (make setup installs it): {error}"));
        let mut failing = FailingSync { strace, said };
        until("strace to attach", PATIENCE, async || failing.is_attached().then_some(())).await;
        failing
    }

    fn is_attached(&mut self) -> bool {
        let ended = self.strace.try_wait().expect("strace can be waited for");
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        // It may have ended already: with the process, which may die at its first sync.
        let attached = said.contains("attached");
        assert!(
            attached || ended.is_none() && !said.contains("not permitted"),
            "expected strace to attach; it may not trace other processes here (ptrace, CAP_SYS_PTRACE): {said}"
        );
        attached
    }
}

impl Drop for FailingSync {
    fn drop(&mut self) {
        // It ends by itself with the process it traces.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_to_sync() {
    let _ = Scenario::begin("cluster_3::a_disk_that_fails_to_sync");
    let _turn = alone().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let load = Load::start(&cluster.client().await, "eio");
    load.more(50, PATIENCE).await;
    let follower = cluster.follower().await;
    fail(&mut cluster, follower, &load, "a follower").await;
    let leader = cluster.leader().await;
    fail(&mut cluster, leader, &load, "the leader").await;
    load.more(50, PATIENCE).await;
    let record = load.stop().await;
    record.expect_kept(&cluster.client().await).await;
    cluster.expect_equal_replicas().await;
}

/// Fails one node's disk, looks at how it ends, and starts it again.
async fn fail(cluster: &mut Cluster, node: usize, load: &Load, role: &str) {
    let said = cluster.folder(&format!("strace.{role}"));
    let process = cluster.nodes[node].running();
    let failing = FailingSync::of(process.pid(), said).await;
    let from = trefoil_world::clock::now();
    let status = process.exit(END_MAX).await;
    println!("{role} ended {:?} after its disk began to fail", from.elapsed());
    let log = process.log();
    assert_eq!(status.code(), Some(EXIT_DISK), "expected {role} to exit with {EXIT_DISK}; its log:\n{log}");
    let why: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix(STOPPING)).collect();
    let clear = why.iter().any(|why| MET.iter().any(|met| why.starts_with(met)));
    assert!(clear, "expected a line that says with one of {MET:?} why {role} is stopping at once:\n{log}");
    drop(failing);
    load.more(50, PATIENCE).await;
    cluster.nodes[node].process = None;
    cluster.start(node).await;
}
