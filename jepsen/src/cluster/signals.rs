//! Killing, stopping, pausing and continuing the nodes of a cluster.
//!
//! Left out: losing power, which takes from their disks too (`disks.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use trefoil_world::clock;

use super::Cluster;
use super::process::Process;

/// A killed process that is still there after this is stuck in the kernel.
pub(super) const END_MAX: Duration = Duration::from_secs(20);
/// How long a clean stop may take; then the node is killed.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Nodes that were taken down.
pub(super) struct Taken {
    pub(super) count: usize,
    /// How long it took to signal them all.
    pub(super) within: Duration,
}

impl Cluster {
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
    pub(super) async fn take_down(
        &mut self,
        nodes: &BTreeSet<usize>,
        signal: i32,
        bound: Duration,
    ) -> anyhow::Result<Taken> {
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

    /// Ends the cluster: SIGTERM to all nodes, and SIGKILL to those that have not stopped in time.
    pub async fn stop(&mut self) {
        // A stopped process takes no notice. What cannot be signalled now is killed when the cluster is dropped.
        let _ = self.resume();
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        // What did not stop in time was killed.
        let _ = self.terminate(&all).await;
    }
}
