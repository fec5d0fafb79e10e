//! The directory an export writes to, and nothing outside it.
//!
//! Keys come from whoever could write them. A key is a path below the directory only when each of its components is
//! a plain name; and no symbolic link below the directory is followed, whoever made it.
//!
//! A file is written under a name of its own beside its place (`unfinished.rs`), synced, and then renamed over what is
//! there. So a file that is there is whole at any time, the old one or the new one, whatever happens: a full disk, a
//! crash, a power cut. The new one keeps the old one's permissions.
//!
//! Left out: syncing directories, so a power cut may bring back an old file that was said to be written over; owners;
//! two exports to one directory at a time: each may remove what the other has not finished, which that one then says
//! it has not written.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::commands::unfinished;

/// Where files are written.
#[derive(Debug)]
pub struct Target {
    dir: PathBuf,
    prefix: Bytes,
    /// Directories below `dir` found to be real ones.
    real: HashSet<PathBuf>,
}

impl Target {
    /// Makes `dir` if it is not there. What an export that was killed left in it is removed.
    ///
    /// # Errors
    /// When it can be neither used nor made.
    pub fn open(dir: &Path, prefix: Bytes) -> io::Result<Target> {
        fs::create_dir_all(dir)?;
        remove_unfinished(dir);
        Ok(Target { dir: dir.to_owned(), prefix, real: HashSet::new() })
    }

    /// Writes a key's value to its file, over what is there.
    ///
    /// # Errors
    /// Why it was not written. What was there is as it was.
    pub fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let relative = relative(key, &self.prefix)?;
        self.write_below(&relative, value).map_err(|error| error.to_string())
    }

    fn write_below(&mut self, relative: &Path, value: &[u8]) -> io::Result<()> {
        if let Some(parent) = relative.parent() {
            self.make_real(parent)?;
        }
        replace(&self.dir.join(relative), |file| file.write_all(value))
    }

    /// Makes the directories of `relative` that are not there, and sees to it that none is a link.
    fn make_real(&mut self, relative: &Path) -> io::Result<()> {
        let mut path = PathBuf::new();
        for name in relative.components() {
            path.push(name);
            if !self.real.contains(&path) {
                let directory = self.dir.join(&path);
                make_directory(&directory)?;
                remove_unfinished(&directory);
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

/// Removes what exports that were killed have left in a directory, which is no link.
fn remove_unfinished(directory: &Path) {
    // Such a file harms nobody, so that not to find or remove it is no error.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && unfinished::is_one(entry.file_name().as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes what `fill` writes the regular file at `path`, whose directory is no link; or leaves what is there.
fn replace(path: &Path, fill: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
    let old = old_permissions(path)?;
    let unfinished = path.with_file_name(unfinished::name());
    // Nobody may read on the way what the old file's permissions keep from them.
    let mode = if old.is_some() { 0o600 } else { 0o666 };
    // Only what was not there is opened, so no link either.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    let permitted = old.map_or(Ok(()), |old| file.set_permissions(old));
    let written = permitted.and_then(|()| fill(&mut file)).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| fs::rename(&unfinished, path));
    if renamed.is_err() {
        // What cannot even be removed is known by its name.
        let _ = fs::remove_file(&unfinished);
    }
    renamed
}

/// The permissions of the file at `path`, if there is one.
///
/// # Errors
/// Something else is there: a link, too, is left alone.
fn old_permissions(path: &Path) -> io::Result<Option<fs::Permissions>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.permissions())),
        Ok(_) => Err(io::Error::other("there is something else than a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
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
        name if unfinished::is_one(name) => Err("it has a component that names an unfinished file".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const UNFINISHED: &str = ".kvctl-export-0123456789abcdef";

    /// The names in a directory.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a list").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn full(file: &mut fs::File) -> io::Result<()> {
        file.write_all(b"half of i")?;
        Err(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn what_fails_half_way_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        assert!(replace(&path, full).is_err());
        assert_eq!(names(dir.path()), [""; 0], "there was nothing");
        fs::write(&path, b"old and good").expect("a file");
        assert!(replace(&path, full).is_err());
        assert_eq!(
            (names(dir.path()), fs::read(&path).expect("a file")),
            (vec!["f".to_owned()], b"old and good".to_vec())
        );
        assert!(replace(&path, |file| file.write_all(b"new")).is_ok());
        assert_eq!((names(dir.path()), fs::read(&path).expect("a file")), (vec!["f".to_owned()], b"new".to_vec()));
    }

    #[test]
    fn while_it_is_written_the_old_file_is_whole_and_what_is_written_has_a_known_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        fs::write(&path, b"old").expect("a file");
        let looked = replace(&path, |file| {
            file.write_all(b"new")?;
            assert_eq!(fs::read(&path)?, b"old");
            let beside: Vec<String> = names(dir.path()).into_iter().filter(|name| name != "f").collect();
            assert!(beside.len() == 1 && unfinished::is_one(beside[0].as_bytes()), "{beside:?}");
            Ok(())
        });
        assert!(looked.is_ok());
    }

    #[test]
    fn the_old_files_permissions_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        fs::write(&path, b"old").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        let mut target = Target::open(dir.path(), Bytes::new()).expect("a target");
        assert_eq!(target.write(b"f", b"new"), Ok(()));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_a_killed_export_left_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).expect("a directory");
        for place in [dir.path(), sub.as_path()] {
            fs::write(place.join(UNFINISHED), b"half").expect("a file");
            fs::write(place.join(".kvctl-export-mine"), b"whole").expect("a file");
        }
        // A directory of such a name is nobody's leftover.
        fs::create_dir(sub.join(".kvctl-export-fedcba9876543210")).expect("a directory");
        let mut target = Target::open(dir.path(), Bytes::new()).expect("a target");
        assert_eq!(target.write(b"sub/f", b"x"), Ok(()));
        assert_eq!(names(dir.path()), [".kvctl-export-mine", "sub"]);
        assert_eq!(names(&sub), [".kvctl-export-fedcba9876543210", ".kvctl-export-mine", "f"]);
    }

    #[test]
    fn a_key_that_would_look_unfinished_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut target = Target::open(dir.path(), Bytes::new()).expect("a target");
        for key in [UNFINISHED.to_owned(), format!("{UNFINISHED}/f")] {
            assert!(target.write(key.as_bytes(), b"x").is_err(), "{key}");
        }
        assert_eq!(names(dir.path()), [""; 0]);
    }

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
