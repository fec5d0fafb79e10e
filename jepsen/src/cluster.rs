//! A cluster of processes on a backend, `kvd` or etcd ([`Program`]): what it consists of, and what can be seen of it.
//!
//! Each node has a data directory and, for each start, a log file (`n1.1.log`) with what it said on stderr. A node
//! that is taken down (`cluster/signals.rs`) is down until it is started again (`cluster/start.rs`); one that ends
//! otherwise has ended by itself, which [`Cluster::ended`] remembers, unless a fault has given it reason to, and it ended
//! for that reason (`cluster/excuse.rs`). So is one remembered that is told to stop, and does not do so in order. Started
//! under the preload shim (`cluster/disk.rs`), nodes have disks that can be made to fail (`cluster/disks.rs`).
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
mod node;
mod power;
mod process;
mod program;
mod signals;
mod start;
pub mod status;

use std::path::PathBuf;
use std::process::ExitStatus;

use trefoil_client::{NodeStatus, ReplicaStatus};
use trefoil_world::clock;

use crate::backend::{Backend, Links};
use crate::target::Target;

pub use directory::Replacement;
pub use disk::Shim;
pub use disks::{DiskCount, PowerLoss};
pub use excuse::EndReason;
pub use node::{Node, Struck};
pub use power::Loss;
pub use program::Program;
pub use start::NotServing;

use excuse::End;
use status::{Placement, Statuses};

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

    /// All that its nodes may have on disk beside their logs. None of it is needed when the cluster is dropped.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.nodes.iter().flat_map(Node::folders).collect()
    }

    /// The nodes that ended by themselves so far without having been given reason to, or were told to stop and did not
    /// in order: which, how, and the end of the log of each.
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
        let node = &mut self.nodes[node];
        node.may_end = Some(reason);
        match reason {
            EndReason::DiskFails => {
                node.struck.disk.get_or_insert_with(clock::now);
            }
            // That was noted when it was replaced.
            EndReason::Directory => {}
        }
    }

    /// The exit code with which a node has ended by itself since its last start.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended_with(&mut self, node: usize) -> anyhow::Result<Option<i32>> {
        self.observe()?;
        Ok(self.nodes[node].ended)
    }

    /// The node that leads the default partition, as the nodes say.
    pub async fn leader(&mut self) -> Option<usize> {
        status::leader(&self.statuses.ask_all().await)
    }

    /// Which nodes hold the default partition, and who leads it, as the nodes say.
    pub async fn placement(&mut self) -> Placement {
        self.statuses.placement().await
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

    /// Takes note of the nodes that have ended by themselves.
    ///
    /// # Errors
    /// The system does not say.
    pub fn observe(&mut self) -> anyhow::Result<()> {
        for node in 0..self.nodes.len() {
            let Some(process) = &mut self.nodes[node].process else { continue };
            if let Some(status) = process.exited()? {
                self.nodes[node].process = None;
                self.note_end(node, status, "ended by itself");
            }
        }
        Ok(())
    }

    /// Takes note of an end that nobody brought about as it came, unless it is excused. `how` it came, in words.
    fn note_end(&mut self, node: usize, status: ExitStatus, how: &str) {
        let node = &mut self.nodes[node];
        node.ended = status.code();
        let said = node.said();
        let ready = said.contains(self.program.ready_line());
        let end = End { code: node.ended, said: &said, ready, calls_failed: node.calls_failed() };
        if !node.may_end.is_some_and(|reason| reason.excuses(end)) {
            let (name, end) = (&node.place.name, process::end_of(&said));
            self.ended.push(format!("{name} {how} ({status}); its log ends:\n{end}"));
        }
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
