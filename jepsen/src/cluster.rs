//! A cluster of processes on a backend, `kvd` or etcd ([`Program`]): starting, killing, stopping and continuing them.
//!
//! Each node has a data directory and, for each start, a log file (`n1.1.log`) with what it said on stderr. A node
//! that is taken down here is down; one that ends otherwise has ended by itself, which [`Cluster::ended`] remembers,
//! unless a fault has given it reason to, and it ended for that reason (`cluster/excuse.rs`). Started under the preload shim (`cluster/disk.rs`), nodes
//! have disks that can be made to fail (`cluster/disks.rs`).
//!
//! Invariants:
//!
//! * No process outlives the cluster, nor the harness (`cluster/process.rs`). A cluster is started, and its nodes
//!   restarted, on threads that live as long as the run.
//! * A process is in the run's record as soon as it is started (`cleanup.rs`).
//!
//! Left out: the network between the nodes, which is the backend's.

mod directory;
mod disk;
mod disks;
mod excuse;
mod power;
mod process;
mod program;
pub mod status;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use trefoil_client::{NodeStatus, ReplicaStatus};
use trefoil_world::clock;

use crate::backend::{Backend, Links, Place};
use crate::cleanup::ProcessId;
use crate::target::Target;

pub use directory::Replacement;
pub use disk::Shim;
pub use disks::{DiskCount, PowerLoss};
pub use excuse::EndReason;
pub use power::Loss;
pub use program::Program;

use directory::Directory;
use disk::{Sidecar, Word};
use excuse::End;
use process::Process;
use status::Statuses;

/// A start that takes longer has failed.
const READY_MAX: Duration = Duration::from_secs(60);
/// A killed process that is still there after this is stuck in the kernel.
const END_MAX: Duration = Duration::from_secs(20);
/// How long a clean stop may take; then the node is killed.
const STOP_MAX: Duration = Duration::from_secs(20);
/// A node that has met a failed write before the disks were healed ends within this.
const REASON_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Nodes that do not come to serve: a finding about them, not a failure of the harness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    /// Which have ended by themselves, how, and the end of the log of each.
    #[error("{}", .0.join("\n"))]
    Ended(Vec<String>),
    /// Which one is not ready in time, and the end of its log.
    #[error("{0}")]
    NotReady(String),
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub place: Place,
    directory: Directory,
    /// When it runs under the shim.
    sidecar: Option<Sidecar>,
    /// What it says on stderr, of the last start.
    log: PathBuf,
    /// While it is not known to have ended.
    process: Option<Process>,
    /// Of the last start.
    id: Option<ProcessId>,
    /// Whether it has been, since the last start.
    ready: bool,
    starts: u32,
    /// Why it may end by itself, until it is started again or the fault is long over.
    may_end: Option<EndReason>,
    /// The exit code with which it has, since the last start.
    ended: Option<i32>,
}

impl Node {
    fn new(place: &Place, folder: &Path, shim: Option<&Shim>) -> anyhow::Result<Node> {
        let data_dir = folder.join(&place.name);
        ensure!(!data_dir.exists(), "{} holds data of an earlier run", data_dir.display());
        let sidecar = shim.map(|_| Sidecar::create(data_dir.with_extension("disk"))).transpose()?;
        Ok(Node {
            place: place.clone(),
            directory: Directory::new(data_dir),
            sidecar,
            log: PathBuf::new(),
            process: None,
            id: None,
            ready: false,
            starts: 0,
            may_end: None,
            ended: None,
        })
    }

    /// What it has said since its last start.
    fn said(&self) -> String {
        process::said(&self.log)
    }

    fn not_ready(&self) -> String {
        let end = process::end_of(&self.said());
        format!("{} is not ready after {READY_MAX:?}; its log ends:\n{end}", self.place.name)
    }
}

/// Nodes that were taken down.
struct Taken {
    count: usize,
    /// How long it took to signal them all.
    within: Duration,
}

/// See the file's head. Dropping it kills the nodes and removes the backend.
#[derive(Debug)]
pub struct Cluster {
    // Dropped before the backend they run in.
    nodes: Vec<Node>,
    program: Program,
    shim: Option<Shim>,
    folder: PathBuf,
    /// Beyond names and addresses.
    flags: Vec<String>,
    ended: Vec<String>,
    power_loss: Option<PowerLoss>,
    /// Since when all disks are known to work; nothing while one is made to fail.
    disks_healed: Option<clock::Instant>,
    statuses: Statuses,
    backend: Backend,
}

impl Cluster {
    /// Starts the program `kvd` at each place of the backend, with `flags` beyond names and addresses, and waits
    /// until all are ready. Data and logs are kept in `folder`, which is made.
    ///
    /// # Errors
    /// There is no such program, or `folder` holds data of an earlier run. [`NotServing`]: a node ended by itself, or is
    /// not ready in time.
    pub async fn start(backend: Backend, kvd: &Path, folder: &Path, flags: &[String]) -> anyhow::Result<Cluster> {
        Cluster::start_all(backend, Program::Kvd(kvd.to_owned()), folder, flags, None).await
    }

    /// The same with the program `etcd`.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_etcd(backend: Backend, etcd: &Path, folder: &Path) -> anyhow::Result<Cluster> {
        Cluster::start_all(backend, Program::Etcd(etcd.to_owned()), folder, &[], None).await
    }

    /// As [`Cluster::start`], with every node under the preload shim.
    ///
    /// # Errors
    /// As [`Cluster::start`]; or the shim does not load into `kvd`.
    pub async fn start_under(
        shim: Shim,
        backend: Backend,
        kvd: &Path,
        folder: &Path,
        flags: &[String],
    ) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start_all(backend, Program::Kvd(kvd.to_owned()), folder, flags, Some(shim)).await?;
        for node in 0..cluster.nodes.len() {
            let attached = cluster.sidecar(node)?.word(Word::Attached)?;
            ensure!(attached > 0, "the preload shim does not load into {}", cluster.program.path().display());
        }
        Ok(cluster)
    }

    async fn start_all(
        backend: Backend,
        program: Program,
        folder: &Path,
        flags: &[String],
        shim: Option<Shim>,
    ) -> anyhow::Result<Cluster> {
        let program = program.found()?;
        let made = fs::create_dir_all(folder).and_then(|()| folder.canonicalize());
        let folder = made.with_context(|| format!("cannot make {}", folder.display()))?;
        let node = |place| Node::new(place, &folder, shim.as_ref());
        let nodes = backend.places().iter().map(node).collect::<anyhow::Result<Vec<Node>>>()?;
        let (flags, ended) = (flags.to_vec(), Vec::new());
        let (power_loss, disks_healed) = (None, None);
        let statuses = Statuses::of(program.target(), nodes.iter().map(|node| node.place.client.clone()).collect());
        let mut cluster =
            Cluster { nodes, program, shim, folder, flags, ended, power_loss, disks_healed, statuses, backend };
        cluster.restart().await?;
        Ok(cluster)
    }

    /// Where clients reach the nodes, in their order.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.client.clone()).collect()
    }

    /// What its nodes are.
    pub fn target(&self) -> Target {
        self.program.target()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What can be done to what nodes send to each other.
    ///
    /// # Errors
    /// There is nothing on this backend, and why.
    pub fn links(&self) -> Result<Links, &'static str> {
        self.backend.links()
    }

    /// The nodes that ended by themselves so far without having been given reason to: which, how, and the end of the log
    /// of each.
    /// As of the last look: [`Cluster::observe`].
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
        Ok(self.take_down(nodes, libc::SIGKILL, END_MAX).await?.count)
    }

    /// SIGTERM to these nodes at once, and waits until they have stopped; how many there were.
    ///
    /// # Errors
    /// One of them has not stopped in time, and was killed.
    pub async fn terminate(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<usize> {
        Ok(self.take_down(nodes, libc::SIGTERM, STOP_MAX).await?.count)
    }

    /// What has not ended within `bound` is killed, when its handle is dropped.
    async fn take_down(&mut self, nodes: &BTreeSet<usize>, signal: i32, bound: Duration) -> anyhow::Result<Taken> {
        self.observe()?;
        let mut taken: Vec<Process> = nodes.iter().filter_map(|&node| self.nodes[node].process.take()).collect();
        let began = clock::now();
        for process in &mut taken {
            process.signal(signal)?;
        }
        let within = began.elapsed();
        for process in &mut taken {
            process.end(bound).await?;
        }
        Ok(Taken { count: taken.len(), within })
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

    /// Whether a node has been ready since its start, and is not known to have ended.
    pub fn is_ready(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        node.ready = node.process.is_some() && (node.ready || node.said().contains(self.program.ready_line()));
        node.ready
    }

    /// What a node has said on stderr since its last start.
    pub fn said(&self, node: usize) -> String {
        self.nodes[node].said()
    }

    /// Gives a node reason to end by itself, until it is started again, or the disks have been whole for a while. An end
    /// that did not come of it is none the less one that [`Cluster::ended`] remembers.
    pub fn may_end(&mut self, node: usize, reason: EndReason) {
        self.nodes[node].may_end = Some(reason);
    }

    /// The exit code with which a node has ended by itself since its last start.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended_with(&mut self, node: usize) -> anyhow::Result<Option<i32>> {
        self.observe()?;
        Ok(self.nodes[node].ended)
    }

    /// Starts all nodes that are down, and waits until every node runs and has been ready since its start.
    ///
    /// # Errors
    /// One of them cannot be started. [`NotServing`]: a node ended by itself, or is not ready in time.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        self.launch_all(&all)?;
        let known = self.ended.len();
        let until = clock::now() + READY_MAX;
        loop {
            self.observe()?;
            // Others may wait for one that has ended.
            if self.ended.len() > known {
                return Err(NotServing::Ended(self.ended[known..].to_vec()).into());
            }
            // One that had reason to end has none the next time.
            self.launch_all(&all)?;
            let Some(waits) = (0..self.nodes.len()).find(|&node| !self.is_ready(node)) else { break };
            if clock::now() >= until {
                return Err(NotServing::NotReady(self.nodes[waits].not_ready()).into());
            }
            clock::sleep(POLL).await;
        }
        self.end_reasons();
        Ok(())
    }

    /// Waits until no node has reason to end by itself any more, and starts those that have meanwhile. The disks must be
    /// healed.
    ///
    /// # Errors
    /// As [`Cluster::restart`].
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        if self.nodes.iter().all(|node| node.may_end.is_none()) {
            return Ok(());
        }
        if let Some(healed) = self.disks_healed {
            clock::sleep_until(healed + REASON_MAX).await;
        }
        self.restart().await
    }

    /// Once the disks have been whole for a while, no node has reason to end by itself any more.
    fn end_reasons(&mut self) {
        if self.disks_healed.is_some_and(|healed| healed.elapsed() >= REASON_MAX) {
            for node in &mut self.nodes {
                node.may_end = None;
            }
        }
    }

    /// Starts those of these nodes that are down, without waiting until they are ready.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn launch_all(&mut self, nodes: &BTreeSet<usize>) -> anyhow::Result<()> {
        self.observe()?;
        for &node in nodes {
            if self.nodes[node].process.is_none() {
                self.launch(node)?;
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

    /// The node that leads the default partition, as the nodes say.
    pub async fn leader(&mut self) -> Option<usize> {
        status::leader(&self.statuses.ask_all().await)
    }

    /// How a node says it is; nothing when it does not answer.
    pub async fn status(&mut self, node: usize) -> Option<NodeStatus> {
        self.statuses.ask(node).await
    }

    /// How a node says its replica of the default partition is; nothing when it does not answer, or has none.
    pub async fn replica(&mut self, node: usize) -> Option<ReplicaStatus> {
        status::replica(&self.status(node).await?).cloned()
    }

    /// What asks its nodes how they are, for somebody beside it.
    pub fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// The flags a node is started with.
    fn args(&self, node: usize) -> Vec<String> {
        let places: Vec<&Place> = self.nodes.iter().map(|node| &node.place).collect();
        let Node { place, directory, .. } = &self.nodes[node];
        let words = self.program.flags(place, directory.path(), &places);
        words.into_iter().chain(self.flags.iter().cloned()).collect()
    }

    fn launch(&mut self, place: usize) -> anyhow::Result<()> {
        let (args, environment) = (self.args(place), self.environment(place)?);
        let node = &mut self.nodes[place];
        assert!(node.process.is_none(), "{} is started while it is running", node.place.name);
        node.starts += 1;
        node.forget_failed_calls()?;
        (node.ready, node.may_end, node.ended) = (false, None, None);
        node.log = self.folder.join(format!("{}.{}.log", node.place.name, node.starts));
        let process = Process::start(&node.place, &self.program, &args, environment, &node.log)?;
        node.id = process.id();
        node.process = Some(process);
        // Otherwise it has ended already.
        let Some(id) = node.id else { return Ok(()) };
        if let Ok(Links::Proxies(proxies)) = self.backend.links() {
            proxies.note_process(place, id.pid());
        }
        self.backend.record().add(id)
    }

    /// Takes note of the nodes that have ended by themselves.
    ///
    /// # Errors
    /// The system does not say.
    pub fn observe(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else { continue };
            if let Some(status) = process.exited()? {
                node.process = None;
                node.ended = status.code();
                let said = node.said();
                let ready = said.contains(self.program.ready_line());
                let end = End { code: node.ended, said: &said, ready, calls_failed: node.calls_failed() };
                if !node.may_end.is_some_and(|reason| reason.excuses(end)) {
                    let (name, end) = (&node.place.name, process::end_of(&said));
                    self.ended.push(format!("{name} ended by itself ({status}); its log ends:\n{end}"));
                }
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

#[cfg(test)]
mod tests;
