//! The C library's calls that the model of a loss of power does not know, and `kvd` does not make. They are counted when
//! they concern the directory, and done.
//!
//! System calls that a program makes through `syscall` are among them, where they could change files or sync them.
//!
//! Left out: `freopen`, `mkstemp`, `aio_write`, and memory that is shared for reading and made writable later, of which
//! `kvd` has none either; and instructions of a program's own.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::mem::transmute;
use std::ptr;

use libc::{AT_FDCWD, FILE, off_t, size_t, ssize_t};

use crate::attached::attached;
use crate::format::Unmodelled;
use crate::names::count_at;
use crate::system::{SYNC_FILE_RANGE, call, fail, next, system};

fn count(what: Unmodelled) {
    if let Some(shim) = attached() {
        shim.count(what);
    }
}

/// Counts what is done to a file or directory that is open.
fn count_of(what: Unmodelled, fd: c_int) {
    if let Some(shim) = attached().filter(|shim| shim.is_below(fd)) {
        shim.count(what);
    }
}

fn is_shared_for_writing(access: c_int, flags: c_int) -> bool {
    // Both kinds of shared memory have this bit.
    access & libc::PROT_WRITE != 0 && flags & libc::MAP_SHARED != 0 && flags & libc::MAP_ANONYMOUS == 0
}

/// Programs ask for their memory here, also before `main`: what is not of a file is let through first.
///
/// # Safety
/// As `mmap`.
unsafe fn map(at: *mut c_void, bytes: size_t, access: c_int, flags: c_int, fd: c_int, from: off_t) -> *mut c_void {
    if is_shared_for_writing(access, flags) {
        count_of(Unmodelled::SharedMapping, fd);
    }
    // SAFETY: as for the caller.
    unsafe { system!(SYS_mmap, at, bytes, access, flags, fd, from) as *mut c_void }
}

/// # Safety
/// As `sendfile`.
unsafe fn send(to: c_int, from: c_int, at: *mut off_t, bytes: size_t) -> ssize_t {
    count_of(Unmodelled::Transfer, to);
    // SAFETY: as for the caller.
    unsafe { system!(SYS_sendfile, to, from, at, bytes) as ssize_t }
}

/// # Safety
/// As `fopen`, which `name` is another name of.
unsafe fn open_stream(name: &CStr, path: *const c_char, mode: *const c_char) -> *mut FILE {
    type Real = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;
    let real = next(name);
    if real.is_null() {
        fail(libc::ENOSYS);
        return ptr::null_mut();
    }
    // SAFETY: that is the type of the function of this name; as for the caller.
    let stream = unsafe { transmute::<*mut c_void, Real>(real)(path, mode) };
    // SAFETY: as for the caller.
    let writes = unsafe { CStr::from_ptr(mode) }.to_bytes().iter().any(|byte| b"wa+".contains(byte));
    if writes && !stream.is_null() {
        // SAFETY: it is an open stream.
        count_of(Unmodelled::Stream, unsafe { libc::fileno(stream) });
    }
    stream
}

/// What a system call that a program makes itself has to do with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concerns {
    Nothing,
    /// It changes or syncs what this argument is the descriptor of.
    File(usize),
    /// It opens something, with the flags that are this argument.
    Opens(usize),
    /// It maps a file.
    Maps,
    /// It changes names, or does whatever it is told later.
    Anything,
}

/// The table of system calls. Those not in it change no file, or nothing that a file's users see.
fn concerns(number: c_long) -> Concerns {
    match number {
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
            Concerns::File(0)
        }
        libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_sendfile => Concerns::File(0),
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_syncfs | SYNC_FILE_RANGE => Concerns::File(0),
        libc::SYS_copy_file_range | libc::SYS_splice => Concerns::File(2),
        libc::SYS_openat => Concerns::Opens(2),
        libc::SYS_mmap => Concerns::Maps,
        libc::SYS_renameat2 | libc::SYS_unlinkat | libc::SYS_linkat | libc::SYS_symlinkat | libc::SYS_mkdirat => {
            Concerns::Anything
        }
        libc::SYS_truncate | libc::SYS_sync | libc::SYS_msync | libc::SYS_openat2 => Concerns::Anything,
        libc::SYS_io_uring_setup | libc::SYS_io_submit => Concerns::Anything,
        _ => older(number),
    }
}

/// The rest of the table: calls that newer machines do not have.
#[cfg(target_arch = "x86_64")]
fn older(number: c_long) -> Concerns {
    match number {
        libc::SYS_open => Concerns::Opens(1),
        libc::SYS_creat | libc::SYS_rename | libc::SYS_renameat | libc::SYS_unlink => Concerns::Anything,
        libc::SYS_link | libc::SYS_symlink | libc::SYS_mkdir | libc::SYS_rmdir => Concerns::Anything,
        _ => Concerns::Nothing,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn older(_: c_long) -> Concerns {
    Concerns::Nothing
}

/// Counts a system call that a program makes itself, where it could change a file of the directory, or sync it.
fn count_raw(number: c_long, arguments: &[c_long; 6]) {
    match concerns(number) {
        // Before all else: threads wait for each other with such calls, also to attach.
        Concerns::Nothing => {}
        Concerns::File(place) => count_of(Unmodelled::RawCall, arguments[place] as c_int),
        Concerns::Opens(place) => {
            let changes = libc::O_CREAT | libc::O_TRUNC | libc::O_DSYNC;
            if arguments[place] as c_int & changes != 0 {
                count(Unmodelled::RawCall);
            }
        }
        Concerns::Maps => {
            if is_shared_for_writing(arguments[2] as c_int, arguments[3] as c_int) {
                count_of(Unmodelled::RawCall, arguments[4] as c_int);
            }
        }
        Concerns::Anything => count(Unmodelled::RawCall),
    }
}

/// It is given as many arguments as the call has; the kernel does not look at the others.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let arguments = [a, b, c, d, e, f];
    count_raw(number, &arguments);
    // SAFETY: as for the caller.
    unsafe { call(number, arguments) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    at: *mut c_void,
    bytes: size_t,
    access: c_int,
    flags: c_int,
    fd: c_int,
    from: off_t,
) -> *mut c_void {
    // SAFETY: as for the caller.
    unsafe { map(at, bytes, access, flags, fd, from) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    at: *mut c_void,
    bytes: size_t,
    access: c_int,
    flags: c_int,
    fd: c_int,
    from: off_t,
) -> *mut c_void {
    // SAFETY: as for the caller.
    unsafe { map(at, bytes, access, flags, fd, from) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn msync(at: *mut c_void, bytes: size_t, flags: c_int) -> c_int {
    count(Unmodelled::SharedMapping);
    // SAFETY: as for the caller.
    unsafe { system!(SYS_msync, at, bytes, flags) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sync() {
    count(Unmodelled::SyncOfAll);
    // SAFETY: it touches no memory.
    unsafe { system!(SYS_sync) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syncfs(fd: c_int) -> c_int {
    count(Unmodelled::SyncOfAll);
    // SAFETY: it touches no memory.
    unsafe { system!(SYS_syncfs, fd) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile(to: c_int, from: c_int, at: *mut off_t, bytes: size_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { send(to, from, at, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile64(to: c_int, from: c_int, at: *mut off_t, bytes: size_t) -> ssize_t {
    // SAFETY: as for the caller.
    unsafe { send(to, from, at, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn splice(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    bytes: size_t,
    flags: c_uint,
) -> ssize_t {
    count_of(Unmodelled::Transfer, to);
    // SAFETY: as for the caller.
    unsafe { system!(SYS_splice, from, from_at, to, to_at, bytes, flags) as ssize_t }
}

/// Of all it can do only clones of files matter.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_long) -> c_int {
    if request == libc::FICLONE || request == libc::FICLONERANGE {
        count_of(Unmodelled::Transfer, fd);
    }
    // SAFETY: as for the caller.
    unsafe { system!(SYS_ioctl, fd, request, argument) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn link(old: *const c_char, new: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe { linkat(AT_FDCWD, old, AT_FDCWD, new, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn linkat(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as for the caller.
    unsafe {
        count_at(Unmodelled::Link, to, new);
        system!(SYS_linkat, from, old, to, new, flags) as c_int
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn symlink(to: *const c_char, new: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe { symlinkat(to, AT_FDCWD, new) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn symlinkat(to: *const c_char, directory: c_int, new: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe {
        count_at(Unmodelled::Link, directory, new);
        system!(SYS_symlinkat, to, directory, new) as c_int
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: as for the caller.
    unsafe { open_stream(c"fopen", path, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: as for the caller.
    unsafe { open_stream(c"fopen64", path, mode) }
}
