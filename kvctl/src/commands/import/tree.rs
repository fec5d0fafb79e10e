//! The regular files below a directory.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
    /// Symbolic links, devices, sockets and pipes.
    pub skipped: u64,
    /// Directories and entries that cannot be read, and why.
    pub unreadable: Vec<String>,
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
    } else if metadata.is_file() {
        found.files.push(File { path: entry.path(), relative, size: metadata.len() });
    } else {
        found.skipped += 1;
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

    #[test]
    fn regular_files_only_with_odd_names() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("sub")).expect("a directory");
        for name in [&b"empty"[..], b"sub/\xff\xfe", b"sub/a b"] {
            fs::write(dir.path().join(OsStr::from_bytes(name)), b"").expect("a file");
        }
        symlink("/etc", dir.path().join("link")).expect("a link");
        let found = walk(dir.path()).expect("a list");
        let names: Vec<&[u8]> = found.files.iter().map(|file| &file.relative[..]).collect();
        assert_eq!(names, [&b"empty"[..], b"sub/a b", b"sub/\xff\xfe"]);
        assert_eq!((found.skipped, found.unreadable.len()), (1, 0));
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
