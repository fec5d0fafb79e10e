//! The shim's hold on one process: its journal, its control file, what it keeps, and the directory it watches.
//!
//! Left out: the calls (`calls.rs`, `names.rs`, `unmodelled.rs`).

use std::ffi::{CStr, c_char, c_int, c_long};
use std::fmt;
use std::io::Write;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::{
    CONTROL, DIRECTORY_VARIABLE, FileId, JOURNAL, KEPT, Kind, NOT_KEPT, OVERWRITTEN_BYTES_MAX, PLACE_BYTES_MAX, Place,
    Record, SIDECAR_VARIABLE, Unmodelled, WORDS, Word,
};
use crate::system::{PATH_BYTES_MAX, Stat, close, copy, link_of, open_again, place_of_write, read_back, stat, system};

/// The exit code of a process whose shim cannot go on.
const SHIM_FAILED: c_int = 97;
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
    control: &'static [AtomicU64; WORDS],
    sidecar: &'static CStr,
    directory: &'static CStr,
}

impl Attached {
    /// Makes no call whose place the shim has taken.
    fn attach() -> Option<Attached> {
        let (sidecar, directory) = (variable(SIDECAR_VARIABLE)?, variable(DIRECTORY_VARIABLE)?);
        let Some(journal) = open(sidecar, JOURNAL, libc::O_WRONLY | libc::O_APPEND) else {
            give_up("open its journal")
        };
        let Some(control) = open(sidecar, CONTROL, libc::O_RDWR).and_then(map) else { give_up("map its control file") };
        let attached = Attached { journal, control, sidecar, directory };
        attached.word(Word::Attached).fetch_add(1, Ordering::Relaxed);
        Some(attached)
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.control[word as usize]
    }

    /// Counts something that the model does not know.
    pub(crate) fn count(&self, what: Unmodelled) {
        self.control[what.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes something about a file.
    pub(crate) fn note(&self, record: &Record) {
        self.append(&record.encode());
    }

    /// Notes that names have changed: a record with the places behind it, which are two at most.
    pub(crate) fn note_places(&self, kind: Kind, file: FileId, kept: u64, places: &[Place<'_>]) {
        let mut note = [0; Record::BYTES + 2 * PLACE_BYTES_MAX];
        let mut bytes = 0;
        for place in places {
            bytes += place.encode(&mut note[Record::BYTES + bytes..]);
        }
        let record = Record { kind, file, at: 0, kept, bytes: bytes as u64 };
        note[..Record::BYTES].copy_from_slice(&record.encode());
        self.append(&note[..Record::BYTES + bytes]);
    }

    /// Notes what a write is about to write over; how many of its bytes may be written, as far as space goes. `at` is
    /// where it goes; where the file stands when absent.
    pub(crate) fn before_write(&self, fd: c_int, at: Option<libc::off_t>, bytes: usize) -> usize {
        let Some(stat) = stat(fd).filter(Stat::is_file) else { return bytes };
        let Some(at) = place_of_write(fd, &stat, at) else { return bytes };
        let granted = self.granted(fd, &stat, at, bytes);
        self.note_overwritten(fd, &stat, at, granted);
        granted
    }

    fn note_overwritten(&self, fd: c_int, stat: &Stat, at: u64, bytes: usize) {
        let end = stat.bytes.min(at.saturating_add(bytes as u64));
        if at >= end {
            return;
        }
        let mut note = [0; Record::BYTES + OVERWRITTEN_BYTES_MAX];
        for from in (at..end).step_by(OVERWRITTEN_BYTES_MAX) {
            let there = (end - from).min(OVERWRITTEN_BYTES_MAX as u64) as usize;
            let (record, old) = note.split_at_mut(Record::BYTES);
            let overwritten = Record::new(Kind::Overwritten, stat.file, from);
            record.copy_from_slice(&Record { bytes: there as u64, ..overwritten }.encode());
            // What cannot be read counts as written.
            if read_back(fd, from, &mut old[..there]).is_some() {
                self.append(&note[..Record::BYTES + there]);
            }
        }
    }

    fn append(&self, bytes: &[u8]) {
        // SAFETY: the bytes are readable. One call for each record: appends of other threads come before or behind it.
        let written = unsafe { system!(SYS_write, self.journal, bytes.as_ptr(), bytes.len()) };
        if written != bytes.len() as c_long {
            give_up("write its journal");
        }
    }

    /// What a sync of this descriptor is to fail with, if it is. That it has failed is noted.
    pub(crate) fn sync_fails(&self, fd: c_int) -> Option<c_int> {
        let errno = self.word(Word::SyncErrno).load(Ordering::Relaxed) as c_int;
        if errno == 0 || !self.is_below(fd) {
            return None;
        }
        if let Some(stat) = stat(fd).filter(Stat::is_file) {
            self.note(&Record::new(Kind::SyncFailed, stat.file, stat.bytes));
        }
        self.word(Word::SyncsFailed).fetch_add(1, Ordering::Relaxed);
        Some(errno)
    }

    /// Bytes that are left, when space is limited.
    pub(crate) fn space_left(&self) -> Option<u64> {
        let limited = self.word(Word::SpaceLimited).load(Ordering::Relaxed) != 0;
        limited.then(|| self.word(Word::SpaceLeft).load(Ordering::Relaxed))
    }

    /// How many of `bytes` may be written at `at`, as far as space goes.
    fn granted(&self, fd: c_int, stat: &Stat, at: u64, bytes: usize) -> usize {
        if self.space_left().is_none() || !self.is_below(fd) {
            return bytes;
        }
        let grows = at.saturating_add(bytes as u64).saturating_sub(stat.bytes).min(bytes as u64);
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

    /// Counts a write to this descriptor that is refused for lack of space.
    pub(crate) fn count_refused(&self, fd: c_int) {
        if self.below_is(fd, is_data) {
            self.word(Word::DataRefused).fetch_add(1, Ordering::Relaxed);
        }
        self.word(Word::WritesRefused).fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the file at a path, which is about to lose its name, by another name: its number.
    ///
    /// # Safety
    /// As `linkat`.
    pub(crate) unsafe fn keep_name(&self, directory: c_int, path: *const c_char) -> u64 {
        let Some((number, kept)) = self.next_kept() else { return NOT_KEPT };
        // SAFETY: as for the caller; `kept` ends in a zero.
        let linked = unsafe { system!(SYS_linkat, directory, path, libc::AT_FDCWD, kept.as_ptr(), 0) };
        if linked == 0 { number } else { NOT_KEPT }
    }

    /// Keeps a copy of a file of so many bytes, which is about to be cut: its number.
    pub(crate) fn keep_copy(&self, fd: c_int, bytes: u64) -> u64 {
        let Some(from) = self.is_below(fd).then(|| open_again(fd)).flatten() else { return NOT_KEPT };
        let copied = self.next_kept().and_then(|(number, kept)| {
            let to = create(&kept)?;
            let copied = copy(from, to, bytes);
            close(to);
            copied.map(|()| number)
        });
        close(from);
        copied.unwrap_or(NOT_KEPT)
    }

    /// The next number of a kept file, and its path, which ends in a zero. `None`: no more are to be kept.
    fn next_kept(&self) -> Option<(u64, [u8; PATH_BYTES_MAX])> {
        let number = self.word(Word::Kept).fetch_add(1, Ordering::Relaxed) + 1;
        if number > self.word(Word::KeptMax).load(Ordering::Relaxed) {
            return None;
        }
        Some((number, path_in(self.sidecar, format_args!("{KEPT}/{number}"))?))
    }

    /// Whether a descriptor is of the directory, or of something in it.
    pub(crate) fn is_below(&self, fd: c_int) -> bool {
        self.below_is(fd, |rest| rest.first().is_none_or(|byte| *byte == b'/'))
    }

    /// Whether the path of a descriptor begins with that of the directory, and what stands behind it is like this.
    fn below_is(&self, fd: c_int, like: impl FnOnce(&[u8]) -> bool) -> bool {
        let (link, mut path) = (link_of(fd), [0; PATH_BYTES_MAX]);
        // SAFETY: `link` ends in a zero, `path` has as much room as is said.
        let bytes = unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
        let path = usize::try_from(bytes).ok().and_then(|bytes| path.get(..bytes));
        path.and_then(|path| path.strip_prefix(self.directory.to_bytes())).is_some_and(like)
    }
}

/// Whether a path is that of a write-ahead log, a table, a manifest or the mark.
fn is_data(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.ends_with(b".log") || name.ends_with(b".sst") || name.starts_with(b"MANIFEST-") || name.starts_with(b"mark")
}

/// The value of an environment variable. Nobody who is watched changes its environment.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the name ends in a zero; a value that is there ends in one, and stays.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    }
}

/// The path of something in the sidecar; ends in a zero.
fn path_in(sidecar: &CStr, name: fmt::Arguments<'_>) -> Option<[u8; PATH_BYTES_MAX]> {
    let mut path = [0; PATH_BYTES_MAX];
    write!(&mut path[..], "{}/{name}\0", sidecar.to_str().ok()?).ok()?;
    Some(path)
}

/// Opens a file of the sidecar.
fn open(sidecar: &CStr, name: &str, flags: c_int) -> Option<c_int> {
    let path = path_in(sidecar, format_args!("{name}"))?;
    // SAFETY: `path` ends in a zero.
    let fd = unsafe { system!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, 0) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the descriptor is ours; it stays where it is when there is no such high one.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, DESCRIPTOR_MIN) } {
        ..0 => Some(fd),
        high => {
            close(fd);
            Some(high)
        }
    }
}

/// Makes a file at a path that ends in a zero.
fn create(path: &[u8; PATH_BYTES_MAX]) -> Option<c_int> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
    // SAFETY: the caller vouches for the path.
    let fd = unsafe { system!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
    c_int::try_from(fd).ok().filter(|fd| *fd >= 0)
}

/// Maps the control file for good.
fn map(fd: c_int) -> Option<&'static [AtomicU64; WORDS]> {
    let (bytes, access) = (WORDS * Word::BYTES, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a fresh mapping of a file that the harness has made as long as this. It is shared, hence the atomics, lies
    // at the beginning of a page, and is never unmapped.
    unsafe {
        let map = system!(SYS_mmap, ptr::null::<u8>(), bytes, access, libc::MAP_SHARED, fd, 0);
        (map != -1).then(|| &*(map as *const [AtomicU64; WORDS]))
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
        system!(SYS_write, libc::STDERR_FILENO, line.as_ptr(), bytes);
        libc::_exit(SHIM_FAILED)
    }
}
