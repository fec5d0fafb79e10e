//! System calls, made past the C library's functions, and what they say of a descriptor or a path.
//!
//! The shim takes the place of `syscall` itself, so it makes its calls with the machine's instruction. Nothing here is
//! allocated, locked or looked up, but for [`next`].
//!
//! Left out: machines other than x86-64 and 64-bit ARM.

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io::Write;
use std::mem::MaybeUninit;

use crate::format::FileId;

pub(crate) const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// The number of `sync_file_range`, which the `libc` crate has for some machines only.
#[cfg(target_arch = "x86_64")]
pub(crate) const SYNC_FILE_RANGE: c_long = libc::SYS_sync_file_range;
#[cfg(target_arch = "aarch64")]
pub(crate) const SYNC_FILE_RANGE: c_long = 84;

/// [`call`] with arguments of any types that are numbers or addresses.
macro_rules! system {
    ($call:ident $(, $argument:expr)*) => {
        $crate::system::call(libc::$call, [$($argument as libc::c_long),*])
    };
}
pub(crate) use system;

/// Makes a system call: what it returns, or -1 with `errno` set.
///
/// # Safety
/// As the call.
pub(crate) unsafe fn call<const N: usize>(number: c_long, arguments: [c_long; N]) -> c_long {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    // SAFETY: as for the caller.
    match unsafe { instruction(number, all) } {
        errno @ -4095..=-1 => c_long::from(fail(-errno as c_int)),
        result => result,
    }
}

/// # Safety
/// As the call.
#[cfg(target_arch = "x86_64")]
unsafe fn instruction(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let result: c_long;
    // SAFETY: as for the caller. The kernel keeps all registers but these, and does not touch the stack.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// As the call.
#[cfg(target_arch = "aarch64")]
unsafe fn instruction(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    let result: c_long;
    // SAFETY: as for the caller. The kernel keeps all registers but these, and does not touch the stack.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack),
        );
    }
    result
}

/// What a call returns that has failed.
pub(crate) fn fail(errno: c_int) -> c_int {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// The C library's own function of this name, whose place the shim has taken; null when it has none.
pub(crate) fn next(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends in a zero.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// Closes a descriptor of the shim's own.
pub(crate) fn close(fd: c_int) {
    // SAFETY: it touches no memory, and nobody else knows the descriptor.
    unsafe { system!(SYS_close, fd) };
}

/// What the system says of an open file.
pub(crate) struct Stat {
    pub(crate) file: FileId,
    pub(crate) bytes: u64,
    mode: libc::mode_t,
}

impl Stat {
    fn of(stat: &libc::stat) -> Stat {
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

/// # Safety
/// As `fstatat`.
pub(crate) unsafe fn stat_at(directory: c_int, path: *const c_char, flags: c_int) -> Option<Stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for the answer, which is there when the call succeeds; the caller vouches for the path.
    unsafe { (libc::fstatat(directory, path, stat.as_mut_ptr(), flags) == 0).then(|| Stat::of(&stat.assume_init())) }
}

/// The path of an open file, whatever its name is now; ends in a zero.
pub(crate) fn link_of(fd: c_int) -> [u8; 32] {
    let mut link = [0; 32];
    // Every descriptor's number fits.
    let _ = write!(&mut link[..], "/proc/self/fd/{fd}\0");
    link
}

/// Opens an open file once more, for reading; it may be open for writing only.
pub(crate) fn open_again(fd: c_int) -> Option<c_int> {
    let link = link_of(fd);
    // SAFETY: `link` ends in a zero.
    let fd = unsafe { system!(SYS_openat, libc::AT_FDCWD, link.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC, 0) };
    c_int::try_from(fd).ok().filter(|fd| *fd >= 0)
}

/// Fills `into` with what stands at `at` of a file.
pub(crate) fn read_back(fd: c_int, at: u64, into: &mut [u8]) -> Option<()> {
    let readable = open_again(fd)?;
    // SAFETY: `into` has as much room as is said.
    let read = unsafe { system!(SYS_pread64, readable, into.as_mut_ptr(), into.len(), at) };
    close(readable);
    (read == into.len() as c_long).then_some(())
}

/// Copies so many bytes of one open file, from its beginning, to another one that is empty.
pub(crate) fn copy(from: c_int, to: c_int, bytes: u64) -> Option<()> {
    let mut left = bytes;
    while left > 0 {
        // SAFETY: it touches no memory: no offsets are given.
        let copied = unsafe { system!(SYS_copy_file_range, from, 0, to, 0, left, 0) };
        left -= u64::try_from(copied).ok().filter(|copied| *copied > 0)?;
    }
    Some(())
}

/// Where a write to a descriptor goes, that is to go to `at`, or where the file stands. `None`: the system refuses it.
pub(crate) fn place_of_write(fd: c_int, stat: &Stat, at: Option<libc::off_t>) -> Option<u64> {
    // SAFETY: neither call touches memory, or moves anything.
    let (flags, stands) = unsafe { (libc::fcntl(fd, libc::F_GETFL), libc::lseek(fd, 0, libc::SEEK_CUR)) };
    // What is open for appending appends, whatever `at` is.
    if flags & libc::O_APPEND != 0 { Some(stat.bytes) } else { u64::try_from(at.unwrap_or(stands)).ok() }
}
