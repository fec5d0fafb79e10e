//! The directory an export writes to, and nothing outside it.
//!
//! Keys come from whoever could write them. A key is a path below the directory only when each of its components is
//! a plain name; and no symbolic link below the directory is followed, whoever made it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Where files are written.
#[derive(Debug)]
pub struct Target {
    dir: PathBuf,
    prefix: Bytes,
    /// Directories below `dir` found to be real ones.
    real: HashSet<PathBuf>,
}

impl Target {
    /// Makes `dir` if it is not there.
    ///
    /// # Errors
    /// When it can be neither used nor made.
    pub fn open(dir: &Path, prefix: Bytes) -> io::Result<Target> {
        fs::create_dir_all(dir)?;
        Ok(Target { dir: dir.to_owned(), prefix, real: HashSet::new() })
    }

    /// Writes a key's value to its file, over what is there.
    ///
    /// # Errors
    /// Why it was not written. A file that could be opened but not written whole may be left in part.
    pub fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let relative = relative(key, &self.prefix)?;
        self.write_below(&relative, value).map_err(|error| error.to_string())
    }

    fn write_below(&mut self, relative: &Path, value: &[u8]) -> io::Result<()> {
        if let Some(parent) = relative.parent() {
            self.make_real(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file =
            options.write(true).create(true).truncate(false).custom_flags(flags).open(self.dir.join(relative))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("there is something else than a regular file"));
        }
        // Emptied only now that it is known to be a file.
        file.set_len(0)?;
        file.write_all(value)
    }

    /// Makes the directories of `relative` that are not there, and sees to it that none is a link.
    fn make_real(&mut self, relative: &Path) -> io::Result<()> {
        let mut path = PathBuf::new();
        for name in relative.components() {
            path.push(name);
            if !self.real.contains(&path) {
                make_directory(&self.dir.join(&path))?;
                self.real.insert(path.clone());
            }
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::other(format!("{} is there and is no directory", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(path),
        Err(error) => Err(error),
    }
}

/// The path a key names below the directory.
///
/// # Errors
/// Why it names none.
fn relative(key: &[u8], prefix: &[u8]) -> Result<PathBuf, String> {
    let rest = key.strip_prefix(prefix).ok_or("it does not begin with the prefix")?;
    if rest.is_empty() {
        return Err("nothing is left of it behind the prefix".to_owned());
    }
    if rest.starts_with(b"/") {
        return Err("behind the prefix it is an absolute path".to_owned());
    }
    rest.split(|byte| *byte == b'/').try_for_each(plain_name)?;
    Ok(PathBuf::from(OsStr::from_bytes(rest)))
}

fn plain_name(name: &[u8]) -> Result<(), String> {
    match name {
        b"" => Err("it has an empty component".to_owned()),
        b"." | b".." => Err(format!("it has a component '{}'", String::from_utf8_lossy(name))),
        name if name.contains(&0) => Err("it has a zero byte".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_plain_names_are_paths() {
        for key in [&b"p/a"[..], b"p/a/b", b"p/...", b"p/ ", b"p/\xff", b"p/.hidden/..x"] {
            assert!(relative(key, b"p/").is_ok(), "{key:?}");
        }
        let bad =
            [&b"p/"[..], b"p//a", b"p/a//b", b"p/a/", b"p/..", b"p/../a", b"p/a/../../b", b"p/.", b"p/a\0b", b"q/a"];
        for key in bad {
            assert!(relative(key, b"p/").is_err(), "{key:?}");
        }
        assert!(relative(b"/etc/passwd", b"").is_err());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let outside = tempfile::tempdir().expect("a directory");
        let dir = tempfile::tempdir().expect("a directory");
        symlink(outside.path(), dir.path().join("link")).expect("a link");
        symlink(outside.path().join("file"), dir.path().join("name")).expect("a link");
        let mut target = Target::open(dir.path(), Bytes::new()).expect("a target");
        assert!(target.write(b"link/file", b"x").is_err());
        assert!(target.write(b"name", b"x").is_err());
        assert_eq!(fs::read_dir(outside.path()).expect("a list").count(), 0);
    }

    #[test]
    fn files_are_made_and_written_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut target = Target::open(&dir.path().join("new"), Bytes::from_static(b"p/")).expect("a target");
        assert_eq!(target.write(b"p/a/b", b"long"), Ok(()));
        assert_eq!(target.write(b"p/a/b", b"x"), Ok(()));
        assert_eq!(fs::read(dir.path().join("new/a/b")).expect("a file"), b"x");
        assert!(target.write(b"p/a", b"a file where a directory is").is_err());
    }
}
