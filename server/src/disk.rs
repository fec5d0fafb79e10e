//! Opening a node's directory: who may, whether it is whole, and whose it is.
//!
//! Order matters: lock, look without changing anything, judge, and only then open for writing. The start count is
//! raised and the storage id minted with the first synced write. A directory that a founding record names belongs to the
//! node of that name for ever.
//!
//! Invariants:
//!
//! * A refusal changes nothing in the directory but the lock file.
//! * Of the lock and the mark nothing but regular files is opened, and of a mark no more read than it may have.
//! * A database whose recovered position is below its mark, or whose manifest is shorter than the mark remembers, is
//!   refused: it has lost acknowledged writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trefoil_store::engine::rocks::{Inspection, RocksEngine, manifest};
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Manifest, Read};
use trefoil_store::key;
use trefoil_store::mark::{self, BadMark, Mark};
use trefoil_world::planted;

use crate::cluster::founding::FoundingRecord;
use crate::cluster::identity::{ClusterId, Identity, RUNS_MAX, StorageId};
use crate::writer::{MarkKept, MarkSlots, stored_position};

/// The data format this build writes, and the only one it reads.
const FORMAT: u32 = 1;

/// An opened directory.
pub struct OpenDisk {
    pub engine: Arc<dyn Engine>,
    pub mark: MarkSlots,
    /// The writer position the database holds.
    pub position: u64,
    pub beginning: Beginning,
    /// Holds the directory's lock until the process ends.
    pub lock: Option<File>,
}

/// Why a directory is not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{path}: {why}")]
    Io { path: PathBuf, why: io::Error },
    #[error("{path}: another process is using it")]
    InUse { path: PathBuf },
    #[error("{path}: this is the directory of {founded}, not of {given}; start it with --name {founded}")]
    OtherName { path: PathBuf, founded: String, given: String },
    #[error("{path}: a build with a planted bug made this directory; nothing in it can be trusted")]
    Planted { path: PathBuf },
    #[error("{path}: this build has a planted bug; it opens only directories that such a build made")]
    NotPlanted { path: PathBuf },
    #[error("{path}: {why}")]
    Engine { path: PathBuf, why: EngineError },
    #[error("{path}: data format {found} is newer than this version's {FORMAT}")]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{path}: {why}")]
    Mark { path: PathBuf, why: BadMark },
    #[error("{path}: the mark belongs to another directory")]
    ForeignMark { path: PathBuf },
    #[error("{path}: the database is missing beside its mark")]
    NoDatabase { path: PathBuf },
    #[error("{path}: --accept-loss-of-acknowledged-writes is only for a cluster of one; run: kvctl node replace")]
    NotAlone { path: PathBuf },
    #[error("{path}: the mark is missing beside a database")]
    NoMark { path: PathBuf },
    #[error(
        "{path}: {lost} acknowledged batches are missing at the end of the write-ahead log (found {found}, mark {mark}). \
         Restore a backup; or, in a cluster, replace this node (kvctl node replace); or, in a cluster of one, start \
         with --accept-loss-of-acknowledged-writes"
    )]
    LostTail { path: PathBuf, found: u64, mark: u64, lost: u64 },
    #[error("{path}: has {found} bytes, but had {mark}: its end is missing, and with it the names of tables")]
    CutManifest { path: PathBuf, found: u64, mark: u64 },
    #[error("{path}: names manifest {found}, but a later one, {mark}, was in use")]
    OldManifest { path: PathBuf, found: u64, mark: u64 },
}

/// The file that a build with a planted bug puts into the directories it makes.
const PLANTED_MARKER: &str = "planted";

/// Tables up to this size in all are checked whole before a database is opened.
const VERIFY_BYTES_MAX: u64 = 2 << 30;

/// Opens `dir` for the node called `name`, creating it when missing. `accept_loss` opens the database of a cluster of
/// one that is behind its mark, under a new cluster id.
///
/// # Errors
/// See [`DiskError`].
pub fn open(dir: &Path, name: &str, accept_loss: bool) -> Result<OpenDisk, DiskError> {
    make_directory(dir).map_err(io(dir))?;
    let lock = lock(dir)?;
    judge_marker(dir)?;
    let db = dir.join("db");
    let mark_path = dir.join("mark");
    let engine_error = |why| DiskError::Engine { path: db.clone(), why };
    match Inspection::open(&db).map_err(engine_error)? {
        Some(found) => {
            judge_name(&found, dir, name)?;
            match judge(&found, &db, &mark_path) {
                Err(DiskError::LostTail { .. }) if accept_loss => {
                    found.verify(VERIFY_BYTES_MAX).map_err(engine_error)?;
                    accept(&found, &db, &mark_path)?;
                }
                judged => judged?,
            }
        }
        None if mark_path.exists() => return Err(DiskError::NoDatabase { path: db }),
        None => {}
    }
    let engine = RocksEngine::open(&db).map_err(engine_error)?;
    let beginning = begin(&engine).map_err(engine_error)?;
    let position = stored_position(&engine).map_err(engine_error)?;
    let mut mark = open_mark(&mark_path, beginning.storage, position).map_err(io(&mark_path))?;
    if let Some(manifest) = engine.manifest_since(Manifest::default()).map_err(engine_error)? {
        mark.note_manifest(position, manifest).map_err(engine_error)?;
    }
    Ok(OpenDisk { engine: Arc::new(engine), mark, position, beginning, lock: Some(lock) })
}

/// Makes the directory and those above it that are missing, so that a power cut does not take their names away again.
fn make_directory(dir: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = dir.ancestors().take_while(missing).collect();
    std::fs::create_dir_all(dir)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// How many nodes founded the cluster of the directory `dir`; nothing when it is not of one yet, or not there.
///
/// # Errors
/// Another process uses the directory, or its database cannot be read.
pub fn founders(dir: &Path) -> Result<Option<usize>, DiskError> {
    let db = dir.join("db");
    if !db.exists() {
        return Ok(None);
    }
    let _lock = lock(dir)?;
    let engine_error = |why| DiskError::Engine { path: db.clone(), why };
    let Some(found) = Inspection::open(&db).map_err(engine_error)? else { return Ok(None) };
    let row = found.get(Family::Node, key::node::FOUNDING).map_err(engine_error)?;
    // A record that cannot be read is left to the node's start.
    Ok(row.and_then(|row| FoundingRecord::decode(row).ok()).map(|record| record.founders.len()))
}

fn io(path: &Path) -> impl Fn(io::Error) -> DiskError + use<> {
    let path = path.to_owned();
    move |why| DiskError::Io { path: path.clone(), why }
}

/// Makes the rest of a cluster of one a cluster of its own, so that it is never taken for the one it was.
fn accept(found: &Inspection, db: &Path, mark_path: &Path) -> Result<(), DiskError> {
    let engine_error = |why| DiskError::Engine { path: db.to_owned(), why };
    let record = found.get(Family::Node, key::node::FOUNDING).map_err(engine_error)?;
    let record = record.map(FoundingRecord::decode).transpose().map_err(|why| engine_error(why.into()))?;
    let Some(mut record) = record.filter(|record| record.founders.len() == 1) else {
        return Err(DiskError::NotAlone { path: db.to_owned() });
    };
    record.cluster = ClusterId(trefoil_world::random::next_u128());
    let mut batch = Batch::new();
    batch.put(Family::Node, key::node::FOUNDING, &record.encode());
    batch.put(Family::Node, key::node::IDENTITY, &Identity::encode(record.cluster, record.founders[0].node));
    let engine = RocksEngine::open(db).map_err(engine_error)?;
    engine.write(&batch, Durability::Sync).map_err(engine_error)?;
    std::fs::remove_file(mark_path).map_err(io(mark_path))
}

fn lock(dir: &Path) -> Result<File, DiskError> {
    let path = dir.join("lock");
    let open = open_regular(&path, OpenOptions::new().create(true).truncate(false).write(true));
    let file = open.map_err(io(&path))?;
    // SAFETY: the descriptor is open for as long as `file` lives; flock touches no memory.
    let held = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if held == 0 { Ok(file) } else { Err(DiskError::InUse { path: dir.to_owned() }) }
}

/// Opens a file that is a regular one: a pipe's other end may never come, and a device may never end. What is no file
/// that can be opened so, such as a folder, the system refuses in its own words.
fn open_regular(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    let is_file = |found: &std::fs::Metadata| found.is_file() || found.is_dir();
    let irregular = || io::Error::other("is not a regular file");
    if std::fs::metadata(path).is_ok_and(|found| !is_file(&found)) {
        return Err(irregular());
    }
    // What was put there since does not keep the open waiting either.
    let file = how.custom_flags(libc::O_NONBLOCK).open(path)?;
    if is_file(&file.metadata()?) { Ok(file) } else { Err(irregular()) }
}

/// Of a longer file no more is read than shows that it is longer.
fn read_mark(path: &Path) -> io::Result<Result<Mark, BadMark>> {
    let file = open_regular(path, OpenOptions::new().read(true))?;
    let mut bytes = Vec::new();
    (&file).take(mark::FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > mark::FILE_BYTES {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        return Ok(Err(BadMark::Length(length)));
    }
    Ok(Mark::decode_file(&bytes))
}

/// Builds with planted bugs mark the directories they make, open no others, and nobody else opens those.
fn judge_marker(dir: &Path) -> Result<(), DiskError> {
    let marker = dir.join(PLANTED_MARKER);
    let is_new = !dir.join("db").exists() && !dir.join("mark").exists();
    match (planted::COMPILED_IN, marker.exists()) {
        (false, false) | (true, true) => Ok(()),
        (false, true) => Err(DiskError::Planted { path: dir.to_owned() }),
        (true, false) if is_new => {
            let made = File::create(&marker).and_then(|file| file.sync_all());
            made.and_then(|()| File::open(dir)?.sync_all()).map_err(io(&marker))
        }
        (true, false) => Err(DiskError::NotPlanted { path: dir.to_owned() }),
    }
}

/// A node keeps the name it was founded by. Rows that cannot be read are left to those who need them.
fn judge_name(found: &Inspection, dir: &Path, given: &str) -> Result<(), DiskError> {
    let row = |key: &[u8]| {
        let row = found.get(Family::Node, key);
        row.map_err(|why| DiskError::Engine { path: dir.join("db"), why })
    };
    let record = row(key::node::FOUNDING)?.and_then(|row| FoundingRecord::decode(row).ok());
    let storage = row(key::node::STORAGE_ID)?.and_then(|row| Some(u128::from_be_bytes(row.as_ref().try_into().ok()?)));
    let (Some(record), Some(storage)) = (record, storage) else { return Ok(()) };
    match record.misnamed(StorageId(storage), given) {
        None => Ok(()),
        Some(founded) => {
            let (founded, given) = (founded.to_owned(), given.to_owned());
            Err(DiskError::OtherName { path: dir.to_owned(), founded, given })
        }
    }
}

/// Looks at a database without changing it.
fn judge(found: &Inspection, db: &Path, mark_path: &Path) -> Result<(), DiskError> {
    let engine_error = |why| DiskError::Engine { path: db.to_owned(), why };
    let format = found.get(Family::Node, key::node::FORMAT).map_err(engine_error)?;
    if let Some(format) = format {
        let format = u32::from_be_bytes(
            format
                .as_ref()
                .try_into()
                .map_err(|_| engine_error(EngineError::Corrupt("the format row is malformed".into())))?,
        );
        if format > FORMAT {
            return Err(DiskError::NewerFormat { path: db.to_owned(), found: format });
        }
    }
    let position = stored_position(found).map_err(engine_error)?;
    let storage = found.get(Family::Node, key::node::STORAGE_ID).map_err(engine_error)?;
    let founded = found.get(Family::Node, key::node::FOUNDING).map_err(engine_error)?.is_some();
    let mark = match read_mark(mark_path) {
        Ok(mark) => mark.map_err(|why| DiskError::Mark { path: mark_path.to_owned(), why })?,
        // A crash before the mark's creation leaves a database that has promised nothing to anybody.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !founded => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(DiskError::NoMark { path: mark_path.to_owned() });
        }
        Err(why) => return Err(DiskError::Io { path: mark_path.to_owned(), why }),
    };
    if storage.is_some_and(|storage| storage.as_ref() != mark.storage_id.to_be_bytes()) {
        return Err(DiskError::ForeignMark { path: mark_path.to_owned() });
    }
    if mark.position > position {
        let lost = mark.position - position;
        return Err(DiskError::LostTail { path: db.to_owned(), found: position, mark: mark.position, lost });
    }
    judge_manifest(db, mark.manifest)?;
    found.verify(VERIFY_BYTES_MAX).map_err(engine_error)
}

/// RocksDB itself takes a manifest that was cut for an older version of the database.
fn judge_manifest(db: &Path, known: Manifest) -> Result<(), DiskError> {
    let engine_error = |why| DiskError::Engine { path: db.to_owned(), why };
    let Some((path, found)) = manifest(db).map_err(engine_error)? else { return Ok(()) };
    if found.number < known.number {
        return Err(DiskError::OldManifest { path: db.join("CURRENT"), found: found.number, mark: known.number });
    }
    if found.number == known.number && found.bytes < known.bytes {
        return Err(DiskError::CutManifest { path, found: found.bytes, mark: known.bytes });
    }
    Ok(())
}

/// What a start has put on disk before anything was said to anybody.
pub struct Beginning {
    pub storage: StorageId,
    pub start_count: u64,
    /// The random ids of the last starts, oldest first; the last one is this start's.
    pub runs: Vec<u64>,
}

/// Mints the storage id on the first start, raises the start count and adds a run id, durably.
///
/// # Errors
/// The engine cannot be read or written.
pub fn begin(engine: &dyn Engine) -> Result<Beginning, EngineError> {
    let malformed = |what: &str| EngineError::Corrupt(format!("the {what} row is malformed"));
    let storage = match engine.get(Family::Node, key::node::STORAGE_ID)? {
        Some(row) => u128::from_be_bytes(row.as_ref().try_into().map_err(|_| malformed("storage id"))?),
        None => trefoil_world::random::next_u128(),
    };
    let starts = match engine.get(Family::Node, key::node::START_COUNT)? {
        Some(row) => u64::from_be_bytes(row.as_ref().try_into().map_err(|_| malformed("start count"))?),
        None => 0,
    };
    let runs = engine.get(Family::Node, key::node::RUNS)?.unwrap_or_default();
    let mut runs: Vec<u64> =
        runs.chunks_exact(8).map(|run| u64::from_be_bytes(run.try_into().expect("8 bytes"))).collect();
    runs.push(trefoil_world::random::next_u64());
    runs.drain(..runs.len().saturating_sub(RUNS_MAX));
    let position = stored_position(engine)? + 1;
    let mut batch = Batch::new();
    batch.put(Family::Node, key::node::FORMAT, &FORMAT.to_be_bytes());
    batch.put(Family::Node, key::node::STORAGE_ID, &storage.to_be_bytes());
    batch.put(Family::Node, key::node::START_COUNT, &(starts + 1).to_be_bytes());
    batch.put(Family::Node, key::node::RUNS, &runs.iter().flat_map(|run| run.to_be_bytes()).collect::<Vec<u8>>());
    batch.put(Family::Node, key::node::POSITION, &position.to_be_bytes());
    engine.write(&batch, Durability::Sync)?;
    Ok(Beginning { storage: StorageId(storage), start_count: starts + 1, runs })
}

fn open_mark(path: &Path, storage: StorageId, position: u64) -> io::Result<MarkSlots> {
    if !path.exists() {
        let fresh = path.with_extension("new");
        let mut file = open_regular(&fresh, OpenOptions::new().create(true).truncate(true).write(true))?;
        file.write_all(&Mark::fresh_file(storage.0))?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    }
    let file = open_regular(path, OpenOptions::new().read(true).write(true))?;
    let mut mark = MarkSlots::open(MarkKept::File(file), storage.0)?;
    mark.note(position).map_err(io::Error::other)?;
    Ok(mark)
}

/// Bytes free for this process on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: statvfs is plain data for which all zeroes are valid, and `path` is a terminated string.
    let (result, stats) = unsafe {
        let mut stats: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut stats), stats)
    };
    if result == 0 { Ok(stats.f_bavail * stats.f_frsize) } else { Err(io::Error::last_os_error()) }
}
