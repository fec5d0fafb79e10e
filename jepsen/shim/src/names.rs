//! The C library's calls that change names: of new files and directories, of renamed and of removed ones.
//!
//! A file that is about to lose a name is kept by another one in the sidecar first: a loss of power may bring it back.
//!
//! Left out: names of anything but files and of new directories. They are counted as what the model does not know, or,
//! outside of the directory, nobody's business.

use std::ffi::{CStr, c_char, c_int, c_uint};

use libc::{AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, mode_t};

use crate::attached::{Attached, attached};
use crate::format::{FileId, Kind, NAME_BYTES_MAX, Place, Unmodelled};
use crate::system::{PATH_BYTES_MAX, Stat, close, fail, stat, stat_at, system};

/// The place a path leads to, when that is below the directory.
///
/// # Safety
/// The path ends in a zero, or is null.
unsafe fn place<'a>(shim: &Attached, directory: c_int, path: *const c_char) -> Option<Place<'a>> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as for the caller.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let path = &path[..path.iter().rposition(|byte| *byte != b'/')? + 1];
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => path.split_at(at + 1),
        None => (&b"."[..], path),
    };
    let is_name = name.len() <= NAME_BYTES_MAX && name != b"." && name != b"..";
    let directory = if is_name { directory_below(shim, directory, folder) } else { None };
    Some(Place { directory: directory?, name })
}

/// What directory a path leads to, when that is the one we watch, or below it.
fn directory_below(shim: &Attached, from: c_int, path: &[u8]) -> Option<FileId> {
    let mut terminated = [0; PATH_BYTES_MAX];
    terminated[..PATH_BYTES_MAX - 1].get_mut(..path.len())?.copy_from_slice(path);
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path ends in a zero.
    let fd = unsafe { system!(SYS_openat, from, terminated.as_ptr(), flags, 0) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    let found = stat(fd).filter(|_| shim.is_below(fd));
    close(fd);
    Some(found?.file)
}

/// Counts something that is done to this path, when it is below the directory.
///
/// # Safety
/// The path ends in a zero, or is null.
pub(crate) unsafe fn count_at(what: Unmodelled, directory: c_int, path: *const c_char) {
    // SAFETY: as for the caller.
    if let Some(shim) = attached().filter(|shim| unsafe { place(shim, directory, path) }.is_some()) {
        shim.count(what);
    }
}

/// Notes that there is a new file or directory.
///
/// # Safety
/// The path ends in a zero.
pub(crate) unsafe fn note_made(shim: &Attached, file: FileId, directory: c_int, path: *const c_char) {
    // SAFETY: as for the caller.
    if let Some(place) = unsafe { place(shim, directory, path) } {
        shim.note_places(Kind::Created, file, 0, &[place]);
    }
}

/// Keeps the file at a path, which is about to lose its name: its number; 0 when there is none.
///
/// # Safety
/// As `linkat`.
unsafe fn keep(shim: &Attached, directory: c_int, path: *const c_char) -> u64 {
    // SAFETY: as for the caller.
    unsafe {
        let is_there = stat_at(directory, path, AT_SYMLINK_NOFOLLOW).is_some_and(|stat| stat.is_file());
        if is_there { shim.keep_name(directory, path) } else { 0 }
    }
}

/// A change of a name that is about to happen, as it will be noted.
struct Renaming<'a> {
    shim: &'static Attached,
    file: Stat,
    from: Place<'a>,
    to: Place<'a>,
    kept: u64,
}

impl<'a> Renaming<'a> {
    /// `None`: nothing that the model knows, which is counted.
    ///
    /// # Safety
    /// As `renameat2`.
    unsafe fn begin(
        (from, old): (c_int, *const c_char),
        (to, new): (c_int, *const c_char),
        flags: c_uint,
    ) -> Option<Renaming<'a>> {
        let shim = attached()?;
        // SAFETY: as for the caller.
        let places = unsafe { (place(shim, from, old), place(shim, to, new)) };
        // SAFETY: as for the caller.
        let file = unsafe { stat_at(from, old, AT_SYMLINK_NOFOLLOW) }?;
        let plain = file.is_file() && flags & (libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT) == 0;
        match places {
            (None, None) => None,
            (Some(from), Some(to_place)) if plain => {
                // SAFETY: as for the caller.
                let kept = unsafe { keep(shim, to, new) };
                (from != to_place).then_some(Renaming { shim, file, from, to: to_place, kept })
            }
            (Some(_), _) | (None, Some(_)) => {
                shim.count(Unmodelled::MovedDirectory);
                None
            }
        }
    }
}

/// # Safety
/// As `renameat2`.
unsafe fn rename_file(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: as for the caller.
    let renaming = unsafe { Renaming::begin((from, old), (to, new), flags) };
    // SAFETY: as for the caller.
    let result = unsafe { system!(SYS_renameat2, from, old, to, new, flags) } as c_int;
    if let (Some(Renaming { shim, file, from, to, kept }), 0) = (renaming, result) {
        shim.note_places(Kind::Renamed, file.file, kept, &[from, to]);
    }
    result
}

/// # Safety
/// As `unlinkat`.
unsafe fn remove_name(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as for the caller.
    let watched = attached().and_then(|shim| Some((shim, unsafe { place(shim, directory, path) }?)));
    // SAFETY: as for the caller.
    let stat = watched.and_then(|_| unsafe { stat_at(directory, path, AT_SYMLINK_NOFOLLOW) });
    let kept = match watched {
        // SAFETY: as for the caller.
        Some((shim, _)) if flags & AT_REMOVEDIR == 0 => unsafe { keep(shim, directory, path) },
        Some(_) | None => 0,
    };
    // SAFETY: as for the caller.
    let result = unsafe { system!(SYS_unlinkat, directory, path, flags) } as c_int;
    if let (Some((shim, place)), Some(stat), 0) = (watched, stat, result) {
        if stat.is_file() {
            shim.note_places(Kind::Removed, stat.file, kept, &[place]);
        } else if stat.is_directory() {
            shim.count(Unmodelled::MovedDirectory);
        }
    }
    result
}

/// # Safety
/// As `mkdirat`.
unsafe fn make_directory(directory: c_int, path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    let result = unsafe { system!(SYS_mkdirat, directory, path, mode) } as c_int;
    // SAFETY: as for the caller.
    let made = attached().filter(|_| result == 0).and_then(|shim| {
        let stat = unsafe { stat_at(directory, path, AT_SYMLINK_NOFOLLOW) }?;
        Some((shim, stat.file))
    });
    if let Some((shim, file)) = made {
        // SAFETY: as for the caller.
        unsafe { note_made(shim, file, directory, path) };
    }
    result
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
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe { remove_name(AT_FDCWD, path, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as for the caller.
    unsafe { remove_name(directory, path, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    unsafe { remove_name(AT_FDCWD, path, AT_REMOVEDIR) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn remove(path: *const c_char) -> c_int {
    // SAFETY: as for the caller.
    match unsafe { stat_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW) } {
        // SAFETY: as for the caller.
        Some(stat) => unsafe { remove_name(AT_FDCWD, path, if stat.is_directory() { AT_REMOVEDIR } else { 0 }) },
        None => fail(libc::ENOENT),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { make_directory(AT_FDCWD, path, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdirat(directory: c_int, path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as for the caller.
    unsafe { make_directory(directory, path, mode) }
}
