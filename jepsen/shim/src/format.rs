//! What shim and harness tell each other: the files of the sidecar. This file is part of both.
//!
//! All numbers are of this machine's byte order: both sides run on it.

use std::ffi::CStr;

/// The environment variable that names the sidecar's folder, as an absolute path.
pub const SIDECAR_VARIABLE: &CStr = c"TREFOIL_SHIM_SIDECAR";
/// The one that names the directory whose files are watched and may be made to fail, as an absolute path without links.
pub const DIRECTORY_VARIABLE: &CStr = c"TREFOIL_SHIM_DIRECTORY";
/// Of the sidecar's files; the harness makes these before the process is started.
pub const JOURNAL: &str = "journal";
pub const CONTROL: &str = "control";
/// The sidecar's folder of files that lost their names or were cut, as they were before. Their names are numbers from 1
/// on. It is on the file system of the directory.
pub const KEPT: &str = "kept";

/// The most bytes that one record keeps of what was written over.
pub const OVERWRITTEN_BYTES_MAX: usize = 4096;
/// The longest name of a file, as Linux has it.
pub const NAME_BYTES_MAX: usize = 255;
/// In place of a kept file's number: there was something, and it could not be kept.
pub const NOT_KEPT: u64 = u64::MAX;

/// The first words of the control file, each 8 bytes, in this order. Behind them stand those of [`Unmodelled`].
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
    /// The last number that was given to a kept file, or was to be given.
    Kept,
    /// The last number that may be given.
    KeptMax,
    /// Counts those of the refused writes that were to a file without which the directory is worth less: of RocksDB its
    /// write-ahead logs, tables and manifests; or the mark.
    DataRefused,
}

impl Word {
    pub const COUNT: usize = 9;
    pub const BYTES: usize = 8;
}

/// What a process may do to files of the directory that the model of a loss of power does not know. The shim counts each,
/// and lets it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmodelled {
    SyncedWrite,
    SharedMapping,
    SyncOfAll,
    Transfer,
    Rearrangement,
    Link,
    MovedDirectory,
    Stream,
    RawCall,
}

impl Unmodelled {
    pub const COUNT: usize = 9;
    pub const ALL: [Unmodelled; Unmodelled::COUNT] = [
        Unmodelled::SyncedWrite,
        Unmodelled::SharedMapping,
        Unmodelled::SyncOfAll,
        Unmodelled::Transfer,
        Unmodelled::Rearrangement,
        Unmodelled::Link,
        Unmodelled::MovedDirectory,
        Unmodelled::Stream,
        Unmodelled::RawCall,
    ];

    /// The number of its word.
    pub fn place(self) -> usize {
        Word::COUNT + self as usize
    }

    /// In words, for a person.
    pub fn text(self) -> &'static str {
        match self {
            Unmodelled::SyncedWrite => "writes with flags of their own (O_SYNC, O_DSYNC, RWF)",
            Unmodelled::SharedMapping => "writes through shared memory (mmap, msync)",
            Unmodelled::SyncOfAll => "sync and syncfs",
            Unmodelled::Transfer => "sendfile and splice to files, and clones of files (ioctl)",
            Unmodelled::Rearrangement => "holes, zeroes and moves within a file (fallocate)",
            Unmodelled::Link => "links",
            Unmodelled::MovedDirectory => {
                "directories that are renamed or removed, files that are moved out or in, and names that are exchanged"
            }
            Unmodelled::Stream => "files written through fopen",
            Unmodelled::RawCall => "system calls made past the C library's functions, io_uring among them",
        }
    }
}

/// How many words the control file has.
pub const WORDS: usize = Word::COUNT + Unmodelled::COUNT;

/// A file or directory of this machine, for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// What a record of the journal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file or directory is new. Behind the record stands its [`Place`].
    Created,
    /// It was synced when it had `at` bytes.
    Synced,
    /// A sync of it failed when it had `at` bytes.
    SyncFailed,
    /// It was cut to `at` bytes. `kept`: a copy of it as it was before.
    Truncated,
    /// Behind the record stand the `bytes` bytes that stood at `at` before they were written over.
    Overwritten,
    /// It has another place. Behind the record stand the old [`Place`] and the new one. `kept`: the file that had the new
    /// one before.
    Renamed,
    /// It is at a place no more, which stands behind the record. `kept`: the file itself.
    Removed,
    /// The directory was synced.
    DirectorySynced,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Created,
        Kind::Synced,
        Kind::SyncFailed,
        Kind::Truncated,
        Kind::Overwritten,
        Kind::Renamed,
        Kind::Removed,
        Kind::DirectorySynced,
    ];
}

/// One record of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub file: FileId,
    pub at: u64,
    /// The number of a file in [`KEPT`]; 0: there is none; [`NOT_KEPT`].
    pub kept: u64,
    /// How many bytes stand behind the record.
    pub bytes: u64,
}

impl Record {
    pub const BYTES: usize = 48;
    /// Tells a record from anything else; the kind is added to it.
    const MAGIC: u64 = 0x5446_534b_0000_0000;

    /// One of which `kept` and `bytes` say nothing.
    pub fn new(kind: Kind, file: FileId, at: u64) -> Record {
        Record { kind, file, at, kept: 0, bytes: 0 }
    }

    pub fn encode(&self) -> [u8; Record::BYTES] {
        let kind = Record::MAGIC + self.kind as u64;
        let words = [kind, self.file.device, self.file.inode, self.at, self.kept, self.bytes].map(u64::to_ne_bytes);
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
        let [kind, device, inode, at, kept, bytes] = words;
        let kind = Kind::ALL.into_iter().find(|known| Record::MAGIC + *known as u64 == kind)?;
        Some(Record { kind, file: FileId { device, inode }, at, kept, bytes })
    }
}

/// The directory, and the length of the name.
const PLACE_HEAD_BYTES: usize = 24;
/// The most bytes that a place takes behind a record.
pub const PLACE_BYTES_MAX: usize = PLACE_HEAD_BYTES + NAME_BYTES_MAX;

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub directory: FileId,
    /// At most [`NAME_BYTES_MAX`].
    pub name: &'a [u8],
}

impl<'a> Place<'a> {
    /// Writes it to the beginning of `to`, which has room for [`PLACE_BYTES_MAX`]; how many bytes it takes.
    pub fn encode(&self, to: &mut [u8]) -> usize {
        let words = [self.directory.device, self.directory.inode, self.name.len() as u64].map(u64::to_ne_bytes);
        for (place, word) in to.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word);
        }
        let bytes = PLACE_HEAD_BYTES + self.name.len();
        to[PLACE_HEAD_BYTES..bytes].copy_from_slice(self.name);
        bytes
    }

    /// The place at the beginning of `from`, and what stands behind it. `None`: there is none.
    pub fn decode(from: &'a [u8]) -> Option<(Place<'a>, &'a [u8])> {
        let (head, rest) = from.split_at_checked(PLACE_HEAD_BYTES)?;
        let mut words = head.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
        let directory = FileId { device: words.next()?, inode: words.next()? };
        let length = usize::try_from(words.next()?).ok().filter(|length| *length <= NAME_BYTES_MAX)?;
        let (name, rest) = rest.split_at_checked(length)?;
        Some((Place { directory, name }, rest))
    }
}
