//! Becoming what the rest of the node takes for a member: router, links, and what both ports were waiting for.
//!
//! Links to the other founders begin to be made at once. Where a founder is the flags say, or else the founding record.
//!
//! Left out: starting replicas, which is `run`'s first duty, and links to nodes that came later, which the rounds keep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Semaphore;
use trefoil_world::clock;

use super::Membership;
use crate::api::answers::AnswerRoom;
use crate::api::peer::{Member, RaftReplicas};
use crate::api::{RequestBytes, Serving};
use crate::cluster::addresses::AddressBook;
use crate::cluster::founding::{Founder, FoundingRecord};
use crate::cluster::identity::{Acquaintances, Identity};
use crate::cluster::map::ClusterMap;
use crate::config::Config;
use crate::give_back::GiveBack;
use crate::health::WaitingLine;
use crate::node::Shared;
use crate::peer::Peers;
use crate::replication::leader::LONG_READS_MAX;
use crate::router::{LocalReplicas, Router};
use crate::writer::ManifestNotes;

/// How soon after a start the replicas are compared, at the latest.
const FIRST_COMPARISON: Duration = Duration::from_secs(600);

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
        request_bytes: RequestBytes::default(),
        answers: AnswerRoom::default(),
    }
}

/// Where a founder is by the flags, or was when the cluster was founded.
fn given_address(config: &Config, founder: &Founder) -> String {
    let given = config.initial_cluster.iter().find(|(name, _)| *name == founder.name);
    given.map_or_else(|| founder.peer_address.clone(), |(_, address)| address.clone())
}
