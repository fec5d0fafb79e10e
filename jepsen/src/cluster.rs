//! A cluster of `kvd` processes on a backend: starting, killing, stopping and continuing them.
//!
//! Each node has a data directory and, for each start, a log file (`n1.1.log`) with what it said on stderr. A node
//! that is taken down here is down; one that ends otherwise has ended by itself, which [`Cluster::ended`] remembers:
//! whether it may is for the run to judge.
//!
//! Invariants:
//!
//! * No process outlives the cluster, nor the harness (`cluster/process.rs`). A cluster is started, and its nodes
//!   restarted, on threads that live as long as the run.
//! * A process is in the run's record as soon as it is started (`cleanup.rs`).
//!
//! Left out: the network between the nodes, which is the backend's.

mod process;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::join_all;
use trefoil_client::{Client, PartitionId};
use trefoil_world::clock;

use crate::backend::{Backend, Place, Router};
use crate::cleanup::ProcessId;

use process::Process;

/// What a node prints once it serves.
const READY_LINE: &str = "ready to serve client requests";
/// A start that takes longer has failed.
const READY_MAX: Duration = Duration::from_secs(60);
/// A killed process that is still there after this is stuck in the kernel.
const END_MAX: Duration = Duration::from_secs(20);
/// How long a clean stop may take; then the node is killed.
const STOP_MAX: Duration = Duration::from_secs(20);
const STATUS_MAX: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

/// One node.
#[derive(Debug)]
pub struct Node {
    pub place: Place,
    pub data_dir: PathBuf,
    /// While it is not known to have ended.
    process: Option<Process>,
    /// Of the last start.
    id: Option<ProcessId>,
    /// Whether it has been, since the last start.
    ready: bool,
    starts: u32,
}

impl Node {
    fn not_ready(&self) -> String {
        let end = self.process.as_ref().map(Process::log_end).unwrap_or_default();
        format!("{} is not ready after {READY_MAX:?}; its log ends:\n{end}", self.place.name)
    }
}

/// See the file's head. Dropping it kills the nodes and removes the backend.
#[derive(Debug)]
pub struct Cluster {
    // Dropped before the backend they run in.
    nodes: Vec<Node>,
    kvd: PathBuf,
    folder: PathBuf,
    /// Beyond names and addresses.
    flags: Vec<String>,
    ended: Vec<String>,
    /// Asks for status; made when it is first needed.
    probe: Option<Client>,
    backend: Backend,
}

impl Cluster {
    /// Starts the program `kvd` at each place of the backend, with `flags` beyond names and addresses, and waits
    /// until all are ready. Data and logs are kept in `folder`, which is made.
    ///
    /// # Errors
    /// There is no such program, `folder` holds data of an earlier run, or a node is not ready in time: the error has
    /// the end of its log.
    pub async fn start(backend: Backend, kvd: &Path, folder: &Path, flags: &[String]) -> anyhow::Result<Cluster> {
        let kvd = kvd.canonicalize().with_context(|| format!("there is no program {}", kvd.display()))?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let node = |place: &Place| Node {
            data_dir: folder.join(&place.name),
            place: place.clone(),
            process: None,
            id: None,
            ready: false,
            starts: 0,
        };
        let nodes: Vec<Node> = backend.places().iter().map(node).collect();
        for node in &nodes {
            ensure!(!node.data_dir.exists(), "{} holds data of an earlier run", node.data_dir.display());
        }
        let (folder, flags) = (folder.to_owned(), flags.to_vec());
        let mut cluster = Cluster { nodes, kvd, folder, flags, ended: Vec::new(), probe: None, backend };
        cluster.restart().await?;
        Ok(cluster)
    }

    /// Where clients reach the nodes, in their order.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.client.clone()).collect()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What cuts nodes off from each other.
    ///
    /// # Errors
    /// There is none on this backend, and why.
    pub fn router(&self) -> Result<&Router, &'static str> {
        self.backend.router()
    }

    /// The nodes that ended by themselves so far: which, how, and the end of the log of each.
    pub fn ended(&self) -> &[String] {
        &self.ended
    }

    /// Whether a node's process is there, running or stopped.
    ///
    /// # Errors
    /// The system does not say.
    pub fn is_alive(&mut self, node: usize) -> anyhow::Result<bool> {
        self.observe()?;
        Ok(self.nodes[node].process.is_some())
    }

    /// Whether the process last started for a node is gone, as the system has it.
    pub fn is_gone(&self, node: usize) -> bool {
        self.nodes[node].id.is_none_or(|id| !id.lives())
    }

    /// Whether all threads of a node are stopped.
    pub fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| process.is_stopped())
    }

    /// kill -9 to these nodes at once, and waits until they are gone; how many there were.
    ///
    /// # Errors
    /// One of them is not gone in time.
    pub async fn kill(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        self.take_down(nodes, libc::SIGKILL, END_MAX).await
    }

    /// SIGTERM to these nodes at once, and waits until they have stopped; how many there were.
    ///
    /// # Errors
    /// One of them has not stopped in time, and was killed.
    pub async fn terminate(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        self.take_down(nodes, libc::SIGTERM, STOP_MAX).await
    }

    /// What has not ended within `bound` is killed, when its handle is dropped.
    async fn take_down(&mut self, nodes: &BTreeSet<usize>, signal: i32, bound: Duration) -> anyhow::Result<usize> {
        self.observe()?;
        let mut taken: Vec<Process> = nodes.iter().filter_map(|&node| self.nodes[node].process.take()).collect();
        for process in &mut taken {
            process.signal(signal)?;
        }
        for process in &mut taken {
            process.end(bound).await?;
        }
        Ok(taken.len())
    }

    /// SIGSTOP to these nodes; how many there were. They keep their connections and say nothing.
    ///
    /// # Errors
    /// One of them cannot be signalled.
    pub fn pause(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        self.observe()?;
        let mut paused = 0;
        for &node in nodes {
            if let Some(process) = &mut self.nodes[node].process {
                process.signal(libc::SIGSTOP)?;
                paused += 1;
            }
        }
        Ok(paused)
    }

    /// SIGCONT to all nodes; nothing to those that run.
    ///
    /// # Errors
    /// One of them cannot be signalled.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.observe()?;
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.signal(libc::SIGCONT)?;
        }
        Ok(())
    }

    /// Starts all nodes that are down, and waits until every node has been ready since its start.
    ///
    /// # Errors
    /// One of them cannot be started, or is not ready in time: the error has the end of its log.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.observe()?;
        let known = self.ended.len();
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_none() {
                self.launch(node)?;
            }
        }
        let until = clock::now() + READY_MAX;
        for node in 0..self.nodes.len() {
            while !self.is_ready(node) {
                self.observe()?;
                // Others may wait for one that has ended.
                ensure!(self.ended.len() == known, "{}", self.ended[known..].join("\n"));
                ensure!(clock::now() < until, "{}", self.nodes[node].not_ready());
                clock::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Ends the cluster: SIGTERM to all nodes, and SIGKILL to those that have not stopped in time.
    pub async fn stop(&mut self) {
        // A stopped process takes no notice. What cannot be signalled now is killed when the cluster is dropped.
        let _ = self.resume();
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        // What did not stop in time was killed.
        let _ = self.terminate(&all).await;
    }

    /// The node that leads the default partition: of those that say so of themselves, the one with the highest term.
    pub async fn leader(&mut self) -> Option<usize> {
        if self.probe.is_none() {
            let made = Client::builder(self.endpoints()).retries(false).timeout(STATUS_MAX).connect().await;
            self.probe = made.ok();
        }
        let probe = self.probe.as_ref()?;
        let terms = join_all(self.nodes.iter().map(|node| term_led(probe, &node.place.client))).await;
        let leaders = terms.into_iter().enumerate().filter_map(|(node, term)| Some((term?, node)));
        leaders.max().map(|(_, node)| node)
    }

    /// The flags a node is started with.
    fn args(&self, node: usize) -> Vec<String> {
        let list: Vec<String> = self.nodes.iter().map(|n| format!("{}={}", n.place.name, n.place.peer)).collect();
        let Node { place, data_dir, .. } = &self.nodes[node];
        let (list, data_dir) = (list.join(","), data_dir.display().to_string());
        let flags = [
            ("--name", &place.name),
            ("--data-dir", &data_dir),
            ("--listen-client", &place.client),
            ("--listen-peer", &place.peer),
            ("--initial-cluster", &list),
        ];
        let words = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.clone()]);
        words.chain(self.flags.iter().cloned()).collect()
    }

    fn launch(&mut self, node: usize) -> anyhow::Result<()> {
        let args = self.args(node);
        let node = &mut self.nodes[node];
        assert!(node.process.is_none(), "{} is started while it is running", node.place.name);
        node.starts += 1;
        node.ready = false;
        let log = self.folder.join(format!("{}.{}.log", node.place.name, node.starts));
        let process = Process::start(&node.place, &self.kvd, &args, log)?;
        node.id = process.id();
        node.process = Some(process);
        match node.id {
            Some(id) => self.backend.record().add(id),
            // It has ended already.
            None => Ok(()),
        }
    }

    /// Whether a node has been ready since its start.
    fn is_ready(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        node.ready = node.ready || node.process.as_ref().is_some_and(|process| process.log().contains(READY_LINE));
        node.ready
    }

    /// Takes note of the nodes that have ended by themselves.
    fn observe(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else { continue };
            if let Some(status) = process.exited()? {
                let end = process.log_end();
                self.ended.push(format!("{} ended by itself ({status}); its log ends:\n{end}", node.place.name));
                node.process = None;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once; each is waited for when its handle is dropped.
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.kill();
        }
    }
}

/// The term in which a node says it leads the default partition.
async fn term_led(probe: &Client, endpoint: &str) -> Option<u64> {
    let status = probe.status_at(endpoint).ok()?.timeout(STATUS_MAX).send().await.ok()?;
    let replica = status.replicas.into_iter().find(|replica| replica.partition == PartitionId::DEFAULT)?;
    let (leader, _) = replica.leader?;
    (leader == replica.replica).then_some(replica.term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Loopback;

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
        let script = "[ $2 = n2 ] && { echo said by $2 with ${11} >&2; exit 3; }; exec sleep 600";
        let error = start(script, folder.path()).await.expect_err("n2 ends").to_string();
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
}
