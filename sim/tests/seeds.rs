//! The program as a whole: seeds are green, also those that once were not, and repeat themselves byte for byte; a planted
//! bug is found, and what finds it is made smaller.

use std::process::{Child, Command, Output, Stdio};

use trefoil_sim::ledger::Line;

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
    let output = sim(if in_full() { &["--seeds", "400"] } else { &["--seeds", "300", "--short"] });
    println!("{}", text(&output));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("times in force"), "a run without faults shows nothing");
    assert!(text(&output).contains("times reached"), "a run that reaches no rare state shows little");
}

/// What `sim` is called with, of each line of the list.
fn listed() -> Vec<Vec<&'static str>> {
    let lines = include_str!("../seeds.txt").lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.map(|line| line.split_whitespace().collect()).filter(|words: &Vec<&str>| !words.is_empty()).collect()
}

/// How many faults are planned, and the smallest run's words, as shrinking prints them.
fn shrunk(output: &Output) -> Option<(usize, Vec<String>)> {
    let text = text(output);
    let planned = text.split_once(" faults planned")?.0.rsplit(' ').next()?.parse().ok()?;
    let smallest = text.lines().find_map(|line| line.strip_prefix("smallest after "))?.split_once(": sim ")?.1;
    Some((planned, smallest.split_whitespace().map(str::to_owned).collect()))
}

#[test]
fn a_red_seed_is_made_smaller_and_stays_red() {
    let red = |seed: &String| sim(&["--seed", seed, "--plant", "forgetful-disks"]).status.code() == Some(1);
    let seed = (1..=40).map(|seed: u64| seed.to_string()).find(red).expect("disks that forget are found");
    // Among many seeds a red one is made smaller by itself.
    let output = sim(&["--seeds", "1", "--from", &seed, "--plant", "forgetful-disks"]);
    println!("{}", text(&output));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let (planned, words) = shrunk(&output).expect("it says what is left");
    let only = words.iter().skip_while(|word| *word != "--only-faults").nth(1).expect("it names faults");
    assert!(only.split(',').count() < planned, "{only} of {planned}");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let line = text(&output).lines().skip_while(|line| *line != "a line for sim/seeds.txt:").nth(1).map(str::to_owned);
    let line = line.expect("it has a line for the list");
    let (call, why) = line.split_once('#').expect("it says what it was");
    assert!(call.split_whitespace().eq(words.iter().copied()) && why.contains("red by"), "{line}");
    assert_eq!(sim(&words).status.code(), Some(1), "the line can be replayed");
}

#[test]
fn a_green_seed_is_not_shrunk_and_modes_to_come_are_refused() {
    for (words, code, said) in [
        (&["--seed", "7", "--shrink"][..], 0, "nothing to shrink"),
        (&["--seeds", "1", "--mode", "leaderless"], 254, "not there yet"),
        (&["--seed", "7", "--only-faults", "x"], 254, "only-faults"),
        (&["--seed", "7", "--no-shrink"], 254, "cannot be used with"),
        (&["--seeds", "1", "--short", "--ledger", "x"], 254, "cannot be used with"),
        (&["--check-ledger", "x", "--last-commit", "abc"], 254, "hexadecimal digits"),
        (&["--seeds", "1", "--since", "abc"], 254, "cannot be used with"),
        (&["--check-ledger", "x", "--since", "no-such-commit"], 255, "no-such-commit"),
    ] {
        let output = sim(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
        assert!(text(&output).contains(said), "{words:?}: {}", text(&output));
    }
}

#[test]
fn a_short_run_is_another_one() {
    let runs = [&["--seed", "7"][..], &["--seed", "7", "--short"]].map(sim);
    let lines = runs.each_ref().map(|output| Shown::of(output).lines);
    assert_ne!(lines[0].first(), lines[1].first(), "it has other parameters");
    assert!(lines.iter().all(|lines| lines.iter().any(|line| line.starts_with("report: "))), "both came to their ends");
}

/// A call, the same one over more seeds, which runs only what is new, and what the ledger then shows.
#[test]
fn a_call_is_told_to_the_ledger_and_goes_on_where_it_ends() {
    let path = std::env::temp_dir().join(format!("trefoil-sim-{}.jsonl", std::process::id()));
    let path = path.to_str().expect("a name in plain letters");
    let run = |seeds: &str| {
        let output = sim(&["--seeds", seeds, "--from", "7", "--commit", "abcdef012", "--ledger", path]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert!(!run("2").contains("stand in the ledger"));
    assert!(run("3").contains("2 seeds stand in the ledger already"));
    let check = |seeds: &str| {
        let last = ["--last-commit", "0000000,abcdef0", "--last-seeds-min", "3"];
        sim(&[&["--check-ledger", path, "--seeds-min", seeds, "--hours-min", "0.001"][..], &last].concat())
    };
    let (enough, too_few) = (check("3"), check("4"));
    let written = std::fs::read_to_string(path).expect("it was written");
    std::fs::remove_file(path).expect("removed");
    let lines: Vec<Line> = written.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let green: Vec<&[(u64, u64)]> = lines.iter().map(|line| line.green.as_slice()).collect();
    assert_eq!(green, [[(7, 8)], [(9, 9)]]);
    assert!(lines.iter().all(|line| line.commit == "abcdef012" && line.simulated_hours > line.real_hours));
    assert_eq!((enough.status.code(), too_few.status.code()), (Some(0), Some(1)), "{}", text(&enough));
    assert!(text(&too_few).contains("missed: 3 green seeds, not 4"), "{}", text(&too_few));
}

/// A ledger in which one seed of ten is unknown: also a call that has nothing left to run says so.
#[test]
fn too_many_unknown_seeds_prove_nothing() {
    let path = std::env::temp_dir().join(format!("trefoil-sim-unknown-{}.jsonl", std::process::id()));
    let line = concat!(
        r#"{"commit":"abcdef012","date":"2026-11-21T18:55:03Z","from":1,"seeds":10,"green":[[1,9]],"unknown":[10],"#,
        r#""red":[],"simulated_hours":0.5,"real_hours":0.25}"#
    );
    std::fs::write(&path, format!("{line}\n")).expect("written");
    let ledger = path.to_str().expect("a name in plain letters");
    let ended = [
        sim(&["--check-ledger", ledger, "--seeds-min", "9"]),
        sim(&["--check-ledger", ledger, "--seeds-min", "10"]),
        sim(&["--seeds", "10", "--commit", "abcdef012", "--ledger", ledger]),
        sim(&["--seeds", "9", "--commit", "abcdef012", "--ledger", ledger]),
    ];
    std::fs::remove_file(&path).expect("removed");
    let codes = ended.each_ref().map(|output| output.status.code());
    assert_eq!(codes, [Some(2), Some(1), Some(2), Some(0)], "{}", text(&ended[0]));
    let said = ended.each_ref().map(|output| text(output).contains("too many unknown seeds: 1 of 10"));
    assert_eq!(said, [true, true, true, false], "{}", text(&ended[2]));
}

#[test]
fn disks_that_forget_are_found() {
    let output = sim(&["--seeds", "40", "--plant", "forgetful-disks", "--no-shrink"]);
    assert_eq!(output.status.code(), Some(1), "disks that forget what they have synced must lose something");
    println!("{}", text(&output).lines().rev().take(3).collect::<Vec<_>>().join("\n"));
}

/// What a run is called with, beside its own words; none of it may be seen in the run.
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

/// Starts a run in a fresh process.
fn started(words: &[&str], with: &[&str]) -> Child {
    let mut command = command(words);
    command.arg("--trace").args(with).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs")
}

/// Runs it under all circumstances. Gives its exit code, which is the same under all of them, as is its trace.
fn repeated(words: &[&str]) -> Option<i32> {
    let started = CIRCUMSTANCES.map(|with| (with, started(words, with)));
    let runs = started.map(|(with, child)| {
        let output = child.wait_with_output().expect("its output can be read");
        (with, Shown::of(&output))
    });
    let (_, first) = &runs[0];
    for (with, shown) in &runs {
        assert!(shown.ended(), "{words:?} with {with:?} broke off with {:?}", shown.code);
        assert!(shown == first, "{words:?} with {with:?}: {}", first.first_difference(shown));
    }
    first.code
}

#[test]
fn a_seed_repeats_itself_and_the_listed_ones_are_green() {
    assert!(!listed().is_empty());
    for words in listed() {
        assert_eq!(repeated(&words), Some(0), "{words:?} is not green any more");
    }
    for seed in (1..=100_u64).filter(|_| in_full()).map(|seed| seed.to_string()) {
        repeated(&["--seed", &seed]);
    }
}
