//! The program as a whole: seeds are green, and a planted bug is found.
//!
//! Left out: that a seed repeats itself byte for byte, which it does not yet.

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
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
fn disks_that_forget_are_found() {
    let output = sim(&["--seeds", "40", "--plant", "forgetful-disks"]);
    assert_eq!(output.status.code(), Some(1), "disks that forget what they have synced must lose something");
    println!("{}", text(&output).lines().rev().take(3).collect::<Vec<_>>().join("\n"));
}
