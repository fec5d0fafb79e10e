//! The nemesis against processes that only say that they are ready: faults of processes need no more of a node.

use std::path::Path;
use std::time::Duration;

use trefoil_world::clock;

use super::*;
use crate::backend::{Backend, Loopback};

const STAND_IN: &str = "echo ready to serve client requests >&2; exec sleep 600";
const NODES: usize = 5;

async fn cluster(folder: &Path) -> Cluster {
    let places = Loopback::with_prefix(NODES, &["sh", "-c", STAND_IN]).expect("places");
    Cluster::start(Backend::Loopback(places), Path::new("/bin/sh"), folder, &[]).await.expect("they are ready")
}

fn led_by(leader: Option<usize>) -> Placement {
    Placement::unknown(NODES, leader)
}

fn phases(seen: &[Seen]) -> Vec<FaultPhase> {
    seen.iter().map(|(_, phase, _)| *phase).collect()
}

/// The nodes that are gone, and those that are stopped.
fn state(cluster: &Cluster) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let gone = (0..NODES).filter(|&node| cluster.is_gone(node)).collect();
    (gone, (0..NODES).filter(|&node| cluster.is_paused(node)).collect())
}

fn nobody() -> (BTreeSet<usize>, BTreeSet<usize>) {
    (BTreeSet::new(), BTreeSet::new())
}

#[tokio::test]
async fn faults_of_processes_hit_whom_they_name_and_are_healed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    let mut nemesis = Nemesis::new(&[FaultKind::Kill, FaultKind::KillAll, FaultKind::Pause], 7);
    let mut names = BTreeSet::new();
    for _ in 0..9 {
        let seen = nemesis.inject(&mut cluster, &led_by(Some(2))).await;
        assert_eq!(phases(&seen), [FaultPhase::Injected, FaultPhase::InForce], "{seen:?}");
        let expected = match nemesis.active().next().expect("one is in force") {
            Fault::Kill { nodes, .. } | Fault::KillAll { nodes } => (nodes.clone(), BTreeSet::new()),
            Fault::Pause { nodes, .. } => (BTreeSet::new(), nodes.clone()),
            other => panic!("{other} was not asked for: {seen:?}"),
        };
        assert_eq!(state(&cluster), expected, "{seen:?}");

        let healed = nemesis.heal(&mut cluster).await;
        assert_eq!(phases(&healed), [FaultPhase::Healed], "{healed:?}");
        assert!(healed[0].2.contains("they run"), "what was seen of it is said: {healed:?}");
        assert_eq!(state(&cluster), nobody(), "{healed:?}");
        assert_eq!(nemesis.active().count(), 0);
        assert_eq!(seen[0].0, healed[0].0);
        names.insert(seen[0].0.clone());
    }
    assert_eq!(names, BTreeSet::from_iter(nemesis.kinds()));
    assert!(cluster.ended().is_empty(), "{:?}", cluster.ended());
}

#[tokio::test]
async fn two_faults_are_in_force_at_once_and_healed_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    let mut nemesis = Nemesis::new(&[FaultKind::Pause, FaultKind::Kill], 1);
    let mut pairs = 0;
    for _ in 0..8 {
        let first = nemesis.inject(&mut cluster, &led_by(None)).await;
        assert_eq!(phases(&first), [FaultPhase::Injected, FaultPhase::InForce], "{first:?}");
        let second = nemesis.inject_beside(&mut cluster, &led_by(None)).await;
        let in_force = nemesis.active().count();
        pairs += in_force - 1;
        if in_force == 2 {
            assert_eq!(phases(&second), [FaultPhase::Injected, FaultPhase::InForce], "{second:?}");
            let (gone, stopped) = state(&cluster);
            assert!(!gone.is_empty() && !stopped.is_empty() && gone.is_disjoint(&stopped), "{first:?}, {second:?}");
            let third = nemesis.inject_beside(&mut cluster, &led_by(None)).await;
            assert!(third.is_empty(), "no kind is in force twice: {third:?}");
        }
        let healed = nemesis.final_heal(&mut cluster).await;
        assert_eq!(phases(&healed), vec![FaultPhase::Healed; in_force], "{healed:?}");
        assert_eq!(state(&cluster), nobody());
    }
    assert!(pairs > 0, "some went beside each other");
}

#[tokio::test]
async fn what_undoes_a_fault_does_not_come_beside_it_and_keeps_its_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    let mut nemesis = Nemesis::new(&[FaultKind::Pause, FaultKind::KillAll], 1);
    let mut names = BTreeSet::new();
    for _ in 0..2 {
        let seen = nemesis.inject(&mut cluster, &led_by(None)).await;
        names.insert(seen[0].0.clone());
        assert!(nemesis.inject_beside(&mut cluster, &led_by(None)).await.is_empty(), "{seen:?}");
        assert_eq!(phases(&nemesis.heal(&mut cluster).await), [FaultPhase::Healed]);
    }
    assert_eq!(names, BTreeSet::from_iter(nemesis.kinds()));
}

#[tokio::test]
async fn healing_mends_what_it_was_not_told_of_and_may_be_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    let mut nemesis = Nemesis::new(&[], 7);
    cluster.kill(&BTreeSet::from([0, 1])).await.expect("killed");
    cluster.pause(&BTreeSet::from([2])).expect("signalled");
    for _ in 0..2 {
        assert!(nemesis.final_heal(&mut cluster).await.is_empty(), "it was told of nothing");
        assert_eq!(state(&cluster), nobody());
    }
    assert!(nemesis.inject(&mut cluster, &led_by(Some(0))).await.is_empty(), "no kind was asked for");
    assert!(nemesis.not_healed().is_empty(), "{:?}", nemesis.not_healed());
}

#[tokio::test]
async fn what_cannot_be_healed_stays_noted_and_is_said_to_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    // No node comes up a second time. $2 is its name.
    let script = format!("[ -e {}/$2.2.log ] && exit 3; {STAND_IN}", folder.path().display());
    let places = Loopback::with_prefix(NODES, &["sh", "-c", &script]).expect("places");
    let started = Cluster::start(Backend::Loopback(places), Path::new("/bin/sh"), folder.path(), &[]).await;
    let mut cluster = started.expect("they are ready");
    let mut nemesis = Nemesis::new(&[FaultKind::KillAll], 7);
    let seen = nemesis.inject(&mut cluster, &led_by(None)).await;
    assert_eq!(phases(&seen), [FaultPhase::Injected, FaultPhase::InForce]);
    let seen = nemesis.heal(&mut cluster).await;
    assert_eq!((phases(&seen), nemesis.active().count()), (vec![FaultPhase::Injected], 1));
    assert!(seen[0].0 == "kill-all" && seen[0].2.contains("not healed: "), "{seen:?}");
    for times in 1..=2 {
        let not_healed = nemesis.not_healed();
        assert!(not_healed.len() == times && not_healed[times - 1].contains("ended by itself"), "{not_healed:?}");
        nemesis.heal(&mut cluster).await;
    }
}

#[tokio::test]
async fn what_a_healing_has_left_is_gone_before_the_next_fault_is_there_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    // No node comes up while a file says so.
    let broken = folder.path().join("broken");
    let script = format!("[ -e {} ] && exit 3; {STAND_IN}", broken.display());
    let places = Loopback::with_prefix(NODES, &["sh", "-c", &script]).expect("places");
    let started = Cluster::start(Backend::Loopback(places), Path::new("/bin/sh"), folder.path(), &[]).await;
    let mut cluster = started.expect("they are ready");
    let mut nemesis = Nemesis::new(&[FaultKind::KillAll, FaultKind::Pause], 7);
    while nemesis.active().all(|fault| !matches!(fault, Fault::KillAll { .. })) {
        nemesis.heal(&mut cluster).await;
        nemesis.inject(&mut cluster, &led_by(None)).await;
    }
    std::fs::write(&broken, "").expect("written");
    assert_eq!(phases(&nemesis.heal(&mut cluster).await), [FaultPhase::Injected], "the first healing fails");
    let seen = nemesis.inject(&mut cluster, &led_by(None)).await;
    assert_eq!(phases(&seen), [FaultPhase::Injected], "so does the second, and nothing comes beside: {seen:?}");
    while state(&cluster).0.len() < NODES {
        clock::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(&broken).expect("removed");
    let seen = nemesis.inject(&mut cluster, &led_by(None)).await;
    assert_eq!(phases(&seen), [FaultPhase::Healed, FaultPhase::Injected, FaultPhase::InForce], "{seen:?}");
    assert_eq!(nemesis.active().count(), 1);
    assert_eq!((nemesis.not_healed().len(), phases(&nemesis.heal(&mut cluster).await)), (2, vec![FaultPhase::Healed]));
}

#[tokio::test]
async fn a_node_that_does_not_come_back_in_time_for_a_fault_is_a_finding_for_good() {
    let folder = tempfile::tempdir().expect("a folder");
    // A second start of n1 fails, a third one does not. $2 is a node's name.
    let (second, third) = (folder.path().join("n1.2.log"), folder.path().join("n1.3.log"));
    let fails = format!("[ $2 = n1 ] && [ -e {} ] && [ ! -e {} ] && exit 3", second.display(), third.display());
    let script = format!("{fails}; {STAND_IN}");
    let places = Loopback::with_prefix(NODES, &["sh", "-c", &script]).expect("places");
    let started = Cluster::start(Backend::Loopback(places), Path::new("/bin/sh"), folder.path(), &[]).await;
    let mut cluster = started.expect("they are ready");
    let mut nemesis = Nemesis::new(&[FaultKind::Pause, FaultKind::KillAll], 7);
    cluster.kill(&BTreeSet::from([0])).await.expect("killed");
    let seen = nemesis.inject(&mut cluster, &led_by(None)).await;
    assert_eq!((seen[0].0.as_str(), phases(&seen)), ("heal", vec![FaultPhase::Injected]), "{seen:?}");
    let healed = nemesis.final_heal(&mut cluster).await;
    assert!(healed.is_empty() && state(&cluster) == nobody(), "{healed:?}");
    let not_healed = nemesis.not_healed();
    assert!(not_healed.len() == 1 && not_healed[0].contains("n1 ended by itself"), "{not_healed:?}");
}

#[tokio::test]
async fn what_this_backend_cannot_do_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    let (network, disk) = ("loopback", "preload shim");
    for (kind, why) in [
        (FaultKind::Partition, network),
        (FaultKind::PartitionOf(Shape::Halves), network),
        (FaultKind::PeerPortCut, network),
        (FaultKind::SlowLinks, network),
        (FaultKind::HalfOpen, network),
        (FaultKind::PowerLoss, disk),
        (FaultKind::SyncError, disk),
        (FaultKind::DiskFull, disk),
    ] {
        let mut nemesis = Nemesis::new(&[kind], 7);
        let seen = nemesis.inject(&mut cluster, &led_by(Some(0))).await;
        assert_eq!(phases(&seen), [FaultPhase::Unsupported]);
        assert!(seen[0].0 == kind.to_string() && seen[0].2.contains(why), "{seen:?}");
        assert!(nemesis.heal(&mut cluster).await.is_empty(), "nothing was in force");
    }
}

#[tokio::test]
async fn a_node_that_serves_with_another_directory_is_a_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    for node in cluster.nodes() {
        std::fs::create_dir_all(folder.path().join(&node.place.name)).expect("made");
    }
    let mut nemesis = Nemesis::new(&[FaultKind::Amnesia], 7);
    let seen = nemesis.inject(&mut cluster, &led_by(Some(0))).await;
    assert_eq!(phases(&seen), [FaultPhase::Injected, FaultPhase::InForce], "{seen:?}");
    let hit = seen[0].2.matches("emptied").count();
    assert!(hit > 0 && nemesis.findings().len() == hit, "{:?}", nemesis.findings());
    assert!(nemesis.findings()[0].contains("serves with a directory that is not its newest"));
    assert_eq!(phases(&nemesis.heal(&mut cluster).await), [FaultPhase::Healed]);
    for node in cluster.nodes() {
        let original = folder.path().join(format!("{}.original", node.place.name));
        assert!(!original.exists() && folder.path().join(&node.place.name).exists());
    }
    assert_eq!((state(&cluster), cluster.ended()), (nobody(), &[][..]));
}

#[test]
fn flags_of_all_kinds_come_once() {
    assert!(flags(&[FaultKind::Kill, FaultKind::PowerLoss]).is_empty());
    let snapshot = flags(&[FaultKind::SnapshotUnderFire]);
    assert_eq!(snapshot, ["--log-entries-kept", "500", "--bulk-bytes-per-second", "8388608"]);
    assert_eq!(flags(&FaultKind::ALL), snapshot);
    assert_eq!(flags(&[FaultKind::SnapshotUnderFire, FaultKind::SnapshotUnderFire]), snapshot);
}

#[test]
fn a_kind_expects_what_it_is_for_beside_what_is_asked_for() {
    let (leader, snapshot) = (Expected::LeaderChange, Expected::Snapshot);
    assert!(expected(&[FaultKind::Kill, FaultKind::Pause], &[]).is_empty());
    assert_eq!(expected(&[FaultKind::Kill], &[leader]), [leader]);
    assert_eq!(expected(&[FaultKind::SnapshotUnderFire], &[]), [snapshot]);
    assert_eq!(expected(&[FaultKind::SnapshotUnderFire], &[snapshot, leader]), [leader, snapshot]);
}

#[test]
fn a_partition_of_any_shape_is_noted_by_its_shape() {
    let asked_for = Nemesis::new(&[FaultKind::Partition, FaultKind::Kill], 7).asked_for();
    assert_eq!(asked_for.iter().map(|asked| asked.name.as_str()).collect::<Vec<_>>(), ["partition", "kill"]);
    assert_eq!(asked_for[1].noted_as, ["kill"]);
    let mut dice = Dice::new(7);
    for kind in FaultKind::ALL {
        let Ok(fault) = kind.choose(&mut dice, &led_by(Some(0))) else { continue };
        let name = name(kind, &fault);
        assert!(noted_as(kind).contains(&name), "{kind}: {name}");
        assert_eq!(name != kind.to_string(), kind == FaultKind::Partition, "{kind}: {name}");
    }
    assert_eq!(asked_for[0].noted_as.len(), Shape::ALL.len());
}

#[tokio::test]
async fn a_fault_in_force_that_has_another_node_lead_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(folder.path()).await;
    let mut nemesis = Nemesis::new(&[FaultKind::Kill], 7);
    let mut expected = 0;
    for turn in 0..12 {
        let leader = (turn % 4 > 0).then_some(2);
        let placement = Placement { holders: (0..3).collect(), ..led_by(leader) };
        nemesis.inject(&mut cluster, &placement).await;
        expected += u64::from(nemesis.active().any(|fault| unseats::unseats(fault, &placement)));
        nemesis.heal(&mut cluster).await;
        assert_eq!(nemesis.unseated(), expected, "{leader:?}");
    }
    assert!((1..9).contains(&expected), "some had another one lead, and some did not: {expected}");
    // With another one beside it nobody may be left to elect anybody.
    let mut nemesis = Nemesis::new(&[FaultKind::Kill, FaultKind::Pause], 7);
    let placement = Placement { holders: (0..3).collect(), ..led_by(Some(2)) };
    for _ in 0..12 {
        let before = nemesis.unseated();
        nemesis.inject(&mut cluster, &placement).await;
        let alone = nemesis.active().any(|fault| unseats::unseats(fault, &placement));
        nemesis.inject_beside(&mut cluster, &placement).await;
        let counts = alone && nemesis.active().count() == 1;
        nemesis.heal(&mut cluster).await;
        assert_eq!(nemesis.unseated(), before + u64::from(counts));
    }
}

#[test]
fn all_kinds_come_before_any_comes_again() {
    let (mut nemesis, mut dice) = (Nemesis::new(&FaultKind::ALL, 7), Dice::new(7));
    let mut turns = Vec::new();
    for _ in 0..3 {
        let turn: Vec<FaultKind> = FaultKind::ALL.iter().filter_map(|_| nemesis.next_kind(dice.split())).collect();
        assert_eq!(BTreeSet::from_iter(turn.clone()), BTreeSet::from(FaultKind::ALL));
        turns.push(turn);
    }
    assert!(turns[0] != turns[1] || turns[1] != turns[2], "turns differ in their order");
}
