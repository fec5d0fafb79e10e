//! The program as a whole: seeds are green, repeat themselves byte for byte, and a planted bug is found.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What must be the same whenever a seed is run: everything but how long it took.
fn repeatable(seed: u64) -> (Option<i32>, Vec<String>) {
    let output = sim(&["--seed", &seed.to_string(), "--trace"]);
    let lines = text(&output).lines().filter(|line| !line.ends_with(" s real")).map(str::to_owned).collect();
    (output.status.code(), lines)
}

#[test]
fn seeds_are_green() {
    let seeds = if std::env::var("SHOW").as_deref() == Ok("full") { "400" } else { "40" };
    let output = sim(&["--seeds", seeds]);
    println!("{}", text(&output));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("times in force"), "a run without faults shows nothing");
}

#[test]
fn a_seed_repeats_itself() {
    for seed in [7, 8, 9] {
        let (first, second) = (repeatable(seed), repeatable(seed));
        let differs = first.1.iter().zip(&second.1).position(|(one, other)| one != other);
        let at = differs.map(|place| (&first.1[place], &second.1[place]));
        assert!(first == second, "seed {seed} gave two traces; first difference: {at:#?}");
        assert!(first.1.len() > 100 && first.0.is_some(), "seed {seed} did not come to its end");
        println!("seed {seed} twice: the same {} lines", first.1.len());
    }
}

#[test]
fn disks_that_forget_are_found() {
    let output = sim(&["--seeds", "40", "--plant", "forgetful-disks"]);
    assert_eq!(output.status.code(), Some(1), "disks that forget what they have synced must lose something");
    println!("{}", text(&output).lines().rev().take(3).collect::<Vec<_>>().join("\n"));
}
