//! Forming: how a node with an empty directory becomes a member.
//!
//! It asks the other nodes of `--initial-cluster` again and again and lets `cluster/founding.rs` decide from their
//! answers: wait, stay out, or adopt a founding record.
//!
//! Invariants:
//!
//! * Record, identity and the record of the `_meta` replica become durable together, before peers are shown the record.
//! * An address that leads to another node than the list says counts as silent.
//!
//! Left out: answering the others, which is `api/peer.rs`'s, and what a member does, which is `membership.rs`'s.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use trefoil_placement::{Mode, NodeId, PartitionId};
use trefoil_proto::peer::{Introduction, IntroductionReply};
use trefoil_store::engine::{Batch, Durability, Family};
use trefoil_store::key;
use trefoil_world::{clock, random};

use crate::api::peer::PeerService;
use crate::cluster::founding::{Answer, Founder, FoundingRecord, Step, step};
use crate::cluster::identity::{ClusterId, Identity, StorageId};
use crate::health::{Health, WaitingLine};
use crate::peer::dial;
use crate::replica_record::ReplicaRecord;
use crate::stores::Stores;
use crate::writer::Writer;

const FORMING_PAUSE: Duration = Duration::from_millis(200);
const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// Asks the other nodes of the list until there is a founding record of this directory.
pub async fn form(service: &PeerService, list: &[(String, String)], health: Arc<Health>) -> FoundingRecord {
    let me = service.me.as_ref();
    let fresh = ClusterId(random::next_u128());
    let mut line = WaitingLine::new(health);
    loop {
        let others = list.iter().filter(|(name, _)| *name != me.name);
        let answers = futures::future::join_all(others.map(|(name, address)| ask(service, name, address))).await;
        match step(me, list, &answers, fresh) {
            Step::Adopt(record) => return record,
            Step::Wait(why) => line.say(why),
            Step::StayOut(why) => line.say(why),
        }
        clock::sleep(FORMING_PAUSE).await;
    }
}

async fn ask(service: &PeerService, name: &str, address: &str) -> Answer {
    let silent = || Answer::Silent { name: name.to_owned() };
    let me = service.me.as_ref();
    let asked = async {
        let mut client = dial(address).await.ok()?;
        let introduction = Introduction {
            name: me.name.clone(),
            storage_id: me.storage.0.to_be_bytes().to_vec().into(),
            initial_cluster: service.initial_cluster.to_string(),
        };
        let reply = client.introduce(introduction).await.ok()?.into_inner();
        // An address that leads to another node than the list says is as good as silent.
        (reply.name == name).then(|| answer(reply, address)).flatten()
    };
    clock::timeout(ASK_PATIENCE, asked).await.ok().flatten().unwrap_or_else(silent)
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

/// Puts a founding record, identity and the record of the `_meta` replica on disk, all at once, then shows it to peers.
pub async fn adopt(
    record: &FoundingRecord,
    me: &Founder,
    service: &PeerService,
    stores: &Stores,
    writer: &Writer,
) -> anyhow::Result<()> {
    let store = stores.allocate().await?;
    let mut batch = Batch::new();
    batch.put(Family::Node, key::node::FOUNDING, &record.encode());
    batch.put(Family::Node, key::node::IDENTITY, &Identity::encode(record.cluster, me.node));
    let meta = ReplicaRecord { partition: PartitionId::META, store, mode: Mode::Leader };
    batch.put(Family::Node, &key::node::replica(me.meta_replica()), &meta.encode());
    writer.write(batch, Durability::Sync).await?;
    service.founding.store(Some(Arc::new(record.clone())));
    info!(cluster = %record.cluster, node = %me.node, "member of the cluster");
    Ok(())
}

/// The list of `--initial-cluster` as nodes tell it to each other.
pub fn list_text(list: &[(String, String)]) -> String {
    list.iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>().join(",")
}

fn parse_list(text: &str) -> Vec<(String, String)> {
    let parts = text.split(',').filter_map(|part| part.split_once('='));
    parts.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}
