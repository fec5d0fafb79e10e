//! The commands that run clusters, with their arguments: what they do is in the modules they call.

mod selftest;
mod test;
mod test_all;

pub use selftest::SelfTest;
pub use test::Test;
pub use test_all::TestAll;

use crate::checker::Verdict;

/// Prints a checker's word, and its evidence.
pub fn print_verdict(verdict: &Verdict) {
    println!("{:>10}: {}", verdict.checker, verdict.valid);
    for line in &verdict.evidence {
        println!("            {line}");
    }
}
