//! The shim's hold on one process: its journal, its control file and the directory it watches.
//!
//! Left out: the calls (`calls.rs`).

use std::ffi::{CStr, c_int};
use std::io::Write;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::{
    CONTROL, DIRECTORY_VARIABLE, FileId, JOURNAL, Kind, OVERWRITTEN_BYTES_MAX, Record, SIDECAR_VARIABLE, Word,
};

/// The exit code of a process whose shim cannot go on.
const SHIM_FAILED: c_int = 97;
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;
/// Descriptors from here on are out of the way of programs that choose theirs, as shells do.
const DESCRIPTOR_MIN: c_int = 900;

static ATTACHED: OnceLock<Option<Attached>> = OnceLock::new();

/// The shim's hold on this process. `None`: the harness has asked for none.
pub(crate) fn attached() -> Option<&'static Attached> {
    ATTACHED.get_or_init(Attached::attach).as_ref()
}

/// See the file's head.
pub(crate) struct Attached {
    journal: c_int,
    control: &'static [AtomicU64; Word::COUNT],
    directory: &'static CStr,
}

impl Attached {
    fn attach() -> Option<Attached> {
        let (sidecar, directory) = (variable(SIDECAR_VARIABLE)?, variable(DIRECTORY_VARIABLE)?);
        let Some(journal) = open(sidecar, JOURNAL, libc::O_WRONLY | libc::O_APPEND) else {
            give_up("open its journal")
        };
        let Some(control) = open(sidecar, CONTROL, libc::O_RDWR).and_then(map) else { give_up("map its control file") };
        let attached = Attached { journal, control, directory };
        attached.word(Word::Attached).fetch_add(1, Ordering::Relaxed);
        Some(attached)
    }

    pub(crate) fn word(&self, word: Word) -> &AtomicU64 {
        &self.control[word as usize]
    }

    /// Notes something about a file.
    pub(crate) fn note(&self, kind: Kind, file: FileId, at: u64) {
        self.append(&Record { kind, file, at, bytes: 0 }.encode());
    }

    /// Notes the bytes that are about to be written over; nothing when they are too many.
    pub(crate) fn note_overwritten(&self, fd: c_int, at: u64, bytes: usize) {
        let Some(stat) = stat(fd).filter(Stat::is_file) else { return };
        let there = stat.bytes.saturating_sub(at).min(bytes as u64) as usize;
        let mut note = [0; Record::BYTES + OVERWRITTEN_BYTES_MAX];
        if there == 0 || there > OVERWRITTEN_BYTES_MAX {
            return;
        }
        let (record, old) = note.split_at_mut(Record::BYTES);
        record.copy_from_slice(&Record { kind: Kind::Overwritten, file: stat.file, at, bytes: there as u64 }.encode());
        // What cannot be read counts as written.
        if read_back(fd, at, &mut old[..there]).is_some() {
            self.append(&note[..Record::BYTES + there]);
        }
    }

    fn append(&self, bytes: &[u8]) {
        // SAFETY: the bytes are readable. One call for each record: appends of other threads come before or behind it.
        let written = unsafe { libc::syscall(libc::SYS_write, self.journal, bytes.as_ptr(), bytes.len()) };
        if written != bytes.len() as libc::c_long {
            give_up("write its journal");
        }
    }

    /// What a sync of this descriptor is to fail with, if it is.
    pub(crate) fn sync_fails(&self, fd: c_int) -> Option<c_int> {
        let errno = self.word(Word::SyncErrno).load(Ordering::Relaxed) as c_int;
        if errno == 0 || !self.is_below(fd) {
            return None;
        }
        self.word(Word::SyncsFailed).fetch_add(1, Ordering::Relaxed);
        Some(errno)
    }

    /// Bytes that are left, when space is limited.
    pub(crate) fn space_left(&self) -> Option<u64> {
        let limited = self.word(Word::SpaceLimited).load(Ordering::Relaxed) != 0;
        limited.then(|| self.word(Word::SpaceLeft).load(Ordering::Relaxed))
    }

    /// How many of `bytes` may be written at `at` (where the file stands when absent), as far as space goes.
    pub(crate) fn granted(&self, fd: c_int, at: Option<u64>, bytes: usize) -> usize {
        if self.space_left().is_none() {
            return bytes;
        }
        let Some(stat) = stat(fd).filter(Stat::is_file) else { return bytes };
        let Some(at) = at.or_else(|| place(fd, &stat)).filter(|_| self.is_below(fd)) else { return bytes };
        let grows = (at + bytes as u64).saturating_sub(stat.bytes).min(bytes as u64);
        let missing = grows - self.take(grows);
        bytes - missing as usize
    }

    /// Whether `bytes` are left. They are not taken.
    pub(crate) fn has_room(&self, fd: c_int, bytes: u64) -> bool {
        self.space_left().is_none_or(|left| bytes <= left) || !self.is_below(fd)
    }

    /// Takes up to `wanted` bytes of those that are left: how many there were.
    fn take(&self, wanted: u64) -> u64 {
        let left = self.word(Word::SpaceLeft);
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(wanted)));
        before.unwrap_or_else(|left| left).min(wanted)
    }

    /// Counts a write that is refused for lack of space.
    pub(crate) fn count_refused(&self) {
        self.word(Word::WritesRefused).fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a descriptor is of the directory, or of something in it.
    fn is_below(&self, fd: c_int) -> bool {
        let (link, mut path) = (link_of(fd), [0; PATH_BYTES_MAX]);
        // SAFETY: `link` ends in a zero, `path` has as much room as is said.
        let bytes = unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
        let path = usize::try_from(bytes).ok().and_then(|bytes| path.get(..bytes));
        let rest = path.and_then(|path| path.strip_prefix(self.directory.to_bytes()));
        rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
    }
}

/// The path of an open file, whatever its name is now; ends in a zero.
fn link_of(fd: c_int) -> [u8; 32] {
    let mut link = [0; 32];
    // Every descriptor's number fits.
    let _ = write!(&mut link[..], "/proc/self/fd/{fd}\0");
    link
}

/// Fills `into` with what stands at `at`, of a file that may be open for writing only.
fn read_back(fd: c_int, at: u64, into: &mut [u8]) -> Option<()> {
    let link = link_of(fd);
    // SAFETY: `link` ends in a zero, `into` has as much room as is said, the descriptor that is closed is ours.
    let read = unsafe {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let readable = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, link.as_ptr(), flags, 0);
        let read = libc::syscall(libc::SYS_pread64, readable, into.as_mut_ptr(), into.len(), at);
        if readable >= 0 {
            libc::syscall(libc::SYS_close, readable);
        }
        read
    };
    (read == into.len() as libc::c_long).then_some(())
}

/// The value of an environment variable. Nobody who is watched changes its environment.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the name ends in a zero; a value that is there ends in one, and stays.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

/// Opens a file of the sidecar.
fn open(sidecar: &CStr, name: &str, flags: c_int) -> Option<c_int> {
    let mut path = [0; PATH_BYTES_MAX];
    write!(&mut path[..], "{}/{name}\0", sidecar.to_str().ok()?).ok()?;
    // SAFETY: `path` ends in a zero.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, 0) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the descriptor is ours; it stays where it is when there is no such high one.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, DESCRIPTOR_MIN) } {
        ..0 => Some(fd),
        high => {
            // SAFETY: the descriptor is ours, and another one is used from here on.
            unsafe { libc::close(fd) };
            Some(high)
        }
    }
}

/// Maps the control file for good.
fn map(fd: c_int) -> Option<&'static [AtomicU64; Word::COUNT]> {
    let (bytes, access) = (Word::COUNT * Word::BYTES, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a fresh mapping of a file that the harness has made as long as this. It is shared, hence the atomics, lies
    // at the beginning of a page, and is never unmapped.
    unsafe {
        let map = libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0);
        (map != libc::MAP_FAILED).then(|| &*map.cast::<[AtomicU64; Word::COUNT]>())
    }
}

/// Ends the process: what it does from here on could not be judged.
fn give_up(what: &str) -> ! {
    let mut line = [0; 128];
    // A line that does not fit is cut.
    let _ = writeln!(&mut line[..], "shim: cannot {what}");
    let bytes = line.iter().position(|byte| *byte == 0).unwrap_or(line.len());
    // SAFETY: the line is readable; ending the process runs nothing else.
    unsafe {
        libc::syscall(libc::SYS_write, libc::STDERR_FILENO, line.as_ptr(), bytes);
        libc::_exit(SHIM_FAILED)
    }
}

/// What the system says of an open file.
pub(crate) struct Stat {
    pub(crate) file: FileId,
    pub(crate) bytes: u64,
    mode: libc::mode_t,
}

impl Stat {
    pub(crate) fn of(stat: &libc::stat) -> Stat {
        let file = FileId { device: stat.st_dev, inode: stat.st_ino };
        Stat { file, bytes: stat.st_size as u64, mode: stat.st_mode }
    }

    pub(crate) fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

pub(crate) fn stat(fd: c_int) -> Option<Stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for the answer, which is there when the call succeeds.
    unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| Stat::of(&stat.assume_init())) }
}

/// Where the next plain write to a descriptor goes.
fn place(fd: c_int, stat: &Stat) -> Option<u64> {
    // SAFETY: neither call touches memory, or moves anything.
    let (flags, at) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek(fd, 0, libc::SEEK_CUR)) };
    if flags & libc::O_APPEND != 0 { Some(stat.bytes) } else { u64::try_from(at).ok() }
}
