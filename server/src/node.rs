//! The composition root: builds a node from its parts, owns its tasks and its shutdown.
//!
//! A node opens its disk, then listens, then finds out who it is: a member from before, or new and forming a cluster.
//! As a member it starts its replicas, publishes the map whenever `_meta` changes, and serves.
//!
//! Invariants:
//!
//! * Nothing is said to anybody before storage id and start count are durable (`disk.rs`).
//! * A replica whose row is `live` but of which there is no record here is never started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::watch;
use tonic::transport::Server;
use tracing::{Instrument, error, error_span, info, warn};
use trefoil_causality::ReplicaId;
use trefoil_placement::{KeyspaceId, NodeId, PartitionId, PlacementRow, Stage};
use trefoil_proto::peer::peer_server::PeerServer;
use trefoil_proto::peer::{Introduction, IntroductionReply};
use trefoil_proto::v1::{cluster_server::ClusterServer, kv_server::KvServer};
use trefoil_store::command::{Command, Op, Txn};
use trefoil_store::engine::{Batch, Durability, Engine, EngineError, Family, Order, Visit};
use trefoil_store::key::{self, StoreNumber};
use trefoil_world::{clock, net, random, task};

use crate::api::accept::connections;
use crate::api::cluster::ClusterService;
use crate::api::kv::KvService;
use crate::api::peer::{Member, PeerService, RaftReplicas};
use crate::api::{MaybeServing, Serving};
use crate::cluster::founding::{Answer, Founder, FoundingRecord, Step, step};
use crate::cluster::identity::{Acquaintances, ClusterId, Identity, StorageId};
use crate::cluster::map::{self, ClusterMap, NodeRecord};
use crate::config::Config;
use crate::disk::{Beginning, OpenDisk};
use crate::error::Error;
use crate::peer::{AddressBook, MESSAGE_BYTES_MAX, Peers, dial};
use crate::raft::group::{Parts, RaftReplica};
use crate::replica_record::ReplicaRecord;
use crate::replication::{Consistency, Replica};
use crate::router::{LocalReplicas, Router};
use crate::stores::Stores;
use crate::verify::Difference;
use crate::writer::{Fatal, Writer};

const FORMING_PAUSE: Duration = Duration::from_millis(200);
const STEWARD_PAUSE: Duration = Duration::from_millis(200);
const WAITING_LINE_EVERY: Duration = Duration::from_secs(5);
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1500);
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
const META_PATIENCE: Duration = Duration::from_secs(3);

/// Whether a node serves, and what it waits for.
pub struct Health {
    ready: AtomicBool,
    disk_full: AtomicBool,
    free_space_floor: u64,
    // Written by the steward, read by status requests.
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    waiting_for: String,
    alarms: BTreeMap<String, String>,
}

impl Health {
    fn new(free_space_floor: u64) -> Health {
        Health {
            ready: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            free_space_floor,
            lines: Mutex::default(),
        }
    }

    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Refuses what puts something while there is too little disk space left.
    pub fn room_for(&self, op: &Op) -> Result<(), Error> {
        match self.disk_full.load(Ordering::Relaxed) && grows(op) {
            true => Err(Error::Exhausted { what: "free disk space", limit: self.free_space_floor }),
            false => Ok(()),
        }
    }

    /// What an unready node waits for; empty once ready.
    pub fn waiting_for(&self) -> String {
        self.lock().waiting_for.clone()
    }

    /// What an admin should look at, one line each.
    pub fn alarms(&self) -> Vec<String> {
        self.lock().alarms.values().cloned().collect()
    }

    fn wait_for(&self, what: String) {
        self.lock().waiting_for = what;
    }

    /// Raises the alarm about `subject`, or ends it.
    fn alarm(&self, subject: String, line: Option<String>) {
        match line {
            Some(line) => {
                error!("{line}");
                self.lock().alarms.insert(subject, line);
            }
            None => drop(self.lock().alarms.remove(&subject)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn grows(op: &Op) -> bool {
    match op {
        Op::Put(_) => true,
        Op::Range(_) | Op::Delete(_) => false,
        Op::Txn(txn) => txn.success.iter().chain(&txn.failure).any(grows),
    }
}

/// A running node.
pub struct Node {
    config: Config,
    stop: watch::Sender<bool>,
    member: Arc<ArcSwapOption<Member>>,
    engine: Arc<dyn Engine>,
    done: tokio::task::JoinHandle<()>,
    /// Ends once the clients' requests are answered.
    clients: tokio::task::JoinHandle<()>,
    /// The address clients are served at.
    pub client_address: std::net::SocketAddr,
    _lock: Option<std::fs::File>,
}

/// What every task of a node may need.
struct Shared {
    config: Config,
    engine: Arc<dyn Engine>,
    writer: Writer,
    stores: Arc<Stores>,
    health: Arc<Health>,
    serving: MaybeServing,
    peer_service: PeerService,
    stopping: watch::Receiver<bool>,
    fatal: Fatal,
}

impl Node {
    /// Starts a node on an opened disk. Returns once it listens; it becomes ready by itself.
    ///
    /// # Errors
    /// An address cannot be listened at, or what the disk holds is malformed.
    pub async fn start(config: Config, disk: OpenDisk, fatal: Fatal) -> anyhow::Result<Node> {
        let span = error_span!("node", name = config.name);
        Node::start_here(config, disk, fatal).instrument(span).await
    }

    async fn start_here(config: Config, disk: OpenDisk, fatal: Fatal) -> anyhow::Result<Node> {
        let clients = net::listen(&config.listen_client).await;
        let clients = clients.with_context(|| format!("--listen-client {}", config.listen_client))?;
        let peers = net::listen(&config.listen_peer).await;
        let peers = peers.with_context(|| format!("--listen-peer {}", config.listen_peer))?;
        warn_if_exposed(&config);
        let OpenDisk { engine, mark, position, beginning, lock } = disk;
        let writer = Writer::start(engine.clone(), mark, position, fatal.clone())?;
        let records = replica_records(engine.as_ref())?;
        let owned: BTreeSet<StoreNumber> = records.values().map(|record| record.store).collect();
        let stores = Arc::new(Stores::open(engine.clone(), writer.clone(), &owned)?);
        let founding = engine.get(Family::Node, key::node::FOUNDING)?.map(FoundingRecord::decode).transpose()?;
        let (stop, stopping) = watch::channel(false);
        let me = Founder {
            node: NodeId(0),
            name: config.name.clone(),
            storage: beginning.storage,
            peer_address: config.advertise_peer.clone(),
            client_address: config.advertise_client.clone(),
            zone: config.zone.clone(),
            weight: config.weight,
        };
        let shared = Arc::new(Shared {
            peer_service: PeerService {
                me: Arc::new(me),
                initial_cluster: list_text(&config.initial_cluster).into(),
                founding: Arc::new(ArcSwapOption::from(founding.map(Arc::new))),
                member: Arc::new(ArcSwapOption::empty()),
            },
            health: Arc::new(Health::new(config.free_space_floor_bytes)),
            serving: Arc::new(ArcSwapOption::empty()),
            config: config.clone(),
            engine: engine.clone(),
            writer,
            stores,
            stopping,
            fatal,
        });
        let client_address = clients.address();
        let member = shared.peer_service.member.clone();
        let clients = shared.serve(clients, peers);
        let done = task::spawn(run(shared, beginning));
        Ok(Node { config, stop, member, engine, done, clients, client_address, _lock: lock })
    }

    /// Stops: hands leadership over, stops the replicas, and leaves nothing for the next start to replay.
    pub async fn stop(self) -> anyhow::Result<()> {
        let member = self.member.load_full();
        if let Some(member) = &member {
            let peers = member.router.peers.clone();
            for raft in member.rafts.load().values() {
                raft.hand_over(|node| peers.connected(node), HAND_OVER_PATIENCE).await;
            }
        }
        self.stop.send_replace(true);
        if clock::timeout(DRAIN_PATIENCE, self.clients).await.is_err() {
            warn!("requests were still under way after {DRAIN_PATIENCE:?}");
        }
        // The steward first: it would take a stopped replica for a failed one.
        self.done.abort();
        drop(self.done.await);
        if let Some(member) = member {
            for raft in member.rafts.load().values() {
                raft.stop().await?;
            }
        }
        let engine = self.engine.clone();
        task::blocking(move || engine.flush()).await??;
        info!(name = self.config.name, "stopped");
        Ok(())
    }
}

fn warn_if_exposed(config: &Config) {
    for listen in [&config.listen_client, &config.listen_peer] {
        let host = listen.rsplit_once(':').map_or(listen.as_str(), |(host, _)| host);
        if !(host == "localhost" || host == "[::1]" || host.starts_with("127.")) {
            warn!(
                "listening at {listen}, beyond loopback, without TLS and without users: anybody who reaches it may read and write"
            );
        }
    }
}

fn list_text(list: &[(String, String)]) -> String {
    list.iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>().join(",")
}

fn parse_list(text: &str) -> Vec<(String, String)> {
    let parts = text.split(',').filter_map(|part| part.split_once('='));
    parts.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}

fn replica_records(engine: &dyn Engine) -> Result<BTreeMap<ReplicaId, ReplicaRecord>, EngineError> {
    let mut rows = Vec::new();
    engine.scan(Family::Node, &key::node::replicas(), Order::Ascending, &mut |key, value| {
        rows.push((key::node::decode_replica(key), Bytes::copy_from_slice(value)));
        Visit::Next
    })?;
    let malformed = || EngineError::Corrupt("malformed replica key".into());
    rows.into_iter().map(|(replica, row)| Ok((replica.ok_or_else(malformed)?, ReplicaRecord::decode(row)?))).collect()
}

impl Shared {
    /// Serves both ports. The returned task ends when the node stops and its clients' requests are answered.
    fn serve(self: &Arc<Self>, clients: net::Listener, peers: net::Listener) -> tokio::task::JoinHandle<()> {
        let message_max = self.config.message_bytes_max * 2;
        let kv = KvServer::new(KvService { serving: self.serving.clone() }).max_decoding_message_size(message_max);
        let cluster = ClusterServer::new(ClusterService { serving: self.serving.clone() });
        let (reporter, health) = tonic_health::server::health_reporter();
        task::spawn(report_health(reporter, self.health.clone()));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(trefoil_proto::DESCRIPTORS)
            .build_v1();
        let mut router = Server::builder()
            .max_concurrent_streams(self.config.streams_max)
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .add_service(kv)
            .add_service(cluster)
            .add_service(health);
        match reflection {
            Ok(reflection) => router = router.add_service(reflection),
            Err(error) => warn!("no gRPC reflection: {error}"),
        }
        let stop = stopped(self.stopping.clone());
        let incoming = connections(clients, self.config.connections_max);
        let clients = task::spawn(async move {
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop).await {
                warn!("clients are no longer served: {error}");
            }
        });
        let peer = PeerServer::new(self.peer_service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let router = Server::builder()
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
            .http2_keepalive_interval(Some(crate::peer::KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(crate::peer::KEEP_ALIVE_TIMEOUT))
            .add_service(peer);
        let incoming = connections(peers, 256);
        let stop = stopped(self.stopping.clone());
        task::spawn(async move { router.serve_with_incoming_shutdown(incoming, stop).await });
        clients
    }

    /// Puts a founding record, identity and the record of the `_meta` replica on disk, all at once.
    async fn adopt(&self, record: &FoundingRecord, me: &Founder) -> anyhow::Result<()> {
        let store = self.stores.allocate().await?;
        let mut batch = Batch::new();
        batch.put(Family::Node, key::node::FOUNDING, &record.encode());
        batch.put(Family::Node, key::node::IDENTITY, &Identity::encode(record.cluster, me.node));
        let meta = ReplicaRecord { partition: PartitionId::META, store };
        batch.put(Family::Node, &key::node::replica(me.meta_replica()), &meta.encode());
        self.writer.write(batch, Durability::Sync).await?;
        self.peer_service.founding.store(Some(Arc::new(record.clone())));
        info!(cluster = %record.cluster, node = %me.node, "member of the cluster");
        Ok(())
    }

    /// Asks the other nodes of the list until there is a founding record of this directory.
    async fn form(&self) -> anyhow::Result<FoundingRecord> {
        let me = self.peer_service.me.as_ref();
        let list = &self.config.initial_cluster;
        let fresh = ClusterId(random::next_u128());
        let mut line = WaitingLine::new(self.health.clone());
        loop {
            let others = list.iter().filter(|(name, _)| *name != me.name);
            let answers = futures::future::join_all(others.map(|(name, address)| self.ask(name, address))).await;
            match step(me, list, &answers, fresh) {
                Step::Adopt(record) => return Ok(record),
                Step::Wait(why) => line.say(why),
                Step::StayOut(why) => line.say(why),
            }
            clock::sleep(FORMING_PAUSE).await;
        }
    }

    async fn ask(&self, name: &str, address: &str) -> Answer {
        let silent = || Answer::Silent { name: name.to_owned() };
        let me = self.peer_service.me.as_ref();
        let asked = async {
            let mut client = dial(address).await.ok()?;
            let introduction = Introduction {
                name: me.name.clone(),
                storage_id: me.storage.0.to_be_bytes().to_vec().into(),
                initial_cluster: self.peer_service.initial_cluster.to_string(),
            };
            let reply = client.introduce(introduction).await.ok()?.into_inner();
            // An address that leads to another node than the list says is as good as silent.
            (reply.name == name).then(|| answer(reply, address)).flatten()
        };
        clock::timeout(Duration::from_secs(2), asked).await.ok().flatten().unwrap_or_else(silent)
    }
}

fn answer(reply: IntroductionReply, address: &str) -> Option<Answer> {
    if !reply.founding.is_empty() {
        return FoundingRecord::decode(reply.founding).ok().map(Answer::Founded);
    }
    let founder = Founder {
        node: NodeId(0),
        name: reply.name,
        storage: StorageId(u128::from_be_bytes(reply.storage_id.as_ref().try_into().ok()?)),
        peer_address: address.to_owned(),
        client_address: reply.client_address,
        zone: reply.zone,
        weight: reply.weight,
    };
    Some(Answer::New { founder, list: parse_list(&reply.initial_cluster) })
}

/// gRPC health: serving once the node is ready.
async fn report_health(reporter: tonic_health::server::HealthReporter, health: Arc<Health>) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    reporter.set_service_status("", NotServing).await;
    while !health.ready() {
        clock::sleep(STEWARD_PAUSE).await;
    }
    reporter.set_service_status("", Serving).await;
    reporter.set_serving::<KvServer<KvService>>().await;
    reporter.set_serving::<ClusterServer<ClusterService>>().await;
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender gone means the node is gone.
    drop(stopping.wait_for(|stop| *stop).await.map(|_| ()));
}

/// Says what a node waits for: at once when it changes, and every few seconds.
struct WaitingLine {
    health: Arc<Health>,
    said: Option<(String, clock::Instant)>,
}

impl WaitingLine {
    fn new(health: Arc<Health>) -> WaitingLine {
        WaitingLine { health, said: None }
    }

    fn say(&mut self, what: String) {
        let due = match &self.said {
            Some((_, at)) => clock::now().duration_since(*at) >= WAITING_LINE_EVERY,
            None => true,
        };
        self.health.wait_for(what.clone());
        if due {
            warn!("not ready: {what}");
            self.said = Some((what, clock::now()));
        }
    }
}

async fn run(shared: Arc<Shared>, beginning: Beginning) {
    if let Err(why) = run_member(shared.clone(), beginning).await {
        (shared.fatal)(format!("{why:#}"));
    }
}

async fn run_member(shared: Arc<Shared>, beginning: Beginning) -> anyhow::Result<()> {
    let record = match shared.peer_service.founding.load_full() {
        Some(record) => record,
        None => {
            let record = shared.form().await?;
            let me =
                record.of_storage(beginning.storage).ok_or_else(|| anyhow!("the record names another directory"))?;
            shared.adopt(&record, me).await?;
            Arc::new(record)
        }
    };
    let Beginning { storage, start_count, runs } = beginning;
    let me = record.of_storage(storage).ok_or_else(|| anyhow!("the founding record names another directory"))?;
    let identity = Identity { cluster: record.cluster, node: me.node, storage, start_count };
    let membership = Membership::join(shared, record, identity, runs)?;
    membership.run().await
}

/// A node as a member: its replicas, the map, and the duties that follow from them.
struct Membership {
    shared: Arc<Shared>,
    record: Arc<FoundingRecord>,
    identity: Identity,
    router: Arc<Router>,
    rafts: Arc<ArcSwap<RaftReplicas>>,
    line: WaitingLine,
    /// Committed position to reach before being ready, per replica, noted when its leader was first heard.
    goals: BTreeMap<ReplicaId, u64>,
    registered: bool,
    meta_founded: bool,
    next_comparison: clock::Instant,
    /// The comparison under way: one at a time.
    comparing: Option<tokio::task::JoinHandle<()>>,
}

impl Membership {
    fn join(
        shared: Arc<Shared>,
        record: Arc<FoundingRecord>,
        identity: Identity,
        runs: Vec<u64>,
    ) -> anyhow::Result<Membership> {
        let founders = record.founders.iter().filter(|founder| founder.node != identity.node);
        let acquaintances = Acquaintances::open(
            identity,
            runs,
            shared.engine.as_ref(),
            shared.writer.clone(),
            founders.clone().map(|founder| (founder.node, founder.storage)),
        )?;
        let map = Arc::new(ArcSwap::from_pointee(ClusterMap::unknown(identity.cluster)));
        let hints = founders.map(|founder| (founder.node, hint(&shared.config, founder))).collect();
        let addresses = Arc::new(AddressBook { map: map.clone(), hints });
        let acquaintances = Arc::new(acquaintances);
        let peers = Arc::new(Peers::new(acquaintances.clone(), addresses));
        let router = Arc::new(Router {
            me: identity.node,
            map,
            replicas: Arc::new(ArcSwap::from_pointee(LocalReplicas::new())),
            peers,
            forwards: Default::default(),
        });
        let rafts = Arc::new(ArcSwap::from_pointee(RaftReplicas::new()));
        let health = shared.health.clone();
        let member = Member {
            acquaintances,
            rafts: rafts.clone(),
            router: router.clone(),
            health,
            limits: shared.config.limits,
            message_bytes_max: shared.config.message_bytes_max,
        };
        shared.peer_service.member.store(Some(Arc::new(member)));
        shared.serving.store(Some(Arc::new(Serving {
            identity,
            name: shared.config.name.clone(),
            router: router.clone(),
            limits: shared.config.limits,
            message_bytes_max: shared.config.message_bytes_max,
            request_timeout: shared.config.request_timeout,
            health: shared.health.clone(),
        })));
        let line = WaitingLine::new(shared.health.clone());
        let next_comparison = clock::now() + shared.config.verify_interval;
        Ok(Membership {
            shared,
            record,
            identity,
            router,
            rafts,
            line,
            goals: BTreeMap::new(),
            registered: false,
            meta_founded: false,
            next_comparison,
            comparing: None,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        for (replica, record) in replica_records(self.shared.engine.as_ref())? {
            self.start(replica, record).await?;
        }
        let mut stopping = self.shared.stopping.clone();
        loop {
            self.tend().await?;
            tokio::select! {
                () = clock::sleep(STEWARD_PAUSE) => {}
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    async fn start(&mut self, replica: ReplicaId, record: ReplicaRecord) -> anyhow::Result<()> {
        let parts = Parts {
            replica,
            record,
            engine: self.shared.engine.clone(),
            writer: self.shared.writer.clone(),
            stores: self.shared.stores.clone(),
            peers: self.router.peers.clone(),
        };
        let raft = Arc::new(RaftReplica::start(parts).await.with_context(|| format!("replica {replica}"))?);
        if record.partition == PartitionId::META {
            let voters = self.record.meta_voters();
            if voters.iter().any(|voter| voter.node == self.identity.node) {
                raft.initialize(voters.iter().map(|voter| (voter.meta_replica(), voter.node)).collect()).await?;
            }
        }
        let started = Replica::start(self.mode_of(record.partition), raft.clone())?;
        insert(&self.rafts, replica, raft);
        insert(&self.router.replicas, record.partition, Arc::new(started));
        Ok(())
    }

    fn mode_of(&self, partition: PartitionId) -> trefoil_placement::Mode {
        let map = self.router.map.load();
        map.keyspaces.get(&partition.keyspace).map_or(trefoil_placement::Mode::Leader, |keyspace| keyspace.mode)
    }

    /// One round of a member's duties.
    async fn tend(&mut self) -> anyhow::Result<()> {
        self.publish_map().await?;
        self.found_meta().await;
        self.register().await;
        let rows: Vec<PlacementRow> = self.router.map.load().rows.values().cloned().collect();
        for row in &rows {
            self.tend_row(row).await?;
        }
        for raft in self.rafts.load().values() {
            raft.trim_log(self.shared.config.log_keep).await?;
            raft.scrub().await?;
            if let Some(why) = raft.state().stopped {
                return Err(anyhow!("{} of partition {} stopped: {why}", raft.replica, raft.partition));
            }
        }
        self.shared.stores.sweep()?;
        self.shared.engine.check()?;
        self.check_disk();
        self.compare_replicas();
        self.check_ready(&rows);
        Ok(())
    }

    async fn publish_map(&mut self) -> anyhow::Result<()> {
        let Some(meta) = self.router.local(PartitionId::META) else { return Ok(()) };
        if meta.raft().published().view().head.revision
            <= self.router.map.load().version.max(trefoil_causality::Revision::EMPTY)
        {
            return Ok(());
        }
        Ok(self.router.refresh_map(Consistency::Stale { context: None }, clock::now() + META_PATIENCE).await?)
    }

    /// The leader of `_meta` writes its first content, and adds the founders that are no voters.
    async fn found_meta(&mut self) {
        let Some(meta) = self.router.local(PartitionId::META) else { return };
        let state = meta.raft().state();
        if self.meta_founded || !state.leads {
            return;
        }
        for founder in &self.record.founders {
            if state.members.contains_key(&founder.meta_replica()) {
                continue;
            }
            let added = meta.raft().add_learner(founder.meta_replica(), founder.node);
            if !matches!(clock::timeout(META_PATIENCE, added).await, Ok(Ok(()))) {
                warn!("{} is not a learner of _meta yet", founder.name);
                return;
            }
        }
        self.meta_founded = self.write_meta(map::found(&self.record)).await;
    }

    /// Puts this node's addresses, zone and weight into the map when they have changed.
    async fn register(&mut self) {
        let map = self.router.map.load_full();
        if self.registered || !map.nodes.contains_key(&self.identity.node) {
            return;
        }
        let config = &self.shared.config;
        let record = NodeRecord {
            name: config.name.clone(),
            client_address: config.advertise_client.clone(),
            peer_address: config.advertise_peer.clone(),
            zone: config.zone.clone(),
            weight: config.weight,
        };
        let same = map.nodes.get(&self.identity.node) == Some(&record);
        self.registered = same || self.write_meta(map::register(self.identity.node, &record)).await;
    }

    async fn write_meta(&self, txn: Txn) -> bool {
        let deadline = clock::now() + META_PATIENCE;
        let written = self.router.write_meta(Command::Op(Op::Txn(txn)), deadline).await;
        match written.map(|outcome| outcome.result) {
            Ok(Ok(_)) => true,
            Ok(Err(refusal)) => {
                error!("_meta refused a change: {refusal}");
                false
            }
            // Tried again at the next round; every such change is a compare-and-set.
            Err(_) => false,
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
        let record = ReplicaRecord { partition: row.partition, store: self.shared.stores.allocate().await? };
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
            self.write_meta(map::make_live(row, raft.replica)).await;
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
        self.comparing = Some(task::spawn(async move {
            for replica in router.replicas.load_full().values().filter(|replica| replica.raft().state().leads) {
                let partition = replica.raft().partition;
                match crate::verify::compare(&router, replica).await {
                    Ok(found) => health.alarm(format!("content of {partition}"), differences(partition, &found)),
                    Err(error) => warn!(%partition, "replicas not compared: {error}"),
                }
            }
        }));
    }

    fn check_disk(&self) {
        let Ok(free) = crate::disk::free_bytes(&self.shared.config.data_dir) else { return };
        let full = free < self.shared.config.free_space_floor_bytes;
        if self.shared.health.disk_full.swap(full, Ordering::Relaxed) != full {
            let mut lines = self.shared.health.lock();
            if full {
                let line = format!("only {free} bytes of disk are free: puts are refused");
                warn!("{line}");
                lines.alarms.insert("disk".into(), line);
            } else {
                lines.alarms.remove("disk");
            }
        }
    }

    fn check_ready(&mut self, rows: &[PlacementRow]) {
        if self.shared.health.ready() {
            return;
        }
        match self.unready(rows) {
            Some(why) => self.line.say(why),
            None => {
                self.shared.health.ready.store(true, Ordering::Relaxed);
                self.shared.health.wait_for(String::new());
                info!(
                    node = %self.identity.node,
                    cluster = %self.identity.cluster,
                    "ready to serve client requests at {}",
                    self.shared.config.listen_client
                );
                eprintln!("{}: ready to serve client requests", self.shared.config.name);
            }
        }
    }

    /// What this node still waits for.
    fn unready(&mut self, rows: &[PlacementRow]) -> Option<String> {
        if rows.is_empty() || !self.registered && !self.router.map.load().nodes.contains_key(&self.identity.node) {
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

fn hint(config: &Config, founder: &Founder) -> String {
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
