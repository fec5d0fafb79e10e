//! The regular files below a directory, and how many entries of which other kind there are. Files that an export has not
//! finished are not among them.

use std::fmt;
use std::fs::{self, FileType};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::commands::unfinished;

/// A regular file.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    /// Its path below the directory, with `/` between the parts.
    pub relative: Vec<u8>,
    pub size: u64,
}

/// What is below a directory.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of their relative paths.
    pub files: Vec<File>,
    pub skipped: Skipped,
    /// How many files an export has not finished.
    pub unfinished: u64,
    /// Directories and entries that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// How many entries are neither regular files nor directories. Shown, they are named by their kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    pub links: u64,
    pub pipes: u64,
    pub sockets: u64,
    /// Also what the system has for no other kind.
    pub devices: u64,
}

impl Skipped {
    fn note(&mut self, kind: FileType) {
        let count = if kind.is_symlink() {
            &mut self.links
        } else if kind.is_fifo() {
            &mut self.pipes
        } else if kind.is_socket() {
            &mut self.sockets
        } else {
            &mut self.devices
        };
        *count += 1;
    }

    /// All of them together.
    pub fn all(self) -> u64 {
        self.links + self.pipes + self.sockets + self.devices
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds =
            [(self.links, "symbolic link"), (self.pipes, "pipe"), (self.sockets, "socket"), (self.devices, "device")];
        let there = kinds.into_iter().filter(|(count, _)| *count > 0);
        let named = there.map(|(count, kind)| format!("{count} {kind}{}", if count == 1 { "" } else { "s" }));
        f.write_str(&named.collect::<Vec<_>>().join(", "))
    }
}

/// Lists everything below `dir`.
///
/// # Errors
/// When `dir` itself cannot be read.
pub fn walk(dir: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let mut open = vec![(dir.to_owned(), Vec::new())];
    let mut first = true;
    while let Some((path, relative)) = open.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => entries.for_each(|entry| note(entry, &path, &relative, &mut found, &mut open)),
            Err(error) if first => return Err(error),
            Err(error) => found.unreadable.push(format!("{}: {error}", path.display())),
        }
        first = false;
    }
    found.files.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(found)
}

fn note(
    entry: io::Result<fs::DirEntry>,
    parent: &Path,
    above: &[u8],
    found: &mut Found,
    open: &mut Vec<(PathBuf, Vec<u8>)>,
) {
    // Neither asks through a symbolic link.
    let looked_at = entry.and_then(|entry| Ok((entry.metadata()?, entry)));
    let (metadata, entry) = match looked_at {
        Ok(both) => both,
        Err(error) => return found.unreadable.push(format!("below {}: {error}", parent.display())),
    };
    let name = entry.file_name();
    let separator: &[u8] = if above.is_empty() { b"" } else { b"/" };
    let relative = [above, separator, name.as_bytes()].concat();
    if metadata.is_dir() {
        open.push((entry.path(), relative));
    } else if metadata.is_file() && unfinished::is_one(name.as_bytes()) {
        found.unfinished += 1;
    } else if metadata.is_file() {
        found.files.push(File { path: entry.path(), relative, size: metadata.len() });
    } else {
        found.skipped.note(metadata.file_type());
    }
}

/// Reads a file that was regular when it was listed.
///
/// # Errors
/// When it cannot be read, is no regular file any more, or has grown over `limit`.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Not through a link that took its place, and not waiting at a pipe that did.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file any more"));
    }
    let mut value = Vec::new();
    file.take(limit + 1).read_to_end(&mut value)?;
    if value.len() as u64 > limit {
        return Err(io::Error::other(format!("it has grown over the limit of {limit} bytes")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_skipped_is_named_by_its_kind() {
        for (skipped, all, named) in [
            (Skipped::default(), 0, ""),
            (Skipped { links: 1, ..Skipped::default() }, 1, "1 symbolic link"),
            (
                Skipped { links: 2, pipes: 1, sockets: 3, devices: 1 },
                7,
                "2 symbolic links, 1 pipe, 3 sockets, 1 device",
            ),
        ] {
            assert_eq!((skipped.all(), skipped.to_string().as_str()), (all, named));
        }
    }

    #[test]
    fn regular_files_only_with_odd_names() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("sub")).expect("a directory");
        for name in [&b"empty"[..], b"sub/\xff\xfe", b"sub/a b"] {
            fs::write(dir.path().join(OsStr::from_bytes(name)), b"").expect("a file");
        }
        symlink("/etc", dir.path().join("link")).expect("a link");
        fs::write(dir.path().join("sub/.kvctl-export-0123456789abcdef"), b"half").expect("a file");
        let _socket = UnixListener::bind(dir.path().join("sub/socket")).expect("a socket");
        let found = walk(dir.path()).expect("a list");
        let names: Vec<&[u8]> = found.files.iter().map(|file| &file.relative[..]).collect();
        assert_eq!(names, [&b"empty"[..], b"sub/a b", b"sub/\xff\xfe"]);
        let skipped = Skipped { links: 1, sockets: 1, ..Skipped::default() };
        assert_eq!((found.skipped, found.unfinished, found.unreadable.len()), (skipped, 1, 0));
        assert_eq!(read(&found.files[0].path, 10).expect("its content"), b"");
        assert!(read(&dir.path().join("link"), 10).is_err());
        assert!(walk(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn a_file_that_grew_is_not_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("f"), b"12345").expect("a file");
        assert!(read(&dir.path().join("f"), 4).is_err());
        assert_eq!(read(&dir.path().join("f"), 5).expect("its content"), b"12345");
    }
}
