//! The commands that run clusters or sum up runs, with their arguments: what they do is in the modules they call.

mod ledger;
mod selftest;
mod setup;
mod test;
mod test_all;

pub use ledger::Summary;
pub use selftest::SelfTest;
pub use test::Test;
pub use test_all::TestAll;

use crate::checker::Verdict;

/// A command line that is wrong in what it asks for together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Prints a checker's word, and its evidence.
pub fn print_verdict(verdict: &Verdict) {
    println!("{:>10}: {}", verdict.checker, verdict.valid);
    for line in &verdict.evidence {
        println!("            {line}");
    }
}
