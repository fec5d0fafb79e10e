//! Line 9: the same request id sent twice is applied once, whatever happens in between; and what a lone survivor of
//! three still answers.

use std::time::Duration;

use futures::future::join_all;
use trefoil_proto::v1;
use trefoil_world::clock;

use crate::cluster::Cluster;
use crate::load::{Load, fill};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const PATIENCE: Duration = Duration::from_secs(30);
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// Opens a session at any node.
async fn open_session(cluster: &Cluster) -> u64 {
    until("a session", PATIENCE, async || {
        for address in cluster.endpoints() {
            let Some(mut kv) = raw::kv(&address).await else { continue };
            let request = bounded(v1::OpenSessionRequest { header: None }, ATTEMPT_MAX);
            if let Ok(opened) = kv.open_session(request).await {
                return Some(opened.into_inner().session);
            }
        }
        None
    })
    .await
}

/// Sends a put under a request id to one node after the other, until one answers. Returns the revision it tells.
async fn put_as(cluster: &Cluster, session: u64, sequence: u64, key: &str) -> u64 {
    let request_id = Some(v1::RequestId { session, sequence, acknowledged: 0 });
    let header = Some(v1::RequestHeader { request_id, ..v1::RequestHeader::default() });
    let put = v1::PutRequest { header, ..raw::put(key.to_owned(), "once") };
    until("an answer to a put with a request id", PATIENCE, async || {
        for address in cluster.endpoints() {
            let Some(mut kv) = raw::kv(&address).await else { continue };
            match kv.put(bounded(put.clone(), ATTEMPT_MAX)).await {
                Ok(reply) => return Some(reply.into_inner().header.unwrap_or_default().revision),
                Err(status) => {
                    let (_, outcome, _) = raw::words(&status);
                    assert_ne!(outcome, "refused", "expected a repeated put not to be refused: {status:?}");
                }
            }
        }
        None
    })
    .await
}

async fn expect_version_one(cluster: &Cluster, key: &str) {
    let found = cluster.client().await.get(key.to_owned()).timeout(PATIENCE).await;
    let found = found.unwrap_or_else(|error| panic!("expected to read {key}: {error}"));
    let version = found.pair().map(|pair| pair.version);
    assert_eq!(version, Some(1), "expected {key} to be written once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_applied_once() {
    let _ = Scenario::begin("cluster_9::a_repeated_request_is_applied_once");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let session = open_session(&cluster).await;
    let first = put_as(&cluster, session, 1, "around-a-leader-kill").await;
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    let second = put_as(&cluster, session, 1, "around-a-leader-kill").await;
    // The later reply may tell a later revision, the write's own is kept.
    assert!(second >= first, "expected the reply again, at revision {first} or later, got {second}");
    expect_version_one(&cluster, "around-a-leader-kill").await;
    cluster.start(leader).await;
    put_as(&cluster, session, 2, "around-a-restart").await;
    cluster.kill_all().await;
    cluster.start_all().await;
    put_as(&cluster, session, 2, "around-a-restart").await;
    expect_version_one(&cluster, "around-a-restart").await;
    cluster.expect_equal_replicas().await;
    println!("two requests sent twice, around a leader kill and a full restart: applied once each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_applied_once_around_a_snapshot() {
    let _ = Scenario::begin("cluster_9::a_repeated_request_is_applied_once_around_a_snapshot");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &["--log-entries-kept", "64", "--log-bytes-kept", "65536"]).await;
    let away = cluster.follower().await;
    cluster.kill(away).await;
    let session = open_session(&cluster).await;
    put_as(&cluster, session, 1, "around-a-snapshot").await;
    fill(&cluster.client().await, "filler/", 3000, 1000, 1).await;
    cluster.start(away).await;
    let what = "the node that was away to have installed a snapshot";
    until(what, PATIENCE, async || cluster.replica(away).await.filter(|replica| replica.snapshots_installed > 0)).await;
    lead_with(&mut cluster, away).await;
    put_as(&cluster, session, 1, "around-a-snapshot").await;
    expect_version_one(&cluster, "around-a-snapshot").await;
    cluster.expect_equal_replicas().await;
    println!("a request repeated to a leader that knows it from a snapshot: applied once");
}

/// Stops leaders until this node leads.
async fn lead_with(cluster: &mut Cluster, node: usize) {
    for _ in 0..20 {
        let leader = cluster.leader().await;
        if leader == node {
            return;
        }
        cluster.terminate(leader).await;
        cluster.start(leader).await;
    }
    panic!("expected a node to lead after 20 changes of leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_three() {
    let _ = Scenario::begin("cluster_9::the_last_of_three");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let load = Load::start(&cluster.client().await, "before");
    load.more(100, PATIENCE).await;
    load.stop().await;
    cluster.client().await.put("kept", "yes").await.unwrap_or_else(|error| panic!("expected to put: {error}"));
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    let address = cluster.nodes[survivor].client.clone();
    expect_stale_read(&address).await;
    cluster.kill(leader).await;
    cluster.kill((leader + 2) % 3).await;
    expect_stale_read(&address).await;
    expect_no_write(&cluster, &address).await;
    cluster.kill(survivor).await;
    cluster.launch(survivor);
    expect_stale_read(&address).await;
    expect_no_write(&cluster, &address).await;
    println!("the last of three answers stale reads, also after its restart, and takes no write");
}

/// A stale read that carries the context of a put sees at least that put, at whichever replica it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_is_waited_for() {
    let scenario = Scenario::begin("cluster_9::a_context_is_waited_for");
    let _turn = beside_others().await;
    let puts: u64 = scenario.pick(2_000, 200);
    let cluster = Cluster::form(3, &[]).await;
    let mut nodes = Vec::new();
    for address in cluster.endpoints() {
        nodes.push(raw::kv(&address).await.unwrap_or_else(|| panic!("expected a connection to {address}")));
    }
    let mut without = 0;
    for number in 1..=puts {
        let writer = (number % 3) as usize;
        let put = bounded(raw::put("seen", number.to_be_bytes().to_vec()), PATIENCE);
        let written = nodes[writer].put(put).await.expect("a put").into_inner();
        for node in &mut nodes {
            let blind = node.get(bounded(raw::stale_get("seen"), PATIENCE)).await.expect("a stale read").into_inner();
            without += u64::from(value_of(&blind) < number);
        }
        for node in &mut nodes {
            let get = v1::GetRequest { context: written.context.clone(), ..raw::stale_get("seen") };
            let read = node.get(bounded(get, PATIENCE)).await.expect("a stale read with a context").into_inner();
            assert!(value_of(&read) >= number, "expected at least put {number}, got {}", value_of(&read));
        }
    }
    println!("{puts} puts: each was seen by stale reads with its context; {without} reads without were older");
}

/// A get that finds nothing has seen the delete, even one that was not answered yet: with its context, no replica shows
/// the key again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absence_has_a_context() {
    let scenario = Scenario::begin("cluster_9::an_absence_has_a_context");
    let _turn = beside_others().await;
    let deletes: u64 = scenario.pick(2_000, 150);
    let cluster = Cluster::form(3, &[]).await;
    let leader = cluster.nodes[cluster.leader().await].client.clone();
    let mut kv = raw::kv(&leader).await.unwrap_or_else(|| panic!("expected a connection to {leader}"));
    let mut others = Vec::new();
    for address in cluster.endpoints().into_iter().filter(|address| *address != leader) {
        others.push(raw::kv(&address).await.unwrap_or_else(|| panic!("expected a connection to {address}")));
    }
    let mut misses = 0;
    for number in 0..deletes {
        kv.put(bounded(raw::put("gone", number.to_be_bytes().to_vec()), PATIENCE)).await.expect("a put");
        let mut deleting = kv.clone();
        let range = Some(v1::KeyRange { key: "gone".into(), end: None });
        let delete = v1::DeleteRequest { range, ..v1::DeleteRequest::default() };
        let reads = (0..8).map(|_| {
            let mut kv = kv.clone();
            async move { kv.get(bounded(raw::stale_get("gone"), PATIENCE)).await.expect("a stale read").into_inner() }
        });
        let (deleted, reads) = tokio::join!(deleting.delete(bounded(delete, PATIENCE)), join_all(reads));
        deleted.expect("a delete");
        for miss in reads.into_iter().filter(|read| read.values.is_empty()) {
            misses += 1;
            for node in &mut others {
                let get = v1::GetRequest { context: miss.context.clone(), ..raw::stale_get("gone") };
                let read = node.get(bounded(get, PATIENCE)).await.expect("a stale read with a context").into_inner();
                assert!(read.values.is_empty(), "expected {number} to stay deleted for who has seen that it is");
            }
        }
    }
    println!(
        "{deletes} deletes, {misses} reads beside them that found nothing: so did other replicas with their context"
    );
}

fn value_of(reply: &v1::GetResponse) -> u64 {
    let value = reply.values.first().map_or(&[][..], |pair| &pair.value);
    value.try_into().map_or(0, u64::from_be_bytes)
}

/// A stale read at this node, which may just have been started.
async fn expect_stale_read(address: &str) {
    let what = format!("a stale read at {address}");
    let reply = until(&what, PATIENCE, async || {
        let mut kv = raw::kv(address).await?;
        let reply = kv.get(bounded(raw::stale_get("kept"), ATTEMPT_MAX)).await.ok()?.into_inner();
        (!reply.values.is_empty()).then_some(reply)
    })
    .await;
    assert_eq!(&reply.values[0].value[..], b"yes", "expected what was put before");
    let level = reply.consistency.and_then(|consistency| consistency.level);
    let stale = matches!(level, Some(v1::effective_consistency::Level::Stale(_)));
    assert!(stale, "expected the reply to say that the read was stale, got {level:?}");
}

/// Puts end within their deadline, as not done or unknown.
async fn expect_no_write(cluster: &Cluster, address: &str) {
    let mut kv = raw::kv(address).await.unwrap_or_else(|| panic!("expected a connection to {address}"));
    let from = clock::now();
    let status = match kv.put(bounded(raw::put("never", "x"), ATTEMPT_MAX)).await {
        Ok(reply) => panic!("expected a put without a quorum not to be acknowledged: {reply:?}"),
        Err(status) => status,
    };
    let took = from.elapsed();
    let (code, outcome, reason) = raw::words(&status);
    println!("a put without a quorum: {code:?} {outcome} {reason} after {took:?}");
    assert!(took <= ATTEMPT_MAX * 2, "expected an answer within {ATTEMPT_MAX:?}, got one after {took:?}");
    assert_ne!(outcome, "refused", "expected a put without a quorum to be not done or unknown: {status:?}");
    let client = cluster.client().await;
    let from = clock::now();
    let error = client.put("never", "x").timeout(ATTEMPT_MAX).await.err();
    let error = error.unwrap_or_else(|| panic!("expected a put without a quorum not to be acknowledged"));
    assert!(from.elapsed() <= ATTEMPT_MAX * 2, "expected the client to keep its deadline of {ATTEMPT_MAX:?}");
    assert_ne!(error.outcome(), trefoil_client::Outcome::Refused, "expected not done or unknown: {error}");
}
