//! Lines as they are written and read, and what a call that was broken off still has to do.

use super::*;

/// Seeds 1 and 2 green, 3 unknown, 4 red; half an hour of simulated time.
fn line(commit: &str) -> Line {
    Line {
        commit: commit.into(),
        date: "2026-11-21T18:55:03Z".into(),
        from: 1,
        seeds: 4,
        green: vec![(1, 2)],
        unknown: vec![3],
        red: vec![4],
        simulated_hours: 0.5,
        real_hours: 0.25,
        explained: None,
    }
}

#[test]
fn seeds_are_kept_as_stretches() {
    assert_eq!(stretches(&[1, 2, 3, 5, 7, 8]), [(1, 3), (5, 5), (7, 8)]);
    assert!(stretches(&[]).is_empty());
    let kept = Line { green: stretches(&[1, 2, 3, 5, 7, 8]), ..line("abc") };
    assert_eq!(kept.green_seeds().collect::<Vec<_>>(), [1, 2, 3, 5, 7, 8]);
}

#[test]
fn a_line_is_added_as_it_is_documented() {
    let text = concat!(
        r#"{"commit":"abc","date":"2026-11-21T18:55:03Z","from":1,"seeds":4,"green":[[1,2]],"unknown":[3],"#,
        r#""red":[4],"simulated_hours":0.5,"real_hours":0.25}"#
    );
    let folder = std::env::temp_dir().join(format!("trefoil-sim-ledger-{}", std::process::id()));
    let path = folder.join("of/runs.jsonl");
    assert!(read(&path).expect("there is nothing yet").is_empty());
    append(&path, &line("abc")).expect("written");
    append(&path, &line("abc")).expect("written");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{text}\n{text}\n"));
    fs::write(&path, format!("{text}\n{{\"comm")).expect("written");
    assert_eq!(read(&path).expect("what broke off is none"), [line("abc")]);
    append(&path, &line("def")).expect("written");
    assert_eq!(read(&path).expect("two lines"), [line("abc"), line("def")]);
    fs::write(&path, format!("{text}\n{{}}\n")).expect("written");
    assert!(read(&path).is_err_and(|error| error.to_string().contains("line 2")));
    fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_call_goes_on_where_the_ledger_of_its_commit_ends() {
    let explained =
        |why: &str| Line { from: 9, green: vec![(9, 9)], red: vec![7], explained: Some(why.into()), ..line("abc") };
    let lines = [line("abc"), line("def"), explained("issue 12"), line("abc-dirty")];
    let of_abc = done(&lines, "abc");
    assert_eq!((of_abc.seeds, of_abc.open), (BTreeSet::from([1, 2, 3, 4, 7, 9]), BTreeSet::from([4])));
    assert_eq!(of_abc.unknown, BTreeSet::from([3]));
    assert_eq!(done(&[explained(" ")], "abc").open, BTreeSet::from([7]), "blanks explain nothing");
    assert_eq!(done(&lines, "abc-dirty"), Done::default(), "the tree may have changed since");
}
