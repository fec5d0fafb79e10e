//! Random messages of every type at both ports: what they name may change, nothing else, and nobody dies of them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use trefoil_client::Client;
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::peer::{Frame, Introduction};
use trefoil_proto::v1::cluster_client::ClusterClient;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::{MapRequest, StatusRequest};
use trefoil_world::clock;

use super::expect_alive;
use super::messages::{Ask, asks};
use super::peer_messages::{Known, digest, frame, introduction, propose, read_index, snapshot, stranger, wrong_hello};
use crate::cluster::Cluster;
use crate::raw::{self, bounded};
use crate::scenario::{Dice, Scenario, beside_others};

/// Seeds at a time.
const AT_ONCE: usize = 8;
/// Many random requests wait for something that does not come.
const ATTEMPT_MAX: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys that must stay as they are. They sort before all keys of the messages, so that no range reaches them.
const SENTINELS: usize = 8;

/// A node at which messages are aimed.
struct Target {
    client: Channel,
    peer: Channel,
    known: Known,
    /// A node it has met.
    met: Known,
}

/// How many messages of a kind were answered, by how.
type Tally = BTreeMap<(&'static str, &'static str), u64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_messages_kill_nothing() {
    let scenario = Scenario::begin("cluster_10::typed::random_messages_kill_nothing");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let client = cluster.client().await;
    let before = put_sentinels(&client).await;
    let targets = targets(&cluster).await;
    let seeds = scenario.pick(1000_u64, 60);
    let rounds = (0..seeds).map(|number| {
        let mut dice = Scenario { seed: scenario.seed.wrapping_add(number), ..scenario }.dice();
        let target = &targets[number as usize % targets.len()];
        async move {
            let mut tally = Tally::new();
            target.ask(&mut dice, &mut tally).await;
            target.stream(&mut dice, &mut tally).await;
            target.send_snapshots(&mut dice, &mut tally).await;
            target.ask_as_peer(&mut dice, &mut tally).await;
            tally
        }
    });
    let tallies: Vec<Tally> = stream::iter(rounds).buffer_unordered(AT_ONCE).collect().await;
    let mut tally = Tally::new();
    for (what, count) in tallies.into_iter().flatten() {
        *tally.entry(what).or_default() += count;
    }
    for ((kind, how), count) in &tally {
        println!("{kind}: {count} {how}");
    }
    assert_eq!(sentinels(&client).await, before, "expected keys that no message named to be as before");
    expect_alive(&mut cluster).await;
    cluster.expect_equal_replicas().await;
    println!("{seeds} seeds of random messages at both ports: nobody died, and nothing changed that they do not name");
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

/// The nodes, with what anybody may know of them.
async fn targets(cluster: &Cluster) -> Vec<Target> {
    let leader = cluster.leader().await;
    let mut found = Vec::new();
    for node in &cluster.nodes {
        let (client, peer) = (raw::connected(&node.client).await, raw::connected(&node.peer).await);
        let known = known(&client, &peer).await;
        found.push((client, peer, known));
    }
    let all: Vec<Known> = found.iter().map(|(_, _, known)| known.clone()).collect();
    // The leader has dialled the others, which makes both sides met.
    let met = |node: usize| if node == leader { all[(leader + 1) % all.len()].clone() } else { all[leader].clone() };
    let found = found.into_iter().enumerate();
    found.map(|(node, (client, peer, known))| Target { client, peer, known, met: met(node) }).collect()
}

async fn known(client: &Channel, peer: &Channel) -> Known {
    let mut cluster = ClusterClient::new(client.clone());
    let map = cluster.map(bounded(MapRequest {}, PATIENCE)).await.expect("the map of a node that runs").into_inner();
    let status = cluster.status(bounded(StatusRequest {}, PATIENCE)).await;
    let status = status.expect("the status of a node that runs").into_inner();
    let heard = status.replicas.iter().all(|replica| replica.leader_silent_ms.is_some());
    assert!(heard, "expected a node that is ready to have heard its leaders: {status:?}");
    let introduced = PeerClient::new(peer.clone()).introduce(bounded(Introduction::default(), PATIENCE)).await;
    Known {
        cluster: map.cluster_id,
        node: status.node_id,
        storage: introduced.expect("the name of a node that runs").into_inner().storage_id,
        start_count: status.start_count,
        replicas: status.replicas.iter().map(|replica| replica.replica_id).collect(),
    }
}

impl Target {
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

    /// The stream of Raft messages: without opening words, with wrong ones, and as a stranger.
    async fn stream(&self, dice: &mut Dice, tally: &mut Tally) {
        let frames = vec![frame(dice, &self.known), frame(dice, &self.known)];
        let answer = self.raft(frames, 0).await;
        assert!(answer.is_err(), "expected a stream without opening words to be refused");
        note(tally, "raft without opening words", &answer);
        let hello = Some(wrong_hello(dice, &self.met, &self.known));
        let said = format!("{hello:?}");
        let frames = vec![Frame { hello, ..frame(dice, &self.known) }, frame(dice, &self.known)];
        let answer = self.raft(frames, 0).await;
        assert!(answer.is_err(), "expected wrong opening words to be refused: {said}");
        note(tally, "raft with wrong opening words", &answer);
        let opening = Frame { hello: Some(stranger(&self.known)), ..Frame::default() };
        let messages = frame(dice, &self.known);
        let answers = messages.messages.len();
        let answer = self.raft(vec![opening, messages], answers).await;
        note(tally, "raft as a stranger", &answer);
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

    /// Snapshots: with wrong opening words, and as a stranger.
    async fn send_snapshots(&self, dice: &mut Dice, tally: &mut Tally) {
        let wrong = wrong_hello(dice, &self.met, &self.known);
        for (kind, hello) in [
            ("snapshot without opening words", None),
            ("snapshot with wrong opening words", Some(wrong)),
            ("snapshot as a stranger", Some(stranger(&self.known))),
        ] {
            let believed = kind.ends_with("stranger");
            let chunks = stream::iter(snapshot(dice, hello, &self.known));
            let mut client = PeerClient::new(self.peer.clone());
            let answer = in_time(async { client.snapshot(Request::new(chunks)).await.map(drop) }).await;
            assert!(believed || answer.is_err(), "expected a {kind} to be refused");
            note(tally, kind, &answer);
        }
    }

    /// What a peer may ask without opening words.
    async fn ask_as_peer(&self, dice: &mut Dice, tally: &mut Tally) {
        let mut peer = PeerClient::new(self.peer.clone());
        for _ in 0..4 {
            let ask = propose(dice, &self.known);
            note(tally, "propose", &peer.propose(bounded(ask, ATTEMPT_MAX)).await.map(drop));
        }
        let ask = read_index(dice, &self.known);
        note(tally, "read index", &peer.read_index(bounded(ask, ATTEMPT_MAX)).await.map(drop));
        let ask = digest(dice, &self.known);
        note(tally, "peer's digest", &peer.digest(bounded(ask, ATTEMPT_MAX)).await.map(drop));
        let ask = introduction(dice);
        note(tally, "introduce", &peer.introduce(bounded(ask, ATTEMPT_MAX)).await.map(drop));
    }
}

/// A bound for what goes on behind the first answer.
async fn in_time(asked: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
    let late = |_| Err(Status::deadline_exceeded("not in time"));
    clock::timeout(ATTEMPT_MAX, asked).await.unwrap_or_else(late)
}

fn note(tally: &mut Tally, kind: &'static str, answer: &Result<(), Status>) {
    let how = match answer.as_ref().map_err(Status::code) {
        Ok(()) => "answered",
        Err(Code::DeadlineExceeded | Code::Cancelled) => "late",
        Err(_) => "refused",
    };
    *tally.entry((kind, how)).or_default() += 1;
}

/// A request id may by chance be that of another request, whose answer is no answer to this one.
fn expect_no_inner_failure(kind: &str, status: &Status) {
    let by_chance = status.message().ends_with("an answer to another question");
    assert!(status.code() != Code::Internal || by_chance, "{kind}: expected no inner failure: {status:?}");
}
