//! Names that a loss of power takes back.
//!
//! A change of names that was not synced may be undone, whichever others are: but what was done to a name before stays
//! when what was done to it later stays. Each change is taken back whole or not at all, as file systems have it: no file is
//! lost between two names.
//!
//! Invariants:
//!
//! * What the disk does not bear out is left alone, such as a change whose record was not written any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::journal::{Entry, Naming, Renaming, Synced};
use super::{Change, Disk, Found, Names};
use crate::generator::Dice;

/// Chooses the changes of names that are taken back, and takes them back on `disk`.
pub(super) fn take_back(synced: &Synced, disk: &mut Disk, names: Names, dice: &mut Dice) -> Vec<Change> {
    let mut stays: BTreeSet<&Entry> = BTreeSet::new();
    let mut changes = Vec::new();
    for renaming in synced.renamings.iter().rev() {
        let open = names.are_open(renaming) && !renaming.entries().any(|entry| stays.contains(entry));
        let taken = if open && dice.flag() { disk.take_back(renaming) } else { None };
        match taken {
            Some(more) => changes.extend(more),
            None => stays.extend(renaming.entries()),
        }
    }
    changes
}

impl Names {
    fn are_open(self, renaming: &Renaming) -> bool {
        match (self, &renaming.naming) {
            (Names::BySyncOfDirectory, _) | (Names::BySyncOfFile, Naming::Removed(_)) => true,
            (Names::BySyncOfFile, Naming::Made(_) | Naming::Moved { .. }) => !renaming.file_synced,
        }
    }
}

impl Disk {
    /// `None`: it is not as it was after the change, and stays as it is.
    fn take_back(&mut self, renaming: &Renaming) -> Option<Vec<Change>> {
        match &renaming.naming {
            Naming::Made(entry) => Some(vec![self.unmake(renaming, entry)?]),
            Naming::Removed(entry) => {
                let path = self.path_of(entry).filter(|path| self.is_free(path))?;
                Some(vec![self.put_back(renaming.kept, path)?])
            }
            Naming::Moved { from, to } => self.move_back(renaming, from, to),
        }
    }

    fn path_of(&self, entry: &Entry) -> Option<PathBuf> {
        Some(self.directories.get(&entry.directory)?.join(&entry.name))
    }

    fn is_free(&self, path: &Path) -> bool {
        !self.files.iter().any(|found| found.path == path)
    }

    fn unmake(&mut self, renaming: &Renaming, entry: &Entry) -> Option<Change> {
        let path = self.path_of(entry)?;
        if self.directories.get(&renaming.file) == Some(&path) {
            let bytes = self.files.iter().filter(|found| found.path.starts_with(&path)).map(|found| found.bytes).sum();
            self.files.retain(|found| !found.path.starts_with(&path));
            self.directories.retain(|_, directory| !directory.starts_with(&path));
            return Some(Change::Gone { path, bytes });
        }
        let place = self.files.iter().position(|found| found.path == path && found.file == renaming.file)?;
        let Found { path, bytes, .. } = self.files.remove(place);
        Some(Change::Gone { path, bytes })
    }

    fn put_back(&mut self, kept: u64, path: PathBuf) -> Option<Change> {
        let kept = self.kept.remove(&kept)?;
        self.files.push(Found { path: path.clone(), file: kept.file, bytes: kept.bytes });
        Some(Change::Back { kept: kept.path, path })
    }

    fn move_back(&mut self, renaming: &Renaming, from: &Entry, to: &Entry) -> Option<Vec<Change>> {
        let (old, new) = (self.path_of(from).filter(|path| self.is_free(path))?, self.path_of(to)?);
        let moved = self.files.iter().position(|found| found.path == new && found.file == renaming.file)?;
        if renaming.kept != 0 && !self.kept.contains_key(&renaming.kept) {
            return None;
        }
        self.files[moved].path.clone_from(&old);
        let mut changes = vec![Change::Moved { from: new.clone(), to: old }];
        changes.extend(self.put_back(renaming.kept, new));
        Some(changes)
    }
}
