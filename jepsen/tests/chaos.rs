//! Short runs of the harness as a program: five nodes, each in a network namespace, under every kind of fault that
//! `make chaos` has, judged by the checkers.
//!
//! Where namespaces cannot be made, that is said on stderr, and the runs are on the loopback. The seed is printed; `SEED=n`
//! repeats it.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trefoil_jepsen::backend;
use trefoil_world::random;

/// A workload, its faults, and how many seconds of load it takes to have them all.
const RUNS: [(&str, &str, u32); 3] =
    [("register", "kill,partition", 20), ("append", "power-loss", 15), ("set", "pause", 15)];
const VALID: i32 = 0;
const UNKNOWN: i32 = 2;
/// On how many seeds too little may happen in a row.
const SEEDS_MAX: u64 = 2;

fn kvd() -> PathBuf {
    let given = env::var_os("KVD_BIN").map(PathBuf::from);
    given.unwrap_or_else(|| {
        let me = env::current_exe().expect("this test's path");
        me.parent().and_then(Path::parent).expect("a folder of programs above it").join("kvd")
    })
}

/// Past the capture of tests that pass: what is not shown must be seen.
fn say(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).expect("somebody listens");
}

/// Where the nodes can be.
fn place() -> &'static str {
    match backend::probe(&kvd(), None).namespaces {
        Ok(()) => "namespaces",
        Err(why) => {
            say(&format!("chaos: NOT IN NAMESPACES, on the loopback instead: there are no namespaces here: {why}\n"));
            "loopback"
        }
    }
}

fn run(place: &str, (workload, faults, seconds): (&str, &str, u32), seed: u64, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jepsen"));
    command.args(["test", "--nodes", "5", "--workload", workload, "--faults", faults, "--backend", place]);
    command.args(["--time-limit", &seconds.to_string(), "--seed", &seed.to_string()]);
    command.arg("--kvd").arg(kvd()).arg("--out").arg(out);
    command.output().expect("the harness starts")
}

#[test]
fn short_runs_under_faults_are_valid() {
    let given = env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let first: u64 = given.unwrap_or_else(random::next_u64);
    let (place, folder) = (place(), tempfile::tempdir().expect("a folder"));
    for one in RUNS {
        let mut ended = None;
        for seed in (0..SEEDS_MAX).map(|more| first.wrapping_add(more)) {
            println!("SEED={seed}");
            let output = run(place, one, seed, folder.path());
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
