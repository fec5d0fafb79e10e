//! What the peer port believes, and whom it answers.
//!
//! A stranger, which is a node id nobody has met, makes opening words of what is public, is believed at first contact,
//! and then says one thing at a time. A node of the cluster says its opening words to such a stranger; killed, it is
//! spoken for with the same words. Each test is a table of what is said and what it is answered. All votes are of term 0
//! and all commands only read, so that nothing changes. Where the end of a connection matters, a relay carries its bytes
//! and sees which side hangs up.
//!
//! Invariants:
//!
//! * Every wait is bounded. Only what depends on who leads, or on `_meta` answering in time, is asked again.
//! * Replicas, nodes and epochs are those of a map that all nodes have and that no longer changes.
//!
//! Left out: which opening words are believed (the server's own tests), random messages, and snapshots beyond their
//! opening words (`cluster_10/typed.rs`).

mod asks;

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::io;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use trefoil_client::{KeyspaceId, NodeId, PartitionId, ReplicaId};
use trefoil_proto::peer::message::Body;
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::peer::{
    AppendRequest, Caller, Failure, Frame, Hello, Introduction, Message, NewerRow, SnapshotChunk, TransferRequest,
    Vote, VoteRequest,
};
use trefoil_proto::v1::cluster_client::ClusterClient;
use trefoil_proto::v1::{MapRequest, MapResponse, PlacementRow};
use trefoil_world::{clock, net, task};

use self::asks::{ASKS, Answer, Ask, How};
use crate::cluster::Cluster;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

/// A node id that is in no map.
const STRANGER: NodeId = NodeId(77_777);
/// Replicas neither map nor group knows: one is newer than both, the other is older than any there has been.
const UNKNOWN: ReplicaId = ReplicaId(999);
const NEVER_MADE: ReplicaId = ReplicaId(0);
/// The node that is killed and spoken for.
const KILLED: usize = 2;
/// How a stranger is refused.
const NOT_IN_MAP: &str = "refused: node 77777 is not in the map: only Raft messages are taken from it";
/// An epoch no placement reaches here.
const FAR_EPOCH: u64 = 10_000;

const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// When a connection is closed whose opening words were not believed. One that answers no pings is closed before that.
const CLOSED_MIN: Duration = Duration::from_secs(5);
const CLOSED_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_only_for_its_own_replicas() {
    Scenario::begin("peer_port::a_node_speaks_only_for_its_own_replicas");
    let _turn = beside_others().await;
    let cluster = Cluster::form(3, &[]).await;
    let map = settled_map(&cluster).await;
    let (one, two) = (node_of(&map, "n1"), node_of(&map, "n2"));
    let mine = replica_on(&map, KeyspaceId::DEFAULT, one);
    let theirs = replica_on(&map, KeyspaceId::DEFAULT, two);
    let of_meta = replica_on(&map, KeyspaceId::META, two);
    let peer = raw::connected(&cluster.nodes[0].peer).await;
    let mut stream = believed(&peer, stranger(&map, one)).await;
    // From, to, whose vote it brings, and what every message of that kind is answered with.
    let cases = [
        (theirs, mine, theirs, format!("{theirs} lives on {two}, not on {STRANGER}")),
        (of_meta, mine, of_meta, format!("{of_meta} is of partition {}", PartitionId::META)),
        (UNKNOWN, mine, theirs, format!("{UNKNOWN} speaks as {theirs}")),
        (theirs, mine, UNKNOWN, format!("{theirs} speaks as {UNKNOWN}")),
        (UNKNOWN, UNKNOWN, UNKNOWN, format!("no replica {UNKNOWN} here")),
        (NEVER_MADE, mine, NEVER_MADE, format!("{NEVER_MADE} is not known here")),
    ];
    for (from, to, voter, reason) in cases {
        for body in questions(voter, to) {
            let said = format!("{body:?} from {from} to {to}");
            let answer = stream.ask(from, to, body).await;
            let expected = Body::Failure(Failure { reason: reason.clone() });
            assert_eq!(answer, expected, "expected the answer (left) to be this failure (right), for {said}");
        }
        println!("from {from} to {to} with a vote of {voter}: {reason}");
    }
    expect_heard(&mut stream, mine).await;
}

/// A message of each kind that brings a vote.
fn questions(voter: ReplicaId, to: ReplicaId) -> [Body; 4] {
    let vote = Some(old_vote(voter));
    [
        Body::Append(AppendRequest { vote, ..AppendRequest::default() }),
        Body::Vote(VoteRequest { vote, ..VoteRequest::default() }),
        Body::PreVote(VoteRequest { vote, ..VoteRequest::default() }),
        Body::Transfer(TransferRequest { from_leader: vote, to_replica: to.0, last_log: None }),
    ]
}

/// Out of date wherever there has been a leader.
fn old_vote(replica: ReplicaId) -> Vote {
    Vote { term: 0, replica: replica.0, committed: false }
}

/// Whoever is new to a node may speak for a replica that is new to it: it is answered, and gets no vote.
async fn expect_heard(stream: &mut RaftStream, to: ReplicaId) {
    let request = VoteRequest { vote: Some(old_vote(UNKNOWN)), ..VoteRequest::default() };
    for body in [Body::Vote(request), Body::PreVote(request)] {
        let said = format!("{body:?} from {UNKNOWN} to {to}");
        let answer = stream.ask(UNKNOWN, to, body).await;
        let Body::VoteReply(reply) = &answer else {
            panic!("expected {said} to be answered by a vote reply, got {answer:?}");
        };
        assert!(!reply.granted, "expected {said} to get no vote: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_met_node_is_answered() {
    Scenario::begin("peer_port::only_a_met_node_is_answered");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let map = settled_map(&cluster).await;
    let (one, two) = (node_of(&map, "n1"), node_of(&map, "n2"));
    let peer = raw::connected(&cluster.nodes[0].peer).await;
    let words = Hello { to_node_id: one.0, ..words_of_killed(&mut cluster, &map).await };
    let next = next_start(&words);
    let (first, second, unknown) = (caller(&words, 0), caller(&next, 0), caller(&stranger(&map, one), 0));
    let nobody = Expected::Denied(Code::InvalidArgument, "it does not say who asks");
    let not_met = Expected::Denied(Code::PermissionDenied, "was not met, or another one since");
    let not_ours = Expected::Denied(Code::PermissionDenied, "refused: this node is of cluster ");
    let not_in_map = Expected::Denied(Code::PermissionDenied, NOT_IN_MAP);
    let asks = [("nobody", None, nobody), ("the stranger before its words", Some(unknown.clone()), not_met)];
    expect_each(&peer, asks).await;
    let _stranger = believed(&peer, stranger(&map, one)).await;
    let _first = believed(&peer, words.clone()).await;
    let asks = [
        ("nobody, once somebody was met", None, nobody),
        ("the stranger", Some(unknown.clone()), not_in_map),
        ("a node nobody met", Some(Caller { node_id: STRANGER.0 + 1, ..unknown }), not_met),
        ("the member", Some(first.clone()), Expected::Answered),
        ("it in another cluster", Some(Caller { cluster_id: other_cluster(), ..first.clone() }), not_ours),
        ("it without a cluster", Some(Caller { cluster_id: Bytes::new(), ..first.clone() }), not_ours),
        ("it in a start nobody met", Some(second.clone()), not_met),
        ("another member, in a run of this one's", Some(Caller { node_id: two.0, ..first.clone() }), not_met),
        ("the asked node itself", Some(Caller { node_id: one.0, ..first.clone() }), not_met),
    ];
    expect_each(&peer, asks).await;
    expect_no_snapshot(&peer, stranger(&map, one), (Code::PermissionDenied, NOT_IN_MAP)).await;
    expect_no_snapshot(&peer, words, (Code::InvalidArgument, "a snapshot begins with its head")).await;
    let _second = believed(&peer, next).await;
    let asks = [
        ("the member in its next start", Some(second), Expected::Answered),
        ("it in the one before still", Some(first), not_met),
    ];
    expect_each(&peer, asks).await;
}

/// What the node that is to be killed says of itself before it is. Its position may have grown since: within one start
/// its words overtake each other.
async fn words_of_killed(cluster: &mut Cluster, map: &MapResponse) -> Hello {
    let node = &cluster.nodes[KILLED];
    let peer = raw::connected(&node.peer).await;
    let words = words_of(&peer, stranger(map, node_of(map, &node.name))).await;
    cluster.kill(KILLED).await;
    words
}

/// The words of the next start of who said these. Nobody has heard of a later position of it.
fn next_start(words: &Hello) -> Hello {
    let mut next = Hello { start_count: words.start_count + 1, position: u64::MAX, ..words.clone() };
    next.runs.push(run_of(words).wrapping_add(1));
    next
}

/// A snapshot that begins with these words and ends with them is refused so.
async fn expect_no_snapshot(peer: &Channel, words: Hello, (code, why): (Code, &str)) {
    let said = format!("{words:?}");
    let chunks = stream::iter([SnapshotChunk { hello: Some(words), ..SnapshotChunk::default() }]);
    match PeerClient::new(peer.clone()).snapshot(bounded(chunks, ATTEMPT_MAX)).await {
        Ok(done) => panic!("expected a snapshot without a head to be refused, of {said}: {done:?}"),
        Err(status) => assert!(
            status.code() == code && status.message() == why,
            "expected a snapshot of {said} to be refused by {code:?} '{why}': {status:?}"
        ),
    }
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Answered,
    /// With this code and these words.
    Denied(Code, &'static str),
}

/// Puts every question in the name of each.
async fn expect_each(peer: &Channel, callers: impl IntoIterator<Item = (&'static str, Option<Caller>, Expected)>) {
    for (who, caller, expected) in callers {
        for ask in ASKS {
            match expected {
                Expected::Answered => expect_answered(peer, who, ask, &caller).await,
                Expected::Denied(code, words) => match ask.put_to(peer, caller.clone()).await {
                    Ok(answer) => panic!("expected {ask:?} of {who} to be refused, got {answer:?}"),
                    Err(status) => assert!(
                        status.code() == code && status.message().contains(words),
                        "expected {ask:?} of {who} to be refused by {code:?} '{words}': {status:?}"
                    ),
                },
            }
        }
        println!("{who}: {expected:?}");
    }
}

/// While no leader is known an answer may be a refusal.
async fn expect_answered(peer: &Channel, who: &str, ask: Ask, caller: &Option<Caller>) {
    until(&format!("an answer to {ask:?} of {who}"), PATIENCE, async || match ask.put_to(peer, caller.clone()).await {
        Ok(Answer { how: How::Done | How::NotLeader, .. }) => Some(()),
        Ok(Answer { how: How::Refused(_), .. }) => None,
        Err(status) => panic!("expected {ask:?} of {who} to be answered: {status:?}"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs() {
    Scenario::begin("peer_port::epochs");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let map = settled_map(&cluster).await;
    let words = words_of_killed(&mut cluster, &map).await;
    let mut peers = Vec::new();
    for node in &cluster.nodes[..KILLED] {
        let peer = raw::connected(&node.peer).await;
        let to_node_id = node_of(&map, &node.name).0;
        let stream = believed(&peer, Hello { to_node_id, ..words.clone() }).await;
        peers.push((peer, stream));
    }
    let row = row_of(&map, KeyspaceId::DEFAULT);
    let newest = row.epoch;
    let newer = NewerRow { row: stored(row), version: map.version };
    let unheard_of = format!("{FAR_EPOCH} is newer than the newest placement's, {newest}");
    // The epoch asked by, the refusal, and the row that comes with any answer but the wanted one.
    let cases = [
        (0, None, Some(&newer)),
        (newest - 1, None, Some(&newer)),
        (newest, None, None),
        (FAR_EPOCH, Some(unheard_of), None),
    ];
    for (epoch, refusal, brings) in cases {
        for ask in ASKS {
            let expected = refusal.clone().map_or(ask.at_follower(), How::Refused);
            let answer = ask_follower(&cluster, &peers, ask, &caller(&words, epoch), &expected).await;
            println!("{ask:?} by epoch {epoch} of {newest}: {answer:?}");
            if answer.how != How::Done {
                let what = format!("expected {ask:?} by epoch {epoch} to bring (left) what is newer than that (right)");
                assert_eq!(answer.newer.as_ref(), brings, "{what}");
            }
        }
    }
}

/// The answer of a node that does not lead `default`, once it is of the expected kind: the leader may change meanwhile,
/// and a node that does not get an answer from `_meta` in time uses the map it has.
async fn ask_follower(
    cluster: &Cluster,
    peers: &[(Channel, RaftStream)],
    ask: Ask,
    caller: &Caller,
    expected: &How,
) -> Answer {
    let mut last = None;
    until(&format!("{expected:?} as the answer to {ask:?} of {caller:?}"), PATIENCE, async || {
        // One of those that run, which come first.
        let (follower, _) = &peers[(cluster.leader().await + 1) % peers.len()];
        let answer = ask.put_to(follower, Some(caller.clone())).await;
        let answer =
            answer.unwrap_or_else(|status| panic!("expected {ask:?} of {caller:?} to be answered: {status:?}"));
        let fits = answer.how.is_like(expected);
        if !fits && last.replace(answer.how.clone()).as_ref() != Some(&answer.how) {
            println!("{ask:?} of {caller:?}: {answer:?}");
        }
        fits.then_some(answer)
    })
    .await
}

/// A row as `_meta` stores it, behind its format. In a fresh cluster all its numbers are below 128: one byte each.
fn stored(row: &PlacementRow) -> Bytes {
    let (keyspace, partition) = (u64::from(row.keyspace_id), u64::from(row.partition));
    let head = [1, keyspace, partition, row.epoch, row.replicas.len() as u64];
    let replicas = row.replicas.iter().flat_map(|replica| [replica.id, replica.node_id, 1 + u64::from(replica.live)]);
    let byte = |number: u64| u8::try_from(number).ok().filter(|byte| *byte < 0x80).expect("a number below 128");
    head.into_iter().chain(replicas).map(byte).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_opening_words_is_closed() {
    Scenario::begin("peer_port::a_connection_without_opening_words_is_closed");
    let _turn = beside_others().await;
    // Only one port is asked.
    let cluster = Cluster::form(1, &[]).await;
    let map = settled_map(&cluster).await;
    let (address, one) = (&cluster.nodes[0].peer, node_of(&map, "n1"));
    // Dialled first, so that the node's patience with it ends before that with the others.
    let (peer, kept) = relayed(address).await;
    let mut stream = believed(&peer, stranger(&map, one)).await;
    let wrong = Hello { cluster_id: other_cluster(), ..stranger(&map, one) };
    let mut others = Vec::new();
    for (what, words) in [("no opening words", None), ("opening words nobody believes", Some(wrong))] {
        let (peer, end) = relayed(address).await;
        let introduced = PeerClient::new(peer.clone()).introduce(bounded(Introduction::default(), ATTEMPT_MAX)).await;
        introduced.unwrap_or_else(|status| panic!("{what}: expected an introduction to be answered: {status:?}"));
        if let Some(words) = words {
            let refused = open(&peer, words).await.expect_err("a refusal of opening words of another cluster");
            assert_eq!(refused.code(), Code::PermissionDenied, "{what}: expected this code: {refused:?}");
        }
        others.push((what, peer, end));
    }
    for (what, peer, end) in others {
        let end = clock::timeout(CLOSED_MAX, end).await;
        let end = end.unwrap_or_else(|_| panic!("{what}: expected the node to hang up within {CLOSED_MAX:?}"));
        let after = end.expect("a relay that ran to its end");
        println!("{what}: the node hung up after {after:?}");
        let in_time = after.is_some_and(|after| (CLOSED_MIN..=CLOSED_MAX).contains(&after));
        assert!(in_time, "{what}: expected the node to hang up after {CLOSED_MIN:?} to {CLOSED_MAX:?}, not {after:?}");
        drop(peer);
    }
    assert!(!kept.is_finished(), "expected the connection whose opening words were believed to be kept");
    expect_heard(&mut stream, replica_on(&map, KeyspaceId::DEFAULT, one)).await;
}

/// A connection to a node that goes through a relay, and its end as [`carry`] has it.
async fn relayed(address: &str) -> (Channel, JoinHandle<Option<Duration>>) {
    let mut listener = net::listen("127.0.0.1:0").await.expect("a listener of the test's own");
    let (door, node) = (listener.address().to_string(), address.to_owned());
    let end = task::spawn(async move {
        let (client, _) = listener.accept().await.expect("the test's own connection");
        // Nobody comes a second time.
        drop(listener);
        let node = net::dial(&node).await.expect("a connection to a node that runs");
        carry(client, node).await
    });
    (raw::connected(&door).await, end)
}

/// Carries bytes both ways until one side hangs up: after how long, if it was the node.
async fn carry(client: net::Stream, node: net::Stream) -> Option<Duration> {
    let begun = clock::now();
    let (mut from_client, mut to_client) = io::split(client);
    let (mut from_node, mut to_node) = io::split(node);
    // A side that is gone ends the copy, be it by an error.
    tokio::select! {
        biased;
        _ = io::copy(&mut from_node, &mut to_client) => Some(begun.elapsed()),
        _ = io::copy(&mut from_client, &mut to_node) => None,
    }
}

/// A stream of Raft messages whose opening words were believed.
#[derive(Debug)]
struct RaftStream {
    outgoing: mpsc::Sender<Frame>,
    incoming: Streaming<Frame>,
    asked: u64,
    /// The node's own opening words.
    said: Hello,
}

/// Opens a stream by `words`.
async fn open(peer: &Channel, words: Hello) -> Result<RaftStream, Status> {
    let (outgoing, frames) = mpsc::channel(1);
    let opening = Frame { hello: Some(words), ..Frame::default() };
    outgoing.try_send(opening).expect("room for the opening words");
    let frames = stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) });
    let mut client = PeerClient::new(peer.clone());
    let mut incoming = in_time("an answer to opening words", client.raft(frames)).await?.into_inner();
    let first = in_time("the node's opening words", incoming.message()).await?;
    let said = first.and_then(|frame| frame.hello);
    let said = said.expect("a node's opening words in the first frame of a stream that it accepted");
    Ok(RaftStream { outgoing, incoming, asked: 0, said })
}

/// As [`open`], by words that are believed.
async fn believed(peer: &Channel, words: Hello) -> RaftStream {
    let said = format!("{words:?}");
    open(peer, words).await.unwrap_or_else(|status| panic!("expected {said} to be believed: {status:?}"))
}

/// What a node says of itself to whoever opens a stream by words that it believes.
pub async fn words_of(peer: &Channel, asker: Hello) -> Hello {
    believed(peer, asker).await.said
}

impl RaftStream {
    /// What a message is answered with.
    async fn ask(&mut self, from: ReplicaId, to: ReplicaId, body: Body) -> Body {
        self.asked += 1;
        let message = Message { id: self.asked, from_replica: from.0, to_replica: to.0, body: Some(body) };
        let frame = Frame { messages: vec![message], ..Frame::default() };
        in_time("a frame to be sent", self.outgoing.send(frame)).await.expect("a stream that takes frames");
        let answer = in_time("an answer to a message", self.answer()).await;
        let about = (answer.id, answer.from_replica, answer.to_replica);
        assert_eq!(about, (self.asked, to.0, from.0), "expected the answer to be to this message, and to go back");
        answer.body.expect("an answer that says something")
    }

    async fn answer(&mut self) -> Message {
        loop {
            let frame = self.incoming.message().await;
            let frame = frame.unwrap_or_else(|status| panic!("expected the stream to go on: {status:?}"));
            let mut messages = frame.expect("a stream that goes on").messages;
            if let Some(message) = messages.pop() {
                return message;
            }
        }
    }
}

/// What comes before long.
async fn in_time<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let come = clock::timeout(ATTEMPT_MAX, coming).await;
    come.unwrap_or_else(|_| panic!("expected within {ATTEMPT_MAX:?}: {what}"))
}

/// The stranger's opening words to `to`.
fn stranger(map: &MapResponse, to: NodeId) -> Hello {
    Hello {
        cluster_id: map.cluster_id.clone(),
        node_id: STRANGER.0,
        storage_id: Bytes::from_static(&[7; 16]),
        start_count: 1,
        protocol_min: 1,
        protocol_max: 1,
        to_node_id: to.0,
        runs: vec![7],
        position: 0,
        ..Hello::default()
    }
}

/// The id of a cluster there is not.
fn other_cluster() -> Bytes {
    Bytes::from_static(&[9; 16])
}

/// Whoever says these opening words, going by `epoch`.
fn caller(words: &Hello, epoch: u64) -> Caller {
    Caller { cluster_id: words.cluster_id.clone(), node_id: words.node_id, run: run_of(words), epoch }
}

/// The run id of the start that says these words.
fn run_of(words: &Hello) -> u64 {
    *words.runs.last().expect("opening words with the run of their own start")
}

/// The map, once every node has the same one and every replica is live: nothing changes it from then on.
pub async fn settled_map(cluster: &Cluster) -> MapResponse {
    let mut nodes = Vec::new();
    for node in &cluster.nodes {
        nodes.push(ClusterClient::new(raw::connected(&node.client).await));
    }
    until("one map in every node's eyes, its replicas all live", PATIENCE, async || {
        let mut maps = Vec::new();
        for node in &mut nodes {
            maps.push(node.map(bounded(MapRequest {}, ATTEMPT_MAX)).await.ok()?.into_inner());
        }
        let map = maps.pop()?;
        let live = map.rows.iter().flat_map(|row| &row.replicas).all(|replica| replica.live);
        (live && maps.iter().all(|other| *other == map)).then_some(map)
    })
    .await
}

fn node_of(map: &MapResponse, name: &str) -> NodeId {
    let found = map.nodes.iter().find(|node| node.name == name);
    NodeId(found.unwrap_or_else(|| panic!("expected {name} to be in the map: {map:?}")).id)
}

fn row_of(map: &MapResponse, keyspace: KeyspaceId) -> &PlacementRow {
    let found = map.rows.iter().find(|row| row.keyspace_id == keyspace.0);
    found.unwrap_or_else(|| panic!("expected {keyspace:?} to be placed: {map:?}"))
}

fn replica_on(map: &MapResponse, keyspace: KeyspaceId, node: NodeId) -> ReplicaId {
    let found = row_of(map, keyspace).replicas.iter().find(|replica| replica.node_id == node.0);
    ReplicaId(found.unwrap_or_else(|| panic!("expected a replica of {keyspace:?} on {node}: {map:?}")).id)
}
