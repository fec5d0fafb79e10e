use trefoil_client::Revision;

use super::*;
use crate::cluster::status::tests::status;
use crate::history::Nanos;
use crate::workload::bank::{self, BANK, Transfers};
use crate::workload::register::{self, Register, Registers};
use crate::workload::set::{Call, Reply, Set, SetId};

fn asked<C, R>(call: C, outcome: Outcome<R>) -> Operation<C, R> {
    let (invoked, completed) = (Nanos(0), Some(Nanos(1)));
    Operation { index: 0, process: Process(0), call, invoked, completed, outcome }
}

fn fault(name: &str, phase: FaultPhase) -> Event<Call, Reply> {
    Event { time: Nanos(0), what: What::Fault { name: name.into(), phase, detail: String::new() } }
}

fn invoke(process: Process) -> Event<Call, Reply> {
    Event { time: Nanos(0), what: What::Invoke { process, call: Call::Read { set: SetId(0) } } }
}

fn told(gates: &[Gate]) -> Vec<(&str, u64, u64)> {
    gates.iter().map(|gate| (gate.name.as_str(), gate.wanted, gate.seen)).collect()
}

#[test]
fn calls_are_counted_by_kind_and_outcome() {
    let operations = [
        asked(Call::Add { set: SetId(0), element: 1 }, Outcome::Ok(Reply::Add)),
        asked(Call::Add { set: SetId(0), element: 2 }, Outcome::Info("timeout".into())),
        asked(Call::Read { set: SetId(0) }, Outcome::Fail("refused".into())),
        Operation {
            process: LAST_PROCESS,
            ..asked(Call::Read { set: SetId(0) }, Outcome::Ok(Reply::Read { elements: vec![1] }))
        },
    ];
    let counts = counted::<Set>(&operations);
    assert_eq!(counts, BTreeMap::from([("add".to_owned(), [1, 0, 1]), ("read".to_owned(), [0, 1, 0])]));
    let gates = successes::<Set>(&operations, Floor::SEED);
    assert_eq!(told(&gates), [("add succeeded", 1, 1), ("read succeeded", 1, 0)]);
    assert_eq!(verdict(&gates).evidence, ["read succeeded: 0 times, at least 1 wanted"]);
    assert_eq!(told(&successes::<Set>(&[], Floor::RUN)), [("add succeeded", 10, 0), ("read succeeded", 10, 0)]);
}

#[test]
fn a_swap_that_found_another_value_is_no_success() {
    let cas = |swapped| {
        let call = register::Call::Cas { register: Register(0), from: 1, to: 2 };
        asked(call, Outcome::Ok(register::Reply::Cas { swapped, revision: 7 }))
    };
    let operations = [cas(false), cas(true), cas(false)];
    assert_eq!(counted::<Registers>(&operations)["cas"], [1, 0, 0]);
    assert_eq!(counted::<Registers>(&operations)["cas-refused"], [2, 0, 0]);
    assert_eq!(told(&successes::<Registers>(&operations, Floor::SEED))[0], ("cas succeeded", 1, 1));
    assert_eq!(told(&successes::<Registers>(&operations[..1], Floor::SEED))[0], ("cas succeeded", 1, 0));
}

#[test]
fn a_transfer_for_which_there_was_too_little_is_no_success() {
    let transfer = |done| {
        let (from, to) = (bank::Account(0), bank::Account(1));
        let reply = bank::Reply::Transfer { done, from: BANK.opened(), to: BANK.opened(), revision: 1 };
        asked(bank::Call::Transfer { id: 1, from, to, amount: 1 }, Outcome::Ok(reply))
    };
    let operations = [transfer(false), transfer(true)];
    let counts = counted::<Transfers>(&operations);
    assert_eq!((counts["transfer"], counts["transfer-refused"]), ([1, 0, 0], [1, 0, 0]));
    assert_eq!(told(&successes::<Transfers>(&operations, Floor::SEED))[1], ("transfer succeeded", 1, 1));
}

#[test]
fn a_floor_is_of_times_and_of_what_was_asked() {
    for (floor, asked, wanted) in [
        (Floor::RUN, 0, 10),
        (Floor::RUN, 999, 10),
        (Floor::RUN, 1000, 10),
        (Floor::RUN, 1001, 11),
        (Floor::RUN, 100_000, 1000),
        (Floor::SEED, 0, 1),
        (Floor::SEED, 100_000, 1),
    ] {
        assert_eq!(floor.of(asked), wanted, "{floor:?} of {asked}");
    }
}

/// The rarest success there is: one of twenty calls of the registers with few values is a swap that finds what it asks
/// for. In 20 s at 200 calls a second, of which nine in ten come to nothing, that is still enough.
#[test]
fn twenty_seconds_meet_the_floor() {
    let asked = 20 * 200;
    let (swaps, done) = (asked / 4, asked / 20 / 10);
    assert!(done >= Floor::RUN.of(swaps), "{done} of {swaps}");
}

#[test]
fn a_fault_counts_when_it_was_in_force_under_load() {
    let history = [
        fault("kill", FaultPhase::Injected),
        fault("pause", FaultPhase::Injected),
        fault("pause", FaultPhase::InForce),
        fault("pause", FaultPhase::InForce),
        invoke(Process(3)),
        fault("kill", FaultPhase::InForce),
        invoke(LAST_PROCESS),
    ];
    assert_eq!(in_force(&history), BTreeMap::from([("pause".to_owned(), 2)]));
}

#[test]
fn a_pair_is_a_fault_that_comes_while_another_one_is_in_force() {
    use FaultPhase::{Healed, InForce, Injected, Unsupported};
    /// What is noted under load, one after the other, and how many pairs that is.
    type Case = (&'static [(&'static str, FaultPhase)], u64);
    let cases: [Case; 8] = [
        (&[], 0),
        (&[("kill", InForce), ("kill", Healed), ("pause", InForce), ("pause", Healed)], 0),
        (&[("kill", Injected), ("kill", InForce), ("pause", Injected), ("pause", InForce), ("kill", Healed)], 1),
        (&[("kill", InForce), ("pause", Injected), ("pause", Unsupported)], 0),
        (&[("kill", Injected), ("kill", Unsupported), ("pause", InForce)], 0),
        // It is not known whether what was not healed is in force.
        (&[("kill", InForce), ("kill", Injected), ("pause", InForce)], 0),
        (&[("kill", InForce), ("kill", InForce)], 0),
        (&[("kill", InForce), ("pause", InForce), ("kill", Healed), ("pause", Healed), ("pause", InForce)], 1),
    ];
    for (noted, expected) in cases {
        let of = |faults: Vec<Event<Call, Reply>>, last| [faults, vec![invoke(last)]].concat();
        let faults: Vec<Event<Call, Reply>> = noted.iter().map(|(name, phase)| fault(name, *phase)).collect();
        assert_eq!(pairs(&of(faults.clone(), Process(3))), expected, "{noted:?}");
        assert_eq!(pairs(&of(faults, LAST_PROCESS)), 0, "there is no load: {noted:?}");
    }
    assert_eq!(verdict(&[at_once(0)]).evidence, ["two faults in force at once: 0 times, at least 1 wanted"]);
    assert_eq!(verdict(&[at_once(1)]).valid, Valid::True);
}

#[test]
fn each_fault_that_was_asked_for_is_a_gate() {
    let asked_for = |name: &str, noted_as: &[&str]| AskedFor {
        name: name.into(),
        noted_as: noted_as.iter().map(|name| (*name).to_owned()).collect(),
    };
    let (kill, pause) = (asked_for("kill", &["kill"]), asked_for("pause", &["pause"]));
    let partition = asked_for("partition", &["partition-one", "partition-halves", "partition-bridge"]);
    let in_force = [("pause", 2), ("kill-all", 5), ("partition-one", 1), ("partition-bridge", 3)];
    let in_force: BTreeMap<String, u64> = in_force.map(|(name, times)| (name.to_owned(), times)).into();
    let gates = faults(&[partition, pause, kill.clone(), kill], &in_force);
    assert_eq!(told(&gates), [("kill in force", 1, 0), ("partition in force", 1, 4), ("pause in force", 1, 2)]);
    assert_eq!(verdict(&gates).evidence, ["kill in force: 0 times, at least 1 wanted"]);
}

#[test]
fn faults_that_have_another_node_lead_expect_a_leader_change() {
    let (change, snapshot) = (Expected::LeaderChange, Expected::Snapshot);
    let cases: [(&[Expected], u64, &[Expected]); 6] = [
        (&[], 0, &[]),
        (&[], 1, &[]),
        (&[], 2, &[change]),
        (&[change], 0, &[change]),
        (&[snapshot, change, snapshot], 9, &[change, snapshot]),
        (&[snapshot], 3, &[change, snapshot]),
    ];
    for (asked_for, unseated, all) in cases {
        assert_eq!(expected(asked_for, unseated), all, "{asked_for:?}, {unseated}");
    }
}

/// These nodes have said to lead, each in a term.
fn observed(leaders: &[(u64, u64)]) -> Observed {
    let mut observed = Observed::default();
    for (node, term) in leaders {
        observed.see(&status(*node, (*node, *term)));
    }
    observed
}

/// What a node says that has built and installed so many snapshots of a partition, the only one it holds.
fn with_snapshots(node: u64, partition: PartitionId, (built, installed): (u64, u64)) -> NodeStatus {
    let mut status = status(node, (9, 3));
    for replica in &mut status.replicas {
        (replica.partition, replica.snapshots_built, replica.snapshots_installed) = (partition, built, installed);
    }
    status
}

/// Who says to lead, in which term; how many changes that is; how many terms have two leaders.
type Led = (&'static [(u64, u64)], u64, usize);

#[test]
fn another_node_in_a_later_term_is_a_change_and_in_the_same_one_a_finding() {
    let cases: [Led; 8] = [
        (&[], 0, 0),
        (&[(1, 3)], 0, 0),
        (&[(1, 3), (1, 3)], 0, 0),
        // All were killed, and the same one leads again.
        (&[(1, 3), (1, 5), (1, 8)], 0, 0),
        (&[(1, 3), (2, 5)], 1, 0),
        // An old leader is seen late.
        (&[(2, 5), (1, 3), (3, 7)], 2, 0),
        (&[(1, 3), (2, 4), (1, 5)], 2, 0),
        (&[(1, 3), (2, 3), (2, 4), (3, 4)], 1, 2),
    ];
    for (leaders, changes, split) in cases {
        let observed = observed(leaders);
        assert_eq!(observed.times(Expected::LeaderChange), changes, "{leaders:?}");
        assert_eq!(observed.split_terms().len(), split, "{leaders:?}");
    }
    let follows = status(1, (2, 4));
    let mut observed = Observed::default();
    observed.see(&follows);
    assert_eq!(observed, Observed { snapshots: observed.snapshots.clone(), ..Observed::default() }, "it names another");
    let line = super::tests::observed(&[(4, 7), (2, 7)]).split_terms();
    assert_eq!(line, ["in term 7 more than one node said to lead: those with the numbers 4, 2"]);
}

#[test]
fn installed_snapshots_of_the_default_partition_count() {
    let (default, other) = (PartitionId::DEFAULT, PartitionId { index: 7, ..PartitionId::DEFAULT });
    let mut observed = Observed::default();
    for (partition, counts) in [(default, (3, 0)), (other, (5, 5)), (default, (4, 1)), (default, (2, 0))] {
        observed.see(&with_snapshots(1, partition, counts));
    }
    observed.see(&with_snapshots(2, default, (0, 2)));
    // It counts anew since its second start.
    observed.see(&NodeStatus { start_count: 2, ..with_snapshots(2, default, (1, 1)) });
    assert_eq!((observed.snapshots_built(), observed.times(Expected::Snapshot)), (5, 4));
}

#[test]
fn revisions_up_to_which_the_default_partition_is_compacted_count() {
    let (default, other) = (PartitionId::DEFAULT, PartitionId { index: 7, ..PartitionId::DEFAULT });
    let mut observed = Observed::default();
    // Who is behind, or starts anew, says again what others have said.
    for (partition, revision) in [(default, 0), (default, 12), (other, 13), (default, 12), (default, 40), (default, 0)]
    {
        let mut status = status(1, (9, 3));
        for replica in &mut status.replicas {
            (replica.partition, replica.compacted_revision) = (partition, Revision(revision));
        }
        observed.see(&status);
    }
    assert_eq!(observed.times(Expected::Compaction), 2);
}

#[test]
fn what_is_missing_is_unknown_and_what_was_found_is_false() {
    let both = [Expected::LeaderChange, Expected::Snapshot];
    let mut observed = observed(&[(1, 3), (2, 5)]);
    observed.see(&with_snapshots(1, PartitionId::DEFAULT, (0, 2)));
    assert_eq!(told(&events(&both, &observed)), [("leader change", 1, 1), ("snapshot", 1, 2)]);
    let missing = verdict(&events(&both, &Observed::default()));
    assert_eq!((missing.checker.as_str(), missing.valid), ("coverage", Valid::Unknown));
    let words = ["leader change: 0 times, at least 1 wanted", "snapshot: 0 times, at least 1 wanted"];
    assert_eq!(missing.evidence, words);
    assert_eq!(verdict(&events(&both, &observed)).valid, Valid::True);
    assert_eq!(verdict(&[]).valid, Valid::True);
    assert_eq!(nothing_found("crashes", &[]).valid, Valid::True);
    assert_eq!(nothing_found("crashes", &["n1 ended".into()]).valid, Valid::False);
}
