//! What a run leaves on disk: its history as JSON lines, and its results; and what of its nodes it does not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::checker::{Valid, Verdict, worst};
use crate::coverage::{self, Expected};
use crate::history::{Event, pair, write_lines};
use crate::run::Run;
use crate::target::Target;
use crate::wall::Wall;
use crate::workload::{Name, Workload};

/// The sum of a run, as `results.json` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    pub target: Target,
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
    /// How often a fault came to be in force while another one was.
    pub pairs: u64,
    /// As nodes were seen to say.
    pub leader_changes: u64,
    /// Of the default partition.
    pub snapshots_built: u64,
    pub snapshots_installed: u64,
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

/// Writes the results of a run into `folder`, which is there.
///
/// # Errors
/// They could not be written.
pub fn save(folder: &Path, results: &Results) -> io::Result<()> {
    fs::write(folder.join("results.json"), serde_json::to_vec_pretty(results)?)
}

/// Removes what nodes that are dead have left on their disks. What cannot be removed is told on stderr, and stays.
pub fn remove_data(folders: &[PathBuf]) {
    for folder in folders {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("jepsen: {} is not removed: {error}", folder.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// What a run came to.
pub fn sum<W: Workload>((target, seed, began): (Target, u64, Wall), run: &Run<W::Call, W::Reply>) -> Results {
    let lasted_ms = run.history.last().map_or(0, |event| event.time.0 / 1_000_000);
    Results {
        target,
        workload: W::NAME,
        seed,
        date: began.to_string(),
        seconds: lasted_ms as f64 / 1000.0,
        valid: worst(&run.verdicts),
        verdicts: run.verdicts.clone(),
        operations: coverage::counted::<W>(&pair(&run.history)),
        faults: coverage::in_force(&run.history),
        pairs: coverage::pairs(&run.history),
        leader_changes: run.observed.times(Expected::LeaderChange),
        snapshots_built: run.observed.snapshots_built(),
        snapshots_installed: run.observed.times(Expected::Snapshot),
        history_sha256: sha256_of_lines(&run.history),
    }
}

/// Of what [`save_history`] writes: the results do not depend on whether the file can be read again.
fn sha256_of_lines<C: Serialize, R: Serialize>(history: &[Event<C, R>]) -> String {
    let mut hasher = Sha256::new();
    write_lines(history, &mut hasher).expect("a hasher takes all, and calls and replies are plain data");
    hex(hasher)
}

/// Of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex(hasher))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Nanos, Process, What};

    #[test]
    fn data_goes_and_all_else_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["n1/db", "n1.disk/kept", "n2"] {
            fs::create_dir_all(path(name)).expect("made");
        }
        fs::write(path("n1/db/000008.log"), "entries").expect("written");
        fs::write(path("n1.1.log"), "said").expect("written");
        remove_data(&["n1", "n1.original", "n1.old", "n1.disk"].map(path));
        let left = fs::read_dir(folder.path()).expect("it is there").map(|entry| entry.expect("read").file_name());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["n1.1.log", "n2"]);
    }

    #[test]
    fn the_sum_of_a_history_is_that_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let invoke = |call| Event { time: Nanos(call), what: What::Invoke { process: Process(0), call } };
        let histories: [Vec<Event<u64, u64>>; 2] = [Vec::new(), vec![invoke(1), invoke(2)]];
        for (number, history) in histories.iter().enumerate() {
            let folder = folder.path().join(number.to_string());
            save_history(&folder, history).expect("written");
            assert_eq!(sha256_of_lines(history), sha256(&folder.join(HISTORY)).expect("it is there"));
        }
    }
}
