//! The program as a whole: seeds are green, a planted bug is found, and a seed repeats itself byte for byte.

use std::process::{Child, Command, Output, Stdio};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(args);
    command
}

fn sim(args: &[&str]) -> Output {
    command(args).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn in_full() -> bool {
    std::env::var("SHOW").as_deref() == Ok("full")
}

#[test]
fn seeds_are_green() {
    let output = sim(&["--seeds", if in_full() { "400" } else { "40" }]);
    println!("{}", text(&output));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("times in force"), "a run without faults shows nothing");
}

#[test]
fn disks_that_forget_are_found() {
    let output = sim(&["--seeds", "40", "--plant", "forgetful-disks"]);
    assert_eq!(output.status.code(), Some(1), "disks that forget what they have synced must lose something");
    println!("{}", text(&output).lines().rev().take(3).collect::<Vec<_>>().join("\n"));
}

/// Of the short form. In the first four a client ends with several connections, and the nodes see in which order.
const REPEATED: [u64; 6] = [2, 7, 9, 13, 1, 8];

/// What a seed is run with, beside itself; none of it may be seen in the run.
const CIRCUMSTANCES: [&[&str]; 4] = [&[], &[], &["--entropy", "1"], &["--log", "debug"]];

/// What a run shows of itself: its exit code, and every line but the one about real time.
#[derive(PartialEq, Eq)]
struct Shown {
    code: Option<i32>,
    lines: Vec<String>,
}

impl Shown {
    fn of(output: &Output) -> Shown {
        let lines = String::from_utf8_lossy(&output.stdout);
        let lines = lines.lines().filter(|line| !line.ends_with(" s real")).map(str::to_owned).collect();
        Shown { code: output.status.code(), lines }
    }

    /// Whether the run came to its end: two that broke off may well look the same.
    fn ended(&self) -> bool {
        self.code.is_some() && self.lines.iter().any(|line| line.starts_with("report: "))
    }

    /// Where another run becomes different.
    fn first_difference(&self, other: &Shown) -> String {
        let place = self.lines.iter().zip(&other.lines).take_while(|(one, other)| one == other).count();
        let line = |shown: &Shown| shown.lines.get(place).cloned();
        format!(
            "line {}: {:?} or {:?}; exit codes {:?} and {:?}",
            place + 1,
            line(self),
            line(other),
            self.code,
            other.code
        )
    }
}

/// Starts a seed in a fresh process.
fn started(seed: &str, with: &[&str]) -> Child {
    let mut command = command(&["--seed", seed, "--trace"]);
    command.args(with).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs")
}

#[test]
fn a_seed_repeats_itself() {
    let seeds: Vec<u64> = if in_full() { (1..=100).collect() } else { REPEATED.to_vec() };
    for seed in seeds.iter().map(u64::to_string) {
        let started = CIRCUMSTANCES.map(|with| (with, started(&seed, with)));
        let runs = started.map(|(with, child)| {
            let output = child.wait_with_output().expect("its output can be read");
            (with, Shown::of(&output))
        });
        let (_, first) = &runs[0];
        for (with, shown) in &runs {
            assert!(shown.ended(), "seed {seed} with {with:?} broke off with {:?}", shown.code);
            assert!(shown == first, "seed {seed} with {with:?}: {}", first.first_difference(shown));
        }
    }
}
