//! What shim and harness tell each other: the files of the sidecar. This file is part of both.
//!
//! All numbers are of this machine's byte order: both sides run on it.

use std::ffi::CStr;

/// The environment variable that names the sidecar's folder, as an absolute path.
pub const SIDECAR_VARIABLE: &CStr = c"TREFOIL_SHIM_SIDECAR";
/// The one that names the directory whose files may be made to fail, as an absolute path without links.
pub const DIRECTORY_VARIABLE: &CStr = c"TREFOIL_SHIM_DIRECTORY";
/// Of the sidecar's files; the harness makes both before the process is started.
pub const JOURNAL: &str = "journal";
pub const CONTROL: &str = "control";

/// The most bytes of one overwritten piece that the journal keeps.
pub const OVERWRITTEN_BYTES_MAX: usize = 4096;

/// The words of the control file, each 8 bytes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Counts the processes that have loaded the shim.
    Attached,
    /// What syncs of files of the directory fail with (`errno`); 0: they do not.
    SyncErrno,
    /// Counts the syncs that were made to fail.
    SyncsFailed,
    /// Whether space is limited (1) or not (0).
    SpaceLimited,
    /// Bytes by which files of the directory may still grow.
    SpaceLeft,
    /// Counts the writes that were refused for lack of space.
    WritesRefused,
}

impl Word {
    pub const COUNT: usize = 6;
    pub const BYTES: usize = 8;
}

/// A file or directory of this machine, for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// What a record of the journal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file is new, and its name in its directory too.
    Created,
    /// It was synced when it had `at` bytes.
    Synced,
    /// It was cut to `at` bytes.
    Truncated,
    /// Behind the record stand the `bytes` bytes that stood at `at` before they were written over.
    Overwritten,
    /// Its name is another one.
    Renamed,
    /// The directory was synced.
    DirectorySynced,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Created, Kind::Synced, Kind::Truncated, Kind::Overwritten, Kind::Renamed, Kind::DirectorySynced];
}

/// One record of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub file: FileId,
    pub at: u64,
    pub bytes: u64,
}

impl Record {
    pub const BYTES: usize = 40;
    /// Tells a record from anything else; the kind is added to it.
    const MAGIC: u64 = 0x5446_534a_0000_0000;

    pub fn encode(&self) -> [u8; Record::BYTES] {
        let words = [Record::MAGIC + self.kind as u64, self.file.device, self.file.inode, self.at, self.bytes]
            .map(u64::to_ne_bytes);
        let mut record = [0; Record::BYTES];
        for (place, word) in record.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word);
        }
        record
    }

    /// `None`: it is no record.
    pub fn decode(record: &[u8; Record::BYTES]) -> Option<Record> {
        let mut words = [0; Record::BYTES / 8];
        for (word, place) in words.iter_mut().zip(record.chunks_exact(8)) {
            *word = u64::from_ne_bytes(place.try_into().expect("8 bytes"));
        }
        let [kind, device, inode, at, bytes] = words;
        let kind = Kind::ALL.into_iter().find(|known| Record::MAGIC + *known as u64 == kind)?;
        Some(Record { kind, file: FileId { device, inode }, at, bytes })
    }
}
