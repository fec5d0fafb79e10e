//! What a run leaves on disk: its history as JSON lines, and its results.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::checker::{Valid, Verdict};
use crate::history::{FaultPhase, Outcome, What, pair, write_lines};
use crate::run::{Run, verdict};
use crate::workload::Workload;

/// The sum of a run, as `results.json` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    pub workload: String,
    pub seed: u64,
    pub valid: Valid,
    pub verdicts: Vec<Verdict>,
    /// Per kind of call: how many ended ok, as failed, as unknown.
    pub operations: BTreeMap<String, [u64; 3]>,
    /// How often each fault was in force.
    pub faults: BTreeMap<String, u64>,
    pub history_sha256: String,
}

/// Writes history and results of a run into `folder`, which is made.
///
/// # Errors
/// A file could not be written.
pub fn save<W: Workload>(folder: &Path, seed: u64, run: &Run<W::Call, W::Reply>) -> io::Result<Results> {
    fs::create_dir_all(folder)?;
    let path = folder.join("history.jsonl");
    write_lines(&run.history, &mut BufWriter::new(File::create(&path)?))?;
    let results = sum::<W>(seed, run, sha256(&path)?);
    let json = serde_json::to_vec_pretty(&results)?;
    fs::write(folder.join("results.json"), json)?;
    Ok(results)
}

fn sum<W: Workload>(seed: u64, run: &Run<W::Call, W::Reply>, history_sha256: String) -> Results {
    let mut operations: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for operation in pair(&run.history) {
        let counts = operations.entry(W::kind(&operation.call).to_owned()).or_default();
        let place = match operation.outcome {
            Outcome::Ok(_) => 0,
            Outcome::Fail(_) => 1,
            Outcome::Info(_) => 2,
        };
        counts[place] += 1;
    }
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for event in &run.history {
        if let What::Fault { name, phase: FaultPhase::InForce, .. } = &event.what {
            *faults.entry(name.clone()).or_default() += 1;
        }
    }
    Results {
        workload: W::NAME.to_owned(),
        seed,
        valid: verdict(run),
        verdicts: run.verdicts.clone(),
        operations,
        faults,
        history_sha256,
    }
}

fn sha256(path: &PathBuf) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
