//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use trefoil_jepsen::workload::Name;
use trefoil_sim::ledger::tally::Promised;
use trefoil_sim::parameters::Parameters;
use trefoil_sim::profiles;
use trefoil_sim::shrink::{Narrowing, Places};
use trefoil_world::planted::Bug;

/// Letters of a commit's name that are enough.
const COMMIT_LETTERS_MIN: usize = 7;

/// Simulated clusters under faults, from a seed
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
pub struct Args {
    /// Run this one
    #[arg(long, required_unless_present_any = ["seeds", "check_ledger"], conflicts_with_all = ["seeds", "check_ledger"])]
    pub seed: Option<u64>,
    /// Run so many, each in a process of its own
    #[arg(long, conflicts_with = "check_ledger")]
    pub seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// Processes at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// How the keyspace replicates
    #[arg(long, default_value = "leader")]
    pub mode: Mode,
    /// The seed's short run, which is another one than its full run
    #[arg(long, conflicts_with = "provoke")]
    pub short: bool,
    /// Append a line about each stretch of seeds to this file, and leave out the seeds that it has of this commit
    #[arg(long, requires = "seeds", conflicts_with_all = ["short", "workload", "plant", "provoke"])]
    pub ledger: Option<PathBuf>,
    /// The commit that the lines name, instead of that of the checkout
    #[arg(long, requires = "ledger")]
    pub commit: Option<String>,
    /// Ask whether this ledger shows what the following options say
    #[arg(long)]
    pub check_ledger: Option<PathBuf>,
    /// Green seeds, of all commits together
    #[arg(long, requires = "check_ledger", default_value_t = 0)]
    pub seeds_min: u64,
    /// Hours of simulated time
    #[arg(long, requires = "check_ledger", default_value_t = 0.0)]
    pub hours_min: f64,
    /// The newest commit that changed the program, and those since then, separated by commas: seven letters at least
    #[arg(long, requires = "check_ledger", value_delimiter = ',', value_parser = beginning_of_commit)]
    pub last_commit: Vec<String>,
    /// Green seeds on those
    #[arg(long, requires = "last_commit", default_value_t = 0)]
    pub last_seeds_min: u64,
    /// Only seeds of this commit, and of those since then that what is checked out holds, count
    #[arg(long, requires = "check_ledger", conflicts_with_all = ["seed", "seeds"])]
    pub since: Option<String>,
    /// Leave out faults and time as long as the seed stays red, in processes of their own
    #[arg(long, requires = "seed", conflicts_with_all = ["only_faults", "safety_ms", "trace", "log"])]
    pub shrink: bool,
    /// Leave red seeds as they are: else the first three of them are made smaller
    #[arg(long, conflicts_with_all = ["seed", "check_ledger"])]
    pub no_shrink: bool,
    /// Runs that shrinking may take
    #[arg(long, default_value_t = 60, requires = "shrink")]
    pub runs: usize,
    /// Of the planned faults only those at these places, as in 0,3,7; or none
    #[arg(long, requires = "seed")]
    pub only_faults: Option<Places>,
    /// Let load and faults end after so many milliseconds, instead of when the seed says
    #[arg(long, requires = "seed")]
    pub safety_ms: Option<u64>,
    /// What clients ask, instead of what the seed says
    #[arg(long, value_enum)]
    pub workload: Option<Name>,
    /// Print every line of the trace
    #[arg(long)]
    pub trace: bool,
    /// Print the nodes' logs to stderr: error, warn, info, debug or trace
    #[arg(long)]
    pub log: Option<String>,
    /// What libraries get random numbers from instead of the seed: the run must stay the same
    #[arg(long)]
    pub entropy: Option<u64>,
    /// A bug to plant, which must be found
    #[arg(long, value_enum)]
    pub plant: Option<Plant>,
    /// Instead of what seeds stand for, the runs in which this bug comes to light where it is planted
    #[arg(long)]
    pub provoke: Option<Bug>,
    /// The bug that this build is to have
    #[cfg(feature = "planted")]
    #[arg(long)]
    pub bug: Bug,
}

impl Args {
    pub fn parameters(&self, seed: u64) -> Parameters {
        let of_seed = self.provoked().map_or_else(|| Parameters::of(seed), |bug| profiles::provoking(bug, seed));
        let of_seed = if self.short { of_seed.shortened() } else { of_seed };
        Parameters { workload: self.workload.unwrap_or(of_seed.workload), ..of_seed }
    }

    pub fn narrowing(&self) -> Narrowing {
        Narrowing { only_faults: self.only_faults.clone(), safety_ms: self.safety_ms }
    }

    pub fn promised(&self) -> Promised {
        Promised {
            seeds_min: self.seeds_min,
            hours_min: self.hours_min,
            last_commits: self.last_commit.clone(),
            last_seeds_min: self.last_seeds_min,
        }
    }

    /// The flags that make a seed the run that it is.
    pub fn passed_on(&self) -> Vec<String> {
        let planted = self.plant.map(|plant| match plant {
            Plant::ForgetfulDisks => ["--plant", "forgetful-disks"],
        });
        let workload = self.workload.map(|workload| ["--workload", workload.as_str()]);
        let provoked = self.provoke.map(|bug| ["--provoke", bug.name()]);
        #[cfg(feature = "planted")]
        let planted = planted.into_iter().chain([["--bug", self.bug.name()]]);
        let valued = planted.into_iter().chain(workload).chain(provoked).flatten();
        valued.chain(self.short.then_some("--short")).map(str::to_owned).collect()
    }

    #[cfg(not(feature = "planted"))]
    fn provoked(&self) -> Option<Bug> {
        self.provoke
    }

    #[cfg(feature = "planted")]
    fn provoked(&self) -> Option<Bug> {
        self.provoke.or(Some(self.bug))
    }
}

/// Ways to replicate that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Leader,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Leader => "leader",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Mode, String> {
        match name == Mode::Leader.name() {
            true => Ok(Mode::Leader),
            false => Err(format!("the mode {name} is not there yet; there is: {}", Mode::Leader.name())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// Disks that have not synced what they say they have
    ForgetfulDisks,
}

fn beginning_of_commit(text: &str) -> Result<String, String> {
    let is_name = text.len() >= COMMIT_LETTERS_MIN && text.bytes().all(|letter| letter.is_ascii_hexdigit());
    if is_name { Ok(text.to_owned()) } else { Err(format!("at least {COMMIT_LETTERS_MIN} hexadecimal digits")) }
}

#[cfg(all(test, not(feature = "planted")))]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_seed_the_run_that_it_is_is_passed_on() {
        for words in [
            &[] as &[&str],
            &["--short"],
            &["--plant", "forgetful-disks", "--workload", "append", "--short"],
            &["--provoke", "old-rows-kept"],
        ] {
            let asked = |how: &str| Args::try_parse_from([&["sim", how, "7"][..], words].concat()).expect("arguments");
            let (one, many) = (asked("--seed"), asked("--seeds"));
            assert_eq!(many.passed_on(), words);
            assert_eq!(one.parameters(7), many.parameters(7));
            assert_eq!(one.parameters(7) != Parameters::of(7), !words.is_empty(), "{words:?}");
        }
    }
}
