//! A loss of power: what of a dead node's files may be gone, chosen and taken.
//!
//! [`Synced`] is what the shim's journal says: up to which length each file was synced, what stood where it was written
//! over since, which names are not durable. [`plan`] is pure: from that, from the files as they are, and from dice, it
//! chooses what is lost. Anything it may choose is a state in which a loss of power can leave a POSIX file system:
//!
//! * Of bytes behind the synced length a prefix stays: all, none, or up to somewhere, within a record too.
//! * Of pieces written over since the last sync the first so many stay, and of the next one its end.
//! * A file whose directory was not synced since it was made may be gone, with all its bytes.
//!
//! Invariants:
//!
//! * What was synced is never taken.
//! * What is left counts as synced from there on.
//!
//! Left out: bytes that come back as zeros; a file whose old name, or whose removal, was not durable.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::disk::format::{FileId, Kind, OVERWRITTEN_BYTES_MAX, Record};
use crate::generator::Dice;

/// Of one file the pieces written over that are remembered: a loss of more is not tried.
const PIECES_MAX: usize = 256;
/// What `statfs` calls btrfs.
const BTRFS: i64 = 0x9123_683e;

/// Bytes as they stood before they were written over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

/// What is known of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FileState {
    /// Bytes at its beginning that were synced.
    synced: u64,
    /// When it was made, while its name may not be durable.
    made: Option<u64>,
    /// What was written over since the last sync, the oldest first.
    pieces: VecDeque<Piece>,
}

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    files: BTreeMap<FileId, FileState>,
    /// When each directory was last synced.
    directories: BTreeMap<FileId, u64>,
    /// Counts files made and directories synced.
    now: u64,
}

/// A journal that no shim has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what stands at byte {at} of the journal is no record")]
pub(crate) struct BadJournal {
    at: usize,
}

impl Synced {
    /// What a journal says. A record that is not all there at its end was never promised to anybody.
    pub(crate) fn read(journal: &[u8]) -> Result<Synced, BadJournal> {
        let mut synced = Synced::default();
        let mut rest = journal;
        while let Some((head, behind)) = rest.split_first_chunk::<{ Record::BYTES }>() {
            let bad = BadJournal { at: journal.len() - rest.len() };
            let record = Record::decode(head).ok_or(bad)?;
            let bytes =
                usize::try_from(record.bytes).ok().filter(|bytes| *bytes <= OVERWRITTEN_BYTES_MAX).ok_or(bad)?;
            let Some((old, behind)) = behind.split_at_checked(bytes) else { break };
            synced.take(&record, old);
            rest = behind;
        }
        Ok(synced)
    }

    fn take(&mut self, record: &Record, old: &[u8]) {
        self.now += 1;
        let now = self.now;
        match record.kind {
            Kind::Created => {
                self.files.insert(record.file, FileState { made: Some(now), ..FileState::default() });
            }
            Kind::Synced => {
                let file = self.file(record.file);
                // Of two syncs at a time the one that began first may be told last.
                file.synced = file.synced.max(record.at);
                file.pieces.clear();
            }
            Kind::Truncated => {
                let file = self.file(record.file);
                file.synced = file.synced.min(record.at);
                let synced = file.synced;
                file.pieces.retain(|piece| piece.at + piece.bytes.len() as u64 <= synced);
            }
            Kind::Overwritten => self.file(record.file).note_piece(record.at, old),
            Kind::Renamed => self.file(record.file).made = None,
            Kind::DirectorySynced => {
                self.directories.insert(record.file, now);
            }
        }
    }

    fn file(&mut self, file: FileId) -> &mut FileState {
        self.files.entry(file).or_default()
    }

    /// All of these files synced, and their names durable.
    pub(crate) fn all(files: &[Found]) -> Synced {
        let state = |found: &Found| FileState { synced: found.bytes, ..FileState::default() };
        Synced { files: files.iter().map(|found| (found.file, state(found))).collect(), ..Synced::default() }
    }

    /// Takes these files as synced, beside what is known of others.
    pub(crate) fn take_as_synced(&mut self, files: &[Found]) {
        self.files.extend(Synced::all(files).files);
    }

    /// A journal that says the same.
    pub(crate) fn records(&self) -> Vec<u8> {
        let record = |kind, file, at| Record { kind, file, at, bytes: 0 };
        let mut in_order: Vec<(u64, Record)> = Vec::new();
        in_order.extend(self.directories.iter().map(|(&id, &when)| (when, record(Kind::DirectorySynced, id, 0))));
        let made = |(&id, file): (&FileId, &FileState)| Some((file.made?, record(Kind::Created, id, 0)));
        in_order.extend(self.files.iter().filter_map(made));
        in_order.sort_by_key(|(when, _)| *when);
        let mut journal: Vec<u8> = in_order.iter().flat_map(|(_, record)| record.encode()).collect();
        for (&id, file) in &self.files {
            journal.extend(record(Kind::Synced, id, file.synced).encode());
            for piece in &file.pieces {
                let bytes = piece.bytes.len() as u64;
                journal.extend(Record { kind: Kind::Overwritten, file: id, at: piece.at, bytes }.encode());
                journal.extend(&piece.bytes);
            }
        }
        journal
    }

    /// Whether a file's name may be gone.
    fn name_is_open(&self, found: &Found) -> bool {
        let made = self.files.get(&found.file).and_then(|file| file.made);
        made.is_some_and(|made| self.directories.get(&found.directory).is_none_or(|synced| *synced < made))
    }
}

impl FileState {
    /// What was not synced yet is lost or kept with the end of the file.
    fn note_piece(&mut self, at: u64, old: &[u8]) {
        let durable = self.synced.saturating_sub(at).min(old.len() as u64) as usize;
        if durable == 0 {
            return;
        }
        if self.pieces.len() == PIECES_MAX {
            self.pieces.pop_front();
        }
        self.pieces.push_back(Piece { at, bytes: old[..durable].to_vec() });
    }
}

/// A file of a dead node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) file: FileId,
    /// The directory it is in.
    pub(crate) directory: FileId,
    pub(crate) bytes: u64,
}

/// All files in a directory and those below it, in the order of their names.
pub(crate) fn find(directory: &Path) -> io::Result<Vec<Found>> {
    let here = id_of(&fs::metadata(directory)?);
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(find(&entry.path())?);
        } else if metadata.is_file() {
            found.push(Found { path: entry.path(), file: id_of(&metadata), directory: here, bytes: metadata.len() });
        }
    }
    Ok(found)
}

fn id_of(metadata: &fs::Metadata) -> FileId {
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

/// What makes a new file's name durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// A sync of its directory.
    BySyncOfDirectory,
    /// A sync of the file: on btrfs, where RocksDB leaves the directory's out.
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

/// What is lost of one file. A file's changes are made in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// All of it, with its name.
    Gone { path: PathBuf, bytes: u64 },
    /// What stands behind `to`.
    Cut { path: PathBuf, from: u64, to: u64 },
    /// What was written over these bytes.
    Undone { path: PathBuf, piece: Piece },
}

/// Chooses what a loss of power takes.
pub(crate) fn plan(synced: &Synced, files: &[Found], names: Names, dice: &mut Dice) -> Vec<Change> {
    let nothing = FileState::default();
    let mut changes = Vec::new();
    for found in files {
        let state = synced.files.get(&found.file).unwrap_or(&nothing);
        let open = match names {
            Names::BySyncOfDirectory => synced.name_is_open(found),
            Names::BySyncOfFile => synced.name_is_open(found) && state.synced == 0,
        };
        if open && dice.flag() {
            changes.push(Change::Gone { path: found.path.clone(), bytes: found.bytes });
            continue;
        }
        let to = length_left(state.synced.min(found.bytes), found.bytes, dice);
        if to < found.bytes {
            changes.push(Change::Cut { path: found.path.clone(), from: found.bytes, to });
        }
        let undone = undone(state, dice).into_iter().filter(|piece| piece.at + piece.bytes.len() as u64 <= to);
        changes.extend(undone.map(|piece| Change::Undone { path: found.path.clone(), piece }));
    }
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
            Change::Gone { path, .. } => fs::remove_file(path)?,
            Change::Cut { path, to, .. } => open(path)?.set_len(*to)?,
            Change::Undone { path, piece } => open(path)?.write_all_at(&piece.bytes, piece.at)?,
        }
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
}

impl Loss {
    pub(crate) fn of(changes: &[Change]) -> Loss {
        let mut loss = Loss::default();
        let mut last = None;
        for (path, bytes) in changes.iter().map(Change::lost).filter(|(path, _)| !is_diary(path)) {
            loss.files += usize::from(last != Some(path));
            loss.bytes += bytes;
            last = Some(path);
        }
        loss
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {} files", self.bytes, self.files)
    }
}

impl Change {
    fn lost(&self) -> (&Path, u64) {
        match self {
            Change::Gone { path, bytes } => (path, *bytes),
            Change::Cut { path, from, to } => (path, from - to),
            Change::Undone { path, piece } => (path, piece.bytes.len() as u64),
        }
    }
}

/// `LOG`, `LOG.old.…`
fn is_diary(path: &Path) -> bool {
    path.file_name().is_some_and(|name: &OsStr| name.as_bytes().starts_with(b"LOG"))
}

#[cfg(test)]
mod tests;
