//! Short runs of the harness as a program: five nodes, each in a network namespace, under every kind of fault that
//! `make chaos` has, judged by the checkers.
//!
//! Where namespaces cannot be made, that is said on stderr, and the runs are on the loopback. The seed is printed; `SEED=n`
//! repeats it.

mod kvd;
mod run;

use std::path::Path;
use std::process::{Command, Output};

use trefoil_jepsen::backend;

/// A workload, what it runs under, and how many seconds of load it takes to have all of that.
type Case = (&'static str, &'static str, u32);
const RUNS: [Case; 3] = [
    ("register", "--faults kill,partition --at-once 2 --expect compaction", 25),
    ("append", "--faults power-loss", 15),
    ("set", "--faults pause", 15),
];
const VALID: i32 = 0;
const UNKNOWN: i32 = 2;
/// On how many seeds too little may happen in a row.
const SEEDS_MAX: u64 = 2;

/// Where the nodes can be.
fn place() -> &'static str {
    match backend::probe(&kvd::path(), None).namespaces {
        Ok(()) => "namespaces",
        Err(why) => {
            run::say(&format!(
                "chaos: NOT IN NAMESPACES, on the loopback instead: there are no namespaces here: {why}\n"
            ));
            "loopback"
        }
    }
}

fn test(place: &str, (workload, under, seconds): Case, seed: u64, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen"));
    command.args(["test", "--nodes", "5", "--workload", workload, "--backend", place]);
    command.args(under.split(' '));
    command.args(["--time-limit", &seconds.to_string(), "--seed", &seed.to_string()]);
    command.arg("--kvd").arg(kvd::path()).arg("--out").arg(out);
    command.output().expect("the harness starts")
}

#[test]
fn short_runs_under_faults_are_valid() {
    let (first, place, folder) = (run::seed(), place(), tempfile::tempdir().expect("a folder"));
    for one in RUNS {
        let mut ended = None;
        for seed in (0..SEEDS_MAX).map(|more| first.wrapping_add(more)) {
            println!("SEED={seed}");
            let output = test(place, one, seed, folder.path());
            println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ended = output.status.code();
            // One in which too little happened shows nothing.
            if ended != Some(UNKNOWN) {
                break;
            }
        }
        assert_eq!(ended, Some(VALID), "{one:?} in {place}");
    }
}
