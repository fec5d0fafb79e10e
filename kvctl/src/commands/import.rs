//! `import DIR --prefix P`: each regular file below DIR under the key P + relative path.
//!
//! Many files are on their way at once, over one session, so that repeating after a lost answer writes nothing twice
//! and each key's version stays 1. A file the server refuses is named and the rest goes on; when a file was not
//! stored for a whole minute the cluster is gone, and the import ends. What is no regular file is counted by its kind and
//! named so, and is no failure; nor is a file that an export has not finished.
//!
//! Invariants:
//!
//! * Keys are the bytes of paths, UTF-8 or not.
//! * No symbolic link is followed below DIR, and nothing but regular files is opened.
//! * At most [`BUDGET_KIB`] of files are in memory.

use std::cell::Cell as Flag;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::future;
use futures::stream::{self, StreamExt};
use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use trefoil_client::{Error, Outcome, Session};
use trefoil_world::task;

use super::connect;
use crate::args::{Global, Import};
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Sheet, say};
use crate::{progress, visible};

mod tree;

use tree::{File, Found};

/// Files on their way at once.
const IN_FLIGHT: usize = 64;
/// Kibibytes of files in memory at once.
const BUDGET_KIB: u32 = 64 * 1024;
/// A larger file is not even read: no server takes one in a single message.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// How long a file may take, at least: longer than any election.
const FILE_TIME_MIN: Duration = Duration::from_secs(60);

/// What became of a file.
enum Fate {
    Stored {
        bytes: u64,
    },
    /// Not stored, for a reason of its own; the rest goes on.
    Left(String),
    /// Not stored, or perhaps stored, because the cluster does not answer.
    Failed(Error),
}

/// What became of all of them.
#[derive(Default)]
struct Tally {
    stored: u64,
    bytes: u64,
    left: u64,
    /// The first failure, or the last one whose outcome is unknown.
    failure: Option<Error>,
}

/// Stores the files. Exits 3 when one could not be stored.
pub async fn run(args: Import, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    let found = find(args.dir.clone()).await?;
    let timeout = global.timeout().max(FILE_TIME_MIN);
    let session = connect(global).await?.open_session().timeout(timeout).await?;
    let bar = progress::files(Some(found.files.len() as u64));
    let mut tally = Tally::default();
    for unreadable in &found.unreadable {
        tally.left += 1;
        bar.suspend(|| say(format_args!("not stored: {unreadable}")));
    }
    store_all(found.files, &session, &args.prefix, timeout, &bar, &mut tally).await;
    bar.finish_and_clear();
    if found.skipped.all() > 0 {
        say(format_args!("skipped, since only regular files are stored: {}", found.skipped));
    }
    if found.unfinished > 0 {
        say(format_args!("skipped, since an export has not finished them: files: {}", found.unfinished));
    }
    print(&tally, found.skipped.all() + found.unfinished, output)?;
    tally.ended()?;
    // A session that stays open ends by itself.
    let _ = session.close().await;
    Ok(if tally.left == 0 { Exit::Ok } else { Exit::Failed })
}

async fn find(dir: PathBuf) -> Result<Found, Failure> {
    let shown = dir.display().to_string();
    let cannot = |error: io::Error| Failure::Local(format!("cannot read {shown}: {error}"));
    task::blocking(move || tree::walk(&dir)).await.map_err(cannot)?.map_err(cannot)
}

async fn store_all(
    files: Vec<File>,
    session: &Session,
    prefix: &Bytes,
    timeout: Duration,
    bar: &ProgressBar,
    tally: &mut Tally,
) {
    let budget = Semaphore::new(BUDGET_KIB as usize);
    let store = |file: File| {
        let budget = &budget;
        async move {
            let fate = store(&file, session, prefix, timeout, budget).await;
            (file, fate)
        }
    };
    let ending = Flag::new(false);
    let going_on = stream::iter(files).take_while(|_| future::ready(!ending.get()));
    let mut fates = going_on.map(store).buffer_unordered(IN_FLIGHT);
    // After a failure no more files are begun, but what becomes of those under way is waited for.
    while let Some((file, fate)) = fates.next().await {
        tally.note(&file.path, fate, bar);
        ending.set(tally.failure.is_some());
        bar.inc(1);
    }
}

async fn store(file: &File, session: &Session, prefix: &Bytes, timeout: Duration, budget: &Semaphore) -> Fate {
    if file.size > FILE_MAX {
        return Fate::Left(format!("a file of {} bytes is over the limit of {FILE_MAX}", file.size));
    }
    let kib = u32::try_from(file.size.div_ceil(1024)).unwrap_or(BUDGET_KIB).clamp(1, BUDGET_KIB);
    let Ok(_room) = budget.acquire_many(kib).await else {
        return Fate::Left("the import is ending".to_owned());
    };
    let value = match read(file.path.clone()).await {
        Ok(value) => value,
        Err(error) => return Fate::Left(error.to_string()),
    };
    let bytes = value.len() as u64;
    let key = [&prefix[..], &file.relative].concat();
    match session.put(key, value).timeout(timeout).await {
        Ok(_) => Fate::Stored { bytes },
        Err(error) => match error.outcome() {
            Outcome::Refused => Fate::Left(error.to_string()),
            Outcome::NotDone | Outcome::Unknown => Fate::Failed(error),
        },
    }
}

async fn read(path: PathBuf) -> io::Result<Vec<u8>> {
    task::blocking(move || tree::read(&path, FILE_MAX)).await?
}

impl Tally {
    fn note(&mut self, path: &Path, fate: Fate, bar: &ProgressBar) {
        let path = || visible::line(path.as_os_str().as_bytes());
        match fate {
            Fate::Stored { bytes } => {
                self.stored += 1;
                self.bytes += bytes;
            }
            Fate::Left(why) => {
                self.left += 1;
                bar.suspend(|| say(format_args!("not stored: {}: {why}", path())));
            }
            Fate::Failed(error) => {
                bar.suspend(|| say(format_args!("the import ends at {}", path())));
                let unknown = error.outcome() == Outcome::Unknown;
                if self.failure.is_none() || unknown {
                    self.failure = Some(error);
                }
            }
        }
    }

    /// Why the import ended early, if it did. Some outcome that is unknown goes before others; and once a file is
    /// stored, it is not that nothing was done.
    fn ended(&mut self) -> Result<(), Failure> {
        match self.failure.take() {
            None => Ok(()),
            Some(error) if error.outcome() != Outcome::Unknown && self.stored > 0 => {
                Err(Failure::Local(error.to_string()))
            }
            Some(error) => Err(error.into()),
        }
    }
}

fn print(tally: &Tally, skipped: u64, output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(&["stored", "bytes", "not_stored", "skipped"]);
    sheet.push([tally.stored, tally.bytes, tally.left, skipped].map(Cell::Number).to_vec());
    Ok(output.sheet(&sheet)?)
}
