//! Power cuts while a cluster forms.
//!
//! The nodes of a life end together: the tasks of one node cannot be told from those of another on one runtime. So that
//! nodes are cut at every step of forming all the same, and at different ones, a life ends when one node, chosen by
//! dice, has durably come to a step, some start late, and in some lives one is not started at all.
//!
//! Invariants:
//!
//! * A step is read from a node's disk alone, as a restart would find it.
//! * What a cut has left no later cut takes back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_placement::{PartitionId, Stage};
use trefoil_store::engine::memory::MemoryEngine;
use trefoil_store::engine::{Family, Order, Read, Visit};
use trefoil_store::key::{self, StoreNumber};
use trefoil_store::record::Version;
use trefoil_world::clock;

use super::{Dice, Disk, NODES, OpenDiskSlot, READY_PATIENCE, complaints, connect, one_life, start, start_one};
use crate::cluster::identity::{ClusterId, Identity};
use crate::cluster::map::ClusterMap;
use crate::membership::replica_records;

/// Lives that are cut, before the one that must serve.
pub(super) const LIVES: u64 = 4;
/// A life ends after this, whether or not its node came to the step: with a node missing it may never.
const LIFE_MAX: Duration = Duration::from_secs(6);

/// How far a node has come in forming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// No founding record.
    Nothing,
    /// Founding record, identity and the record of the `_meta` replica, which come together.
    Member,
    /// Its `_meta` replica has the map, which asks for a replica of `default`.
    Map,
    /// The record of that replica.
    Replica,
    /// Its `_meta` replica says that the replica is live.
    Live,
}

const STEPS: [Step; 5] = [Step::Nothing, Step::Member, Step::Map, Step::Replica, Step::Live];

/// Where cuts have found the nodes.
#[derive(Default)]
pub(super) struct Cuts {
    /// Per step: how often each node was there.
    found: BTreeMap<Step, [u64; NODES]>,
    lives: u64,
    /// Lives that ended with nodes at different steps.
    uneven: u64,
}

impl Cuts {
    fn note(&mut self, steps: &[Step]) {
        for (place, step) in steps.iter().enumerate() {
            self.found.entry(*step).or_default()[place] += 1;
        }
        self.lives += 1;
        self.uneven += u64::from(steps.iter().any(|step| *step != steps[0]));
    }

    pub(super) fn print(&self) {
        for step in STEPS {
            let nodes = self.found.get(&step).copied().unwrap_or_default();
            let text: Vec<String> = nodes.iter().zip(1..).map(|(times, node)| format!("n{node} {times}")).collect();
            println!("cut at step {step:?}: {}", text.join(", "));
        }
        println!("{} of {} lives ended with nodes at different steps", self.uneven, self.lives);
    }

    /// Each step was cut at, and nodes at different steps were.
    pub(super) fn assert_varied(&self) {
        for step in STEPS {
            assert!(self.found.contains_key(&step), "no cut in these seeds found a node at step {step:?}");
        }
        assert!(self.uneven > 0, "no life in these seeds ended with nodes at different steps");
    }
}

/// How one life goes.
struct Plan {
    /// Who is not started, if anybody.
    missing: Option<usize>,
    /// How late each node starts.
    late: Vec<Duration>,
    /// The life ends when this node
    aimed: usize,
    /// has come to this step,
    aim: Step,
    /// and this has passed since.
    delay: Duration,
}

impl Plan {
    fn roll(seed: u64, life: u64, steps: &[Step], dice: &mut Dice) -> Plan {
        let late = (0..NODES).map(|_| Duration::from_millis(dice.below(300))).collect();
        // A cluster of which nobody has started yet forms with all of them or not at all.
        let missing = Some(dice.below(2 * NODES as u64) as usize).filter(|place| life > 0 && *place < NODES);
        let mut aimed = dice.below(NODES as u64) as usize;
        if missing == Some(aimed) {
            aimed = (aimed + 1) % NODES;
        }
        // In their first lives the seeds take turns, so that a few seeds aim at every step.
        let turn = if life == 0 { seed } else { dice.next() };
        let ahead = &STEPS[steps[aimed] as usize..];
        let aim = ahead[(turn % ahead.len() as u64) as usize];
        let lingers = aim == steps[aimed] || dice.below(3) == 0;
        let delay = if lingers { Duration::from_millis(dice.below(400)) } else { Duration::ZERO };
        Plan { missing, late, aimed, aim, delay }
    }
}

/// Cuts all nodes together, again and again, each time when one of them has come to some step of forming; then the
/// cluster must serve, with every node ready. Gives the revision of the first put.
pub(super) fn form_under_fire(seed: u64, cuts: &mut Cuts) -> u64 {
    let mut dice = Dice(seed);
    let mut disks: Vec<Disk> = (0..NODES).map(|_| Disk::new(&mut dice)).collect();
    let mut steps = [Step::Nothing; NODES];
    for life in 0..LIVES {
        let plan = Plan::roll(seed, life, &steps, &mut dice);
        let slots = open(&disks, plan.missing);
        let aimed = disks[plan.aimed].engine.clone();
        one_life(seed ^ life, forming(plan, slots, aimed), Dice(dice.next()));
        for (place, disk) in disks.iter_mut().enumerate() {
            disk.cut(&mut dice);
            let found = step_of(&disk.engine);
            assert!(
                found >= steps[place],
                "seed {seed}: n{} went back from {:?} to {found:?}",
                place + 1,
                steps[place]
            );
            steps[place] = found;
        }
        cuts.note(&steps);
    }
    let slots: Vec<OpenDiskSlot> = open(&disks, None).into_iter().flatten().collect();
    let revision: Rc<RefCell<u64>> = Rc::default();
    one_life(seed, serving(seed, slots, revision.clone()), Dice(dice.next()));
    revision.take()
}

fn open(disks: &[Disk], missing: Option<usize>) -> Vec<Option<OpenDiskSlot>> {
    let open = |disk: &Disk| RefCell::new(Some(disk.open().expect("a whole disk")));
    let places = disks.iter().enumerate();
    places.map(|(place, disk)| (missing != Some(place)).then(|| open(disk))).collect()
}

/// Starts the nodes, and ends when it is time to cut them.
async fn forming(plan: Plan, slots: Vec<Option<OpenDiskSlot>>, aimed: MemoryEngine) {
    for ((place, slot), late) in slots.into_iter().enumerate().zip(plan.late) {
        let Some(slot) = slot else { continue };
        tokio::task::spawn_local(async move {
            clock::sleep(late).await;
            let _node = start_one(place, &slot).await;
            std::future::pending::<()>().await;
        });
    }
    let until = clock::now() + LIFE_MAX;
    while step_of(&aimed.crash(0)) < plan.aim && clock::now() < until {
        clock::sleep(Duration::from_millis(1)).await;
    }
    clock::sleep(plan.delay).await;
}

async fn serving(seed: u64, slots: Vec<OpenDiskSlot>, revision: Rc<RefCell<u64>>) {
    let _nodes = start(&slots).await;
    let client = connect().await;
    let until = clock::now() + READY_PATIENCE;
    loop {
        match client.put("formed", "yes").await {
            Ok(reply) => {
                *revision.borrow_mut() = reply.header.revision.0;
                break;
            }
            Err(error) => assert!(clock::now() < until, "seed {seed}: the cluster did not form: {error}"),
        }
    }
    let complaints = complaints(&client).await;
    assert!(complaints.is_empty(), "seed {seed}: {complaints:#?}");
}

/// How far the node of a disk has come.
fn step_of(engine: &MemoryEngine) -> Step {
    let row = |key: &[u8]| engine.get(Family::Node, key).expect("readable");
    if row(key::node::FOUNDING).is_none() {
        return Step::Nothing;
    }
    let identity = row(key::node::IDENTITY).expect("an identity comes with the founding record");
    let (cluster, node) = Identity::decode(identity).expect("a sound identity");
    let records = replica_records(engine).expect("sound replica records");
    let store_of = |partition: PartitionId| {
        records.values().find(|record| record.partition == partition).map(|record| record.store)
    };
    let meta = store_of(PartitionId::META).expect("a record of the _meta replica comes with the founding record");
    let map = map_of(engine, cluster, meta);
    let placed = map.rows.get(&PartitionId::DEFAULT).and_then(|row| row.on(node));
    match (placed.map(|placed| placed.stage), store_of(PartitionId::DEFAULT)) {
        (None, None) => Step::Member,
        (Some(Stage::New), None) => Step::Map,
        (Some(Stage::New), Some(_)) => Step::Replica,
        (Some(Stage::Live), Some(_)) => Step::Live,
        (None, Some(_)) => panic!("{node} has a replica of default that its map does not ask for"),
        (Some(Stage::Live), None) => panic!("{node} has no replica of default, but its map says that it is live"),
    }
}

/// The map as the `_meta` replica of a disk has it.
fn map_of(engine: &MemoryEngine, cluster: ClusterId, meta: StoreNumber) -> ClusterMap {
    let mut pairs = Vec::new();
    let scanned =
        engine.scan(Family::Current, &key::current_span(meta, &[], None), Order::Ascending, &mut |row, value| {
            let version = Version::decode(Bytes::copy_from_slice(value)).expect("a sound row");
            let name = key::decode_current(row).expect("a row of a store");
            pairs.push(version.into_pair(Bytes::copy_from_slice(name)));
            Visit::Next
        });
    scanned.expect("readable");
    ClusterMap::read(cluster, Revision(0), &pairs).expect("a sound map")
}
