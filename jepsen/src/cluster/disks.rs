//! What can be done to the disks of a cluster's nodes.
//!
//! Left out: seeing what a node makes of it, which is the nemesis'.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use trefoil_world::{clock, task};

use super::directory::Replacement;
use super::disk::{Sidecar, Unmodelled, Word};
use super::power::{self, Loss, Names, Synced};
use super::signals::Down;
use super::{Cluster, Node, Shim};
use crate::generator::Dice;

/// How often is chosen anew what a loss of power takes, for it to take something.
const PLANS_MAX: usize = 20;

/// What the shim counts of what it was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCount {
    SyncsFailed,
    /// To whatever file.
    WritesRefused,
    /// Those to write-ahead logs, tables, manifests and marks.
    DataRefused,
}

/// A loss of power of all nodes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLoss {
    /// How many processes there were.
    pub killed: usize,
    /// How long it took to signal them all.
    pub within: Duration,
    /// Of all nodes together.
    pub lost: Loss,
}

impl Cluster {
    /// The shim under which the nodes run.
    ///
    /// # Errors
    /// There is none.
    pub fn shim(&self) -> Result<&Shim, &'static str> {
        self.shim.as_ref().ok_or("the nodes do not run under the preload shim")
    }

    pub(super) fn sidecar(&self, node: usize) -> anyhow::Result<&Sidecar> {
        self.nodes[node].sidecar.as_ref().context("the nodes do not run under the preload shim")
    }

    /// What a node is to have in its environment; its journal is written anew for that.
    pub(super) fn environment(&self, node: usize) -> anyhow::Result<Vec<(OsString, OsString)>> {
        let node = &self.nodes[node];
        let (Some(shim), Some(sidecar)) = (&self.shim, &node.sidecar) else { return Ok(Vec::new()) };
        sidecar.rewrite(&sidecar.synced()?)?;
        Ok(sidecar.environment(shim, node.directory.path()).to_vec())
    }

    /// From here on each sync of a file of the node's directory fails with EIO. Nothing is synced, and what was to be
    /// is dropped: no later sync writes it.
    ///
    /// # Errors
    /// There is no shim, or its control file cannot be written.
    pub fn fail_syncs(&mut self, node: usize) -> anyhow::Result<()> {
        self.disks_healed = None;
        let sidecar = self.sidecar(node)?;
        sidecar.set(Word::SyncsFailed, 0)?;
        sidecar.set(Word::SyncErrno, libc::EIO as u64)
    }

    /// From here on the files of the node's directory may grow by so many bytes in all; then writes fail with ENOSPC.
    ///
    /// # Errors
    /// There is no shim, or its control file cannot be written.
    pub fn limit_space(&mut self, node: usize, bytes: u64) -> anyhow::Result<()> {
        self.disks_healed = None;
        let sidecar = self.sidecar(node)?;
        sidecar.set(Word::WritesRefused, 0)?;
        sidecar.set(Word::DataRefused, 0)?;
        sidecar.set(Word::SpaceLeft, bytes)?;
        sidecar.set(Word::SpaceLimited, 1)
    }

    /// How often the shim of a node has done what it was told, since it was told.
    ///
    /// # Errors
    /// There is no shim, or its control file cannot be read.
    pub fn disk_count(&self, node: usize, what: DiskCount) -> anyhow::Result<u64> {
        self.sidecar(node)?.word(match what {
            DiskCount::SyncsFailed => Word::SyncsFailed,
            DiskCount::WritesRefused => Word::WritesRefused,
            DiskCount::DataRefused => Word::DataRefused,
        })
    }

    /// All disks work again.
    ///
    /// # Errors
    /// A control file cannot be written.
    pub fn heal_disks(&mut self) -> anyhow::Result<()> {
        for sidecar in self.nodes.iter().filter_map(|node| node.sidecar.as_ref()) {
            sidecar.set(Word::SyncErrno, 0)?;
            sidecar.set(Word::SpaceLimited, 0)?;
        }
        self.disks_healed.get_or_insert_with(clock::now);
        Ok(())
    }

    /// kill -9 to all nodes at once; of what they had not synced some is lost, as `dice` have it: something at least, if
    /// there is something that can be.
    ///
    /// # Errors
    /// There is no shim, a node is not gone in time, or its files cannot be changed.
    pub async fn lose_power(&mut self, mut dice: Dice) -> anyhow::Result<()> {
        self.power_loss = None;
        self.shim().map_err(anyhow::Error::msg)?;
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        let taken = self.take_down(&all, Down::Kill).await?;
        let disk = |node: &Node| Some((node.sidecar.clone()?, node.directory.path().to_owned()));
        let disks: Vec<(Sidecar, PathBuf)> = self.nodes.iter().filter_map(disk).collect();
        let lost = task::blocking(move || lose(&disks, &mut dice)).await??;
        self.power_loss = Some(PowerLoss { killed: taken.count, within: taken.within, lost });
        Ok(())
    }

    /// The last loss of power; nothing when there was none, or it was interrupted.
    pub fn power_loss(&self) -> Option<PowerLoss> {
        self.power_loss
    }

    /// What the nodes have done so far that the model of a loss of power does not know: a loss that they survive then
    /// proves little.
    ///
    /// # Errors
    /// A control file cannot be read.
    pub fn unmodelled(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let counts = node.sidecar.as_ref().map(Sidecar::unmodelled).transpose()?.unwrap_or_default();
            let said = |(what, times): (Unmodelled, u64)| {
                format!("the shim does not model {}: {} times by {}", what.text(), times, node.place.name)
            };
            found.extend(counts.into_iter().map(said));
        }
        Ok(found)
    }

    /// Copies the directory of a node that is down, for [`Replacement::OldCopy`].
    ///
    /// # Errors
    /// It cannot be copied.
    pub async fn copy_directory(&mut self, node: usize) -> anyhow::Result<()> {
        self.assert_down(node)?;
        let directory = self.nodes[node].directory.clone();
        task::blocking(move || directory.copy()).await?
    }

    /// Moves the directory of a node that is down aside, and puts another one in its place; says what that is.
    ///
    /// # Errors
    /// It cannot be done. The original is then aside or where it was, and comes back as below.
    pub async fn replace_directory(&mut self, node: usize, by: Replacement, mut dice: Dice) -> anyhow::Result<String> {
        self.assert_down(node)?;
        self.nodes[node].struck.directory.get_or_insert_with(clock::now);
        let directory = self.nodes[node].directory.clone();
        let what = task::blocking(move || directory.replace(by, &mut dice)).await??;
        self.take_as_synced(node)?;
        Ok(what)
    }

    /// The files of a node that is down count as synced: nobody watched how they were copied.
    fn take_as_synced(&self, node: usize) -> anyhow::Result<()> {
        let Node { directory, sidecar, .. } = &self.nodes[node];
        let Some(sidecar) = sidecar else { return Ok(()) };
        let files = if directory.path().exists() { power::find(directory.path())? } else { Vec::new() };
        let mut synced = sidecar.synced()?;
        synced.take_as_synced(&files);
        sidecar.rewrite(&synced)
    }

    /// Has a node that serves with a replacement keep it: the original goes. From here on it has no reason to end.
    ///
    /// # Errors
    /// The original cannot be removed.
    pub async fn keep_replacement(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].may_end = None;
        let directory = self.nodes[node].directory.clone();
        task::blocking(move || directory.keep()).await?
    }

    /// Kills the nodes that run on replacements, and gives them their directories back.
    ///
    /// # Errors
    /// A node is not gone in time, or its directory cannot be moved.
    pub async fn put_directories_back(&mut self) -> anyhow::Result<()> {
        let replaced = |&node: &usize| self.nodes[node].directory.is_replaced();
        let replaced: BTreeSet<usize> = (0..self.nodes.len()).filter(replaced).collect();
        self.kill(&replaced).await?;
        for node in replaced {
            let directory = self.nodes[node].directory.clone();
            task::blocking(move || directory.put_back()).await??;
        }
        Ok(())
    }

    /// Whether a node runs on a replacement.
    pub fn is_replaced(&self, node: usize) -> bool {
        self.nodes[node].directory.is_replaced()
    }

    /// How many bytes there are in the write-ahead logs of a node's directory: all that it writes goes there first.
    ///
    /// # Errors
    /// It has no database yet, or its files cannot be looked at.
    pub fn logged_bytes(&self, node: usize) -> anyhow::Result<u64> {
        self.nodes[node].directory.logged_bytes()
    }

    fn assert_down(&mut self, node: usize) -> anyhow::Result<()> {
        let alive = self.is_alive(node)?;
        assert!(!alive, "the directory of n{} is in use", node + 1);
        Ok(())
    }
}

/// What is left of dead nodes' files counts as synced.
fn lose(disks: &[(Sidecar, PathBuf)], dice: &mut Dice) -> anyhow::Result<Loss> {
    let mut changes = Vec::new();
    for _ in 0..PLANS_MAX {
        changes.clear();
        for (sidecar, directory) in disks {
            let (disk, names) = (sidecar.disk(directory)?, Names::on(directory)?);
            changes.extend(power::plan(&sidecar.synced()?, disk, names, dice));
        }
        if Loss::of(&changes).bytes > 0 {
            break;
        }
    }
    power::apply(&changes)?;
    for (sidecar, directory) in disks {
        sidecar.rewrite(&Synced::all(&power::find(directory)?))?;
    }
    Ok(Loss::of(&changes))
}
