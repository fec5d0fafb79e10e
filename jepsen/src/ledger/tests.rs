//! Lines as they are documented, and files as they are left by those who write and those who are killed meanwhile.

use super::*;

pub(crate) fn conditions() -> Conditions {
    Conditions {
        target: Target::Trefoil,
        server_sha256: "11ee".into(),
        backend: "namespaces".into(),
        nodes: 5,
        rate: 200.0,
        concurrency: 10,
        time_limit: 60,
        at_once: 1,
        expect: vec![Expected::LeaderChange],
    }
}

pub(crate) fn line(seed: u64, verdict: Valid) -> Line {
    Line {
        commit: "abc".into(),
        date: "2026-11-21T18:55:03Z".into(),
        seed,
        workload: Name::Append,
        profile: "kill+pause".into(),
        conditions: Some(conditions()),
        faults: BTreeMap::from([("kill".into(), 2)]),
        pairs: 1,
        seconds: 60.4,
        operations: Outcomes { ok: 10, fail: 1, info: 2 },
        verdict,
        history_sha256: "00ff".into(),
        failed: None,
        explained: None,
    }
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).expect("it is plain data")
}

#[test]
fn a_line_is_json_as_it_is_documented() {
    let expected = r#"{"commit":"abc","date":"2026-11-21T18:55:03Z","seed":7,"workload":"append",
        "profile":"kill+pause","target":"trefoil","server_sha256":"11ee","backend":"namespaces","nodes":5,
        "rate":200.0,"concurrency":10,"time_limit":60,"at_once":1,"expect":["leader-change"],"faults":{"kill":2},
        "pairs":1,"seconds":60.4,"operations":{"ok":10,"fail":1,"info":2},"verdict":"true",
        "history_sha256":"00ff"}"#;
    assert_eq!(json(&line(7, Valid::True)), expected.split_ascii_whitespace().collect::<String>());
}

#[test]
fn a_line_of_an_older_build_is_read_and_one_that_is_explained() {
    let old = r#"{"commit":"abc","date":"2026-11-21T18:55:03Z","seed":7,"workload":"append","profile":"kill+pause",
        "faults":{"kill":2},"seconds":60.4,"operations":{"ok":10,"fail":1,"info":2},"verdict":"true",
        "history_sha256":"00ff"}"#;
    let read: Line = serde_json::from_str(old).expect("a line");
    assert_eq!(read, Line { conditions: None, pairs: 0, ..line(7, Valid::True) });
    let one_at_a_time = json(&line(7, Valid::True)).replace(r#""at_once":1,"#, "");
    assert_eq!(serde_json::from_str::<Line>(&one_at_a_time).expect("a line"), line(7, Valid::True));
    let explained = Line { explained: Some("issue 7".into()), ..line(7, Valid::False) };
    assert_eq!(serde_json::from_str::<Line>(&json(&explained)).expect("a line"), explained);
    let failed = Line { failed: Some("worker 1: panicked".into()), ..line(7, Valid::Unknown) };
    assert_eq!(serde_json::from_str::<Line>(&json(&failed)).expect("a line"), failed);
}

#[test]
fn what_counts_is_of_a_clean_checkout_of_trefoil() {
    let new = line(1, Valid::True);
    let etcd = Conditions { target: Target::Etcd, ..conditions() };
    let cases = [
        (new.clone(), true),
        (Line { commit: "abc-dirty".into(), ..new.clone() }, false),
        (Line { conditions: None, ..new.clone() }, false),
        (Line { conditions: Some(etcd), ..new.clone() }, false),
        (Line { failed: Some("worker 1: panicked".into()), ..new }, false),
    ];
    for (line, counts) in cases {
        assert_eq!(line.counts(), counts, "{line:?}");
    }
}

#[test]
fn a_false_run_is_open_until_it_is_explained() {
    let explained = |verdict, why: Option<&str>| Line { explained: why.map(str::to_owned), ..line(1, verdict) };
    let cases = [
        (Valid::True, None, false),
        (Valid::Unknown, None, false),
        (Valid::False, None, true),
        (Valid::False, Some(" "), true),
        (Valid::False, Some("issue 7"), false),
    ];
    for (verdict, why, open) in cases {
        assert_eq!(explained(verdict, why).is_open(), open, "{verdict} {why:?}");
    }
}

#[test]
fn lines_are_read_as_they_were_added() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("docs/chaos/ledger.jsonl");
    assert_eq!(read(&path).expect("nothing is there"), Ledger::default());
    for seed in [1, 2] {
        append(&path, &line(seed, Valid::Unknown)).expect("written");
    }
    let lines = vec![line(1, Valid::Unknown), line(2, Valid::Unknown)];
    assert_eq!(read(&path).expect("lines"), Ledger { lines, torn: None });
}

/// What a file holds, how many lines are read of it and which is torn, and how many lines there are when one was added.
#[test]
fn a_last_line_that_broke_off_blocks_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.jsonl");
    let whole = format!("{}\n", json(&line(1, Valid::True)));
    let accented = json(&Line { explained: Some("é".into()), ..line(2, Valid::False) });
    let within_a_letter = accented.find('é').expect("it is there") + 1;
    let cases: [(Vec<u8>, usize, Option<usize>, usize); 7] = [
        (Vec::new(), 0, None, 1),
        (whole.clone().into(), 1, None, 2),
        (format!("{whole}{{\"commit\":\"a").into(), 1, Some(2), 2),
        ([whole.as_bytes(), &accented.as_bytes()[..within_a_letter]].concat(), 1, Some(2), 2),
        (b"{".to_vec(), 0, Some(1), 1),
        (whole.trim_end().into(), 1, None, 2),
        (format!("{whole}\n  ").into(), 1, None, 2),
    ];
    for (before, lines, torn, after) in cases {
        let told = String::from_utf8_lossy(&before).into_owned();
        fs::write(&path, &before).expect("written");
        let ledger = read(&path).expect("nothing blocks");
        assert_eq!(
            (ledger.lines.len(), ledger.torn, ledger.warning().is_some()),
            (lines, torn, torn.is_some()),
            "{told}"
        );
        append(&path, &line(3, Valid::False)).expect("written");
        let ledger = read(&path).expect("lines");
        assert_eq!((ledger.lines.len(), ledger.torn), (after, None), "{told}");
        assert_eq!(ledger.lines.last(), Some(&line(3, Valid::False)), "{told}");
    }
}

#[test]
fn a_line_that_ends_and_is_none_is_an_error() {
    let whole = json(&line(1, Valid::True));
    for text in [format!("{whole}\n{{}}\n"), format!("{whole}\n{{\n{whole}\n")] {
        let error = parse(text.as_bytes()).expect_err("it is none");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}

#[test]
fn outcomes_are_of_all_kinds() {
    let kinds = BTreeMap::from([("read".to_owned(), [1, 2, 3]), ("write".to_owned(), [10, 20, 30])]);
    assert_eq!(Outcomes::of(&kinds), Outcomes { ok: 11, fail: 22, info: 33 });
    assert_eq!(Outcomes::of(&kinds).plus(Outcomes { ok: 1, fail: 1, info: 1 }).all(), 69);
}

/// A checkout of its own.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Checkout {
        let checkout = Checkout(tempfile::tempdir().expect("a folder"));
        checkout.git(&["init", "-q", "-b", "main"]);
        checkout
    }

    fn git(&self, words: &[&str]) -> String {
        let author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        git(self.0.path(), &[author.as_slice(), words].concat()).expect("git does it")
    }

    /// Writes a file, and commits it. The commit.
    fn commit(&self, file: &str, text: &str) -> String {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
        self.git(&["add", "."]);
        self.git(&["commit", "-q", "-m", text]);
        self.git(&["rev-parse", "HEAD"])
    }
}

#[test]
fn the_last_commit_is_one_of_more_than_documents() {
    let checkout = Checkout::new();
    let code = checkout.commit("src/lib.rs", "one");
    let last = || commit_of(checkout.0.path()).expect("a checkout");
    assert_eq!(last(), code);
    for document in ["docs/chaos/ledger.jsonl", "docs/bench.json", "README.md", "src/notes.md"] {
        checkout.commit(document, "changed");
        assert_eq!(last(), code, "{document}");
        fs::write(checkout.0.path().join(document), "changed again").expect("written");
        assert_eq!(last(), code, "{document}");
    }
    fs::write(checkout.0.path().join("src/lib.rs"), "two").expect("written");
    assert_eq!(last(), format!("{code}{DIRTY}"));
    assert_ne!(checkout.commit("src/lib.rs", "two"), code);
    assert!(!is_dirty(&last()));
}

#[test]
fn since_a_commit_are_those_that_hold_it_and_are_checked_out() {
    let checkout = Checkout::new();
    let since = |first: &str| commits_since_of(checkout.0.path(), first);
    let (before, first) = (checkout.commit("a", "1"), checkout.commit("a", "2"));
    checkout.git(&["checkout", "-q", "-b", "aside"]);
    let aside = checkout.commit("a", "3");
    checkout.git(&["checkout", "-q", "main"]);
    let last = checkout.commit("a", "4");
    let all = |commits: &[&String]| commits.iter().map(|&commit| commit.clone()).collect::<BTreeSet<String>>();
    assert_eq!(since(&first).expect("it is held"), all(&[&first, &last]));
    assert_eq!(since(&before).expect("it is held"), all(&[&before, &first, &last]));
    assert_eq!(since("HEAD").expect("it holds itself"), all(&[&last]));
    assert!(since(&aside).is_err_and(|error| error.to_string().contains("does not hold")));
    assert!(since("no-such-commit").is_err());
}

#[test]
fn since_a_commit_of_documents_are_those_that_hold_the_same_code() {
    let checkout = Checkout::new();
    let since = |first: &str| commits_since_of(checkout.0.path(), first).expect("it is held");
    let words = checkout.commit("README.md", "no code yet");
    let before = checkout.commit("a", "1");
    let fix = checkout.commit("a", "2");
    let (told, again) = (checkout.commit("docs/fixed.json", "3"), checkout.commit("NOTES.md", "4"));
    let line_names = || commit_of(checkout.0.path()).expect("a checkout");
    assert_eq!(line_names(), fix, "that is what a run on the commit of documents has in its line");
    let last = checkout.commit("a", "5");
    let all = |commits: &[&String]| commits.iter().map(|&commit| commit.clone()).collect::<BTreeSet<String>>();
    let with_fix = all(&[&fix, &told, &again, &last]);
    for (first, expected) in [
        (&fix, &with_fix),
        (&told, &with_fix),
        (&again, &with_fix),
        (&last, &all(&[&last])),
        (&before, &all(&[&before, &fix, &told, &again, &last])),
        (&words, &all(&[&words, &before, &fix, &told, &again, &last])),
    ] {
        assert_eq!(since(first), *expected, "{first}");
    }
}

#[test]
fn a_commit_that_is_named_briefly_is_written_in_full() {
    let checkout = Checkout::new();
    let (first, last) = (checkout.commit("a", "1"), checkout.commit("a", "2"));
    let short = &first[..10];
    for (named, expected) in [
        (first.clone(), first.clone()),
        (short.to_owned(), first.clone()),
        (format!("{short}{DIRTY}"), format!("{first}{DIRTY}")),
        ("HEAD".to_owned(), last),
        ("no-such-commit".to_owned(), "no-such-commit".to_owned()),
        ("--all".to_owned(), "--all".to_owned()),
        (DIRTY.to_owned(), DIRTY.to_owned()),
        (String::new(), String::new()),
    ] {
        assert_eq!(named_of(checkout.0.path(), &named), expected, "{named}");
    }
    let nowhere = tempfile::tempdir().expect("a folder");
    assert_eq!(named_of(&nowhere.path().join("none"), short), short, "there is no checkout");
}
