//! `jepsen check`: judges a stored history again, alone: no cluster, no run.
//!
//! A [`Model`] is a workload, whose history is then judged by all checkers of that workload, or one checker alone.
//! What a run is judged by beside its history (coverage, recovery, crashes) is not in a history, and is not judged.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde::de::DeserializeOwned;

use crate::checker::{Verdict, counter, revision, stale, wgl};
use crate::history::{Event, Operation, pair, read_lines, try_pair};
use crate::workload::register;
use crate::workload::{Name, Workload};

/// What a history is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// Registers with unique values: revisions, and a search for an order
    Register,
    /// Registers whose values come again: a search for an order
    CasRegister,
    /// List-append: strict serializability
    Append,
    /// A set: no element lost, stale, unexpected or doubled
    Set,
    /// A counter: within its bounds, and linearizable
    Counter,
    /// A bank: sums, and the order of transfers
    Bank,
    /// Registers: the order the revisions give, alone
    RegisterRevisions,
    /// Registers: the search for an order, alone
    RegisterSearch,
    /// Registers: no stale read of a process looks at less than the process has seen or written
    RegisterNeverBack,
    /// A counter: within its bounds, alone
    CounterBounds,
}

/// Judges the history in `path`: a file of JSON lines, or a run's folder with its `history.jsonl`.
///
/// # Errors
/// There is none that can be read, or it is not of that workload, or it breaks the rules of a history.
pub fn judge(path: &Path, model: Model) -> anyhow::Result<Vec<Verdict>> {
    Ok(match model {
        Model::Register => of_workload(path, Name::Register)?,
        Model::CasRegister => of_workload(path, Name::CasRegister)?,
        Model::Append => of_workload(path, Name::Append)?,
        Model::Set => of_workload(path, Name::Set)?,
        Model::Counter => of_workload(path, Name::Counter)?,
        Model::Bank => of_workload(path, Name::Bank)?,
        Model::RegisterRevisions => vec![revision::check(&operations(path)?)],
        Model::RegisterSearch => vec![wgl::registers(&operations(path)?, wgl::STEPS_MAX)],
        Model::RegisterNeverBack => vec![stale::never_back(&operations(path)?, register::shown)],
        Model::CounterBounds => vec![counter::bounds(&operations(path)?)],
    })
}

fn of_workload(path: &Path, name: Name) -> anyhow::Result<Vec<Verdict>> {
    crate::with_workload!(name, W => Ok(W::check(&operations(path)?)))
}

/// A stored history: see [`judge`].
///
/// # Errors
/// As of [`judge`].
pub fn history<C, R>(path: &Path) -> anyhow::Result<Vec<Event<C, R>>>
where
    C: Clone + DeserializeOwned,
    R: Clone + DeserializeOwned,
{
    let path = if path.is_dir() { path.join("history.jsonl") } else { path.to_owned() };
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let history = read_lines(BufReader::new(file)).with_context(|| path.display().to_string())?;
    try_pair(&history).with_context(|| path.display().to_string())?;
    Ok(history)
}

fn operations<C, R>(path: &Path) -> anyhow::Result<Vec<Operation<C, R>>>
where
    C: Clone + DeserializeOwned,
    R: Clone + DeserializeOwned,
{
    Ok(pair(&history(path)?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::checker::{Valid, worst};

    /// A register that is written, then read, at these revisions.
    fn history(written: u64, read: u64) -> String {
        let found = format!(r#"{{"value":1,"revision":{read},"version":1}}"#);
        [
            r#"{"time":1,"type":"invoke","process":0,"call":{"f":"write","register":0,"value":1}}"#.to_owned(),
            format!(r#"{{"time":2,"type":"ok","process":0,"reply":{{"f":"write","revision":{written}}}}}"#),
            r#"{"time":3,"type":"invoke","process":0,"call":{"f":"read","register":0}}"#.to_owned(),
            format!(r#"{{"time":4,"type":"ok","process":0,"reply":{{"f":"read","value":{found},"at":{read}}}}}"#),
            String::new(),
        ]
        .join("\n")
    }

    #[test]
    fn a_stored_history_is_judged_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let valid = |path: &Path, model| judge(path, model).map(|verdicts| worst(&verdicts)).expect("it is judged");
        fs::write(&file, history(5, 5)).expect("written");
        for model in [Model::Register, Model::RegisterRevisions, Model::RegisterSearch] {
            assert_eq!((valid(&file, model), valid(folder.path(), model)), (Valid::True, Valid::True), "{model:?}");
        }
        assert_eq!(valid(&file, Model::RegisterNeverBack), Valid::Unknown, "no read is a stale one");
        fs::write(&file, history(5, 6)).expect("written");
        assert_eq!(valid(&file, Model::Register), Valid::False, "the write was done at another revision");
        assert_eq!(valid(&file, Model::RegisterSearch), Valid::True, "revisions are nothing to it");
        fs::write(&file, "").expect("written");
        for model in Model::value_variants() {
            assert_eq!(valid(&file, *model), Valid::Unknown, "{model:?}");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let why = || format!("{:#}", judge(&file, Model::Set).expect_err("it is none"));
        assert!(why().contains("cannot open"), "{}", why());
        fs::write(&file, history(5, 5)).expect("written");
        assert!(why().contains("line 1 is no event"), "{}", why());
        fs::write(&file, "{\"time\":1,\"type\":\"ok\",\"process\":0,\"reply\":{\"f\":\"add\"}}\n").expect("written");
        assert!(why().contains("p0 ends at event 0 what it has not begun"), "{}", why());
    }

    #[test]
    fn every_workload_is_a_model() {
        for name in Name::ALL {
            assert!(Model::from_str(name.as_str(), false).is_ok(), "{name}");
        }
    }
}
