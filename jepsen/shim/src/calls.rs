//! The C library's calls that change what stands in files, and those that sync it. Each makes the system call itself.
//!
//! `open` and `openat` have a mode only when they may create something; here they always have one. Where Linux runs, an
//! argument that was not given is a register that was not set, which the kernel does not look at.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::mem::transmute;
use std::slice;

use libc::{AT_FDCWD, iovec, mode_t, off_t, size_t, ssize_t};

use crate::attached::{Attached, attached};
use crate::format::{Kind, Record, Unmodelled};
use crate::names;
use crate::system::{SYNC_FILE_RANGE, Stat, call, close, fail, next, stat, stat_at, system};

/// The flags of a write that change where it goes, or sync it.
const RWF_UNMODELLED: c_int = libc::RWF_DSYNC | libc::RWF_SYNC | libc::RWF_APPEND | libc::RWF_NOAPPEND;

/// A file that is to be emptied is cut when it is open, as any other.
///
/// # Safety
/// As `openat`.
unsafe fn open_file(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let shim = attached().filter(|_| flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_DSYNC) != 0);
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let empties = shim.is_some() && writes && flags & libc::O_TRUNC != 0;
    // SAFETY: the caller vouches for the path.
    let existed = shim.is_some() && unsafe { stat_at(directory, path, 0) }.is_some();
    let kernels = if empties { flags & !libc::O_TRUNC } else { flags };
    // SAFETY: as for the caller.
    let fd = unsafe { system!(SYS_openat, directory, path, kernels | libc::O_LARGEFILE, mode) } as c_int;
    let Some(shim) = shim.filter(|_| fd >= 0) else { return fd };
    let Some(stat) = stat(fd).filter(Stat::is_file) else { return fd };
    if !existed {
        // SAFETY: the caller vouches for the path.
        unsafe { names::note_made(shim, stat.file, directory, path) };
    } else if empties && cut(fd, 0) != 0 {
        close(fd);
        return -1;
    }
    if writes && flags & libc::O_DSYNC != 0 && shim.is_below(fd) {
        shim.count(Unmodelled::SyncedWrite);
    }
    fd
}

fn sync(number: c_long, fd: c_int) -> c_int {
    let shim = attached();
    if let Some(errno) = shim.and_then(|shim| shim.sync_fails(fd)) {
        return fail(errno);
    }
    // Before: what comes while it is synced may or may not be synced with it.
    let before = shim.and_then(|_| stat(fd));
    // SAFETY: it touches no memory.
    let result = unsafe { call(number, [c_long::from(fd)]) } as c_int;
    if let (Some(shim), Some(stat), 0) = (shim, before, result) {
        if stat.is_file() {
            shim.note(&Record::new(Kind::Synced, stat.file, stat.bytes));
        } else if stat.is_directory() {
            shim.note(&Record::new(Kind::DirectorySynced, stat.file, 0));
        }
    }
    result
}

/// How many bytes of a write may be written; what it is to fail with when none may.
fn permitted(fd: c_int, at: Option<off_t>, bytes: size_t) -> Result<size_t, c_int> {
    let Some(shim) = attached() else { return Ok(bytes) };
    match shim.before_write(fd, at, bytes) {
        0 if bytes > 0 => {
            shim.count_refused(fd);
            Err(libc::ENOSPC)
        }
        granted => Ok(granted),
    }
}

/// # Safety
/// As `write`; as `pwrite` when `at` is there.
unsafe fn write_some(fd: c_int, from: *const c_void, bytes: size_t, at: Option<off_t>) -> ssize_t {
    match (permitted(fd, at, bytes), at) {
        // SAFETY: as for the caller; `granted` is at most `bytes`.
        (Ok(granted), None) => unsafe { system!(SYS_write, fd, from, granted) as ssize_t },
        // SAFETY: the same.
        (Ok(granted), Some(at)) => unsafe { system!(SYS_pwrite64, fd, from, granted, at) as ssize_t },
        (Err(errno), _) => fail(errno) as ssize_t,
    }
}

/// `all` writes all pieces. Where space is limited only the first one is written, or some of it.
///
/// # Safety
/// As `writev`; as `pwritev` when `at` is there.
unsafe fn write_pieces(
    fd: c_int,
    pieces: *const iovec,
    count: c_int,
    at: Option<off_t>,
    all: impl FnOnce() -> c_long,
) -> ssize_t {
    let length = usize::try_from(count).ok().filter(|length| *length <= libc::UIO_MAXIOV as usize);
    // What the system refuses is not looked at.
    let Some(length) = length.filter(|length| *length > 0 && !pieces.is_null()) else { return all() as ssize_t };
    // SAFETY: as for the caller.
    let pieces = unsafe { slice::from_raw_parts(pieces, length) };
    let limited = attached().is_some_and(|shim| shim.space_left().is_some() && shim.is_below(fd));
    if let Some(first) = pieces.iter().find(|piece| piece.iov_len > 0).filter(|_| limited) {
        // SAFETY: as for the caller.
        return unsafe { write_some(fd, first.iov_base, first.iov_len, at) };
    }
    let bytes = pieces.iter().fold(0, |bytes: usize, piece| bytes.saturating_add(piece.iov_len));
    match permitted(fd, at, bytes) {
        Ok(_) => all() as ssize_t,
        Err(errno) => fail(errno) as ssize_t,
    }
}

/// # Safety
/// As `pwritev2`.
unsafe fn write_pieces_at(fd: c_int, pieces: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t {
    if flags & RWF_UNMODELLED != 0
        && let Some(shim) = attached().filter(|shim| shim.is_below(fd))
    {
        shim.count(Unmodelled::SyncedWrite);
    }
    // SAFETY: as for the caller. The second half of the offset is for machines with shorter words.
    let all = || unsafe { system!(SYS_pwritev2, fd, pieces, count, at, 0, flags) };
    // SAFETY: as for the caller. At -1 it is written where the file stands.
    unsafe { write_pieces(fd, pieces, count, Some(at).filter(|at| *at != -1), all) }
}

fn cut(fd: c_int, bytes: off_t) -> c_int {
    let shortens = |stat: &Stat| stat.is_file() && u64::try_from(bytes).is_ok_and(|bytes| bytes < stat.bytes);
    let watched = attached().and_then(|shim| Some((shim, stat(fd).filter(shortens)?)));
    let kept = watched.as_ref().map_or(0, |(shim, stat)| shim.keep_copy(fd, stat.bytes));
    // SAFETY: it touches no memory.
    let result = unsafe { system!(SYS_ftruncate, fd, bytes) } as c_int;
    if let (Some((shim, stat)), 0) = (watched, result) {
        shim.note(&Record { kept, ..Record::new(Kind::Truncated, stat.file, bytes as u64) });
    }
    result
}

/// # Safety
/// As `truncate`.
unsafe fn cut_path(path: *const c_char, bytes: off_t) -> c_int {
    // SAFETY: as for the caller.
    let fd = unsafe { open_file(AT_FDCWD, path, libc::O_WRONLY | libc::O_CLOEXEC, 0) };
    if fd < 0 {
        return fd;
    }
    let result = cut(fd, bytes);
    close(fd);
    result
}

fn allocate(fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
    if let Some(shim) = attached() {
        let takes = if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 { bytes.max(0) as u64 } else { 0 };
        // Not counted as a write: RocksDB asks for room ahead of its needs, and goes on without it.
        if !shim.has_room(fd, takes) {
            return fail(libc::ENOSPC);
        }
        if rearranges(fd, mode, at) && shim.is_below(fd) {
            shim.count(Unmodelled::Rearrangement);
        }
    }
    // SAFETY: it touches no memory.
    unsafe { system!(SYS_fallocate, fd, mode, at, bytes) as c_int }
}

/// Whether it changes bytes: a hole behind the end does not.
fn rearranges(fd: c_int, mode: c_int, at: off_t) -> bool {
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => false,
        libc::FALLOC_FL_PUNCH_HOLE => stat(fd).is_none_or(|stat| u64::try_from(at).is_ok_and(|at| at < stat.bytes)),
        _ => true,
    }
}

/// # Safety
/// As `statvfs`.
unsafe fn free_space(path: *const c_char, stats: *mut libc::statvfs) -> c_int {
    type Real = unsafe extern "C" fn(*const c_char, *mut libc::statvfs) -> c_int;
    let real = next(c"statvfs");
    if real.is_null() {
        return fail(libc::ENOSYS);
    }
    // SAFETY: that is the type of the function of this name; as for the caller.
    let result = unsafe { transmute::<*mut c_void, Real>(real)(path, stats) };
    if let (Some(left), 0) = (attached().and_then(Attached::space_left), result) {
        // SAFETY: the call has filled it.
        let stats = unsafe { &mut *stats };
        let blocks = left / stats.f_frsize.max(1);
        (stats.f_bavail, stats.f_bfree) = (stats.f_bavail.min(blocks), stats.f_bfree.min(blocks));
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { open_file(AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { open_file(AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { open_file(directory, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { open_file(directory, path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn creat(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { open_file(AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn creat64(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { open_file(AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync(libc::SYS_fsync, fd)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(libc::SYS_fdatasync, fd)
}

/// It makes nothing durable: it writes neither a file's length nor what the disk itself holds back.
#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(fd: c_int, at: off_t, bytes: off_t, flags: c_uint) -> c_int {
    // Without flags it only asks whether there is such a call.
    if flags != 0
        && let Some(errno) = attached().and_then(|shim| shim.sync_fails(fd))
    {
        return fail(errno);
    }
    // SAFETY: it touches no memory.
    unsafe { call(SYNC_FILE_RANGE, [c_long::from(fd), at, bytes, c_long::from(flags)]) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, from: *const c_void, bytes: size_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_some(fd, from, bytes, None) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, from: *const c_void, bytes: size_t, at: off_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_some(fd, from, bytes, Some(at)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, bytes: size_t, at: off_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_some(fd, from, bytes, Some(at)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as for the caller.
    let all = || unsafe { system!(SYS_writev, fd, pieces, count) };
    // SAFETY: as for the caller.
    unsafe { write_pieces(fd, pieces, count, None, all) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, pieces: *const iovec, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: as for the caller. The second half of the offset is for machines with shorter words.
    let all = || unsafe { system!(SYS_pwritev, fd, pieces, count, at, 0) };
    // SAFETY: as for the caller.
    unsafe { write_pieces(fd, pieces, count, Some(at), all) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(fd: c_int, pieces: *const iovec, count: c_int, at: off_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { pwritev(fd, pieces, count, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev2(fd: c_int, pieces: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_pieces_at(fd, pieces, count, at, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64v2(fd: c_int, pieces: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_pieces_at(fd, pieces, count, at, flags) }
}

/// What is longer than the file that is copied from counts as its rest.
#[unsafe(no_mangle)]
unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    bytes: size_t,
    flags: c_uint,
) -> ssize_t {
    let bytes = stat(from).map_or(bytes, |stat| bytes.min(stat.bytes as usize));
    // SAFETY: as for the caller.
    let at = unsafe { to_at.as_ref() }.copied();
    match permitted(to, at, bytes) {
        // SAFETY: as for the caller.
        Ok(granted) => unsafe { system!(SYS_copy_file_range, from, from_at, to, to_at, granted, flags) as ssize_t },
        Err(errno) => fail(errno) as ssize_t,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(fd: c_int, bytes: off_t) -> c_int {
    cut(fd, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, bytes: off_t) -> c_int {
    cut(fd, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn truncate(path: *const c_char, bytes: off_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { cut_path(path, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn truncate64(path: *const c_char, bytes: off_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { cut_path(path, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
    allocate(fd, mode, at, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
    allocate(fd, mode, at, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_fallocate(fd: c_int, at: off_t, bytes: off_t) -> c_int {
    errno_of(allocate(fd, 0, at, bytes))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_fallocate64(fd: c_int, at: off_t, bytes: off_t) -> c_int {
    errno_of(allocate(fd, 0, at, bytes))
}

/// These functions return what others leave in `errno`.
fn errno_of(result: c_int) -> c_int {
    // SAFETY: the location is this thread's own.
    if result == 0 { 0 } else { unsafe { *libc::__errno_location() } }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn statvfs(path: *const c_char, stats: *mut libc::statvfs) -> c_int {
    // SAFETY: as for the caller.
    unsafe { free_space(path, stats) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn statvfs64(path: *const c_char, stats: *mut libc::statvfs) -> c_int {
    // SAFETY: as for the caller; where `off_t` has 64 bits both have one layout.
    unsafe { free_space(path, stats) }
}
