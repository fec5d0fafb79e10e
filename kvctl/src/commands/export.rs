//! `export PREFIX DIR`: writes keys back as files, `import`'s opposite.
//!
//! A key that does not name a file below DIR is refused by name, the rest is written, and the exit code is 3. What
//! could not be written leaves the file that was there (`target.rs`).

use bytes::Bytes;
use futures::stream::StreamExt;
use trefoil_client::{Client, Error, KeyRange, KeyValue};
use trefoil_world::task;

use crate::args::Export;
use crate::exit::{Exit, Failure};
use crate::output::{Cell, Output, Sheet, say};
use crate::{progress, visible};

mod target;

use target::Target;

/// Pairs that are handed over to be written at once.
const BATCH: usize = 64;

/// What became of all keys.
#[derive(Default)]
struct Tally {
    written: u64,
    bytes: u64,
    /// Keys that were not written, and why.
    left: Vec<String>,
}

/// Writes the files. Exits 3 when a key could not be written.
pub async fn run(args: Export, client: &Client, output: &mut Output) -> Result<Exit, Failure> {
    let mut target = Target::open(&args.dir, args.prefix.clone())
        .map_err(|error| Failure::Local(format!("cannot use {}: {error}", args.dir.display())))?;
    let bar = progress::files(count(client, &args.prefix).await);
    let mut batches = client.scan(KeyRange::Prefix(args.prefix)).stream().ready_chunks(BATCH);
    let (mut written, mut bytes, mut left) = (0, 0, 0);
    while let Some(batch) = batches.next().await {
        let (back, tally, ended) = write(target, batch).await?;
        target = back;
        tally.left.iter().for_each(|why| bar.suspend(|| say(format_args!("not written: {why}"))));
        (written, bytes, left) = (written + tally.written, bytes + tally.bytes, left + tally.left.len() as u64);
        bar.set_position(written + left);
        if let Some(error) = ended {
            return Err(error.into());
        }
    }
    bar.finish_and_clear();
    let mut sheet = Sheet::new(&["written", "bytes", "not_written"]);
    sheet.push([written, bytes, left].map(Cell::Number).to_vec());
    output.sheet(&sheet)?;
    Ok(if left == 0 { Exit::Ok } else { Exit::Failed })
}

/// How many keys there are now, when there is a bar to show it. Without an answer the bar has no end.
async fn count(client: &Client, prefix: &Bytes) -> Option<u64> {
    if !progress::is_seen() {
        return None;
    }
    client.scan(KeyRange::Prefix(prefix.clone())).count_only().await.ok()?.count
}

/// Writes what has come, off the async threads; answers also the error the scan ended with.
async fn write(
    mut target: Target,
    batch: Vec<Result<KeyValue, Error>>,
) -> Result<(Target, Tally, Option<Error>), Failure> {
    let work = move || {
        let mut tally = Tally::default();
        for item in batch {
            match item {
                Ok(pair) => tally.note(&pair, &mut target),
                Err(error) => return (target, tally, Some(error)),
            }
        }
        (target, tally, None)
    };
    task::blocking(work).await.map_err(|error| Failure::Local(format!("cannot write: {error}")))
}

impl Tally {
    fn note(&mut self, pair: &KeyValue, target: &mut Target) {
        match target.write(&pair.key, &pair.value) {
            Ok(()) => {
                self.written += 1;
                self.bytes += pair.value.len() as u64;
            }
            Err(why) => self.left.push(format!("{}: {why}", visible::line(&pair.key))),
        }
    }
}
