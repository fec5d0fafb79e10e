//! Starting the nodes of a cluster, the first time and whenever they are down.
//!
//! Invariants:
//!
//! * A node's process is in the run's record as soon as it is started.
//! * A node that is started has no reason to end by itself any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use trefoil_world::clock;

use super::disk::Word;
use super::process::Process;
use super::status::Statuses;
use super::{Cluster, Node, Program, Shim};
use crate::backend::{Backend, Links, Place};

/// A start that takes longer has failed.
pub(super) const READY_MAX: Duration = Duration::from_secs(60);
/// A node that has met a failed write before the disks were healed ends within this.
const REASON_MAX: Duration = Duration::from_secs(5);
pub(super) const POLL: Duration = Duration::from_millis(10);

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
}
