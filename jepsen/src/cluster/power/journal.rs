//! What the shim's journal says, put together: of each file what is durable of it, and which changes of names are not.
//!
//! Invariants:
//!
//! * Nothing is taken to be less durable than was promised to the process. Where the journal does not say enough, it is
//!   taken to be more so.
//! * What is remembered of one file, and of names, is bounded: the oldest is forgotten, and is then durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use super::Found;
use crate::cluster::disk::format::{FileId, Kind, NOT_KEPT, OVERWRITTEN_BYTES_MAX, PLACE_BYTES_MAX, Place, Record};

/// Of one file the pieces written over that are remembered, and as many of those that a failed sync has dropped.
pub(super) const PIECES_MAX: usize = 256;
/// Changes of names that are remembered.
const RENAMINGS_MAX: usize = 1024;

/// Bytes as they stood before they were written over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

/// A file as it was before it was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uncut {
    /// The number of its copy.
    pub(super) kept: u64,
    /// Bytes at its beginning that were synced.
    pub(super) synced: u64,
}

/// What is known of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileState {
    /// Bytes at its beginning that were synced.
    pub(super) synced: u64,
    /// What was written over since the last sync, the oldest first.
    pub(super) pieces: VecDeque<Piece>,
    /// Before it was cut for the first time since the last sync.
    pub(super) uncut: Option<Uncut>,
    /// Bytes that a failed sync has dropped, in their order: no later sync writes them.
    pub(super) dropped: VecDeque<Range<u64>>,
    /// What stands on the disk where a failed sync has dropped what was written over it, the oldest first.
    pub(super) doomed: VecDeque<Piece>,
}

impl FileState {
    fn synced(&mut self, bytes: u64) {
        // Of two syncs at a time the one that began first may be told last.
        self.synced = self.synced.max(bytes);
        self.pieces.clear();
        self.uncut = None;
    }

    /// What was not synced is dropped: it can be read, and is never written.
    fn sync_failed(&mut self, bytes: u64) {
        if self.synced < bytes {
            // An earlier one, with no sync between, began there too.
            self.dropped.retain(|dropped| dropped.start < self.synced);
            push_bounded(&mut self.dropped, self.synced..bytes, PIECES_MAX);
        }
        for piece in self.pieces.drain(..) {
            push_bounded(&mut self.doomed, piece, PIECES_MAX);
        }
    }

    fn cut(&mut self, to: u64, kept: u64) {
        if kept != NOT_KEPT && kept != 0 && self.uncut.is_none() {
            self.uncut = Some(Uncut { kept, synced: self.synced });
        }
        self.synced = self.synced.min(to);
        let synced = self.synced;
        self.pieces.retain(|piece| piece.end() <= synced);
        self.doomed.retain(|piece| piece.end() <= synced);
        self.dropped.retain(|dropped| dropped.start < to);
        for dropped in &mut self.dropped {
            dropped.end = dropped.end.min(to);
        }
    }

    /// What was not synced yet is lost or kept with the end of the file. What was dropped, and is written again, is taken
    /// to be written for good.
    fn written_over(&mut self, at: u64, old: &[u8]) {
        let end = at + old.len() as u64;
        self.dropped.retain(|dropped| dropped.end <= at || end <= dropped.start);
        self.doomed.retain(|piece| piece.end() <= at || end <= piece.at);
        let durable = self.synced.saturating_sub(at).min(old.len() as u64) as usize;
        if durable > 0 {
            push_bounded(&mut self.pieces, Piece { at, bytes: old[..durable].to_vec() }, PIECES_MAX);
        }
    }

    /// The records that say all this.
    fn records(&self, file: FileId) -> Vec<u8> {
        let mut journal = Vec::new();
        let synced = |at| Record::new(Kind::Synced, file, at).encode();
        let failed = |at| Record::new(Kind::SyncFailed, file, at).encode();
        for dropped in &self.dropped {
            journal.extend(synced(dropped.start));
            journal.extend(failed(dropped.end));
        }
        journal.extend(synced(self.uncut.as_ref().map_or(self.synced, |uncut| uncut.synced)));
        self.doomed.iter().for_each(|piece| push_piece(&mut journal, file, piece));
        if !self.doomed.is_empty() {
            // It drops those pieces, and no bytes behind what was synced.
            journal.extend(failed(0));
        }
        if let Some(uncut) = &self.uncut {
            let cut = Record::new(Kind::Truncated, file, self.synced);
            journal.extend(Record { kept: uncut.kept, ..cut }.encode());
        }
        self.pieces.iter().for_each(|piece| push_piece(&mut journal, file, piece));
        journal
    }
}

fn push_piece(journal: &mut Vec<u8>, file: FileId, piece: &Piece) {
    let record = Record::new(Kind::Overwritten, file, piece.at);
    journal.extend(Record { bytes: piece.bytes.len() as u64, ..record }.encode());
    journal.extend(&piece.bytes);
}

fn push_bounded<T>(queue: &mut VecDeque<T>, last: T, max: usize) {
    if queue.len() == max {
        queue.pop_front();
    }
    queue.push_back(last);
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) directory: FileId,
    pub(super) name: OsString,
}

impl Entry {
    fn of(place: &Place<'_>) -> Entry {
        Entry { directory: place.directory, name: OsStr::from_bytes(place.name).to_owned() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; PLACE_BYTES_MAX];
        let length = Place { directory: self.directory, name: self.name.as_bytes() }.encode(&mut bytes);
        bytes.truncate(length);
        bytes
    }
}

/// How names have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// A file or directory is new.
    Made(Entry),
    Removed(Entry),
    Moved {
        from: Entry,
        to: Entry,
    },
}

/// A change of names that may not be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Renaming {
    /// Whose name it is.
    pub(super) file: FileId,
    pub(super) naming: Naming,
    /// The number of the file that had lost a name thereby; 0: there is none.
    pub(super) kept: u64,
    /// Whether the file was synced since.
    pub(super) file_synced: bool,
}

impl Renaming {
    /// The names that were changed.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (first, second) = match &self.naming {
            Naming::Made(entry) | Naming::Removed(entry) => (entry, None),
            Naming::Moved { from, to } => (from, Some(to)),
        };
        [Some(first), second].into_iter().flatten()
    }

    fn record(&self) -> Vec<u8> {
        let kind = match self.naming {
            Naming::Made(_) => Kind::Created,
            Naming::Removed(_) => Kind::Removed,
            Naming::Moved { .. } => Kind::Renamed,
        };
        let places: Vec<u8> = self.entries().flat_map(Entry::encode).collect();
        let record = Record { kept: self.kept, bytes: places.len() as u64, ..Record::new(kind, self.file, 0) };
        [&record.encode()[..], &places].concat()
    }
}

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(super) files: BTreeMap<FileId, FileState>,
    /// The oldest first.
    pub(super) renamings: VecDeque<Renaming>,
}

/// A journal that no shim has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what stands at byte {at} of the journal is no record")]
pub(crate) struct BadJournal {
    pub(super) at: usize,
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
            let Some((more, behind)) = behind.split_at_checked(bytes) else { break };
            synced.take(&record, more).ok_or(bad)?;
            rest = behind;
        }
        Ok(synced)
    }

    /// `None`: what stands behind the record does not belong there.
    fn take(&mut self, record: &Record, more: &[u8]) -> Option<()> {
        match record.kind {
            Kind::Created => {
                let (place, _) = Place::decode(more)?;
                self.files.insert(record.file, FileState::default());
                self.renamed(record, Naming::Made(Entry::of(&place)));
            }
            Kind::Removed => {
                let (place, _) = Place::decode(more)?;
                self.renamed(record, Naming::Removed(Entry::of(&place)));
            }
            Kind::Renamed => {
                let (from, behind) = Place::decode(more)?;
                let (to, _) = Place::decode(behind)?;
                self.renamed(record, Naming::Moved { from: Entry::of(&from), to: Entry::of(&to) });
            }
            Kind::Synced => self.synced(record.file, record.at),
            Kind::SyncFailed => self.file(record.file).sync_failed(record.at),
            Kind::Truncated => self.file(record.file).cut(record.at, record.kept),
            Kind::Overwritten => self.file(record.file).written_over(record.at, more),
            // A file that went from one directory to another is durable with either.
            Kind::DirectorySynced => {
                self.renamings.retain(|known| known.entries().all(|entry| entry.directory != record.file));
            }
        }
        Some(())
    }

    fn synced(&mut self, file: FileId, bytes: u64) {
        self.file(file).synced(bytes);
        // A journal that is written anew says of every file how much of it was synced, be it nothing.
        for known in self.renamings.iter_mut().filter(|known| bytes > 0 && known.file == file) {
            known.file_synced = true;
        }
    }

    fn renamed(&mut self, record: &Record, naming: Naming) {
        let renaming = Renaming { file: record.file, naming, kept: record.kept, file_synced: false };
        if record.kept == NOT_KEPT {
            // It cannot be taken back, nor then what happened to these names before.
            let entries: BTreeSet<&Entry> = renaming.entries().collect();
            self.renamings.retain(|known| !known.entries().any(|entry| entries.contains(entry)));
            return;
        }
        push_bounded(&mut self.renamings, renaming, RENAMINGS_MAX);
    }

    fn file(&mut self, file: FileId) -> &mut FileState {
        self.files.entry(file).or_default()
    }

    /// All of these files synced, and all names durable.
    pub(crate) fn all(files: &[Found]) -> Synced {
        let state = |found: &Found| FileState { synced: found.bytes, ..FileState::default() };
        Synced { files: files.iter().map(|found| (found.file, state(found))).collect(), ..Synced::default() }
    }

    /// Takes these files as synced, beside what is known of others, and all names as durable: they are of directories
    /// that are not in their places, and whose numbers others may come to have.
    pub(crate) fn take_as_synced(&mut self, files: &[Found]) {
        self.files.extend(Synced::all(files).files);
        self.renamings.clear();
    }

    /// The numbers of the kept files that a loss of power may need.
    pub(crate) fn kept(&self) -> BTreeSet<u64> {
        let names = self.renamings.iter().map(|renaming| renaming.kept);
        let cuts = self.files.values().filter_map(|file| Some(file.uncut.as_ref()?.kept));
        names.chain(cuts).filter(|kept| *kept != 0).collect()
    }

    /// A journal that says the same.
    pub(crate) fn records(&self) -> Vec<u8> {
        let mut journal: Vec<u8> = self.renamings.iter().flat_map(Renaming::record).collect();
        journal.extend(self.files.iter().flat_map(|(&file, state)| state.records(file)));
        journal
    }
}
