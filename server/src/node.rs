//! The composition root: builds a node from its parts, owns its tasks and its shutdown.
//!
//! A node takes its ports, opens its disk, then serves and finds out who it is: a member from before, or new and forming a cluster
//! (`forming.rs`). As a member it takes up its duties (`membership.rs`) and serves.
//!
//! Invariants:
//!
//! * Nothing is said to anybody before storage id and start count are durable (`disk.rs`).
//! * At a stop the steward ends before the replicas: it would take a stopped replica for a failed one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::service::Routes;
use tracing::{Instrument, Span, error_span, info, warn};
use trefoil_placement::NodeId;
use trefoil_proto::peer::peer_server::PeerServer;
use trefoil_proto::v1::{cluster_server::ClusterServer, kv_server::KvServer};
use trefoil_store::engine::{Engine, Family};
use trefoil_store::key::{self, StoreNumber};
use trefoil_world::{clock, net, task};

use crate::api::MaybeServing;
use crate::api::accept::{Accepted, Believed, Earned, connections};
use crate::api::cluster::ClusterService;
use crate::api::dispatch::Dispatch;
use crate::api::kv::KvService;
use crate::api::peer::{Member, PeerService};
use crate::api::requests::Places;
use crate::api::serve::{InTime, http2, serve};
use crate::bulk::Bulk;
use crate::cluster::founding::{Founder, FoundingRecord};
use crate::cluster::identity::Identity;
use crate::config::Config;
use crate::disk::{Beginning, OpenDisk};
use crate::forming;
use crate::health::Health;
use crate::membership::{Membership, replica_records};
use crate::peer::MESSAGE_BYTES_MAX;
use crate::stores::Stores;
use crate::writer::{Fatal, ManifestNotes, Writer};

const HAND_OVER_PATIENCE: Duration = Duration::from_millis(1500);
/// Requests at a time on one connection of a peer: those it hands on, and its streams.
const PEER_STREAMS_MAX: u32 = 32_768;
/// Requests of one client connection that were cancelled before they were looked at. HTTP/2 ends a connection that has more,
/// with all that is under way on it. So many do not come in one turn of reading (`api/accept.rs`), and all that has come is
/// looked at before the next: cancelling alone ends no connection.
const RESETS_MAX: usize = 4096;
/// Streams HTTP/2 resets by itself in the life of a client connection, before it ends it: requests over `--streams-max`, and
/// what comes of requests that are answered and forgotten. Each costs memory until the client takes it. One that keeps to
/// HTTP/2 has none of the first once it has heard how many it may have, and few of the second: who cancels provokes nothing,
/// and who asks for too much is answered behind its requests (`api/requests.rs`).
const PROVOKED_MAX: usize = 4096;
/// Connections of peers at a time.
const PEER_CONNECTIONS_MAX: usize = 256;
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// The two ports of a node, taken before its disk is opened: a node without ports leaves its directory as it is.
/// Nobody is accepted before the node starts.
pub struct Ports {
    clients: net::Listener,
    peers: net::Listener,
}

impl Ports {
    /// # Errors
    /// An address cannot be listened at.
    pub async fn listen(config: &Config) -> anyhow::Result<Ports> {
        let clients = net::listen(&config.listen_client).await;
        let clients = clients.with_context(|| format!("--listen-client {}", config.listen_client))?;
        let peers = net::listen(&config.listen_peer).await;
        let peers = peers.with_context(|| format!("--listen-peer {}", config.listen_peer))?;
        Ok(Ports { clients, peers })
    }
}

/// A running node.
pub struct Node {
    config: Config,
    stop: watch::Sender<bool>,
    member: Arc<ArcSwapOption<Member>>,
    health: Arc<Health>,
    engine: Arc<dyn Engine>,
    writer: Writer,
    done: tokio::task::JoinHandle<()>,
    /// Ends once the clients' requests are answered.
    clients: tokio::task::JoinHandle<()>,
    /// The address clients are served at.
    pub client_address: std::net::SocketAddr,
    _lock: Option<std::fs::File>,
}

/// What every task of a node may need.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) writer: Writer,
    pub(crate) stores: Arc<Stores>,
    pub(crate) bulk: Arc<Bulk>,
    pub(crate) health: Arc<Health>,
    pub(crate) serving: MaybeServing,
    pub(crate) peer_service: PeerService,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) fatal: Fatal,
}

impl Node {
    /// Starts a node on its ports and an opened disk; it becomes ready by itself.
    ///
    /// # Errors
    /// What the disk holds is malformed.
    pub async fn start(config: Config, ports: Ports, disk: OpenDisk, fatal: Fatal) -> anyhow::Result<Node> {
        let span = error_span!("node", name = config.name);
        Node::start_here(config, ports, disk, fatal).instrument(span).await
    }

    async fn start_here(config: Config, ports: Ports, disk: OpenDisk, fatal: Fatal) -> anyhow::Result<Node> {
        let Ports { clients, peers } = ports;
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
                believed: Believed::default(),
                me: Arc::new(me),
                initial_cluster: forming::list_text(&config.initial_cluster).into(),
                founding: Arc::new(ArcSwapOption::from(founding.map(Arc::new))),
                member: Arc::new(ArcSwapOption::empty()),
                span: Span::current(),
                refused: Arc::default(),
            },
            health: Arc::new(Health::new(config.free_space_floor_bytes)),
            serving: Arc::new(ArcSwapOption::empty()),
            config: config.clone(),
            bulk: Arc::new(Bulk::new(engine.clone(), config.bulk_bytes_per_second)),
            engine: engine.clone(),
            writer,
            stores,
            stopping,
            fatal,
        });
        let client_address = clients.address();
        let member = shared.peer_service.member.clone();
        let clients = shared.serve(clients, peers);
        let (health, writer) = (shared.health.clone(), shared.writer.clone());
        let done = task::spawn(run(shared, beginning).in_current_span());
        Ok(Node { config, stop, member, health, engine, writer, done, clients, client_address, _lock: lock })
    }

    /// Stops: hands leadership over, stops the replicas, and leaves nothing for the next start to replay.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.health.drain();
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
            member.acquaintances.keep_positions().await?;
            for raft in member.rafts.load().values() {
                raft.stop().await?;
            }
        }
        let engine = self.engine.clone();
        task::blocking(move || engine.flush()).await??;
        ManifestNotes::default().note(self.engine.clone(), &self.writer).await?;
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

impl Shared {
    /// Serves both ports. The returned task ends when the node stops and its clients' requests are answered.
    fn serve(&self, clients: net::Listener, peers: net::Listener) -> tokio::task::JoinHandle<()> {
        let clients = self.serve_clients(clients);
        self.serve_peers(peers);
        clients
    }

    fn serve_clients(&self, listener: net::Listener) -> tokio::task::JoinHandle<()> {
        let message_max = self.config.message_bytes_max * 2;
        let (serving, others, places) = (self.serving.clone(), self.seldom_asked(), Places::default());
        let service_for = move |accepted: &Accepted| {
            let reader = accepted.reader.clone();
            let kv = KvServer::new(KvService { serving: serving.clone(), reader: reader.clone() });
            let kv = kv.max_decoding_message_size(message_max);
            places.around(InTime(Dispatch::new(kv, others.clone())), reader)
        };
        let mut http = http2();
        http.max_concurrent_streams(self.config.streams_max)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_local_error_reset_streams(PROVOKED_MAX)
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        let incoming = connections(listener, self.config.connections_max, Earned::ByFirstBytes);
        task::spawn(serve(http, incoming, service_for, stopped(self.stopping.clone())))
    }

    /// What clients are served besides keys and values.
    fn seldom_asked(&self) -> Routes {
        let cluster = ClusterServer::new(ClusterService { serving: self.serving.clone() });
        let (reporter, health) = tonic_health::server::health_reporter();
        task::spawn(report_health(reporter, self.health.serves()));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(trefoil_proto::DESCRIPTORS)
            .build_v1();
        let mut others = Routes::new(cluster).add_service(health);
        match reflection {
            Ok(reflection) => others = others.add_service(reflection),
            Err(error) => warn!("no gRPC reflection: {error}"),
        }
        others.prepare()
    }

    fn serve_peers(&self, listener: net::Listener) {
        let (service, others) = (self.peer_service.clone(), Routes::default().prepare());
        let service_for = move |accepted: &Accepted| {
            let service = PeerService { believed: accepted.believed.clone(), ..service.clone() };
            let peer = PeerServer::new(service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            InTime(Dispatch::new(peer, others.clone()))
        };
        let mut http = http2();
        http.initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20)
            .max_concurrent_streams(PEER_STREAMS_MAX)
            .max_pending_accept_reset_streams(PEER_STREAMS_MAX as usize)
            .max_local_error_reset_streams(PEER_STREAMS_MAX as usize)
            .keep_alive_interval(crate::peer::KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(crate::peer::KEEP_ALIVE_TIMEOUT);
        let incoming = connections(listener, PEER_CONNECTIONS_MAX, Earned::ByBelief);
        task::spawn(serve(http, incoming, service_for, stopped(self.stopping.clone())));
    }
}

/// gRPC health: whether clients should come here now.
async fn report_health(reporter: tonic_health::server::HealthReporter, mut serves: watch::Receiver<bool>) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    loop {
        let status = if *serves.borrow_and_update() { Serving } else { NotServing };
        for service in ["", KvServer::<KvService>::NAME, ClusterServer::<ClusterService>::NAME] {
            reporter.set_service_status(service, status).await;
        }
        if serves.changed().await.is_err() {
            return;
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender gone means the node is gone.
    drop(stopping.wait_for(|stop| *stop).await.map(|_| ()));
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
            let record =
                forming::form(&shared.peer_service, &shared.config.initial_cluster, shared.health.clone()).await;
            let me =
                record.of_storage(beginning.storage).ok_or_else(|| anyhow!("the record names another directory"))?;
            forming::adopt(&record, me, &shared.peer_service, &shared.stores, &shared.writer).await?;
            Arc::new(record)
        }
    };
    let Beginning { storage, start_count, runs } = beginning;
    let me = record.of_storage(storage).ok_or_else(|| anyhow!("the founding record names another directory"))?;
    let identity = Identity { cluster: record.cluster, node: me.node, storage, start_count };
    let membership = Membership::join(shared, record, identity, runs)?;
    membership.run().await
}
