//! What a run leaves on disk: its history as JSON lines, and its results.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::checker::{Valid, Verdict, worst};
use crate::coverage::{self, Expected};
use crate::history::{Event, pair, write_lines};
use crate::run::Run;
use crate::wall::Wall;
use crate::workload::{Name, Workload};

/// The sum of a run, as `results.json` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    pub workload: Name,
    pub seed: u64,
    /// When it began, UTC.
    pub date: String,
    /// From the beginning to the last event.
    pub seconds: f64,
    pub valid: Valid,
    pub verdicts: Vec<Verdict>,
    /// Per kind of call: how many ended ok, as failed, as unknown. Without the last calls.
    pub operations: BTreeMap<String, [u64; 3]>,
    /// How often each fault was in force under load.
    pub faults: BTreeMap<String, u64>,
    /// As nodes were seen to say.
    pub leader_changes: u64,
    pub snapshots: u64,
    pub history_sha256: String,
}

const HISTORY: &str = "history.jsonl";

/// Writes the history of a run into `folder`, which is made.
///
/// # Errors
/// It could not be written.
pub fn save_history<C: Serialize, R: Serialize>(folder: &Path, history: &[Event<C, R>]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    write_lines(history, &mut BufWriter::new(File::create(folder.join(HISTORY))?))
}

/// Writes the results of a run into `folder`, where [`save_history`] has left its history.
///
/// # Errors
/// There is no history, or a file could not be written.
pub fn save<W: Workload>(
    folder: &Path,
    (seed, began): (u64, Wall),
    run: &Run<W::Call, W::Reply>,
) -> io::Result<Results> {
    let results = sum::<W>((seed, began), run, sha256(&folder.join(HISTORY))?);
    let json = serde_json::to_vec_pretty(&results)?;
    fs::write(folder.join("results.json"), json)?;
    Ok(results)
}

fn sum<W: Workload>((seed, began): (u64, Wall), run: &Run<W::Call, W::Reply>, history_sha256: String) -> Results {
    let lasted_ms = run.history.last().map_or(0, |event| event.time.0 / 1_000_000);
    Results {
        workload: W::NAME,
        seed,
        date: began.to_string(),
        seconds: lasted_ms as f64 / 1000.0,
        valid: worst(&run.verdicts),
        verdicts: run.verdicts.clone(),
        operations: coverage::counted::<W>(&pair(&run.history)),
        faults: coverage::in_force(&run.history),
        leader_changes: run.observed.times(Expected::LeaderChange),
        snapshots: run.observed.times(Expected::Snapshot),
        history_sha256,
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
