//! `jepsen ledger`: what a ledger shows, and whether that is enough.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::checker::Valid;
use crate::ledger::{self, Bounds, Sum};

// What is said of this structure in a doc comment would be the command line's help.
#[derive(Debug, clap::Args)]
pub struct Summary {
    /// A ledger
    #[arg(default_value = "docs/chaos/ledger.jsonl")]
    file: PathBuf,
    #[command(flatten)]
    bounds: Bounds,
}

impl Summary {
    /// Prints the sums of its lines, and what they do not show. False when there is any of that; unknown when no run in
    /// it counts.
    ///
    /// # Errors
    /// There is no ledger that can be read; or the last commit is asked for, and neither given nor checked out.
    pub fn run(&self) -> anyhow::Result<Valid> {
        let path = self.file.display();
        ensure!(self.file.exists(), "there is no ledger {path}");
        let ledger = ledger::read(&self.file).with_context(|| path.to_string())?;
        if let Some(warning) = ledger.warning() {
            eprintln!("jepsen: {path}: {warning}");
        }
        print!("{}", ledger::by_commit(&ledger.lines));
        let counted = Sum::of(ledger.lines.iter().filter(|line| line.counts()));
        print!("all runs of trefoil on clean checkouts\n{counted}");
        let missed = self.bounds()?.missed(&ledger.lines);
        missed.iter().for_each(|missed| println!("missed: {missed}"));
        Ok(match (missed.is_empty(), counted.runs()) {
            (false, _) => Valid::False,
            (true, 0) => Valid::Unknown,
            (true, _) => Valid::True,
        })
    }

    /// With the last commit, where it is needed.
    fn bounds(&self) -> anyhow::Result<Bounds> {
        let mut bounds = self.bounds.clone();
        if bounds.last_commit_minutes_min > 0 && bounds.last_commit.is_none() {
            bounds.last_commit = Some(ledger::commit()?);
        }
        Ok(bounds)
    }
}
