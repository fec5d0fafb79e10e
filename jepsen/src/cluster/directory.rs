//! Replacing the data directory of a dead node by one that is not the newest of its name, and putting it back.
//!
//! The original is moved aside and never written to. While it is there the node runs on the replacement, which goes when
//! the original comes back; or the original goes, and the node keeps the replacement.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::generator::Dice;

/// What comes in a directory's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// Nothing: the node has forgotten all it knew.
    Nothing,
    /// The directory, but the end of its newest write-ahead log is missing.
    Cut,
    /// The directory as it was at an earlier time at which the node was down.
    OldCopy,
}

/// A write-ahead log shorter than this is not worth cutting: it may hold nothing that was acknowledged.
const LOG_BYTES_MIN: u64 = 4096;
/// Where it has its database.
const DATABASE: &str = "db";

/// The data directory of a node.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(path: PathBuf) -> Directory {
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.0.with_extension(what)
    }

    fn original(&self) -> PathBuf {
        self.beside("original")
    }

    /// It, and all that may stand beside it.
    pub(crate) fn all(&self) -> [PathBuf; 3] {
        [self.0.clone(), self.original(), self.old_copy()]
    }

    /// The copy that [`Directory::copy`] makes.
    fn old_copy(&self) -> PathBuf {
        self.beside("old")
    }

    /// How many bytes there are in its write-ahead logs.
    pub(crate) fn logged_bytes(&self) -> anyhow::Result<u64> {
        Ok(logs(&self.0.join(DATABASE))?.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Whether the node runs on a replacement.
    pub(crate) fn is_replaced(&self) -> bool {
        self.original().exists()
    }

    /// Copies the directory, for later. Replaces an earlier copy.
    pub(crate) fn copy(&self) -> anyhow::Result<()> {
        let copy = self.old_copy();
        remove(&copy)?;
        copy_all(&self.0, &copy)
    }

    /// Moves the directory aside, and puts the replacement in its place. Says what that was.
    pub(crate) fn replace(&self, by: Replacement, dice: &mut Dice) -> anyhow::Result<String> {
        let original = self.original();
        ensure!(!original.exists(), "{} is a replacement already", self.0.display());
        move_to(&self.0, &original)?;
        match by {
            Replacement::Nothing => Ok("emptied".to_owned()),
            Replacement::Cut => {
                copy_all(&original, &self.0)?;
                cut_newest_log(&self.0.join(DATABASE), dice)
            }
            Replacement::OldCopy => {
                move_to(&self.old_copy(), &self.0)?;
                Ok("an old copy put back".to_owned())
            }
        }
    }

    /// Removes the original, if there is a replacement: that is then the node's directory.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        remove(&self.original())
    }

    /// Puts the original back, if there is a replacement.
    pub(crate) fn put_back(&self) -> anyhow::Result<()> {
        if self.is_replaced() {
            remove(&self.0)?;
            move_to(&self.original(), &self.0)?;
        }
        Ok(())
    }
}

fn move_to(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

/// Also when there is none.
fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copying = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::create_dir(to).with_context(copying)?;
    for entry in fs::read_dir(from).with_context(copying)? {
        let entry = entry.with_context(copying)?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().with_context(copying)?.is_dir() {
            copy_all(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Cuts off between a quarter and the whole of the newest log that holds something.
fn cut_newest_log(database: &Path, dice: &mut Dice) -> anyhow::Result<String> {
    let (path, bytes) = newest_log(database)?;
    let left = dice.below(bytes * 3 / 4);
    let file = fs::OpenOptions::new().write(true).open(&path);
    file.and_then(|file| file.set_len(left)).with_context(|| format!("cannot cut {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("{name} cut from {bytes} bytes to {left}"))
}

/// The newest log that is worth cutting, and its bytes.
fn newest_log(database: &Path) -> anyhow::Result<(PathBuf, u64)> {
    let newest = logs(database)?.into_iter().rfind(|(_, bytes)| *bytes >= LOG_BYTES_MIN);
    newest.with_context(|| format!("{} has no write-ahead log of {LOG_BYTES_MIN} bytes", database.display()))
}

/// The write-ahead logs of a database and their bytes, the newest last: RocksDB numbers its files upwards. One that is
/// removed meanwhile is left out.
fn logs(database: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(database).with_context(|| format!("cannot read {}", database.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) => logs.push((path, metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }
    logs.sort();
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node's directory with two logs and a mark.
    fn node(folder: &Path) -> Directory {
        let path = folder.join("n1");
        fs::create_dir_all(path.join("db")).expect("made");
        for (name, bytes) in [("db/000008.log", 9000), ("db/000012.log", 8000), ("db/000015.log", 10), ("mark", 96)] {
            fs::write(path.join(name), vec![7; bytes]).expect("written");
        }
        Directory::new(path)
    }

    fn bytes(path: &Path, name: &str) -> Option<u64> {
        fs::metadata(path.join(name)).ok().map(|metadata| metadata.len())
    }

    #[test]
    fn the_original_comes_back_as_it_was() {
        for by in [Replacement::Nothing, Replacement::Cut, Replacement::OldCopy] {
            let folder = tempfile::tempdir().expect("a folder");
            let node = node(folder.path());
            node.copy().expect("copied");
            fs::write(node.path().join("mark"), "newer").expect("written");

            node.replace(by, &mut Dice::new(7)).expect("replaced");
            assert!(node.is_replaced(), "{by:?}");
            assert!(node.replace(by, &mut Dice::new(7)).is_err(), "the original is in nobody's way");
            let (mark, log) = (bytes(node.path(), "mark"), bytes(node.path(), "db/000012.log"));
            match by {
                Replacement::Nothing => assert!(!node.path().exists()),
                Replacement::Cut => assert!(mark == Some(5) && log < Some(8000 * 3 / 4), "{log:?}"),
                Replacement::OldCopy => assert_eq!((mark, log), (Some(96), Some(8000))),
            }
            for _ in 0..2 {
                node.put_back().expect("put back");
                assert!(!node.is_replaced());
                let (mark, log) = (bytes(node.path(), "mark"), bytes(node.path(), "db/000012.log"));
                assert_eq!((mark, log), (Some(5), Some(8000)), "{by:?}");
            }
        }
    }

    #[test]
    fn all_logs_count_and_nothing_else_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node(folder.path());
        assert_eq!(node.logged_bytes().expect("there are logs"), 9000 + 8000 + 10);
        fs::write(node.path().join("db/000016.sst"), vec![7; 500]).expect("written");
        fs::remove_file(node.path().join("db/000008.log")).expect("removed");
        assert_eq!(node.logged_bytes().expect("there are logs"), 8000 + 10);
        fs::remove_dir_all(node.path()).expect("removed");
        assert!(node.logged_bytes().is_err());
    }

    #[test]
    fn a_replacement_that_is_kept_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node(folder.path());
        node.replace(Replacement::Cut, &mut Dice::new(7)).expect("replaced");
        let cut = bytes(node.path(), "db/000012.log");
        assert!(cut < Some(8000), "{cut:?}");
        node.keep().expect("kept");
        assert!(!node.is_replaced());
        node.put_back().expect("there is nothing to do");
        assert_eq!(bytes(node.path(), "db/000012.log"), cut);
    }

    #[test]
    fn a_database_without_a_log_worth_cutting_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node(folder.path());
        for name in ["db/000008.log", "db/000012.log"] {
            fs::remove_file(node.path().join(name)).expect("removed");
        }
        let error = node.replace(Replacement::Cut, &mut Dice::new(7)).expect_err("there is only a short one");
        assert!(error.to_string().contains("has no write-ahead log"), "{error}");
        node.put_back().expect("put back");
        assert_eq!(bytes(node.path(), "db/000015.log"), Some(10));
    }
}
