//! The C library's calls that the shim takes the place of. Each makes the system call itself.
//!
//! `open` and `openat` have a mode only when they may create something; here they always have one. Where Linux runs, an
//! argument that was not given is a register that was not set, which the kernel does not look at.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::mem::{MaybeUninit, transmute};

use libc::{AT_FDCWD, mode_t, off_t, size_t, ssize_t};

use crate::attached::{Attached, Stat, attached, stat};
use crate::format::Kind;

fn fail(errno: c_int) -> c_int {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// # Safety
/// As `openat`.
unsafe fn open_file(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let shim = attached().filter(|_| flags & (libc::O_CREAT | libc::O_TRUNC) != 0);
    // SAFETY: the caller vouches for the path.
    let existed = shim.is_some() && unsafe { stat_at(directory, path) }.is_some();
    // SAFETY: as for the caller.
    let fd = unsafe { libc::syscall(libc::SYS_openat, directory, path, flags | libc::O_LARGEFILE, mode) } as c_int;
    if let (Some(shim), true) = (shim, fd >= 0) {
        opened(shim, fd, existed, flags & libc::O_TRUNC != 0);
    }
    fd
}

fn opened(shim: &Attached, fd: c_int, existed: bool, cut: bool) {
    let Some(stat) = stat(fd).filter(Stat::is_file) else { return };
    if !existed {
        shim.note(Kind::Created, stat.file, 0);
    } else if cut {
        shim.note(Kind::Truncated, stat.file, 0);
    }
}

/// # Safety
/// As `fstatat`.
unsafe fn stat_at(directory: c_int, path: *const c_char) -> Option<Stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for the answer, which is there when the call succeeds; the caller vouches for the path.
    unsafe { (libc::fstatat(directory, path, stat.as_mut_ptr(), 0) == 0).then(|| Stat::of(&stat.assume_init())) }
}

fn sync(call: c_long, fd: c_int) -> c_int {
    let shim = attached();
    if let Some(errno) = shim.and_then(|shim| shim.sync_fails(fd)) {
        return fail(errno);
    }
    // Before: what comes while it is synced may or may not be synced with it.
    let before = shim.and_then(|_| stat(fd));
    // SAFETY: it touches no memory.
    let result = unsafe { libc::syscall(call, fd) } as c_int;
    if let (Some(shim), Some(stat), 0) = (shim, before, result) {
        if stat.is_file() {
            shim.note(Kind::Synced, stat.file, stat.bytes);
        } else if stat.is_directory() {
            shim.note(Kind::DirectorySynced, stat.file, 0);
        }
    }
    result
}

/// # Safety
/// As `pwrite`.
unsafe fn write_at(fd: c_int, from: *const c_void, bytes: size_t, at: off_t) -> ssize_t {
    let mut granted = bytes;
    if let (Some(shim), Ok(at)) = (attached(), u64::try_from(at)) {
        granted = shim.granted(fd, Some(at), bytes);
        if granted == 0 && bytes > 0 {
            shim.count_refused();
            return fail(libc::ENOSPC) as ssize_t;
        }
        shim.note_overwritten(fd, at, granted);
    }
    // SAFETY: as for the caller; `granted` is at most `bytes`.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, from, granted, at) as ssize_t }
}

fn cut(fd: c_int, bytes: off_t) -> c_int {
    // SAFETY: it touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_ftruncate, fd, bytes) } as c_int;
    if let (Some(shim), 0) = (attached(), result)
        && let Some(stat) = stat(fd)
    {
        shim.note(Kind::Truncated, stat.file, bytes as u64);
    }
    result
}

fn allocate(fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
    let takes = if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 { bytes.max(0) as u64 } else { 0 };
    match attached() {
        // Not counted as a write: RocksDB asks for room ahead of its needs, and goes on without it.
        Some(shim) if !shim.has_room(fd, takes) => fail(libc::ENOSPC),
        // SAFETY: it touches no memory.
        Some(_) | None => unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, at, bytes) as c_int },
    }
}

/// # Safety
/// As `renameat2`.
unsafe fn rename_file(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: as for the caller.
    let result = unsafe { libc::syscall(libc::SYS_renameat2, from, old, to, new, flags) } as c_int;
    if let (Some(shim), 0) = (attached(), result)
        // SAFETY: as for the caller.
        && let Some(stat) = unsafe { stat_at(to, new) }.filter(Stat::is_file)
    {
        shim.note(Kind::Renamed, stat.file, 0);
    }
    result
}

/// # Safety
/// As `statvfs`.
unsafe fn free_space(path: *const c_char, stats: *mut libc::statvfs) -> c_int {
    type Real = unsafe extern "C" fn(*const c_char, *mut libc::statvfs) -> c_int;
    // SAFETY: the name ends in a zero.
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"statvfs".as_ptr()) };
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
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync(libc::SYS_fsync, fd)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(libc::SYS_fdatasync, fd)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, from: *const c_void, bytes: size_t) -> ssize_t {
    let mut granted = bytes;
    if let Some(shim) = attached() {
        granted = shim.granted(fd, None, bytes);
        if granted == 0 && bytes > 0 {
            shim.count_refused();
            return fail(libc::ENOSPC) as ssize_t;
        }
    }
    // SAFETY: as for the caller; `granted` is at most `bytes`.
    unsafe { libc::syscall(libc::SYS_write, fd, from, granted) as ssize_t }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, from: *const c_void, bytes: size_t, at: off_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_at(fd, from, bytes, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, bytes: size_t, at: off_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { write_at(fd, from, bytes, at) }
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
unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
    allocate(fd, mode, at, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
    allocate(fd, mode, at, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(old: *const c_char, new: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe { rename_file(AT_FDCWD, old, AT_FDCWD, new, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(from: c_int, old: *const c_char, to: c_int, new: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe { rename_file(from, old, to, new, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: as for the caller.
    unsafe { rename_file(from, old, to, new, flags) }
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
