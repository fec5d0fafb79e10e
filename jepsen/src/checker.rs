//! Checkers: from a history to a verdict, with the smallest evidence.
//!
//! A verdict has three values, `false` above `unknown` above `true`: the worst of several is the verdict of all. A
//! checker that ran out of time, or a run in which too little happened to prove anything, is `unknown`, never `true`.

pub mod bank;
pub mod counter;
mod evidence;
pub mod list_append;
#[cfg(test)]
mod long;
#[cfg(test)]
mod oracle;
mod place;
pub mod revision;
pub mod set_full;
pub mod stale;
pub mod wgl;

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which checker, and so which model.
    pub checker: String,
    pub valid: Valid,
    /// What was found, for a person: of an anomaly the smallest evidence, each line on its own.
    pub evidence: Vec<String>,
}

/// Ordered from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Valid {
    True,
    Unknown,
    False,
}

impl fmt::Display for Valid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Valid::True => "true",
            Valid::Unknown => "unknown",
            Valid::False => "false",
        })
    }
}

impl Verdict {
    pub fn valid(checker: &str) -> Verdict {
        Verdict { checker: checker.into(), valid: Valid::True, evidence: Vec::new() }
    }

    pub fn unknown(checker: &str, why: impl Into<String>) -> Verdict {
        Verdict { checker: checker.into(), valid: Valid::Unknown, evidence: vec![why.into()] }
    }

    pub fn invalid(checker: &str, evidence: Vec<String>) -> Verdict {
        Verdict { checker: checker.into(), valid: Valid::False, evidence }
    }
}

/// The worst of several; `unknown` when there are none.
pub fn worst(verdicts: &[Verdict]) -> Valid {
    verdicts.iter().map(|verdict| verdict.valid).max().unwrap_or(Valid::Unknown)
}
