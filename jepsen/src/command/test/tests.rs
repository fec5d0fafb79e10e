//! What the command line says, what is refused, and what a run leaves whatever goes wrong.

use clap::Parser;

use super::*;
use crate::target::Target;
use crate::workload::set;

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    test: Test,
}

fn parsed<'a>(words: impl IntoIterator<Item = &'a str>) -> Test {
    Args::try_parse_from(words).expect("these are arguments").test
}

#[test]
fn numbers_out_of_range_are_refused() {
    let refused =
        "--rate=0 --rate=-1 --rate=inf --rate=NaN --concurrency=0 --nodes=0 --nodes=17 --at-once=0 --at-once=3";
    for flag in refused.split(' ') {
        assert!(Args::try_parse_from(["jepsen", "--kvd", "kvd", flag]).is_err(), "{flag}");
    }
    for flag in ["--rate=0.1", "--concurrency=1", "--nodes=1", "--nodes=16"] {
        assert!(Args::try_parse_from(["jepsen", "--kvd", "kvd", flag]).is_ok(), "{flag}");
    }
}

#[test]
fn each_target_needs_its_own_program() {
    let cases = [
        ("--kvd a/kvd", Ok(Program::Kvd("a/kvd".into()))),
        ("--kvd a/kvd --etcd a/etcd", Ok(Program::Kvd("a/kvd".into()))),
        ("--target etcd --etcd a/etcd", Ok(Program::Etcd("a/etcd".into()))),
        ("--etcd a/etcd", Err("--target trefoil needs its program: --kvd PATH, or KVD_BIN")),
        ("--target etcd --kvd a/kvd", Err("--target etcd needs its program: --etcd PATH, or ETCD_BIN")),
    ];
    for (words, expected) in cases {
        let mut setup = parsed(std::iter::once("jepsen").chain(words.split(' '))).setup;
        // What stands in the environment of the tests is not given here.
        setup.kvd = setup.kvd.filter(|_| words.contains("--kvd"));
        setup.etcd = setup.etcd.filter(|_| words.contains("--etcd"));
        assert_eq!(setup.program().map_err(|usage| usage.to_string()), expected.map_err(str::to_owned), "{words}");
    }
}

#[test]
fn what_a_target_does_not_have_is_refused_by_name() {
    let cases = [
        ("--faults kill,power-loss,amnesia", None),
        ("--target etcd --faults kill,pause,partition,half-open --expect leader-change", None),
        ("--target etcd --no-faults", None),
        ("--target etcd --faults kill,power-loss", Some("there is no fault power-loss with --target etcd: ")),
        ("--target etcd --faults truncation", Some("there is no fault truncation with --target etcd: ")),
        ("--target etcd --no-faults --expect snapshot", Some("no snapshot can be seen with --target etcd: ")),
        ("--target etcd --no-faults --expect compaction", Some("no compaction can be seen with --target etcd: ")),
        ("--faults kill --expect compaction,snapshot", None),
    ];
    for (words, refused) in cases {
        let test = parsed(["jepsen", "--kvd", "kvd", "--etcd", "etcd"].into_iter().chain(words.split(' ')));
        match (test.setup.allows(test.faults()), refused) {
            (Ok(()), None) => {}
            (Err(usage), Some(why)) => assert!(usage.to_string().starts_with(why), "{usage}"),
            (said, expected) => panic!("{words}: {said:?}, not {expected:?}"),
        }
    }
}

#[test]
fn what_needs_proxies_is_run_on_the_loopback() {
    let setup = parsed(["jepsen", "--kvd", "kvd", "--backend", "namespaces", "--expect", "snapshot"]).setup;
    let cases = [
        (vec![], "namespaces"),
        (vec![FaultKind::Kill, FaultKind::Partition, FaultKind::PowerLoss], "namespaces"),
        (vec![FaultKind::SlowLinks], "loopback"),
        (vec![FaultKind::Kill, FaultKind::HalfOpen], "loopback"),
    ];
    for (faults, backend) in cases {
        let conditions = setup.able_to(&faults).conditions("00");
        assert_eq!(conditions.backend, backend, "{faults:?}");
        assert_eq!(conditions, ledger::Conditions { backend: backend.to_owned(), ..setup.conditions("00") });
    }
}

#[test]
fn every_second_seed_has_two_faults_at_a_time_unless_it_is_said() {
    let setup = |words: &[&str]| parsed(["jepsen", "--kvd", "kvd"].into_iter().chain(words.iter().copied())).setup;
    assert_eq!(setup(&[]).at_once(), 1, "of a single run");
    let cases: [(&[&str], [usize; 2]); 3] =
        [(&[], [1, 2]), (&["--at-once", "1"], [1, 1]), (&["--at-once", "2"], [2, 2])];
    for (words, expected) in cases {
        let of_seeds = [1, 2].map(|seed| setup(words).with_seed(seed).conditions("00").at_once);
        assert_eq!(of_seeds, expected, "{words:?}");
    }
}

#[test]
fn a_counter_example_stands_whatever_else_went_wrong() {
    let failed = || vec!["the history could not be kept".to_owned(), "worker 1: panicked".to_owned()];
    for (valid, failures, stands) in [
        (Valid::True, Vec::new(), true),
        (Valid::Unknown, Vec::new(), true),
        (Valid::False, Vec::new(), true),
        (Valid::True, failed(), false),
        (Valid::Unknown, failed(), false),
        (Valid::False, failed(), true),
    ] {
        let run: Run<set::Call, set::Reply> = Run::never_began(&NotServing::NotReady("n1".into()));
        let results = Results { valid, ..store::sum::<set::Set>((Target::Trefoil, 7, Wall(0)), &run) };
        let concluded = concluded(results, &failures).map_err(|error| error.to_string());
        assert_eq!(concluded.is_ok(), stands, "{valid}, {failures:?}");
        assert!(concluded.err().is_none_or(|error| failures.iter().all(|failure| error.contains(failure))));
    }
}

#[test]
fn only_of_a_valid_run_the_data_goes() {
    for (valid, keep_data, expected) in [
        (Valid::True, false, true),
        (Valid::True, true, false),
        (Valid::Unknown, false, false),
        (Valid::False, false, false),
        (Valid::False, true, false),
    ] {
        assert_eq!(is_spent(valid, keep_data), expected, "{valid}, {keep_data}");
    }
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    leave("nothing", || Err(io::Error::other("no space")));
    leave("nothing", || panic!("on purpose"));
}

#[test]
fn the_command_that_runs_it_again_is_one() {
    let cases = [
        "jepsen --workload append --kvd a/kvd --faults kill,pause --expect leader-change,snapshot --rate 0.5 --at-once 2",
        "jepsen --kvd kvd --no-faults --nodes 3 --backend loopback --shim s.so --time-limit 5 --out o --seed 7 \
         --keep-data",
        "jepsen --target etcd --etcd a/etcd --faults kill --expect leader-change",
    ];
    for words in cases {
        let test = parsed(words.split(' '));
        let words = again(&test.setup, test.workload, test.faults(), 7);
        assert_eq!(words[..2], ["jepsen", "test"]);
        let again = parsed(words[1..].iter().map(String::as_str));
        assert_eq!((again.seed, again.workload), (Some(7), test.workload));
        assert_eq!((again.faults(), again.no_faults), (test.faults(), test.no_faults));
        assert_eq!(format!("{:?}", again.setup), format!("{:?}", test.setup));
    }
}
