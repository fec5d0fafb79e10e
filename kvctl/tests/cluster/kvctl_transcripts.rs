//! `kvctl` as a process: every command with every exit code it can end with, and what it prints.
//!
//! Against a cluster of one, against nobody, against a node that is frozen, and against a leader without its quorum.
//!
//! Left out: an import whose outcome is unknown, which gives a cluster a whole minute to come back; stdin without an end,
//! and streams that cannot be written, which are `streams.rs`'s.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, free_address};
use crate::files::sums;
use crate::scenario::{Scenario, beside_others};
use crate::transcript::{Run, Seen, run};

mod terminal;

/// Larger than any request may be.
const TOO_LARGE: usize = 1_600_000;
/// Larger than any request that is read at all.
const NOT_READ: usize = 4 << 20;
/// Where a key tries to lead that an export must not follow.
const OUTSIDE: &str = "/kvctl-must-not-write-this";

const CODES: &[(&str, &[i32])] = &[
    ("put", &[0, 1, 2, 3, 4, 5]),
    ("get", &[0, 1, 2, 3, 4]),
    ("del", &[0, 1, 2, 3, 4, 5]),
    ("scan", &[0, 2, 3, 4]),
    ("txn", &[0, 1, 2, 3, 4, 5]),
    ("import", &[0, 2, 3, 4]),
    ("export", &[0, 2, 3, 4]),
    ("cluster status", &[0, 2, 3, 4]),
    ("cluster nodes", &[0, 3, 4]),
    ("cluster map", &[0, 3, 4]),
    ("cluster verify", &[0, 3, 4]),
    ("completion", &[0, 2]),
    ("version", &[0, 2]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_and_every_exit_code() {
    Scenario::begin("kvctl_transcripts::every_command_and_every_exit_code");
    let _turn = beside_others().await;
    let (mut one, mut three) = tokio::join!(Cluster::form(1, &[]), Cluster::form(3, &[]));
    let mut seen = Seen::default();
    let folder = one.folder("kvctl");
    make_files(&folder);
    for runs in [keys(), stale_reads(), scans(), deletes(), transactions(), files(), questions()] {
        seen.in_turn(&runs, || kvctl_in(&folder, &one)).await;
    }
    expect_only_exports(&folder);
    let nobody = free_address().await;
    seen.at_once(&unanswered(4, &["no connection: "]), || kvctl_at(&folder, &one, &nobody)).await;
    one.nodes[0].running().signal(libc::SIGSTOP);
    // It takes connections and says nothing on them: nobody has answered, and nothing was done.
    seen.at_once(&unanswered(4, &["no connection in time"]), || kvctl_in(&folder, &one)).await;
    one.nodes[0].running().signal(libc::SIGCONT);
    without_quorum(&mut three, &folder, &mut seen).await;
    seen.expect(CODES);
}

fn kvctl_in(folder: &Path, cluster: &Cluster) -> Command {
    let mut command = cluster.kvctl(&[]);
    command.current_dir(folder);
    command
}

fn kvctl_at(folder: &Path, cluster: &Cluster, address: &str) -> Command {
    let mut command = kvctl_in(folder, cluster);
    command.env("KVCTL_ENDPOINTS", address);
    command
}

/// A leader whose followers are frozen takes writes and never knows what becomes of them. Then a node is gone.
async fn without_quorum(three: &mut Cluster, folder: &Path, seen: &mut Seen) {
    let leader = three.leader().await;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let address = three.nodes[leader].client.clone();
    for node in followers {
        three.nodes[node].running().signal(libc::SIGSTOP);
    }
    const WHY: &[&str] = &["the deadline passed "];
    let unknown = [
        run(5, b"put plum 1 --timeout 1s").says(WHY),
        run(5, b"del plum --timeout 1s").says(WHY),
        run(5, b"del --prefix a/ --yes --timeout 1s").says(WHY),
        run(5, b"txn --timeout 1s").reads(b"\nput plum 1\n").says(WHY),
    ];
    seen.at_once(&unknown, || kvctl_at(folder, three, &address)).await;
    for node in followers {
        three.nodes[node].running().signal(libc::SIGCONT);
    }
    three.kill(followers[0]).await;
    let gone = [
        run(3, b"cluster verify").prints_part("could not be asked: no connection: "),
        run(0, b"cluster nodes").prints_part("does not answer: no connection: "),
    ];
    seen.in_turn(&gone, || kvctl_in(folder, three)).await;
}

/// Every command that asks somebody. What was not answered was not done.
fn unanswered(code: i32, why: &'static [&'static str]) -> Vec<Run> {
    let lines: [&'static [u8]; 11] = [
        b"put plum 1 --timeout 300ms",
        b"get plum --timeout 300ms",
        b"del plum --timeout 300ms",
        b"scan --timeout 300ms",
        b"txn --timeout 300ms",
        b"import in --timeout 300ms",
        b"export i/ never --timeout 300ms",
        b"cluster status --timeout 300ms",
        b"cluster nodes --timeout 300ms",
        b"cluster map --timeout 300ms",
        b"cluster verify --timeout 300ms",
    ];
    lines.into_iter().map(|line| run(code, line).says(why)).collect()
}

/// The first put makes revision 2.
fn keys() -> Vec<Run> {
    vec![
        run(0, b"put plum 1").prints("revision 2"),
        run(0, b"put plum 2 -o json").prints(r#"{"written":true,"revision":3,"context":"AQAAAAAAAAAD"}"#),
        run(0, b"get plum").prints("2"),
        run(0, b"get plum --raw").prints_bytes(b"2"),
        run(0, b"get plum -o json").prints(
            r#"{"key":"plum","value":"2","create_revision":2,"mod_revision":3,"version":2,"lease":0,"context":"AQAAAAAAAAAD"}"#,
        ),
        run(0, b"get plum --revision 2").prints("1"),
        run(3, b"get plum --revision 999").says(&["revision 999 is in the future; the newest is 3"]),
        run(1, b"get nothing"),
        run(1, b"get nothing -o json"),
        run(1, b"put plum x --if-absent").says(&["the condition does not hold; nothing was written"]),
        run(1, b"put plum x --if-revision 2").says(&["the condition does not hold; nothing was written"]),
        run(1, b"put plum x --if-revision 2 -o json")
            .prints(r#"{"written":false,"revision":3,"context":"AQAAAAAAAAAD"}"#),
        run(0, b"put plum 3 --if-revision 3").prints("revision 4"),
        run(0, b"put fig 1 --if-absent").prints("revision 5"),
        run(0, b"put \xff \xfe\xff").prints("revision 6"),
        run(0, b"get \xff -o json").prints(
            r#"{"key":{"base64":"/w=="},"value":{"base64":"/v8="},"create_revision":6,"mod_revision":6,"version":1,"lease":0,"context":"AQAAAAAAAAAG"}"#,
        ),
        run(0, b"get \xff --raw").prints_bytes(b"\xfe\xff"),
        run(0, b"put read -").reads(b"two\nlines\0").prints("revision 7"),
        run(0, b"get read --raw").prints_bytes(b"two\nlines\0"),
        run(2, b"put plum").says(&["required arguments"]),
        run(2, b"put plum x --if-absent --if-revision 1").says(&["cannot be used with"]),
        run(3, b"put  x").says(&["a key is empty"]),
        run(2, b"put plum x --keyspace ").says(&["a value is required for '--keyspace <KEYSPACE>'"]),
        run(3, b"put plum x --keyspace nowhere").says(&["no keyspace 'nowhere'"]),
        run(2, b"get plum --timeout 5h").says(&["'5h': expected 1ms to 1440m"]),
        run(2, b"get plum --endpoints nonsense").says(&["endpoint 'nonsense': expected host:port"]),
    ]
}

fn stale_reads() -> Vec<Run> {
    vec![
        run(0, b"get plum --consistency stale").prints("3").says(&["stale read: 0 entries behind"]),
        run(0, b"get plum --consistency stale --context AQAAAAAAAAAC").prints("3").says(&["stale read: "]),
        run(3, b"get plum --consistency stale --context AQAAAAAAAP_C --timeout 300ms").says(&["the deadline passed"]),
        run(3, b"get plum --consistency stale --context AA").says(&["context: is not a token of this keyspace"]),
        run(2, b"get plum --consistency stale --context no!").says(&["not a context token"]),
        run(2, b"get plum --consistency fresh").says(&["invalid value 'fresh'"]),
    ]
}

fn scans() -> Vec<Run> {
    vec![
        run(0, b"scan --prefix p").prints("plum\t3"),
        run(0, b"scan").prints_bytes(b"fig\t1\nplum\t3\nread\ttwo\nlines\0\n\xff\t\xfe\xff\n"),
        run(0, b"scan g --before q -o json")
            .prints(r#"{"key":"plum","value":"3","create_revision":2,"mod_revision":4,"version":3,"lease":0}"#),
        run(0, b"scan --keys-only --reverse --limit 2").prints_bytes(b"\xff\nread\n"),
        run(0, b"scan --count-only").prints("4"),
        run(0, b"scan --count-only -o json").prints(r#"{"count":4}"#),
        run(0, b"scan --revision 2").prints("plum\t1"),
        run(0, b"scan --prefix nothing/"),
        run(2, b"scan --prefix a --before b").says(&["--prefix and --before exclude each other"]),
        run(3, b"scan --revision 999").says(&["revision 999 is in the future"]),
        run(3, b"scan --keyspace nowhere").says(&["no keyspace 'nowhere'"]),
    ]
}

fn deletes() -> Vec<Run> {
    vec![
        run(1, b"del nothing").prints("0"),
        run(0, b"del fig").prints("1"),
        run(0, b"del read -o json").prints(r#"{"carried_out":true,"deleted":1,"revision":9}"#),
        run(1, b"del plum --if-revision 2").prints("0").says(&["the condition does not hold; nothing was removed"]),
        run(2, b"del --prefix pl").says(&["Say --yes: there is no terminal to ask at"]),
        run(2, b"del p --before q").says(&["Say --yes: there is no terminal to ask at"]),
        run(2, b"del --prefix pl --if-absent --yes").says(&["are for a single key"]),
        run(2, b"del").says(&["which keys?"]),
        run(3, b"del ").says(&["a key is empty"]),
        run(0, b"put tmp/1 1").prints("revision 10"),
        run(0, b"put tmp/2 2").prints("revision 11"),
        run(0, b"del --prefix tmp/ --yes").prints("2"),
        run(0, b"scan --count-only").prints("2"),
    ]
}

fn transactions() -> Vec<Run> {
    vec![
        run(0, b"txn").reads(b"mod(\"plum\") > \"0\"\n\nput t 1\nget plum\n\n").prints("SUCCESS\n\nOK\n\nplum\n3"),
        run(1, b"txn").reads(b"value(\"plum\") = \"x\"\n\nput t 2\n\nget t\ndel zz\n").prints("FAILURE\n\nt\n1\n\n0"),
        run(0, b"txn -o json")
            .reads(br#"{"compares":[{"key":"t","target":"version","relation":"=","to":1}],"then":[{"put":{"key":"t","value":{"base64":"/w=="}}},{"delete":{"key":"zz"}}]}"#)
            .prints(r#"{"succeeded":true,"revision":14,"replies":[{"put":{"previous":null}},{"delete":{"deleted":0,"previous":[]}}]}"#),
        run(3, b"txn").reads(b"\nput t 1\nput t 2\n").says(&[r#"a transaction writes one key twice: b"t""#]),
        run(2, b"txn").reads(b"nonsense").says(&["the transaction makes no sense: line 1: 'nonsense'"]),
        run(2, b"txn").reads(b"{\"if\":[]}").says(&["the transaction makes no sense: unknown field `if`"]),
    ]
}

fn files() -> Vec<Run> {
    vec![
        run(3, b"import in --prefix i/ -o json").prints(r#"{"stored":3,"bytes":6,"not_stored":1,"skipped":1}"#).says(
            &["not stored: in/large: a request of ", "skipped, since only regular files are stored: 1 symbolic link"],
        ),
        run(0, b"import in/sub").prints("STORED  BYTES  NOT STORED  SKIPPED\n1       2      0           0"),
        run(0, b"get b").prints("22"),
        run(0, b"get i/odd-\xff").prints("333"),
        run(3, b"import not-read -o json")
            .prints(r#"{"stored":0,"bytes":0,"not_stored":1,"skipped":0}"#)
            .says(&["not stored: not-read/file: the request is larger than the server takes ("]),
        run(3, b"import missing").says(&["cannot read missing: No such file or directory"]),
        run(3, b"import missing\x1b[2J").says(&["cannot read missing\\u{1b}[2J: No such file or directory"]),
        run(2, b"import").says(&["required arguments"]),
        run(0, b"export i/ back").prints("WRITTEN  BYTES  NOT WRITTEN\n3        6      0"),
        run(0, b"put p/ok 1").prints_part("revision "),
        run(0, b"put p/sub/file 22").prints_part("revision "),
        run(0, b"put p/../../evil 1").prints_part("revision "),
        run(0, b"put p//kvctl-must-not-write-this 1").prints_part("revision "),
        run(3, b"export p/ out -o json").prints(r#"{"written":2,"bytes":3,"not_written":2}"#).says(&[
            "not written: p/../../evil: it has a component '..'",
            "not written: p//kvctl-must-not-write-this: behind the prefix it is an absolute path",
        ]),
        run(0, b"put q/\x1b[31m/.. \x9b2J").prints_part("revision "),
        run(3, b"export q/ out -o json")
            .prints(r#"{"written":0,"bytes":0,"not_written":1}"#)
            .says(&["not written: q/\\u{1b}[31m/..: it has a component '..'"]),
        run(0, b"scan --prefix q/").prints_bytes(b"q/\x1b[31m/..\t\x9b2J\n"),
        run(0, b"scan --prefix q/ -o table").prints_part("q/\\u{1b}[31m/.. ┆ \\x9b2J "),
        run(3, b"export i/ in/a").says(&["cannot use in/a: File exists"]),
        run(2, b"export i/").says(&["required arguments"]),
    ]
}

fn questions() -> Vec<Run> {
    vec![
        run(0, b"cluster status").prints_part("this cluster has one node: nothing is replicated"),
        run(0, b"cluster status -o json")
            .prints_part(r#""partition":"default/0","replica":"r2","node":"n1","role":"leader""#),
        run(0, b"cluster nodes -o json").prints_part(r#""zone":"","weight":1,"state":"ready""#),
        run(0, b"cluster map -o json")
            .prints_part(r#"{"partition":"default/0","mode":"leader","epoch":2,"replicas":"r2@n1""#),
        run(0, b"cluster verify").prints_part("equal"),
        run(0, b"cluster verify -o json").prints_part(r#"{"partition":"_meta/0","replica":"r1","node":"n1""#),
        run(0, b"cluster verify -o json --keyspace default").prints_line(r#"{"partition":"default/0","replica":"r2""#),
        run(0, b"cluster verify -o json --keyspace _meta").prints_line(r#"{"partition":"_meta/0","replica":"r1""#),
        run(0, b"cluster map -o json --keyspace default").prints_line(r#"{"partition":"default/0","mode":"leader""#),
        run(3, b"cluster verify --keyspace nowhere").says(&["no keyspace 'nowhere'"]),
        run(3, b"cluster status --keyspace nowhere").says(&["no keyspace 'nowhere'"]),
        run(3, b"cluster nodes --keyspace nowhere").says(&["no keyspace 'nowhere'"]),
        run(3, b"cluster map --keyspace nowhere").says(&["no keyspace 'nowhere'"]),
        run(2, b"cluster status extra").says(&["unexpected argument 'extra'"]),
        run(0, b"completion bash").prints_part("_kvctl()"),
        run(2, b"completion nosuch").says(&["invalid value 'nosuch'"]),
        run(0, b"version").prints(concat!("kvctl ", env!("CARGO_PKG_VERSION"))),
        run(0, b"version -o json").prints(concat!(r#"{"kvctl":""#, env!("CARGO_PKG_VERSION"), r#""}"#)),
        run(2, b"version extra").says(&["unexpected argument 'extra'"]),
    ]
}

/// What is imported: three files, one too large, and a link; and one far too large.
fn make_files(folder: &Path) {
    fs::create_dir_all(folder.join("in/sub")).expect("a folder");
    let files: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"sub/b", b"22"), (b"odd-\xff", b"333")];
    for (name, content) in files {
        fs::write(folder.join("in").join(OsStr::from_bytes(name)), content).expect("a file");
    }
    fs::write(folder.join("in/large"), vec![b'x'; TOO_LARGE]).expect("a large file");
    fs::create_dir(folder.join("not-read")).expect("a folder");
    fs::write(folder.join("not-read/file"), vec![b'x'; NOT_READ]).expect("a larger file");
    symlink("a", folder.join("in/link")).expect("a link");
}

/// The exports wrote what they said and nothing else, least of all outside their directories.
fn expect_only_exports(folder: &Path) {
    let expected: &[&[u8]] = &[
        b"back/a",
        b"back/odd-\xff",
        b"back/sub/b",
        b"in/a",
        b"in/large",
        b"in/odd-\xff",
        b"in/sub/b",
        b"not-read/file",
        b"out/ok",
        b"out/sub/file",
    ];
    let found = sums(folder);
    assert!(found.keys().eq(expected), "expected the imported and the exported files only: {:?}", found.keys());
    for name in ["a", "sub/b"] {
        let sum = |above: &str| found.get(format!("{above}/{name}").as_bytes());
        assert_eq!(sum("back"), sum("in"), "expected {name} to come back as it was");
    }
    for outside in [folder.with_file_name("evil").as_path(), Path::new(OUTSIDE)] {
        assert!(!outside.exists(), "expected no export to write {outside:?}");
    }
}
