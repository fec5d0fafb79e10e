//! What a node does as a member of a cluster: its steward.
//!
//! Joining gives the services a router and links to the other nodes. Then the replicas of before are started, and
//! rounds of duties follow until the node stops: publish the map when `_meta` has changed, found `_meta`'s content,
//! register own addresses, create the replicas the map asks for and have them made live, trim and sweep, watch the
//! disk, compare replicas, and become ready. A round never waits for `_meta`: what is to be changed there is worked out
//! again each round and tried beside it, one change at a time. The larger duties have files of their own, in
//! `membership/`.
//!
//! A node that a peer has proof against (its directory is not the newest of its name) stops its replicas and stays out.
//!
//! Invariants: those of replicas and of changes of `_meta` stand in `replicas.rs` and `meta.rs`. A replica that has
//! stopped, or a failed engine, ends the node.
//!
//! Left out: becoming a member (`forming.rs`), and stopping the replicas, which is the node's.

mod compare;
mod join;
mod meta;
mod ready;
mod replicas;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::Instrument;
use trefoil_causality::ReplicaId;
use trefoil_placement::PlacementRow;
use trefoil_world::{clock, task};

pub(crate) use self::replicas::replica_records;
use crate::api::peer::{Member, RaftReplicas};
use crate::cluster::founding::FoundingRecord;
use crate::cluster::identity::Identity;
use crate::disk;
use crate::give_back::GiveBack;
use crate::health::WaitingLine;
use crate::node::Shared;
use crate::router::Router;
use crate::writer::ManifestNotes;

const STEWARD_PAUSE: Duration = Duration::from_millis(200);
/// How often the positions of peers are kept.
const POSITIONS_EVERY: Duration = Duration::from_secs(1);
/// How long after its last question a stranger is named in the alarms.
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);

/// A node as a member: its replicas, the map, and the duties that follow from them.
pub(crate) struct Membership {
    shared: Arc<Shared>,
    member: Arc<Member>,
    record: Arc<FoundingRecord>,
    identity: Identity,
    router: Arc<Router>,
    rafts: Arc<ArcSwap<RaftReplicas>>,
    /// Room for long reads, of all replicas.
    long_reads: Arc<Semaphore>,
    line: WaitingLine,
    /// Committed position to reach before being ready, per replica, noted when its leader was first heard.
    goals: BTreeMap<ReplicaId, u64>,
    give_back: Arc<GiveBack>,
    /// The cleaning up under way.
    cleaning: Option<JoinHandle<anyhow::Result<()>>>,
    /// The change of `_meta` under way.
    changing: Option<JoinHandle<()>>,
    next_comparison: clock::Instant,
    /// The comparison under way: one at a time.
    comparing: Option<JoinHandle<()>>,
    next_keeping: clock::Instant,
    manifest: ManifestNotes,
}

impl Membership {
    /// Starts the replicas of before, then tends to its duties until the node stops.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        for (replica, record) in replica_records(self.shared.engine.as_ref())? {
            self.start(replica, record).await?;
        }
        let mut stopping = self.shared.stopping.clone();
        loop {
            match self.member.acquaintances.disowned() {
                None => self.tend().await?,
                Some(why) => self.stay_out(&why).await?,
            }
            tokio::select! {
                () = clock::sleep(STEWARD_PAUSE) => {}
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    /// Serves nothing, takes part in nothing, and says so.
    async fn stay_out(&mut self, why: &str) -> anyhow::Result<()> {
        let name = &self.shared.config.name;
        let line = format!(
            "this directory is not the newest of {name}, so it stays out; put the newest back, or run: \
             kvctl node replace {name} ({why})"
        );
        self.shared.health.stay_out(line.clone());
        self.router.replicas.store(Arc::default());
        for raft in self.rafts.swap(Arc::default()).values() {
            raft.stop().await?;
        }
        self.line.say(line);
        Ok(())
    }

    /// One round of a member's duties.
    async fn tend(&mut self) -> anyhow::Result<()> {
        self.publish_map().await?;
        self.found_meta();
        self.register();
        self.keep_positions().await?;
        let rows: Vec<PlacementRow> = self.router.map.load().rows.values().cloned().collect();
        for row in &rows {
            self.tend_row(row).await?;
        }
        for raft in self.rafts.load().values() {
            raft.trim_log(self.shared.config.log_keep).await?;
            if let Some(why) = raft.state().stopped {
                return Err(anyhow!("{} of partition {} stopped: {why}", raft.replica, raft.partition));
            }
        }
        self.clean_up().await?;
        self.shared.engine.check()?;
        self.manifest.note(self.shared.engine.clone(), &self.shared.writer).await?;
        self.check_disk();
        self.compare_replicas();
        self.report_strangers();
        self.check_ready(&rows);
        self.shared.health.note_serves(self.serves());
        Ok(())
    }

    /// Removes history nobody reads and the rows of retired store numbers, and gives their room back, beside the duties:
    /// it may have to wait.
    async fn clean_up(&mut self) -> anyhow::Result<()> {
        if self.cleaning.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        if let Some(task) = self.cleaning.take() {
            task.await.context("cleaning up")??;
        }
        let (rafts, stores, give_back) = (self.rafts.load_full(), self.shared.stores.clone(), self.give_back.clone());
        let clean = async move {
            for raft in rafts.values() {
                raft.scrub().await?;
            }
            task::blocking(move || stores.sweep()).await??;
            give_back.step().await?;
            anyhow::Ok(())
        };
        self.cleaning = Some(task::spawn(clean.in_current_span()));
        Ok(())
    }

    /// Keeps links to all nodes, so that each hears of this one, and keeps what they have said of their writers'
    /// positions, now and then.
    async fn keep_positions(&mut self) -> anyhow::Result<()> {
        if clock::now() >= self.next_keeping {
            self.next_keeping = clock::now() + POSITIONS_EVERY;
            let others = self.router.map.load_full();
            for node in others.nodes.keys().filter(|node| **node != self.identity.node) {
                self.router.peers.keep_link(*node);
            }
            self.member.acquaintances.keep_positions().await?;
        }
        Ok(())
    }

    /// Names in the alarms those nodes that came back with another directory, while they ask.
    fn report_strangers(&self) {
        for (name, storage) in self.member.strangers(STRANGER_PATIENCE) {
            let line = storage.map(|storage| {
                format!("{name} came back with another directory, storage id {storage}; run: kvctl node replace {name}")
            });
            self.shared.health.alarm(format!("stranger {name}"), line);
        }
    }

    /// A simulated disk is not full, and the machine's is no business of a simulation.
    fn check_disk(&self) {
        if trefoil_world::is_simulated() {
            return;
        }
        match disk::free_bytes(&self.shared.config.data_dir) {
            Ok(free) => self.shared.health.note_free_space(free),
            Err(error) => self.shared.health.free_space_is_unknown(&error.to_string()),
        }
    }
}
