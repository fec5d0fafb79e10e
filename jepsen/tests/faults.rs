//! The faults of disks, directories and snapshots, and those of the network that proxies make, against three real nodes on
//! the loopback interface, and cuts between namespaces, under load: each comes to be in force, the nodes take it as they
//! must, it is healed and seen to be gone, and no acknowledged put is lost.
//!
//! The short form has each fault once, `SHOW=full` five times, and of cuts between namespaces every shape. Without root there
//! are no namespaces: that is said. The seed is printed; `SEED=n` repeats it.

mod kvd;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use trefoil_client::Client;
use trefoil_jepsen::backend::{self, Backend, PEER_PORT, Reach};
use trefoil_jepsen::cluster::status::Placement;
use trefoil_jepsen::cluster::{Cluster, Shim};
use trefoil_jepsen::history::FaultPhase;
use trefoil_jepsen::nemesis::{FaultKind, Nemesis, Shape, flags};
use trefoil_world::{clock, task};

/// Signals to processes: they harm neither disks nor the network.
const SIGNALS: [FaultKind; 3] = [FaultKind::Kill, FaultKind::KillAll, FaultKind::Pause];
/// A way that is open in one direction, and a port that is closed while others are open.
const CUTS: [FaultKind; 2] = [FaultKind::PartitionOf(Shape::Asymmetric), FaultKind::PeerPortCut];
const NODES: usize = 3;
/// Enough for every shape of a partition.
const NODES_OF_ALL_SHAPES: usize = 5;
const KEYS: u64 = 50;
/// Enough that a snapshot takes a while, at this pace not so much that a node that needs one never catches up.
const VALUE_BYTES: usize = 500;
const PACE: Duration = Duration::from_millis(5);
const PUT_MAX: Duration = Duration::from_secs(1);
const READ_MAX: Duration = Duration::from_secs(30);
/// As many puts first, so that logs and snapshots have some length.
const PUTS_FIRST: u64 = 1000;
/// How often a snapshot under fire is tried: it may all have come before somebody is killed.
const SNAPSHOTS_MAX: u64 = 10;
/// How long nobody may lead once all is healed.
const LEADER_MAX: Duration = Duration::from_secs(30);
/// How many puts are tried under each fault.
const PUTS_UNDER_FAULT: u64 = 5;

/// All kinds that hit disks, directories and snapshots.
fn of_disks() -> Vec<FaultKind> {
    let kinds = FaultKind::ALL.into_iter().filter(|kind| !kind.needs().network());
    kinds.filter(|kind| !SIGNALS.contains(kind)).collect()
}

/// All kinds that hit the network; of the shapes of a partition one, since proxies cut them all alike.
fn of_the_network() -> Vec<FaultKind> {
    let is_other = |kind: &FaultKind| matches!(kind, FaultKind::PartitionOf(shape) if *shape != Shape::Asymmetric);
    FaultKind::ALL.into_iter().filter(|kind| kind.needs().network() && !is_other(kind)).collect()
}

/// Puts the numbers 1, 2, 3, … to keys in turn until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// How many puts were tried.
    tried: Arc<AtomicU64>,
    puts: JoinHandle<BTreeMap<u64, u64>>,
}

impl Load {
    fn start(client: Client) -> Load {
        let (stop, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let puts = task::spawn(put_all(client, stop.clone(), tried.clone()));
        Load { stop, tried, puts }
    }

    /// Waits until so many more puts have been tried.
    async fn goes_on(&self, puts: u64) {
        let until = self.tried.load(Ordering::Relaxed) + puts;
        while self.tried.load(Ordering::Relaxed) < until {
            clock::sleep(PACE).await;
        }
    }

    /// The last number at each key that was acknowledged.
    async fn end(self) -> BTreeMap<u64, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.puts.await.expect("the load does not panic")
    }
}

fn key(number: u64) -> String {
    format!("key{number:02}")
}

fn value(number: u64) -> Vec<u8> {
    format!("{number:>VALUE_BYTES$}").into_bytes()
}

async fn put_all(client: Client, stop: Arc<AtomicBool>, tried: Arc<AtomicU64>) -> BTreeMap<u64, u64> {
    let mut acked = BTreeMap::new();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // What was not acknowledged may have been done: a later number is then the next to be seen.
        if client.put(key(number % KEYS), value(number)).timeout(PUT_MAX).await.is_ok() {
            acked.insert(number % KEYS, number);
        }
        tried.fetch_add(1, Ordering::Relaxed);
        clock::sleep(PACE).await;
    }
    acked
}

/// At every key stands the number that was acknowledged last, or one that came later.
async fn expect_kept(client: &Client, acked: &BTreeMap<u64, u64>) {
    assert!(!acked.is_empty(), "the load has put something");
    for (&at, &number) in acked {
        let reply = client.get(key(at)).timeout(READ_MAX).await.expect("the cluster is healed");
        let text = reply.value().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
        let found: u64 = text.trim().parse().unwrap_or(0);
        assert!(found >= number && found % KEYS == at, "{}: {number} was acknowledged, {found} is there", key(at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_disks_comes_about_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::loopback(NODES).expect("places");
    let (shim, kinds) = (Shim::find(None).expect("the workspace is built"), of_disks());
    let cluster = Cluster::start_under(shim, backend, &kvd::path(), &folder.path().join("run"), &flags(&kinds)).await;
    all_come_about(cluster.expect("the nodes are ready"), PUTS_FIRST, &kinds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_network_comes_about_through_proxies_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::proxied(NODES).await.expect("ports");
    let cluster =
        Cluster::start(backend, &kvd::path(), &folder.path().join("run"), &[]).await.expect("the nodes are ready");
    let links = cluster.links().expect("there are proxies");
    assert_eq!(links.reach(0, 1, PEER_PORT).await.expect("an attempt"), Reach::Answers, "peers speak first");
    let measured = links.measure(BTreeSet::new()).await.expect("proxies measure");
    assert_eq!(measured.unlike(&BTreeSet::new()), None);
    all_come_about(cluster, 0, &of_the_network()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_comes_about_between_namespaces_and_loses_nothing() {
    let able = backend::probe(&kvd::path(), None);
    if let Err(why) = able.namespaces {
        run::say(&format!("faults: cuts between namespaces are not shown: there are none here: {why}\n"));
        return;
    }
    assert_eq!((able.partitions, able.peer_port_cut), (Ok(()), Ok(())));
    let (nodes, kinds) = if is_full() { (NODES_OF_ALL_SHAPES, all_cuts()) } else { (NODES, CUTS.to_vec()) };
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Backend::namespaces("faults", nodes).expect("namespaces");
    let cluster =
        Cluster::start(backend, &kvd::path(), &folder.path().join("run"), &[]).await.expect("the nodes are ready");
    all_come_about(cluster, 0, &kinds).await;
}

fn all_cuts() -> Vec<FaultKind> {
    Shape::ALL.map(FaultKind::PartitionOf).into_iter().chain([FaultKind::PeerPortCut]).collect()
}

fn is_full() -> bool {
    env::var("SHOW").as_deref() == Ok("full")
}

async fn all_come_about(mut cluster: Cluster, puts_first: u64, kinds: &[FaultKind]) {
    let seed = run::seed();
    println!("SEED={seed}");
    let client = Client::builder(cluster.endpoints()).connect().await.expect("an endpoint");
    for number in 0..puts_first {
        client.put(key(number % KEYS), value(0)).await.expect("nothing is wrong yet");
    }
    let load = Load::start(Client::builder(cluster.endpoints()).retries(false).connect().await.expect("an endpoint"));
    let rounds = if is_full() { 5 } else { 1 };
    for (turn, kind) in (0..).zip(kinds.iter().cycle().take(rounds * kinds.len())) {
        let tries = if *kind == FaultKind::SnapshotUnderFire { SNAPSHOTS_MAX } else { 1 };
        let mut in_force = false;
        for attempt in (0..tries).map(|attempt| attempt << 32) {
            in_force = in_force || come_about(&mut cluster, &load, *kind, seed.wrapping_add(turn + attempt)).await;
        }
        assert!(in_force, "{kind} came to be in force");
    }
    let acked = load.end().await;
    println!("{} puts were acknowledged", acked.values().max().unwrap_or(&0));
    expect_kept(&client, &acked).await;
    cluster.observe().expect("the system tells who has ended");
    assert!(cluster.ended().is_empty(), "{:?}", cluster.ended());
    cluster.stop().await.expect("the system tells how they end");
    assert!(cluster.ended().is_empty(), "{:?}", cluster.ended());
}

/// Whether it came to be in force. It is healed in any case.
async fn come_about(cluster: &mut Cluster, load: &Load, kind: FaultKind, seed: u64) -> bool {
    let placement = led(cluster).await;
    let (began, mut nemesis) = (clock::now(), Nemesis::new(&[kind], seed));
    let seen = nemesis.inject(cluster, &placement).await;
    let in_force = began.elapsed();
    load.goes_on(PUTS_UNDER_FAULT).await;
    let healed = nemesis.final_heal(cluster).await;
    for (name, phase, detail) in seen.iter().chain(&healed) {
        println!("{name}: {phase:?}: {detail}");
    }
    println!("{kind}: probed after {in_force:.1?}, healed after {:.1?}", began.elapsed());
    assert!(healed.iter().all(|(_, phase, _)| *phase == FaultPhase::Healed), "{kind} was healed");
    assert!(nemesis.findings().is_empty(), "{:?}", nemesis.findings());
    assert!(nemesis.not_healed().is_empty(), "{:?}", nemesis.not_healed());
    seen.iter().any(|(_, phase, _)| *phase == FaultPhase::InForce)
}

/// Waits until somebody leads.
async fn led(cluster: &mut Cluster) -> Placement {
    let until = clock::now() + LEADER_MAX;
    loop {
        let placement = cluster.placement().await;
        if placement.leader.is_some() {
            return placement;
        }
        assert!(clock::now() < until, "nobody leads after {LEADER_MAX:?}");
        clock::sleep(PACE).await;
    }
}
