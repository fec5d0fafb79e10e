//! Whether a ledger shows what was promised.

use std::io;
use std::path::Path;

use trefoil_jepsen::ledger::commits_since;
use trefoil_sim::ledger;
use trefoil_sim::ledger::tally::Tally;

use super::arguments::Args;
use super::{GREEN, RED, UNKNOWN};

/// Prints what the ledger comes to, and what it misses.
///
/// # Errors
/// It cannot be read, or what is checked out does not hold the commit since which seeds count.
pub fn run(path: &Path, args: &Args) -> io::Result<u8> {
    let commits = args.since.as_deref().map(commits_since).transpose();
    let commits = commits.map_err(|error| io::Error::other(format!("{error:#}")))?;
    let promised = args.promised();
    let tally = Tally::of(&ledger::read(path)?, &promised.last_commits, commits.as_ref());
    let since = args.since.as_ref().map(|first| format!(", since {first}")).unwrap_or_default();
    println!("{}{since}: {tally}", path.display());
    let missed = tally.missed(&promised);
    missed.iter().for_each(|missed| println!("missed: {missed}"));
    let too_many_unknown = tally.too_many_unknown();
    too_many_unknown.iter().for_each(|why| println!("{why}"));
    Ok(match (missed.is_empty(), too_many_unknown) {
        (false, _) => RED,
        (true, Some(_)) => UNKNOWN,
        (true, None) => GREEN,
    })
}
