//! A loss of power: what of a dead node's files may be gone, chosen and taken.
//!
//! [`Synced`] is what the shim's journal says (`power/journal.rs`). [`plan`] is pure: from that, from the disk as it is,
//! and from dice, it chooses what is lost. Anything it may choose is a state in which a loss of power can leave a POSIX
//! file system:
//!
//! * Of bytes behind the synced length a prefix stays: all, none, or up to somewhere, within a record too.
//! * Of pieces written over since the last sync the first so many stay, and of the next one its end.
//! * A file that was cut since its last sync may be as it was before.
//! * Names that were made, changed or removed since the last sync of their directory may be as before
//!   (`power/names.rs`): a new file is gone, a renamed one has its old name, a removed or replaced one is back.
//! * Bytes that a sync which failed has dropped are lost for certain, even if a later sync of the file succeeded, unless
//!   they were written again: what was written over comes back, what was new is zeroes. In the meantime they can be read.
//!
//! Invariants:
//!
//! * What was synced is never taken.
//! * What is left counts as synced from there on.
//!
//! Left out: bytes that come back as zeroes, or out of their order, though no sync has failed; the name of the data
//! directory itself; metadata but for lengths and names.

mod journal;
mod names;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::disk::format::FileId;
use crate::generator::Dice;

pub(crate) use journal::{Piece, Synced};

use journal::FileState;

/// What `statfs` calls btrfs.
const BTRFS: i64 = 0x9123_683e;
/// How many zeroes are written at a time.
const ZEROES: [u8; 4096] = [0; 4096];

/// A file of a dead node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) file: FileId,
    pub(crate) bytes: u64,
}

/// What a dead node has on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its data directory, and those below it.
    directories: BTreeMap<FileId, PathBuf>,
    files: Vec<Found>,
    /// What the shim has kept, by numbers.
    kept: BTreeMap<u64, Found>,
}

impl Disk {
    /// `kept` is the folder of what the shim has kept.
    pub(crate) fn read(directory: &Path, kept: &Path) -> io::Result<Disk> {
        let mut disk = Disk::default();
        disk.walk(directory)?;
        let number = |found: &Found| found.path.file_name()?.to_str()?.parse().ok();
        disk.kept = find(kept)?.into_iter().filter_map(|found| Some((number(&found)?, found))).collect();
        Ok(disk)
    }

    fn walk(&mut self, directory: &Path) -> io::Result<()> {
        self.directories.insert(id_of(&fs::metadata(directory)?), directory.to_owned());
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                self.walk(&entry.path())?;
            } else if metadata.is_file() {
                self.files.push(Found { path: entry.path(), file: id_of(&metadata), bytes: metadata.len() });
            }
        }
        Ok(())
    }
}

/// All files in a directory and those below it, in the order of their names.
pub(crate) fn find(directory: &Path) -> io::Result<Vec<Found>> {
    let mut disk = Disk::default();
    disk.walk(directory)?;
    Ok(disk.files)
}

fn id_of(metadata: &fs::Metadata) -> FileId {
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

/// What makes a new name of a file durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// A sync of its directory.
    BySyncOfDirectory,
    /// That, or a sync of the file: on btrfs, where RocksDB leaves the directory's out.
    BySyncOfFile,
}

impl Names {
    /// As the file system has it that a directory is on.
    pub(crate) fn on(directory: &Path) -> io::Result<Names> {
        let path = CString::new(directory.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: statfs is plain data for which all zeroes are valid, and `path` is a terminated string.
        let (result, stats) = unsafe {
            let mut stats: libc::statfs = std::mem::zeroed();
            (libc::statfs(path.as_ptr(), &raw mut stats), stats)
        };
        match result {
            0 if stats.f_type == BTRFS => Ok(Names::BySyncOfFile),
            0 => Ok(Names::BySyncOfDirectory),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// What is lost of one file, or becomes of its name. Changes are made in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// All of a file, or of a directory, with its name.
    Gone { path: PathBuf, bytes: u64 },
    /// It has its old name.
    Moved { from: PathBuf, to: PathBuf },
    /// What was kept is where it was before.
    Back { kept: PathBuf, path: PathBuf },
    /// The beginning of a copy from before it was cut takes the place of the `lost` bytes it has.
    Uncut { path: PathBuf, kept: PathBuf, to: u64, lost: u64 },
    /// What stands behind `to`.
    Cut { path: PathBuf, from: u64, to: u64 },
    /// What was written over these bytes.
    Undone { path: PathBuf, piece: Piece },
    /// What a failed sync has dropped.
    Zeroed { path: PathBuf, from: u64, to: u64 },
}

/// Chooses what a loss of power takes.
pub(crate) fn plan(synced: &Synced, mut disk: Disk, names: Names, dice: &mut Dice) -> Vec<Change> {
    let mut changes = names::take_back(synced, &mut disk, names, dice);
    let nothing = FileState::default();
    for found in &disk.files {
        let state = synced.files.get(&found.file).unwrap_or(&nothing);
        match uncut(state, &disk, found, dice) {
            Some(uncut) => changes.push(uncut),
            None => changes.extend(content(state, found, dice)),
        }
    }
    changes
}

/// Whether a file is as it was before it was cut.
fn uncut(state: &FileState, disk: &Disk, found: &Found, dice: &mut Dice) -> Option<Change> {
    let uncut = state.uncut.as_ref()?;
    let kept = disk.kept.get(&uncut.kept).filter(|_| dice.flag())?;
    let to = length_left(uncut.synced.min(kept.bytes), kept.bytes, dice);
    Some(Change::Uncut { path: found.path.clone(), kept: kept.path.clone(), to, lost: found.bytes })
}

/// What is lost of what stands in a file.
fn content(state: &FileState, found: &Found, dice: &mut Dice) -> Vec<Change> {
    let path = || found.path.clone();
    let mut changes = Vec::new();
    let left = length_left(state.synced.min(found.bytes), found.bytes, dice);
    if left < found.bytes {
        changes.push(Change::Cut { path: path(), from: found.bytes, to: left });
    }
    let doomed = state.doomed.iter().rev().cloned();
    let undone = undone(state, dice).into_iter().chain(doomed).filter(|piece| piece.end() <= left);
    changes.extend(undone.map(|piece| Change::Undone { path: path(), piece }));
    let dropped = state.dropped.iter().map(|dropped| (dropped.start, dropped.end.min(left)));
    let zeroed = dropped.filter(|(from, to)| from < to);
    changes.extend(zeroed.map(|(from, to)| Change::Zeroed { path: path(), from, to }));
    changes
}

/// How much of a file stays that was synced up to `synced` of its `bytes` bytes.
fn length_left(synced: u64, bytes: u64, dice: &mut Dice) -> u64 {
    match dice.below(4) {
        0 => bytes,
        1 => synced,
        _ => synced + dice.below(bytes - synced + 1),
    }
}

/// The pieces that come back, the newest first: that many of the last ones, and maybe the beginning of the one before.
fn undone(state: &FileState, dice: &mut Dice) -> Vec<Piece> {
    if state.pieces.is_empty() || dice.flag() {
        return Vec::new();
    }
    let count = dice.below(state.pieces.len() as u64 + 1) as usize;
    let mut newest_first = state.pieces.iter().rev().cloned();
    let mut undone: Vec<Piece> = newest_first.by_ref().take(count).collect();
    if let Some(mut torn) = newest_first.next() {
        torn.bytes.truncate(dice.below(torn.bytes.len() as u64) as usize);
        undone.push(torn);
    }
    undone.retain(|piece| !piece.bytes.is_empty());
    undone
}

/// Makes changes to files of a dead node.
pub(crate) fn apply(changes: &[Change]) -> io::Result<()> {
    let open = |path: &Path| OpenOptions::new().write(true).open(path);
    for change in changes {
        match change {
            Change::Gone { path, .. } if path.is_dir() => fs::remove_dir_all(path)?,
            Change::Gone { path, .. } => fs::remove_file(path)?,
            Change::Moved { from, to } => fs::rename(from, to)?,
            Change::Back { kept, path } => fs::rename(kept, path)?,
            Change::Uncut { path, kept, to, .. } => {
                fs::copy(kept, path)?;
                open(path)?.set_len(*to)?;
            }
            Change::Cut { path, to, .. } => open(path)?.set_len(*to)?,
            Change::Undone { path, piece } => open(path)?.write_all_at(&piece.bytes, piece.at)?,
            Change::Zeroed { path, from, to } => zero(&open(path)?, *from, *to)?,
        }
    }
    Ok(())
}

fn zero(file: &fs::File, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let bytes = (to - from).min(ZEROES.len() as u64);
        file.write_all_at(&ZEROES[..bytes as usize], from)?;
        from += bytes;
    }
    Ok(())
}

/// What a loss of power took of the database and its mark. RocksDB's diaries, which nobody reads, do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Files cut, gone or changed.
    pub files: usize,
    /// Bytes cut off, gone, or written over with what stood there before.
    pub bytes: u64,
    /// Names that are as before: of files that were renamed, removed or replaced.
    pub names: usize,
}

impl Loss {
    pub(crate) fn of(changes: &[Change]) -> Loss {
        let mut loss = Loss::default();
        let mut last = None;
        for change in changes.iter().filter(|change| !is_diary(change.path())) {
            match change.lost() {
                Some(bytes) => {
                    loss.files += usize::from(last != Some(change.path()));
                    loss.bytes += bytes;
                    last = Some(change.path());
                }
                None => loss.names += 1,
            }
        }
        loss
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {} files", self.bytes, self.files)?;
        if self.names > 0 { write!(f, ", {} names are as before", self.names) } else { Ok(()) }
    }
}

impl Change {
    /// Of the file, before the change where that is another one.
    fn path(&self) -> &Path {
        match self {
            Change::Moved { from: path, .. }
            | Change::Gone { path, .. }
            | Change::Back { path, .. }
            | Change::Uncut { path, .. }
            | Change::Cut { path, .. }
            | Change::Undone { path, .. }
            | Change::Zeroed { path, .. } => path,
        }
    }

    /// How many bytes; nothing when it is about a name only.
    fn lost(&self) -> Option<u64> {
        match self {
            Change::Gone { bytes, .. } => Some(*bytes),
            Change::Moved { .. } | Change::Back { .. } => None,
            Change::Uncut { lost, .. } => Some(*lost),
            Change::Cut { from, to, .. } => Some(from - to),
            Change::Undone { piece, .. } => Some(piece.bytes.len() as u64),
            Change::Zeroed { from, to, .. } => Some(to - from),
        }
    }
}

/// `LOG`, `LOG.old.…`
fn is_diary(path: &Path) -> bool {
    path.file_name().is_some_and(|name: &OsStr| name.as_bytes().starts_with(b"LOG"))
}

#[cfg(test)]
mod tests;
