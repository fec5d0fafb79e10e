//! `jepsen ledger`: what a ledger shows, and whether that is enough.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::checker::Valid;
use crate::ledger::{self, Bounds, Line, Sum, is_since};

// What is said of this structure in a doc comment would be the command line's help.
#[derive(Debug, clap::Args)]
pub struct Summary {
    /// A ledger
    #[arg(default_value = "docs/chaos/ledger.jsonl")]
    file: PathBuf,
    #[command(flatten)]
    bounds: Bounds,
    /// Print the last commit of this checkout that changed anything but documents, and nothing else
    #[arg(long)]
    print_last_commit: bool,
}

impl Summary {
    /// Prints the sums of its lines, and what they do not show. False when there is any of that; unknown when no run in
    /// it counts.
    ///
    /// # Errors
    /// There is no ledger that can be read; the last commit is asked for, and neither given nor checked out; or what is
    /// checked out does not hold the one since which runs count.
    pub fn run(&self) -> anyhow::Result<Valid> {
        if self.print_last_commit {
            println!("{}", ledger::commit()?);
            return Ok(Valid::True);
        }
        let commits = self.bounds.since.as_deref().map(ledger::commits_since).transpose()?;
        self.judge(commits.as_ref())
    }

    /// The same, of the runs on these commits; `None`: on all.
    fn judge(&self, commits: Option<&BTreeSet<String>>) -> anyhow::Result<Valid> {
        let path = self.file.display();
        ensure!(self.file.exists(), "there is no ledger {path}");
        let ledger = ledger::read(&self.file).with_context(|| path.to_string())?;
        if let Some(warning) = ledger.warning() {
            eprintln!("jepsen: {path}: {warning}");
        }
        print!("{}", ledger::by_commit(&ledger.lines));
        let counted = |line: &&Line| line.is_of_trefoil() && is_since(line, commits);
        let counted = Sum::of(ledger.lines.iter().filter(counted));
        let since = self.bounds.since.as_ref().map(|first| format!(", since {first}")).unwrap_or_default();
        print!("all runs of trefoil on clean checkouts{since}\n{counted}");
        let missed = self.bounds()?.missed(&ledger.lines, commits);
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
