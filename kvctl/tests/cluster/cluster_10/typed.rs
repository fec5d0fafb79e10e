//! Random messages of every type at both ports: what they name may change, nothing else, and nobody dies of them.
//!
//! Of three nodes one, which does not lead, says its opening words to a stranger and is killed. The messages are aimed at
//! the two others, which are a quorum; half of the seeds speak as the stranger, half in the name of the killed node. In
//! the end that one comes back.
//!
//! Invariants:
//!
//! * Nothing is taken from the stranger but Raft messages.
//! * Of each kind of message some that the killed node seems to say are heard.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use trefoil_client::Client;
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::peer::{Frame, Introduction, SnapshotChunk};
use trefoil_proto::v1::cluster_client::ClusterClient;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::{MapRequest, StatusRequest};
use trefoil_world::clock;

use super::expect_alive;
use super::messages::{Ask, asks};
use super::peer_messages::{
    Known, Speaker, digest, frame, impossible_snapshots, introduction, propose, read_index, snapshot, wrong_hello,
};
use crate::cluster::{Cluster, Node};
use crate::peer_port::{settled_map, words_of};
use crate::raw::{self, bounded};
use crate::scenario::{Dice, Scenario, beside_others};

/// Seeds at a time.
const AT_ONCE: usize = 8;
/// Many random requests wait for something that does not come.
const ATTEMPT_MAX: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys that must stay as they are. They sort before all keys of the messages, so that no range reaches them.
const SENTINELS: usize = 8;
/// How often what has most fields is said in a round.
const REPEATED: usize = 4;
/// Of these some must not be refused.
const HEARD: [&str; 5] =
    ["raft as member", "snapshot as member", "propose as member", "read index as member", "peer's digest as member"];
/// For who says it or what it says. A snapshot that came whole and is not installed has failed instead.
const REFUSED: &str = "refused";

/// A node at which messages are aimed.
struct Target {
    client: Channel,
    peer: Channel,
    known: Known,
    /// A node it has met.
    met: Known,
}

/// How many messages of a kind were answered, by how.
type Tally = BTreeMap<(String, &'static str), u64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_messages_kill_nothing() {
    let scenario = Scenario::begin("cluster_10::typed::random_messages_kill_nothing");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let client = cluster.client().await;
    let before = put_sentinels(&client).await;
    settled_map(&cluster).await;
    let leader = cluster.leader().await;
    let gone = (leader + 2) % cluster.nodes.len();
    let targets = targets(&cluster, [leader, (leader + 1) % cluster.nodes.len()]).await;
    let member = member(&cluster.nodes[gone]).await;
    cluster.kill(gone).await;
    for target in &targets {
        target.send_impossible_snapshots(&member).await;
    }
    let speakers = [Speaker::stranger(&targets[0].known.cluster), member];
    let seeds = scenario.pick(1000_usize, 60);
    let rounds = (0..seeds).map(|number| {
        let mut dice = Scenario { seed: scenario.seed.wrapping_add(number as u64), ..scenario }.dice();
        let target = &targets[number % targets.len()];
        let by = &speakers[number / targets.len() % speakers.len()];
        async move { target.round(by, &mut dice).await }
    });
    let tallies: Vec<Tally> = stream::iter(rounds).buffer_unordered(AT_ONCE).collect().await;
    expect_heard(tallies);
    assert_eq!(sentinels(&client).await, before, "expected keys that no message named to be as before");
    cluster.start(gone).await;
    expect_alive(&mut cluster).await;
    cluster.expect_equal_replicas().await;
    println!("{seeds} seeds of random messages at both ports: nobody died, and nothing changed that they do not name");
}

/// Prints how all was answered.
fn expect_heard(tallies: Vec<Tally>) {
    let mut tally = Tally::new();
    for (what, count) in tallies.into_iter().flatten() {
        *tally.entry(what).or_default() += count;
    }
    for ((kind, how), count) in &tally {
        println!("{kind}: {count} {how}");
    }
    for said in HEARD {
        let heard = tally.keys().any(|(kind, how)| kind == said && *how != REFUSED);
        assert!(heard, "expected not every '{said}' to be refused: {tally:?}");
    }
}

async fn put_sentinels(client: &Client) -> Vec<(u64, u64)> {
    for number in 0..SENTINELS {
        let put = client.put(sentinel(number), sentinel(number)).await;
        put.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    }
    sentinels(client).await
}

fn sentinel(number: usize) -> String {
    format!("a-sentinel/{number}")
}

/// Revision and version of each; its value must be the one it was put with.
async fn sentinels(client: &Client) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for number in 0..SENTINELS {
        let key = sentinel(number);
        let reply = client.get(key.clone()).await.unwrap_or_else(|error| panic!("expected to read {key}: {error}"));
        let pair = reply.pair().unwrap_or_else(|| panic!("expected {key} to be there"));
        assert_eq!(&pair.value[..], key.as_bytes(), "expected {key} to hold what was put");
        found.push((pair.mod_revision.0, pair.version));
    }
    found
}

/// Two nodes, with what anybody may know of them. One of them leads, and so has dialled the other: both are met.
async fn targets(cluster: &Cluster, pair: [usize; 2]) -> Vec<Target> {
    let mut found = Vec::new();
    for node in pair {
        found.push(reached(&cluster.nodes[node]).await);
    }
    let met: Vec<Known> = found.iter().rev().map(|(_, _, known)| known.clone()).collect();
    let found = found.into_iter().zip(met);
    found.map(|((client, peer, known), met)| Target { client, peer, known, met }).collect()
}

/// A node as it speaks, to be spoken for once it is killed.
async fn member(node: &Node) -> Speaker {
    let (_, peer, known) = reached(node).await;
    let words = words_of(&peer, Speaker::stranger(&known.cluster).hello(&known)).await;
    Speaker::member(words, known.replicas)
}

/// Both ports of a node, and what anybody may know of it.
async fn reached(node: &Node) -> (Channel, Channel, Known) {
    let (client, peer) = (raw::connected(&node.client).await, raw::connected(&node.peer).await);
    let known = known(&client, &peer).await;
    (client, peer, known)
}

async fn known(client: &Channel, peer: &Channel) -> Known {
    let mut cluster = ClusterClient::new(client.clone());
    let map = cluster.map(bounded(MapRequest {}, PATIENCE)).await.expect("the map of a node that runs").into_inner();
    let status = cluster.status(bounded(StatusRequest {}, PATIENCE)).await;
    let mut status = status.expect("the status of a node that runs").into_inner();
    status.replicas.sort_by_key(|replica| (replica.keyspace_id, replica.partition));
    let heard = status.replicas.iter().all(|replica| replica.leader_silent_ms.is_some());
    assert!(heard, "expected a node that is ready to have heard its leaders: {status:?}");
    let introduced = PeerClient::new(peer.clone()).introduce(bounded(Introduction::default(), PATIENCE)).await;
    Known {
        cluster: map.cluster_id,
        node: status.node_id,
        storage: introduced.expect("the name of a node that runs").into_inner().storage_id,
        start_count: status.start_count,
        replicas: status.replicas.iter().map(|replica| replica.replica_id).collect(),
        applied: status.replicas.iter().map(|replica| replica.applied_index).collect(),
    }
}

impl Target {
    /// One of each message, and several of some.
    async fn round(&self, by: &Speaker, dice: &mut Dice) -> Tally {
        let mut tally = Tally::new();
        self.ask(dice, &mut tally).await;
        self.stream(by, dice, &mut tally).await;
        self.send_snapshots(by, dice, &mut tally).await;
        self.ask_as_peer(by, dice, &mut tally).await;
        tally
    }

    /// The native API.
    async fn ask(&self, dice: &mut Dice, tally: &mut Tally) {
        let (mut kv, mut cluster) = (KvClient::new(self.client.clone()), ClusterClient::new(self.client.clone()));
        for ask in asks(dice) {
            let timeout = [Duration::from_millis(1), ATTEMPT_MAX][usize::from(dice.below(4) > 0)];
            let (kind, answer) = match ask {
                Ask::Get(get) => ("get", kv.get(bounded(get, timeout)).await.map(drop)),
                Ask::Put(put) => ("put", kv.put(bounded(put, timeout)).await.map(drop)),
                Ask::Delete(delete) => ("delete", kv.delete(bounded(delete, timeout)).await.map(drop)),
                Ask::Scan(scan) => {
                    let scan = async { raw::drain(kv.scan(bounded(scan, timeout)).await).await };
                    ("scan", in_time(scan).await)
                }
                Ask::Txn(txn) => ("txn", kv.txn(bounded(txn, timeout)).await.map(drop)),
                Ask::OpenSession(open) => ("open session", kv.open_session(bounded(open, timeout)).await.map(drop)),
                Ask::CloseSession(close) => {
                    ("close session", kv.close_session(bounded(close, timeout)).await.map(drop))
                }
                Ask::Compact(compact) => ("compact", kv.compact(bounded(compact, timeout)).await.map(drop)),
                Ask::Map => ("map", cluster.map(bounded(MapRequest {}, timeout)).await.map(drop)),
                Ask::Status => ("status", cluster.status(bounded(StatusRequest {}, timeout)).await.map(drop)),
                Ask::Digest(digest) => ("digest", cluster.digest(bounded(digest, timeout)).await.map(drop)),
            };
            if let Err(status) = &answer {
                expect_no_inner_failure(kind, status);
            }
            note(tally, kind, &answer);
        }
    }

    /// The stream of Raft messages: without opening words, with wrong ones, and with the speaker's.
    async fn stream(&self, by: &Speaker, dice: &mut Dice, tally: &mut Tally) {
        let to = &self.known;
        let frames = vec![frame(dice, by, to), frame(dice, by, to)];
        let answer = self.raft(frames, 0).await;
        assert!(answer.is_err(), "expected a stream without opening words to be refused");
        note(tally, "raft without opening words", &answer);
        let hello = Some(wrong_hello(dice, &self.met, to));
        let said = format!("{hello:?}");
        let frames = vec![Frame { hello, ..frame(dice, by, to) }, frame(dice, by, to)];
        let answer = self.raft(frames, 0).await;
        assert!(answer.is_err(), "expected wrong opening words to be refused: {said}");
        note(tally, "raft with wrong opening words", &answer);
        let opening = Frame { hello: Some(by.hello(to)), ..Frame::default() };
        let messages = frame(dice, by, to);
        let answers = messages.messages.len();
        let answer = self.raft(vec![opening, messages], answers).await;
        note(tally, format!("raft as {}", by.who), &answer);
    }

    /// Sends frames, and waits for so many answers to their messages if it is believed.
    async fn raft(&self, frames: Vec<Frame>, answers: usize) -> Result<(), Status> {
        // The stream stays open: at its end the other side drops what it has not answered.
        let frames = stream::iter(frames).chain(stream::pending());
        let mut client = PeerClient::new(self.peer.clone());
        in_time(async {
            let mut incoming = client.raft(Request::new(frames)).await?.into_inner();
            let mut left = answers;
            // The first frame is the other side's opening words, and answers nothing.
            while let Some(frame) = incoming.message().await? {
                left = left.saturating_sub(frame.messages.len());
                if left == 0 {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    /// Snapshots: without opening words, with wrong ones, and with the speaker's.
    async fn send_snapshots(&self, by: &Speaker, dice: &mut Dice, tally: &mut Tally) {
        let wrong = Some(wrong_hello(dice, &self.met, &self.known));
        for (kind, hello) in [("snapshot without opening words", None), ("snapshot with wrong opening words", wrong)] {
            let answer = self.snapshot(snapshot(dice, hello, by, &self.known)).await;
            assert!(answer.is_err(), "expected a {kind} to be refused");
            note(tally, kind, &answer);
        }
        for _ in 0..REPEATED {
            let hello = Some(by.hello(&self.known));
            let answer = self.snapshot(snapshot(dice, hello, by, &self.known)).await;
            note_by(tally, "snapshot", by, &answer);
        }
    }

    async fn snapshot(&self, chunks: Vec<SnapshotChunk>) -> Result<(), Status> {
        let mut client = PeerClient::new(self.peer.clone());
        in_time(async { client.snapshot(Request::new(stream::iter(chunks))).await.map(drop) }).await
    }

    /// Such snapshots end before anything is changed.
    async fn send_impossible_snapshots(&self, by: &Speaker) {
        for chunks in impossible_snapshots(by, &self.known) {
            let said = format!("{chunks:?}");
            let mut client = PeerClient::new(self.peer.clone());
            let answer = client.snapshot(bounded(stream::iter(chunks), PATIENCE)).await;
            let code = answer.as_ref().err().map(Status::code);
            assert_eq!(code, Some(Code::Internal), "expected it not to be installed: {said}: {answer:?}");
        }
    }

    /// What a peer may ask beside the streams.
    async fn ask_as_peer(&self, by: &Speaker, dice: &mut Dice, tally: &mut Tally) {
        let mut peer = PeerClient::new(self.peer.clone());
        for _ in 0..REPEATED {
            let ask = propose(dice, by);
            note_by(tally, "propose", by, &peer.propose(bounded(ask, ATTEMPT_MAX)).await.map(drop));
        }
        let ask = read_index(dice, by);
        note_by(tally, "read index", by, &peer.read_index(bounded(ask, ATTEMPT_MAX)).await.map(drop));
        let ask = digest(dice, by);
        note_by(tally, "peer's digest", by, &peer.digest(bounded(ask, ATTEMPT_MAX)).await.map(drop));
        let ask = introduction(dice);
        note(tally, "introduce", &peer.introduce(bounded(ask, ATTEMPT_MAX)).await.map(drop));
    }
}

/// A bound for what goes on behind the first answer.
async fn in_time(asked: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
    let late = |_| Err(Status::deadline_exceeded("not in time"));
    clock::timeout(ATTEMPT_MAX, asked).await.unwrap_or_else(late)
}

fn note(tally: &mut Tally, kind: impl Into<String>, answer: &Result<(), Status>) {
    let how = match answer.as_ref().map_err(Status::code) {
        Ok(()) => "answered",
        Err(Code::DeadlineExceeded | Code::Cancelled) => "late",
        Err(Code::Internal) => "failed",
        Err(_) => REFUSED,
    };
    *tally.entry((kind.into(), how)).or_default() += 1;
}

/// As [`note`], of what a stranger is refused whatever it says.
fn note_by(tally: &mut Tally, kind: &str, by: &Speaker, answer: &Result<(), Status>) {
    let kind = format!("{kind} as {}", by.who);
    assert!(by.is_of_cluster() || answer.is_err(), "expected a {kind} to be refused");
    note(tally, kind, answer);
}

/// A request id may by chance be that of another request, whose answer is no answer to this one.
fn expect_no_inner_failure(kind: &str, status: &Status) {
    let by_chance = status.message().ends_with("an answer to another question");
    assert!(status.code() != Code::Internal || by_chance, "{kind}: expected no inner failure: {status:?}");
}
