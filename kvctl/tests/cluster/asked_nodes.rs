//! What `cluster nodes` and `cluster verify` make of a node that does not answer as itself: another one has taken its
//! address, or it takes longer than it is given.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use trefoil_proto::v1;
use trefoil_proto::v1::cluster_server::{Cluster as ClusterService, ClusterServer};
use trefoil_world::task;

use crate::cluster::{Cluster, free_address};
use crate::process::{Finished, finish};
use crate::raw;
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

const SEEN_MAX: Duration = Duration::from_secs(20);
const RUN_MAX: Duration = Duration::from_secs(30);

/// A node starts at the client address of one that is down: the map has both there, and the node answers for itself only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_the_address_of_another() {
    let scenario = Scenario::begin("asked_nodes::a_node_at_the_address_of_another");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let gone = scenario.dice().below(3) as usize;
    let taker = (gone + 1) % 3;
    for node in [gone, taker] {
        let status = cluster.terminate(node).await;
        assert!(status.success(), "expected a clean stop, got {status}");
    }
    cluster.nodes[taker].client = cluster.nodes[gone].client.clone();
    cluster.start(taker).await;
    let (absent, present) = (cluster.nodes[gone].name.clone(), cluster.nodes[taker].name.clone());
    let why = format!("node {} answers at the address of node {}", taker + 1, gone + 1);

    let rows = until("the node that moved, at its new address", SEEN_MAX, async || {
        let done = finish(cluster.kvctl(&["cluster", "nodes", "-o", "json"]), RUN_MAX).await;
        done.expect_code("kvctl cluster nodes", &[0]);
        let rows = objects(&done);
        let found = field(&rows, "name", &present, "state") == ["ready"];
        found.then_some(rows)
    })
    .await;
    assert_eq!(field(&rows, "name", &absent, "state"), ["unreachable"], "expected {absent} not to be {present}");
    let note = format!("{absent} does not answer: {why}");
    assert!(rows.iter().any(|row| row["note"] == note.as_str()), "expected the note '{note}' among {rows:#?}");

    let done = finish(cluster.kvctl(&["cluster", "verify", "-o", "json"]), RUN_MAX).await;
    done.expect_code("kvctl cluster verify without one of the nodes", &[3]);
    let rows = objects(&done);
    let unasked = format!("could not be asked: {why}");
    assert_eq!(field(&rows, "node", &absent, "result"), [unasked.as_str(); 2], "expected no answer of {absent}");
    assert_eq!(field(&rows, "node", &present, "result"), ["equal"; 2], "expected {present}'s own replicas to be equal");
}

/// The objects that were printed, one a line.
fn objects(done: &Finished) -> Vec<Value> {
    let text = String::from_utf8_lossy(&done.stdout);
    let object = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("expected JSON: {error}: {line}"));
    text.lines().map(object).collect()
}

/// A text of each object that is about `subject`.
fn field<'a>(objects: &'a [Value], subject: &str, is: &str, name: &str) -> Vec<&'a str> {
    let about = objects.iter().filter(|object| object[subject] == is);
    about.map(|object| object[name].as_str().unwrap_or_default()).collect()
}

/// Stands in for a cluster of one that never ends a walk over its content.
struct EndlessWalk {
    address: String,
}

#[tonic::async_trait]
impl ClusterService for EndlessWalk {
    async fn map(&self, _: Request<v1::MapRequest>) -> Result<Response<v1::MapResponse>, Status> {
        let node = v1::Node { id: 1, name: "n1".into(), client_address: self.address.clone(), ..v1::Node::default() };
        let keyspace = v1::Keyspace {
            id: 1,
            name: "default".into(),
            mode: v1::Mode::Leader.into(),
            partitions: 1,
            replication_factor: 1,
        };
        let replicas = vec![v1::Replica { id: 1, node_id: 1, live: true }];
        Ok(Response::new(v1::MapResponse {
            cluster_id: vec![7_u8; 16].into(),
            version: 1,
            nodes: vec![node],
            keyspaces: vec![keyspace],
            rows: vec![v1::PlacementRow { keyspace_id: 1, partition: 0, epoch: 1, replicas }],
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let status = v1::StatusResponse { node_id: 1, name: "n1".into(), ready: true, ..v1::StatusResponse::default() };
        Ok(Response::new(status))
    }

    async fn digest(&self, _: Request<v1::DigestRequest>) -> Result<Response<v1::DigestResponse>, Status> {
        std::future::pending().await
    }
}

/// By itself it would wait for ten minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_that_takes_longer_than_it_is_given() {
    Scenario::begin("asked_nodes::a_walk_that_takes_longer_than_it_is_given");
    let _turn = beside_others().await;
    let address = free_address().await;
    let service = ClusterServer::new(EndlessWalk { address: address.clone() });
    let serving = Server::builder().add_service(service).serve(address.parse().expect("an address"));
    let serving = task::spawn(serving);
    until("the stand-in to take connections", SEEN_MAX, async || raw::channel(&address).await).await;
    let mut verify = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    verify.args(["--endpoints", &address, "--timeout", "1s", "cluster", "verify"]);
    let done = finish(verify, RUN_MAX).await;
    serving.abort();
    done.expect_code("kvctl cluster verify --timeout 1s", &[3]);
    let (shown, why) =
        (String::from_utf8_lossy(&done.stdout), "could not be asked: the deadline passed without an answer");
    assert!(shown.contains(why), "expected '{why}', got:\n{shown}");
}
