//! One node of a cluster: its place, what it has on disk, and what came of its last start.
//!
//! Left out: starting and ending it, which the cluster does.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use trefoil_world::clock;

use super::directory::Directory;
use super::disk::Sidecar;
use super::process::{self, Process};
use super::start::READY_MAX;
use super::{EndReason, Shim};
use crate::backend::Place;
use crate::cleanup::ProcessId;

/// What the folder of the shim's files has in place of the data directory's extension.
const SIDECAR: &str = "disk";

/// Since when faults have given a node, and others because of it, reason to raise alarms. A fault stays: nobody says when
/// an alarm about it must be over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// Its disk has failed.
    pub disk: Option<clock::Instant>,
    /// Its directory was replaced.
    pub directory: Option<clock::Instant>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub place: Place,
    pub(super) directory: Directory,
    /// When it runs under the shim.
    pub(super) sidecar: Option<Sidecar>,
    /// What it says on stderr, of the last start.
    pub(super) log: PathBuf,
    /// While it is not known to have ended.
    pub(super) process: Option<Process>,
    /// Of the last start.
    pub(super) id: Option<ProcessId>,
    /// Whether it has been, since the last start.
    pub(super) ready: bool,
    pub(super) starts: u32,
    /// Why it may end by itself, until it is started again or the fault is long over.
    pub(super) may_end: Option<EndReason>,
    /// The exit code with which it has, since the last start.
    pub(super) ended: Option<i32>,
    pub(super) struck: Struck,
}

impl Node {
    pub(super) fn new(place: &Place, folder: &Path, shim: Option<&Shim>) -> anyhow::Result<Node> {
        let data_dir = folder.join(&place.name);
        ensure!(!data_dir.exists(), "{} holds data of an earlier run", data_dir.display());
        let sidecar = shim.map(|_| Sidecar::create(data_dir.with_extension(SIDECAR))).transpose()?;
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
            struck: Struck::default(),
        })
    }

    /// What faults so far account for.
    pub fn struck(&self) -> Struck {
        self.struck
    }

    /// All that it may have on disk beside its logs.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let sidecar = self.directory.path().with_extension(SIDECAR);
        self.directory.all().into_iter().chain([sidecar]).collect()
    }

    /// What it has said since its last start.
    pub(super) fn said(&self) -> String {
        process::said(&self.log)
    }

    pub(super) fn not_ready(&self) -> String {
        let end = process::end_of(&self.said());
        format!("{} is not ready after {READY_MAX:?}; its log ends:\n{end}", self.place.name)
    }
}
