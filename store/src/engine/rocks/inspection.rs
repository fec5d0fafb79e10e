//! Looking at a database's directory without changing anything in it, before it is opened for writing.
//!
//! The write-ahead log is replayed in memory only. What can be seen without RocksDB is read off the files' names, and off
//! `CURRENT`, which names the manifest.
//!
//! Invariant: a directory is left byte for byte as it was, refused or not.
//!
//! Left out: whom the directory belongs to, and whether its tail is all there, which the server judges.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{Options, ReadOptions};

use crate::engine::rocks::options::{descriptors, options};
use crate::engine::rocks::{Db, error, get, handle, scan};
use crate::engine::{EngineError, Family, Manifest, Order, Read, Span, Visit};

/// A database opened for looking at: nothing on disk changes.
pub struct Inspection {
    db: Arc<Db>,
}

impl Inspection {
    /// Replays the write-ahead log in memory only. `None` when the directory holds no database yet.
    ///
    /// # Errors
    /// What RocksDB finds wrong with its files, naming the file; a family this version does not know.
    pub fn open(path: &Path) -> Result<Option<Inspection>, EngineError> {
        if !path.join("CURRENT").exists() {
            return refuse_headless(path).map(|()| None);
        }
        let options = options(false);
        check_families(&options, path)?;
        let db = Db::open_cf_descriptors_read_only(&options, path, descriptors(), false).map_err(error)?;
        Ok(Some(Inspection { db: Arc::new(db) }))
    }

    /// Reads every table block and checks its checksum, when there are at most `bytes_max` of them: damage is then
    /// found before anything is changed. Larger databases are checked as they are read.
    ///
    /// # Errors
    /// The first damaged block, naming the file.
    #[expect(deprecated, reason = "deprecated as an optimisation; here it decides what is read")]
    pub fn verify(&self, bytes_max: u64) -> Result<(), EngineError> {
        let mut bytes = 0;
        for family in Family::ALL {
            let size = self.db.property_int_value_cf(handle(&self.db, family)?, "rocksdb.total-sst-files-size");
            bytes += size.map_err(error)?.unwrap_or(0);
        }
        if bytes > bytes_max {
            return Ok(());
        }
        for family in Family::ALL {
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            // What a removed range hides is read too: its blocks may hold other rows.
            options.set_ignore_range_deletions(true);
            options.fill_cache(false);
            options.set_readahead_size(2 << 20);
            let all = Span { from: Vec::new(), to: None };
            scan(&self.db, family, &all, Order::Ascending, options, &mut |_, _| Visit::Next)?;
        }
        Ok(())
    }
}

impl Read for Inspection {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        get(&self.db, family, key, &ReadOptions::default())
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        scan(&self.db, family, span, order, ReadOptions::default(), visit)
    }
}

/// A directory with data files but without `CURRENT` has lost it: creating a fresh database there would bury them.
fn refuse_headless(path: &Path) -> Result<(), EngineError> {
    let Ok(files) = path.read_dir() else { return Ok(()) };
    for file in files {
        let name = file.map_err(|error| EngineError::Io(error.to_string()))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log") {
            return Err(EngineError::Corrupt(format!("{}: CURRENT is missing", path.display())));
        }
    }
    Ok(())
}

fn check_families(options: &Options, path: &Path) -> Result<(), EngineError> {
    let known = |name: &String| name == "default" || Family::ALL.iter().any(|family| family.name() == name);
    let families = Db::list_cf(options, path).map_err(error)?;
    match families.iter().find(|name| !known(name)) {
        Some(name) => Err(EngineError::Corrupt(format!("column family '{name}' is of a newer data format"))),
        None => Ok(()),
    }
}

/// The manifest `CURRENT` names, and its size; nothing when there is no database.
pub fn manifest(path: &Path) -> Result<Option<(PathBuf, Manifest)>, EngineError> {
    let io = |file: &Path, error: std::io::Error| EngineError::Io(format!("{}: {error}", file.display()));
    let current = path.join("CURRENT");
    let name = match std::fs::read_to_string(&current) {
        Ok(name) => name,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(&current, error)),
    };
    let number = name.trim_end().strip_prefix("MANIFEST-").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| EngineError::Corrupt(format!("{}: names no manifest", current.display())))?;
    let file = path.join(name.trim_end());
    let bytes = std::fs::metadata(&file).map_err(|error| io(&file, error))?.len();
    Ok(Some((file, Manifest { number, bytes })))
}
