//! The table "Between nodes": each refusal of opening words, provoked at the peer port of a real node.
//!
//! A node of a cluster of one believes whoever comes under an id it has not met. So somebody says who it is and is
//! believed; then it says the same again but for one lie. The answer must be the row's, and so must the line in the
//! node's log. How many have come before is no reason to refuse anybody.
//!
//! Left out: what the refused side makes of it, which is `bad_start.rs`'s and `cluster_6.rs`'s, the first chunk of a
//! snapshot, which is judged by the same code, and calls beside the streams.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tonic::transport::Channel;
use tonic::{Code, Status};
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::peer::{Frame, Hello};

use super::{PATIENCE, failed};
use crate::checkout;
use crate::cluster::{Cluster, Node};
use crate::errors_table::{rows, says};
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// Where the refusals stand.
const REFUSALS: &str = "server/src/cluster/identity/judge.rs";

/// Who tells the truth, and later lies.
const SPEAKER: u64 = 3;
/// The ids of its starts, and how far it has synced.
const RUNS: [u64; 5] = [11, 12, 13, 14, 15];
const POSITION: u64 = 35;
/// Others, from this id on: more than are remembered in all.
const OTHERS: u64 = 10_000;
const OTHERS_COUNT: u64 = 1100;
const REMEMBERED: usize = 1024;
/// Others that speak at a time.
const AT_ONCE: usize = 32;

/// Before the message of a refusal.
const REFUSED: &str = "refused: ";

/// Condition, message, and what provokes it.
type Row = (&'static str, &'static str, Scene);

/// What is said to the node.
enum Scene {
    /// The truth, but for this.
    Lie(fn(&mut Hello)),
    /// So many frames, all without opening words.
    Wordless(usize),
    /// Nothing that is said provokes it, and why.
    Never(&'static str),
}

const ROWS: &[Row] = &[
    (
        "it is of another cluster",
        "it is of another cluster, …",
        Scene::Lie(|hello| hello.cluster_id = vec![9; 16].into()),
    ),
    (
        "no protocol version is common to both",
        "it speaks protocols 2 to 3, this node 1 to 1",
        Scene::Lie(|hello| (hello.protocol_min, hello.protocol_max) = (2, 3)),
    ),
    (
        "its directory is not the one that was known",
        "node 3 has storage id …, not …: its directory was replaced",
        Scene::Lie(|hello| hello.storage_id = vec![9; 16].into()),
    ),
    (
        "its directory was started fewer times than was known",
        "node 3 has started 5 times before, this copy of it only 4: an old copy was put back",
        Scene::Lie(|hello| {
            hello.runs.pop();
            hello.start_count -= 1;
        }),
    ),
    (
        "another copy of its directory was started then",
        "start 5 of node 3 was another one: an old copy was put back, or a second copy is running",
        Scene::Lie(|hello| hello.runs[4] += 1),
    ),
    (
        "its directory holds less than it once said",
        "node 3 had synced 35 batches, this copy of it has only 19: it has lost its tail",
        Scene::Lie(|hello| {
            hello.runs.push(16);
            hello.start_count += 1;
            hello.position -= 16;
        }),
    ),
    (
        "it says it is the node that it dialled",
        "it is this node's own id, node 1",
        Scene::Lie(|hello| hello.node_id = hello.to_node_id),
    ),
    (
        "it looked for another node at this address",
        "it looked for node 2, this is node 1",
        Scene::Lie(|hello| hello.to_node_id += 1),
    ),
    (
        "a field of its opening words makes no sense",
        "opening words are missing or malformed",
        Scene::Lie(|hello| hello.cluster_id = hello.cluster_id.slice(1..)),
    ),
    (
        "a field of its opening words makes no sense",
        "opening words are missing or malformed",
        Scene::Lie(|hello| hello.storage_id = Bytes::new()),
    ),
    (
        "a field of its opening words makes no sense",
        "opening words are missing or malformed",
        Scene::Lie(|hello| hello.runs.clear()),
    ),
    ("it begins without opening words", "a stream begins with the opening words", Scene::Wordless(0)),
    ("it begins without opening words", "a stream begins with the opening words", Scene::Wordless(1)),
    (
        "the node that it dialled is ending",
        "this node is ending",
        Scene::Never("a node that is asked to stop writes until the process ends; at a failed write the process ends"),
    ),
];

#[test]
fn the_table_is_as_these_tests_have_it() {
    let mut tested: Vec<Vec<String>> =
        ROWS.iter().map(|(condition, message, _)| vec![(*condition).to_owned(), format!("`{message}`")]).collect();
    // What several scenes provoke stands there once.
    tested.dedup();
    assert_eq!(rows("Between nodes"), tested, "expected docs/errors.md (left) to say what is tested here");
}

#[test]
fn every_refusal_has_its_row() {
    let source = checkout::text(REFUSALS);
    let refusals = source.split("pub enum Refused {").nth(1).and_then(|rest| rest.split("\n}").next());
    let refusals = refusals.unwrap_or_else(|| panic!("expected an enum of refusals in {REFUSALS}"));
    let formats: Vec<&str> = refusals.split("#[error(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let wordless = |scene: &Scene| matches!(scene, Scene::Wordless(_));
    let judged = ROWS.iter().filter(|(_, _, scene)| !wordless(scene)).map(|(_, message, _)| *message);
    let judged: BTreeSet<&str> = judged.collect();
    for format in &formats {
        let said = judged.iter().filter(|message| says(&with_gaps(format), message)).count();
        assert_eq!(said, 1, "expected one row for '{format}' of {REFUSALS}");
    }
    assert_eq!(formats.len(), judged.len(), "expected a refusal in {REFUSALS} (left) for each of {judged:?}");
}

/// A format with `…` for what is put into it.
fn with_gaps(format: &str) -> String {
    let mut parts = format.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push('…');
        text.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal() {
    Scenario::begin("cluster_10::errors::between_nodes::each_refusal");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(1, &[]).await;
    let port = Port::of(&cluster).await;
    port.believes(port.truth(SPEAKER)).await;
    for (condition, message, scene) in ROWS {
        let node = &mut cluster.nodes[0];
        match *scene {
            Scene::Lie(lie) => {
                let mut hello = port.truth(SPEAKER);
                lie(&mut hello);
                port.refuses(hello, condition, message, node).await;
            }
            Scene::Wordless(frames) => port.hears_nothing(frames, condition, message, node).await,
            Scene::Never(why) => println!("{condition}: not provoked: {why}"),
        }
    }
    port.believes(port.truth(SPEAKER)).await;
    expect_put(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_keep_nobody_out() {
    Scenario::begin("cluster_10::errors::between_nodes::strangers_keep_nobody_out");
    let _turn = beside_others().await;
    let cluster = Cluster::form(1, &[]).await;
    let port = Port::of(&cluster).await;
    let others = (OTHERS..OTHERS + OTHERS_COUNT).map(|node| port.believes(port.truth(node)));
    stream::iter(others).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    port.believes(port.truth(SPEAKER)).await;
    let status = until("the node's status", PATIENCE, async || cluster.status(0).await).await;
    assert_eq!(status.peers.len(), REMEMBERED, "expected it to remember no more, after {OTHERS_COUNT} and one");
    let last = status.peers.iter().any(|peer| peer.node.0 == SPEAKER);
    assert!(last, "expected it to remember who came last: {:?}", status.peers);
    expect_put(&cluster).await;
}

/// The node still serves.
async fn expect_put(cluster: &Cluster) {
    let put = cluster.client().await.put("k", "v").await;
    put.unwrap_or_else(|error| panic!("expected a put to work after all this: {error}"));
}

/// The peer port of a node.
struct Port {
    peer: PeerClient<Channel>,
    /// Of the node.
    cluster: Bytes,
    node: u64,
}

impl Port {
    /// That of the only node.
    async fn of(cluster: &Cluster) -> Port {
        let peer = PeerClient::new(raw::connected(&cluster.nodes[0].peer).await);
        let status = until("the node's status", PATIENCE, async || cluster.status(0).await).await;
        Port { peer, cluster: status.cluster_id, node: status.node.0 }
    }

    /// The opening words of a node that is in order.
    fn truth(&self, node: u64) -> Hello {
        Hello {
            cluster_id: self.cluster.clone(),
            node_id: node,
            storage_id: vec![3; 16].into(),
            start_count: RUNS.len() as u64,
            protocol_min: 1,
            protocol_max: 1,
            to_node_id: self.node,
            runs: RUNS.to_vec(),
            position: POSITION,
            ..Hello::default()
        }
    }

    /// The opening words it answers these frames with.
    async fn answer(&self, frames: Vec<Frame>) -> Result<Option<Hello>, Status> {
        let frames = bounded(stream::iter(frames), PATIENCE);
        let mut answers = self.peer.clone().raft(frames).await?.into_inner();
        let first = answers.message().await?;
        // It hangs up once it has read all.
        while answers.message().await?.is_some() {}
        Ok(first.and_then(|frame| frame.hello))
    }

    async fn believes(&self, hello: Hello) {
        let node = hello.node_id;
        let answer = self.answer(vec![opening(hello)]).await;
        let answer = answer.unwrap_or_else(|status| panic!("expected node {node} to be believed: {status:?}"));
        let answer = answer.map(|hello| (hello.cluster_id, hello.node_id, hello.to_node_id));
        let expected = (self.cluster.clone(), self.node, node);
        assert_eq!(answer, Some(expected), "expected the node to say who it is, and whom it has met");
    }

    /// It refuses these words so, and its log says it, too.
    async fn refuses(&self, hello: Hello, condition: &str, message: &str, node: &mut Node) {
        let from = hello.node_id;
        let status = failed(condition, self.answer(vec![opening(hello)]).await);
        let why = status.message().strip_prefix(REFUSED).unwrap_or_default();
        println!("{condition}: {why}");
        let right = status.code() == Code::PermissionDenied && says(message, why);
        assert!(right, "{condition}: expected PERMISSION_DENIED and '{REFUSED}{message}', got {status:?}");
        let line = format!("connection of node {from} {REFUSED}{why}");
        let log = node.running().log();
        assert!(log.lines().any(|said| said.ends_with(&line)), "{condition}: expected a line '{line}' in:\n{log}");
    }

    /// It says that there were no opening words, and does not log it.
    async fn hears_nothing(&self, frames: usize, condition: &str, message: &str, node: &mut Node) {
        let before = node.running().log().matches(REFUSED).count();
        let status = failed(condition, self.answer(vec![Frame::default(); frames]).await);
        let right = status.code() == Code::InvalidArgument && says(message, status.message());
        assert!(right, "{condition}: expected INVALID_ARGUMENT and '{message}', got {status:?}");
        let log = node.running().log();
        assert_eq!(log.matches(REFUSED).count(), before, "{condition}: expected no further line about it in:\n{log}");
    }
}

fn opening(hello: Hello) -> Frame {
    Frame { hello: Some(hello), ..Frame::default() }
}
