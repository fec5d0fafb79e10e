//! Clusters of `kvd` processes on free ports, each in a fresh directory that goes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use trefoil_client::{Client, NodeStatus, PartitionId, ReplicaStatus};
use trefoil_world::net;

use crate::process::{Finished, Kvd, Start, finish};
use crate::wait::until;

/// A start that takes longer failed.
pub const READY_MAX: Duration = Duration::from_secs(30);
/// A clean stop that takes longer failed.
const STOP_MAX: Duration = Duration::from_secs(20);
const LEADER_MAX: Duration = Duration::from_secs(20);
const VERIFY_MAX: Duration = Duration::from_secs(300);
const STATUS_MAX: Duration = Duration::from_secs(1);

/// One node: what it is started with, and its process while there is one.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    /// Where clients reach it.
    pub client: String,
    /// Where the other nodes reach it.
    pub peer: String,
    pub dir: PathBuf,
    pub process: Option<Kvd>,
    starts: u32,
}

impl Node {
    /// The running process.
    pub fn running(&mut self) -> &mut Kvd {
        let name = &self.name;
        self.process.as_mut().unwrap_or_else(|| panic!("expected {name} to have been started"))
    }
}

/// A few nodes that know each other. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Flags beyond the addresses.
    extra: Vec<String>,
    /// Asks for status; made once there is somebody to ask.
    probe: Option<Client>,
    root: TempDir,
}

impl Cluster {
    /// Nodes that are not started yet.
    pub async fn plan(size: usize, extra: &[&str]) -> Cluster {
        let root = tempfile::tempdir().expect("a fresh directory");
        let mut nodes = Vec::new();
        for number in 1..=size {
            let name = format!("n{number}");
            let (client, peer) = (free_address().await, free_address().await);
            nodes.push(Node { dir: root.path().join(&name), name, client, peer, process: None, starts: 0 });
        }
        let extra = extra.iter().map(|&flag| flag.to_owned()).collect();
        Cluster { nodes, extra, probe: None, root }
    }

    /// Started nodes that are all ready.
    pub async fn form(size: usize, extra: &[&str]) -> Cluster {
        let mut cluster = Cluster::plan(size, extra).await;
        cluster.start_all().await;
        cluster
    }

    /// A folder of this test's own.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The flags `node` is started with.
    pub fn args(&self, node: usize) -> Vec<String> {
        let list: Vec<String> = self.nodes.iter().map(|node| format!("{}={}", node.name, node.peer)).collect();
        let Node { name, client, peer, dir, .. } = &self.nodes[node];
        let dir = dir.to_str().expect("a plain path");
        let list = list.join(",");
        let flags = ["--name", name, "--data-dir", dir, "--listen-client", client, "--listen-peer", peer];
        let flags = flags.into_iter().chain(["--initial-cluster", &list]);
        flags.map(str::to_owned).chain(self.extra.iter().cloned()).collect()
    }

    /// Starts a node without waiting for it. Each start has a log file of its own.
    pub fn launch(&mut self, node: usize) {
        self.launch_with(node, &[]);
    }

    /// Starts a node with further flags, this once, without waiting for it.
    pub fn launch_with(&mut self, node: usize, flags: &[&str]) {
        let mut args = self.args(node);
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let starts = self.nodes[node].starts + 1;
        let log = self.root.path().join(format!("{}.{starts}.log", self.nodes[node].name));
        let process = Kvd::start(&args, log);
        let node = &mut self.nodes[node];
        assert!(node.process.is_none(), "expected {} not to be running", node.name);
        node.starts = starts;
        node.process = Some(process);
    }

    /// Waits until a launched node serves.
    pub async fn ready(&mut self, node: usize) {
        let name = self.nodes[node].name.clone();
        let process = self.nodes[node].running();
        let start = process.outcome(READY_MAX).await;
        let end = process.log_end();
        assert_eq!(start, Start::Ready, "expected {name} to be ready within {READY_MAX:?}; its log ends:\n{end}");
    }

    /// Starts a node and waits until it serves.
    pub async fn start(&mut self, node: usize) {
        self.launch(node);
        self.ready(node).await;
    }

    /// Starts all nodes and waits until they serve.
    pub async fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.launch(node);
        }
        for node in 0..self.nodes.len() {
            self.ready(node).await;
        }
        if self.probe.is_none() {
            self.probe = Some(self.client().await);
        }
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill(&mut self, node: usize) {
        let mut process = self.take(node);
        process.signal(libc::SIGKILL);
        process.exit(STOP_MAX).await;
    }

    /// kill -9 to every running node at once.
    pub async fn kill_all(&mut self) {
        let mut killed: Vec<Kvd> = self.nodes.iter_mut().filter_map(|node| node.process.take()).collect();
        for process in &mut killed {
            process.signal(libc::SIGKILL);
        }
        for process in &mut killed {
            process.exit(STOP_MAX).await;
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self, node: usize) -> ExitStatus {
        let mut process = self.take(node);
        process.signal(libc::SIGTERM);
        process.exit(STOP_MAX).await
    }

    /// SIGTERM to every running node, one after the other.
    pub async fn terminate_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_some() {
                self.terminate(node).await;
            }
        }
    }

    /// SIGSTOP, and waits until no thread of it runs. It keeps its connections and says nothing.
    pub async fn freeze(&mut self, node: usize) {
        let process = self.nodes[node].running();
        process.signal(libc::SIGSTOP);
        let pid = process.pid();
        until("every thread of a frozen process to have stopped", STOP_MAX, async || is_frozen(pid).then_some(()))
            .await;
    }

    /// SIGCONT: a frozen node goes on.
    pub fn thaw(&mut self, node: usize) {
        self.nodes[node].running().signal(libc::SIGCONT);
    }

    fn take(&mut self, node: usize) -> Kvd {
        let node = &mut self.nodes[node];
        node.process.take().unwrap_or_else(|| panic!("expected {} to be running", node.name))
    }

    /// Where clients reach the nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// A client with the usual options.
    pub async fn client(&self) -> Client {
        let connected = Client::connect(self.endpoints()).await;
        connected.unwrap_or_else(|error| panic!("expected to connect to {:?}: {error}", self.endpoints()))
    }

    /// How a node says it is, if it answers.
    pub async fn status(&self, node: usize) -> Option<NodeStatus> {
        let asked = self.probe.as_ref()?.status_at(&self.nodes[node].client).ok()?;
        asked.timeout(STATUS_MAX).await.ok()
    }

    /// How a node's replica of the default partition is, if it answers.
    pub async fn replica(&self, node: usize) -> Option<ReplicaStatus> {
        let status = self.status(node).await?;
        status.replicas.into_iter().find(|replica| replica.partition == PartitionId::DEFAULT)
    }

    /// The node that leads the default partition.
    pub async fn leader(&self) -> usize {
        until("a leader of the default partition", LEADER_MAX, async || {
            let mut newest = None;
            for node in 0..self.nodes.len() {
                if self.nodes[node].process.is_some()
                    && let Some(term) = self.leads(node).await
                {
                    newest = newest.max(Some((term, node)));
                }
            }
            newest.map(|(_, node)| node)
        })
        .await
    }

    /// The term in which a node believes to lead.
    async fn leads(&self, node: usize) -> Option<u64> {
        let replica = self.replica(node).await?;
        let (leader, _) = replica.leader?;
        (leader == replica.replica).then_some(replica.term)
    }

    /// A node that does not lead.
    pub async fn follower(&self) -> usize {
        (self.leader().await + 1) % self.nodes.len()
    }

    /// A `kvctl` command line for this cluster.
    pub fn kvctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
        command.env("KVCTL_ENDPOINTS", self.endpoints().join(",")).args(args);
        command
    }

    /// `kvctl cluster verify`.
    pub async fn verify(&self) -> Finished {
        finish(self.kvctl(&["cluster", "verify"]), VERIFY_MAX).await
    }

    /// All replicas hold the same.
    pub async fn expect_equal_replicas(&self) {
        self.verify().await.expect_code("kvctl cluster verify", &[0]);
    }

    /// Copies of all nodes' directories.
    pub fn copy_directories(&self, to: &Path) {
        for node in &self.nodes {
            crate::files::replace_with_copy(&node.dir, &to.join(&node.name));
        }
    }

    /// Puts such copies back.
    pub fn put_back_directories(&self, from: &Path) {
        for node in &self.nodes {
            crate::files::replace_with_copy(&from.join(&node.name), &node.dir);
        }
    }
}

/// Whether all threads of a process are stopped.
fn is_frozen(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        // The state stands behind the name, which stands in parentheses.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|behind| behind.trim_start().starts_with('T'))
    })
}

/// An address nobody listens at. Its port lies below those the system gives to outgoing connections, one of which
/// could otherwise sit on it while its node is down.
pub async fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() * 97 + step) % 20_000;
        let address = format!("127.0.0.1:{port}");
        if net::listen(&address).await.is_ok() {
            return address;
        }
    }
    panic!("expected a free port among 1000 between 10000 and 30000");
}
