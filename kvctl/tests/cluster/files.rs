//! Directories: walking, summing, copying and damaging them.
//!
//! Names are bytes throughout: file systems promise nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A SHA-256 sum.
pub type Sum = [u8; 32];

/// All regular files below `root` by their path relative to it. Links are not followed.
pub fn regular_files(root: &Path) -> BTreeMap<Vec<u8>, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("expected to list {folder:?}: {error}"));
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("expected to list {folder:?}: {error}"));
            let kind = entry.file_type().unwrap_or_else(|error| panic!("expected a type of {entry:?}: {error}"));
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let relative = path.strip_prefix(root).expect("a path below its root");
                found.insert(relative.as_os_str().as_bytes().to_vec(), path);
            }
        }
    }
    found
}

/// The sum of one file.
pub fn sum(path: &Path) -> Sum {
    let content = fs::read(path).unwrap_or_else(|error| panic!("expected to read {path:?}: {error}"));
    Sha256::digest(&content).into()
}

/// The sums of all regular files below `root`.
pub fn sums(root: &Path) -> BTreeMap<Vec<u8>, Sum> {
    regular_files(root).into_iter().map(|(name, path)| (name, sum(&path))).collect()
}

/// The sums of whatever is at `path`: of the files below a directory, of a file itself, of nothing.
pub fn tree(path: &Path) -> BTreeMap<Vec<u8>, Sum> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => sums(path),
        Ok(_) => BTreeMap::from([(Vec::new(), sum(path))]),
        Err(_) => BTreeMap::new(),
    }
}

/// Names of the files that are not the same on both sides.
pub fn differences(before: &BTreeMap<Vec<u8>, Sum>, after: &BTreeMap<Vec<u8>, Sum>) -> Vec<String> {
    let names: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differ.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// The write-ahead log that a node's database was writing last, by its path below the node's directory.
pub fn live_log(directory: &Path) -> Vec<u8> {
    let written = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 0);
    let mut files = regular_files(directory).into_iter();
    // Their names are numbers of one length.
    let newest = files.rfind(|(name, path)| name.ends_with(b".log") && written(path));
    newest.unwrap_or_else(|| panic!("expected a write-ahead log below {directory:?}")).0
}

/// A path below a directory, given as bytes.
pub fn below(directory: &Path, name: &[u8]) -> PathBuf {
    directory.join(OsStr::from_bytes(name))
}

/// How many bytes the files below `root` have. Files that vanish meanwhile count nothing.
pub fn bytes_below(root: &Path) -> u64 {
    regular_files(root).values().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

/// Makes `to` a copy of `from`, whatever it was before.
pub fn replace_with_copy(from: &Path, to: &Path) {
    remove(to);
    copy(from, to).unwrap_or_else(|error| panic!("expected to copy {from:?} to {to:?}: {error}"));
}

/// Removes a directory, if it is there.
pub fn remove(directory: &Path) {
    if directory.exists() {
        fs::remove_dir_all(directory).unwrap_or_else(|error| panic!("expected to remove {directory:?}: {error}"));
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What happens to a file that a disk damages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One byte in the middle is another one.
    Flip,
    /// The last third is gone.
    Cut,
}

impl Damage {
    pub fn inflict(self, path: &Path) {
        let mut content = fs::read(path).unwrap_or_else(|error| panic!("expected to read {path:?}: {error}"));
        let length = content.len();
        match self {
            Damage::Flip => content[length / 2] ^= 0xff,
            Damage::Cut => content.truncate(length - length.div_ceil(3)),
        }
        fs::write(path, content).unwrap_or_else(|error| panic!("expected to write {path:?}: {error}"));
    }
}
