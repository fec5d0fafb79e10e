//! What a node does as a member of a cluster: its steward.
//!
//! Joining gives the services a router and links to the other nodes. Then the replicas of before are started, and
//! rounds of duties follow until the node stops: publish the map when `_meta` has changed, found `_meta`'s content,
//! register own addresses, create the replicas the map asks for and have them made live, trim and sweep, watch the
//! disk, compare replicas, and become ready. A round never waits for `_meta`: what is to be changed there is worked out
//! again each round and tried beside it, one change at a time.
//!
//! A node that a peer has proof against (its directory is not the newest of its name) stops its replicas and stays out.
//!
//! Invariants:
//!
//! * A replica whose row is `live` but of which there is no record here is never started.
//! * A replica's record is durable before the replica starts.
//! * Every change of `_meta` is a compare-and-set, so that one whose outcome is unknown may be tried again.
//! * A replica that has stopped, or a failed engine, ends the node.
//!
//! Left out: becoming a member (`forming.rs`), and stopping the replicas, which is the node's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{Instrument, error, info, warn};
use trefoil_causality::{ReplicaId, Revision};
use trefoil_placement::{KeyspaceId, PartitionId, PlacementRow, Stage};
use trefoil_store::command::{Command, Op, Outcome, Txn};
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Order, Visit};
use trefoil_store::key;
use trefoil_world::{clock, task};

use crate::api::answers::AnswerRoom;
use crate::api::peer::{Member, RaftReplicas};
use crate::api::{REQUEST_BYTES_MAX, REQUEST_UNIT, Serving};
use crate::cluster::addresses::AddressBook;
use crate::cluster::founding::{Founder, FoundingRecord};
use crate::cluster::identity::{Acquaintances, Identity};
use crate::cluster::map::{self, ClusterMap, NodeRecord};
use crate::config::Config;
use crate::disk;
use crate::give_back::GiveBack;
use crate::health::{Health, WaitingLine};
use crate::node::Shared;
use crate::peer::Peers;
use crate::raft::group::{Parts, RaftReplica};
use crate::replica_record::ReplicaRecord;
use crate::replication::leader::LONG_READS_MAX;
use crate::replication::{Consistency, Replica};
use crate::router::{LocalReplicas, Router};
use crate::stderr;
use crate::verify::{self, Comparison, Difference};
use crate::writer::ManifestNotes;

const STEWARD_PAUSE: Duration = Duration::from_millis(200);
const META_PATIENCE: Duration = Duration::from_secs(3);
/// How soon after a start the replicas are compared, at the latest.
const FIRST_COMPARISON: Duration = Duration::from_secs(600);
/// How often the positions of peers are kept.
const POSITIONS_EVERY: Duration = Duration::from_secs(1);
/// How long after its last question a stranger is named in the alarms.
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);
/// A leader silent for this long is none for clients.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);

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
    /// Makes router and links, and fills in what both ports were waiting for: from here on this node is a member.
    pub(crate) fn join(
        shared: Arc<Shared>,
        record: Arc<FoundingRecord>,
        identity: Identity,
        runs: Vec<u64>,
    ) -> anyhow::Result<Membership> {
        let peers = links(&shared, &record, identity, runs)?;
        let replicas = Arc::new(ArcSwap::from_pointee(LocalReplicas::new()));
        let router = Arc::new(Router::new(identity.node, replicas, peers));
        let rafts = Arc::new(ArcSwap::from_pointee(RaftReplicas::new()));
        let member = member(&shared, router.clone(), rafts.clone());
        shared.peer_service.member.store(Some(member.clone()));
        shared.serving.store(Some(Arc::new(serving(&shared, identity, router.clone()))));
        let line = WaitingLine::new(shared.health.clone());
        let give_back = Arc::new(GiveBack::new(shared.engine.clone(), shared.health.clone(), shared.bulk.clone()));
        let next_comparison = clock::now() + shared.config.verify_interval.min(FIRST_COMPARISON);
        Ok(Membership {
            shared,
            member,
            record,
            identity,
            router,
            rafts,
            long_reads: Arc::new(Semaphore::new(LONG_READS_MAX)),
            line,
            goals: BTreeMap::new(),
            give_back,
            cleaning: None,
            changing: None,
            next_comparison,
            comparing: None,
            next_keeping: clock::now(),
            manifest: ManifestNotes::default(),
        })
    }

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

    async fn start(&mut self, replica: ReplicaId, record: ReplicaRecord) -> anyhow::Result<()> {
        let parts = Parts {
            replica,
            record,
            engine: self.shared.engine.clone(),
            writer: self.shared.writer.clone(),
            stores: self.shared.stores.clone(),
            bulk: self.shared.bulk.clone(),
            peers: self.router.peers.clone(),
        };
        let raft = Arc::new(RaftReplica::start(parts).await.with_context(|| format!("replica {replica}"))?);
        if record.partition == PartitionId::META {
            let voters = self.record.meta_voters();
            if voters.iter().any(|voter| voter.node == self.identity.node) {
                raft.initialize(voters.iter().map(|voter| (voter.meta_replica(), voter.node)).collect()).await?;
            }
        }
        let started = Replica::start(record.mode, raft.clone(), self.long_reads.clone())?;
        insert(&self.rafts, replica, raft);
        insert(&self.router.replicas, record.partition, Arc::new(started));
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

    /// Whether clients should come here now: ready, and every partition's leader was heard lately.
    fn serves(&self) -> bool {
        let heard = |raft: &Arc<RaftReplica>| raft.leader_silent().is_some_and(|silent| silent < LEADER_PATIENCE);
        self.shared.health.ready() && self.rafts.load().values().all(heard)
    }

    async fn publish_map(&mut self) -> anyhow::Result<()> {
        let Some(meta) = self.router.local(PartitionId::META) else { return Ok(()) };
        if meta.raft().published().view().head.revision <= self.router.map.load().version.max(Revision::EMPTY) {
            return Ok(());
        }
        Ok(self.router.refresh_map(Consistency::Stale { context: None }, clock::now() + META_PATIENCE).await?)
    }

    /// The leader of `_meta` writes its first content, and adds the founders that are no voters.
    fn found_meta(&mut self) {
        let Some(meta) = self.router.local(PartitionId::META) else { return };
        let meta = meta.raft().clone();
        let state = meta.state();
        let missing: Vec<Founder> = self
            .record
            .founders
            .iter()
            .filter(|founder| !state.members.contains_key(&founder.meta_replica()))
            .cloned()
            .collect();
        let founded = !self.router.map.load().nodes.is_empty();
        if !state.leads || founded && missing.is_empty() {
            return;
        }
        let (router, record) = (self.router.clone(), self.record.clone());
        self.change_meta(async move {
            for founder in missing {
                let added = meta.add_learner(founder.meta_replica(), founder.node);
                if !matches!(clock::timeout(META_PATIENCE, added).await, Ok(Ok(()))) {
                    warn!("{} is not a learner of _meta yet", founder.name);
                    return;
                }
            }
            write_meta(&router, map::found(&record)).await;
        });
    }

    /// Puts this node's addresses, zone and weight into the map when they have changed.
    fn register(&mut self) {
        let config = &self.shared.config;
        let record = NodeRecord {
            name: config.name.clone(),
            client_address: config.advertise_client.clone(),
            peer_address: config.advertise_peer.clone(),
            zone: config.zone.clone(),
            weight: config.weight,
        };
        let known = self.router.map.load().nodes.get(&self.identity.node).is_none_or(|known| *known == record);
        if !known {
            let (router, node) = (self.router.clone(), self.identity.node);
            self.change_meta(async move { write_meta(&router, map::register(node, &record)).await });
        }
    }

    /// Runs a change of `_meta` beside the duties, unless there is one under way.
    fn change_meta(&mut self, change: impl Future<Output = ()> + Send + 'static) {
        if self.changing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.changing = Some(task::spawn(change.in_current_span()));
        }
    }

    async fn tend_row(&mut self, row: &PlacementRow) -> anyhow::Result<()> {
        let Some(mine) = row.on(self.identity.node) else { return Ok(()) };
        let started = self.rafts.load().get(&mine.replica).cloned();
        match (mine.stage, started) {
            (Stage::New, None) => self.create(row, mine.replica).await,
            (Stage::New, Some(raft)) => self.bring_up(row, &raft).await,
            (Stage::Live, Some(_)) => Ok(()),
            (Stage::Live, None) => {
                self.line.say(format!(
                    "replica {} of partition {} is live in the map, but its data is not here; run: kvctl node replace {}",
                    mine.replica, row.partition, self.shared.config.name
                ));
                Ok(())
            }
        }
    }

    async fn create(&mut self, row: &PlacementRow, replica: ReplicaId) -> anyhow::Result<()> {
        let keyspace = self.router.map.load().keyspaces.get(&row.partition.keyspace).map(|keyspace| keyspace.mode);
        let mode =
            keyspace.with_context(|| format!("{} is placed, but its keyspace is not in the map", row.partition))?;
        let record = ReplicaRecord { partition: row.partition, store: self.shared.stores.allocate().await?, mode };
        let mut batch = Batch::new();
        batch.put(Family::Node, &key::node::replica(replica), &record.encode());
        self.shared.writer.write(batch, Durability::Sync).await?;
        self.start(replica, record).await
    }

    /// A new partition's first replica names its voters; each replica becomes live once it has applied something.
    async fn bring_up(&mut self, row: &PlacementRow, raft: &RaftReplica) -> anyhow::Result<()> {
        let first = row.replicas.iter().map(|placed| placed.replica).min();
        let all_new = row.replicas.iter().all(|placed| placed.stage == Stage::New);
        let applied = raft.state().applied;
        if applied.is_none() && all_new && first == Some(raft.replica) && row.partition.keyspace != KeyspaceId::META {
            raft.initialize(row.replicas.iter().map(|placed| (placed.replica, placed.node)).collect()).await?;
        }
        if applied.is_some() {
            let (router, change) = (self.router.clone(), map::make_live(row, raft.replica));
            self.change_meta(async move { write_meta(&router, change).await });
        }
        Ok(())
    }

    /// Compares the replicas of the partitions this node leads, when it is time.
    fn compare_replicas(&mut self) {
        let busy = self.comparing.as_ref().is_some_and(|task| !task.is_finished());
        if busy || clock::now() < self.next_comparison {
            return;
        }
        self.next_comparison = clock::now() + self.shared.config.verify_interval;
        let (router, health) = (self.router.clone(), self.shared.health.clone());
        let compare = async move {
            for replica in router.replicas.load_full().values() {
                let partition = replica.raft().partition;
                if !replica.raft().state().leads {
                    // Whoever leads now says how the replicas are.
                    health.alarm(content_of(partition), None);
                    continue;
                }
                match verify::compare(&router, replica).await {
                    Ok(found) => note_comparison(&health, partition, &found),
                    Err(error) => warn!(%partition, "replicas not compared: {error}"),
                }
            }
        };
        self.comparing = Some(task::spawn(compare.in_current_span()));
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

    fn check_ready(&mut self, rows: &[PlacementRow]) {
        if self.shared.health.ready() {
            return;
        }
        match self.unready(rows) {
            Some(why) => self.line.say(why),
            None => {
                self.shared.health.become_ready();
                info!(
                    node = %self.identity.node,
                    cluster = %self.identity.cluster,
                    "ready to serve client requests at {}",
                    self.shared.config.listen_client
                );
                stderr::say(format_args!("{}: ready to serve client requests", self.shared.config.name));
            }
        }
    }

    /// What this node still waits for.
    fn unready(&mut self, rows: &[PlacementRow]) -> Option<String> {
        if rows.is_empty() || !self.router.map.load().nodes.contains_key(&self.identity.node) {
            let connected = self.connected_text();
            return Some(format!("the map is not known yet{connected}"));
        }
        for row in rows {
            let Some(mine) = row.on(self.identity.node) else { continue };
            let Some(raft) = self.rafts.load().get(&mine.replica).cloned() else {
                return Some(format!("replica {} of partition {} is not started", mine.replica, row.partition));
            };
            if mine.stage == Stage::New {
                return Some(format!("replica {} of partition {} is not live yet", mine.replica, row.partition));
            }
            let state = raft.state();
            // The stored vote names a leader of before; only one that was heard since the start counts.
            if raft.leader_silent().is_none() {
                return Some(format!("partition {} has no leader{}", row.partition, self.connected_text()));
            }
            let committed = if state.leads { state.last_log } else { state.committed };
            let goal = *self.goals.entry(raft.replica).or_insert(committed.unwrap_or(0));
            if state.applied.unwrap_or(0) < goal {
                let applied = state.applied.unwrap_or(0);
                return Some(format!("partition {} has applied {applied} of {goal}", row.partition));
            }
        }
        None
    }

    fn connected_text(&self) -> String {
        let peers = &self.router.peers;
        let others = self.record.founders.iter().filter(|founder| founder.node != self.identity.node);
        let away = others.filter(|founder| !peers.connected(founder.node));
        away.map(|founder| match peers.disconnected_because(founder.node).as_str() {
            "" => format!("; not connected to {}", founder.name),
            why => format!("; not connected to {} ({why})", founder.name),
        })
        .collect()
    }
}

/// Links to the other founders, which begin to be made at once: a call without a connection fails.
fn links(shared: &Shared, record: &FoundingRecord, identity: Identity, runs: Vec<u64>) -> anyhow::Result<Arc<Peers>> {
    let founders = || record.founders.iter().filter(|founder| founder.node != identity.node);
    let storages = founders().map(|founder| (founder.node, founder.storage)).collect();
    let map = Arc::new(ArcSwap::from_pointee(ClusterMap::unknown(identity.cluster)));
    let (engine, writer) = (shared.engine.as_ref(), shared.writer.clone());
    let given = founders().map(|founder| (founder.node, given_address(&shared.config, founder))).collect();
    let addresses = Arc::new(AddressBook::new(shared.config.advertise_peer.clone(), map, given));
    let acquaintances = Acquaintances::open(identity, runs, engine, writer, storages, addresses.clone())?;
    let peers = Peers::new(Arc::new(acquaintances), addresses);
    founders().for_each(|founder| peers.keep_link(founder.node));
    Ok(Arc::new(peers))
}

/// What the peer port was waiting for.
fn member(shared: &Shared, router: Arc<Router>, rafts: Arc<ArcSwap<RaftReplicas>>) -> Arc<Member> {
    Arc::new(Member {
        strangers: Default::default(),
        acquaintances: router.peers.acquaintances.clone(),
        rafts,
        router,
        health: shared.health.clone(),
        limits: shared.config.limits,
        message_bytes_max: shared.config.message_bytes_max,
    })
}

/// What the client port was waiting for.
fn serving(shared: &Shared, identity: Identity, router: Arc<Router>) -> Serving {
    Serving {
        identity,
        cluster_id: Bytes::copy_from_slice(&identity.cluster.0.to_be_bytes()),
        name: shared.config.name.clone(),
        router,
        limits: shared.config.limits,
        message_bytes_max: shared.config.message_bytes_max,
        request_timeout: shared.config.request_timeout,
        health: shared.health.clone(),
        requests: Arc::new(Semaphore::new(REQUEST_BYTES_MAX / REQUEST_UNIT)),
        answers: AnswerRoom::default(),
    }
}

/// The records of the replicas of this node.
pub(crate) fn replica_records(engine: &dyn Engine) -> Result<BTreeMap<ReplicaId, ReplicaRecord>, EngineError> {
    let mut rows = Vec::new();
    engine.scan(Family::Node, &key::node::replicas(), Order::Ascending, &mut |key, value| {
        rows.push((key::node::decode_replica(key), Bytes::copy_from_slice(value)));
        Visit::Next
    })?;
    let malformed = || EngineError::Corrupt("malformed replica key".into());
    rows.into_iter().map(|(replica, row)| Ok((replica.ok_or_else(malformed)?, ReplicaRecord::decode(row)?))).collect()
}

/// A change whose outcome is not known is tried again: every one is a compare-and-set.
async fn write_meta(router: &Router, txn: Txn) {
    let written = router.write_meta(Command::Op(Op::Txn(txn)), clock::now() + META_PATIENCE).await;
    if let Ok(Outcome { result: Err(refusal), .. }) = written {
        error!("_meta refused a change: {refusal}");
    }
}

/// A replica that could not be asked leaves an alarm about the others as it is found, and one of before standing.
fn note_comparison(health: &Health, partition: PartitionId, found: &Comparison) {
    for (node, why) in &found.not_compared {
        warn!(%partition, "the replica on {node} was not compared: {why}");
    }
    if found.not_compared.is_empty() || !found.differences.is_empty() {
        health.alarm(content_of(partition), differences(partition, &found.differences));
    }
}

fn content_of(partition: PartitionId) -> String {
    format!("content of {partition}")
}

fn differences(partition: PartitionId, found: &[Difference]) -> Option<String> {
    let lines: Vec<String> = found
        .iter()
        .map(|found| {
            format!(
                "partition {partition}: {} on {} differs at revision {}: {} keys with sum {:016x}, the leader has {} with {:016x}",
                found.replica, found.node, found.revision, found.there.keys, found.there.sum, found.here.keys, found.here.sum
            )
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Where a founder is by the flags, or was when the cluster was founded.
fn given_address(config: &Config, founder: &Founder) -> String {
    let given = config.initial_cluster.iter().find(|(name, _)| *name == founder.name);
    given.map_or_else(|| founder.peer_address.clone(), |(_, address)| address.clone())
}

fn insert<K: Ord + Clone, V>(map: &ArcSwap<BTreeMap<K, Arc<V>>>, key: K, value: Arc<V>) {
    map.rcu(|map| {
        let mut map = BTreeMap::clone(map);
        map.insert(key.clone(), value.clone());
        map
    });
}
