//! Links to the other nodes: one batched, bounded stream of Raft messages per direction, and a bulk connection for
//! snapshots.
//!
//! A [`Link`] is a task that keeps one connection to one peer. Calls are queued, gathered into frames as they come,
//! answered by id and bounded by their own deadlines. While there is no connection, calls fail at once: the callers
//! (the Raft library, the router) have their own patience.
//!
//! Invariants:
//!
//! * A connection carries nothing before both sides have believed each other's opening words.
//! * A connection of its own ([`Peers::dial`]) carries its opening words itself, and nobody has answered them when it is
//!   handed out. So it goes first to where the node was believed last.
//! * Every queue is bounded; a full one fails the call.
//! * Addresses are hints and are looked up at every dial: a new one is tried at the latest 0.5 s ([`BACKOFF_MAX`]) after
//!   those that were known before have failed, each within 3 s.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use tracing::{Span, info, warn};
use trefoil_placement::NodeId;
use trefoil_proto::peer::peer_client::PeerClient;
use trefoil_proto::peer::{Frame, Hello, Message, message::Body};
use trefoil_world::{clock, net};

use crate::cluster::addresses::AddressBook;
use crate::cluster::identity::Acquaintances;
use crate::cluster::map::ClusterMap;

/// Calls that may wait for one peer.
const QUEUE_MAX: usize = 1024;
/// Messages gathered into one frame.
const FRAME_MESSAGES_MAX: usize = 256;
/// Bytes of log entries after which a frame is sent.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// Frames on their way to the connection.
const FRAMES_MAX: usize = 8;
/// Metadata of a refusal that proves the refused node's amnesia.
pub const AMNESIA: &str = "trefoil-amnesia";
/// The largest message a peer may send.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Requests of a connection that were cancelled within the last second, whose late answers are passed over. HTTP/2 counts
/// the answer of one it has forgotten as a fault of the other side, and ends a connection for 1024 of them.
const CANCELLED_MAX: usize = 32_768;
const DIAL_TIMEOUT: Duration = Duration::from_millis(1000);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How often a node says how far its writer has synced, when that has changed, to those it has nothing else to tell.
const PING_INTERVAL: Duration = Duration::from_millis(1000);
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1000);
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(2000);

/// The run id of the start that sends these opening words; they have been believed.
pub fn run_of(hello: &Hello) -> u64 {
    hello.runs.last().copied().unwrap_or(0)
}

/// Why a call has no answer. What the peer did with it is unknown unless it never left.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    #[error("{node} cannot be reached: {why}")]
    Unreachable { node: NodeId, why: String },
    #[error("{node} did not answer in {ttl:?}")]
    Timeout { node: NodeId, ttl: Duration },
    #[error("{node} could not answer: {why}")]
    Failed { node: NodeId, why: String },
}

/// All links of a node.
pub struct Peers {
    pub acquaintances: Arc<Acquaintances>,
    addresses: Arc<AddressBook>,
    // Links are made on first use, from any task.
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// The node's: links are made by whoever needs one first.
    span: Span,
}

impl Peers {
    pub fn new(acquaintances: Arc<Acquaintances>, addresses: Arc<AddressBook>) -> Peers {
        Peers { acquaintances, addresses, links: Mutex::default(), span: Span::current() }
    }

    /// The map the links find nodes by.
    pub fn map(&self) -> &Arc<ArcSwap<ClusterMap>> {
        self.addresses.map()
    }

    /// Asks `node` and waits at most `ttl` for the answer.
    pub async fn call(&self, node: NodeId, message: Message, ttl: Duration) -> Result<Body, CallError> {
        self.link(node).call(message, ttl).await
    }

    /// Makes a link to `node`, if there is none.
    pub fn keep_link(&self, node: NodeId) {
        self.link(node);
    }

    /// Whether there is a connection to `node` now: a hint, never a decision.
    pub fn connected(&self, node: NodeId) -> bool {
        self.known_link(node).is_some_and(|link| link.connected.load(Ordering::Relaxed) > 0)
    }

    /// Why there is no connection to `node`; empty when there is one, or none was tried yet.
    pub fn disconnected_because(&self, node: NodeId) -> String {
        let link = self.known_link(node);
        link.map(|link| link.why.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// A connection of its own, for bulk or single calls, with whoever answers first: it is not asked who it is.
    pub async fn dial(&self, node: NodeId) -> Result<PeerClient<Channel>, CallError> {
        let believed = self.known_link(node).and_then(|link| link.believed_at());
        let mut why = "no address is known".to_owned();
        for address in self.addresses.of_believed(node, believed) {
            match dial(&address).await {
                Ok(channel) => return Ok(channel),
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(CallError::Unreachable { node, why })
    }

    /// The client of the Raft connection, for calls that are not Raft messages.
    pub async fn client(&self, node: NodeId) -> Result<PeerClient<Channel>, CallError> {
        let link = self.link(node);
        let client = link.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        client.ok_or_else(|| CallError::Unreachable { node, why: "not connected".into() })
    }

    fn known_link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    fn link(&self, node: NodeId) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(node).or_insert_with(|| {
            let (queue, calls) = mpsc::channel(QUEUE_MAX);
            let link = Arc::new(Link {
                node,
                queue,
                next_id: AtomicU64::new(1),
                waiting: Arc::default(),
                connected: AtomicU64::new(0),
                why: Mutex::default(),
                believed_at: Mutex::default(),
                client: Mutex::new(None),
            });
            let keep = KeepLink {
                link: Arc::downgrade(&link),
                dialler: Dialler { node, acquaintances: self.acquaintances.clone(), addresses: self.addresses.clone() },
                calls,
                span: self.span.clone(),
            };
            trefoil_world::task::spawn(keep.run());
            link
        });
        link.clone()
    }
}

/// Connects to the peer port at `address`.
///
/// # Errors
/// Nobody answers there in time.
pub async fn dial(address: &str) -> Result<PeerClient<Channel>, String> {
    let target = address.to_owned();
    let connector = service_fn(move |_: Uri| {
        let target = target.clone();
        async move { net::dial(&target).await.map(net::Coalesced::new).map(TokioIo::new) }
    });
    // The address is dialled by the connector; the URI only names the authority.
    let endpoint = Endpoint::from_static("http://peer.trefoil")
        .http2_max_concurrent_reset_streams(CANCELLED_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20);
    let connecting = endpoint.connect_with_connector(connector);
    let channel = match clock::timeout(DIAL_TIMEOUT, connecting).await {
        Err(_) => return Err(format!("no answer in {DIAL_TIMEOUT:?}")),
        Ok(Err(error)) => return Err(root_cause(&error)),
        Ok(Ok(channel)) => channel,
    };
    Ok(PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Body>>>>;

struct Link {
    node: NodeId,
    queue: mpsc::Sender<Message>,
    next_id: AtomicU64,
    // Filled by callers, emptied by the connection's reader.
    waiting: Waiting,
    connected: AtomicU64,
    /// Why there is no connection; empty while there is one.
    why: Mutex<String>,
    /// The address at which the node's opening words were believed last. The link's task writes it, dials read it.
    believed_at: Mutex<Option<String>>,
    client: Mutex<Option<PeerClient<Channel>>>,
}

/// Forgets a call when its caller stops waiting.
struct Waiter<'a> {
    id: u64,
    waiting: &'a Waiting,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Link {
    async fn call(&self, mut message: Message, ttl: Duration) -> Result<Body, CallError> {
        let unreachable = |why: &str| CallError::Unreachable { node: self.node, why: why.into() };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        message.id = id;
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        let _forget = Waiter { id, waiting: &self.waiting };
        self.queue.try_send(message).map_err(|_| unreachable("too many calls are waiting"))?;
        match clock::timeout(ttl, answered).await {
            Err(_) => Err(CallError::Timeout { node: self.node, ttl }),
            Ok(Err(_)) => Err(unreachable("not connected")),
            Ok(Ok(Body::Failure(failure))) => Err(CallError::Failed { node: self.node, why: failure.reason }),
            Ok(Ok(body)) => Ok(body),
        }
    }

    fn drop_waiting(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn set_why(&self, why: String) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn believed_at(&self) -> Option<String> {
        self.believed_at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_believed_at(&self, address: String) {
        *self.believed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    fn set_client(&self, client: Option<PeerClient<Channel>>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// An open connection to a believed peer.
struct Connection {
    /// For single calls.
    client: PeerClient<Channel>,
    /// Where the peer was dialled.
    address: String,
    outgoing: mpsc::Sender<Frame>,
    incoming: Streaming<Frame>,
    /// The peer's run id.
    run: u64,
}

/// Opens connections to one node.
struct Dialler {
    node: NodeId,
    acquaintances: Arc<Acquaintances>,
    addresses: Arc<AddressBook>,
}

/// The task behind a [`Link`]; it ends with the link.
struct KeepLink {
    link: std::sync::Weak<Link>,
    dialler: Dialler,
    calls: mpsc::Receiver<Message>,
    /// Entered for a line of the log only, never while frames are moved.
    span: Span,
}

impl KeepLink {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        while let Some(link) = self.link.upgrade() {
            match self.session(&link).await {
                Ok(()) => backoff = BACKOFF_MIN,
                Err(why) => link.set_why(why),
            }
            link.set_client(None);
            drop(link);
            if !self.fail_calls_for(backoff).await {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection, from the dial to its end. `Ok` when it had been up.
    async fn session(&mut self, link: &Arc<Link>) -> Result<(), String> {
        let KeepLink { dialler, calls, .. } = self;
        let opened = tokio::select! {
            opened = dialler.open_any() => opened,
            never = fail_calls(calls, &link.waiting) => match never {},
        };
        let Connection { client, address, outgoing, incoming, run } = opened?;
        let node = self.dialler.node;
        self.span.in_scope(|| info!(peer = %node, "connected"));
        link.set_believed_at(address);
        link.set_client(Some(client));
        link.set_why(String::new());
        link.connected.store(1, Ordering::Relaxed);
        let acquaintances = &self.dialler.acquaintances;
        let end = tokio::select! {
            end = send_frames(acquaintances, &mut self.calls, outgoing) => end,
            end = receive_frames(acquaintances, (node, run), &link.waiting, incoming) => end,
        };
        link.connected.store(0, Ordering::Relaxed);
        link.drop_waiting();
        self.span.in_scope(|| warn!(peer = %node, "connection lost: {end}"));
        Ok(())
    }

    /// While there is no connection, calls fail at once. False when the link is gone.
    async fn fail_calls_for(&mut self, backoff: Duration) -> bool {
        let until = clock::now() + backoff;
        loop {
            match clock::timeout_at(until, self.calls.recv()).await {
                Err(_) => return true,
                Ok(None) => return false,
                Ok(Some(message)) => {
                    let Some(link) = self.link.upgrade() else { return false };
                    link.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&message.id);
                }
            }
        }
    }
}

/// Fails calls as they come, until it is dropped.
async fn fail_calls(calls: &mut mpsc::Receiver<Message>, waiting: &Waiting) -> Infallible {
    while let Some(message) = calls.recv().await {
        waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&message.id);
    }
    std::future::pending().await
}

impl Dialler {
    /// Tries the node's addresses in turn.
    async fn open_any(&self) -> Result<Connection, String> {
        let mut why = "no address is known".to_owned();
        for address in self.addresses.of(self.node) {
            match self.open(&address).await {
                Ok(opened) => return Ok(opened),
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(why)
    }

    async fn open(&self, address: &str) -> Result<Connection, String> {
        let mut client = dial(address).await?;
        let (outgoing, frames) = mpsc::channel(FRAMES_MAX);
        let hello = self.acquaintances.hello(Some(self.node));
        let opening = Frame { hello: Some(hello), ..Frame::default() };
        outgoing.try_send(opening).map_err(|error| error.to_string())?;
        let asked = clock::timeout(DIAL_TIMEOUT, client.raft(ReceiverStream::new(frames)));
        let answer = asked.await.map_err(|_| "no answer to the opening words")?;
        let mut incoming = answer.map_err(|status| self.refused(&status))?.into_inner();
        let asked = clock::timeout(DIAL_TIMEOUT, incoming.message());
        let first = asked.await.map_err(|_| "no opening words")?.map_err(|status| self.refused(&status))?;
        let hello = first.and_then(|frame| frame.hello).ok_or("it said nothing")?;
        let node = self.acquaintances.meet(&hello).await.map_err(|refused| refused.to_string())?;
        if node != self.node {
            return Err(format!("{node} answered instead of {}", self.node));
        }
        Ok(Connection { client, address: address.to_owned(), outgoing, incoming, run: run_of(&hello) })
    }

    /// Why the peer hung up on the opening words; one that has proof of this node's amnesia is believed.
    fn refused(&self, status: &tonic::Status) -> String {
        if status.metadata().contains_key(AMNESIA) {
            self.acquaintances.disown(&format!("{} says: {}", self.node, status.message()));
        }
        status.message().to_owned()
    }
}

async fn send_frames(
    acquaintances: &Acquaintances,
    calls: &mut mpsc::Receiver<Message>,
    outgoing: mpsc::Sender<Frame>,
) -> String {
    let mut said = 0;
    let mut pings = clock::interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(clock::MissedTickBehavior::Delay);
    loop {
        let first = tokio::select! {
            biased;
            first = calls.recv() => match first {
                Some(first) => first,
                None => return "the node is ending".into(),
            },
            _ = pings.tick() => {
                let ping = Frame { position: acquaintances.position(), ..Frame::default() };
                if ping.position != std::mem::replace(&mut said, ping.position) && outgoing.send(ping).await.is_err() {
                    return "the stream was closed".into();
                }
                continue;
            }
        };
        let mut messages = vec![first];
        // Let the tasks that are about to call do so: their messages share the frame.
        tokio::task::yield_now().await;
        let mut bytes = weight(&messages[0]);
        while messages.len() < FRAME_MESSAGES_MAX && bytes < FRAME_BYTES_MAX {
            match calls.try_recv() {
                Ok(message) => {
                    bytes += weight(&message);
                    messages.push(message);
                }
                Err(_) => break,
            }
        }
        let frame = Frame { hello: None, messages, position: acquaintances.position() };
        if outgoing.send(frame).await.is_err() {
            return "the stream was closed".into();
        }
    }
}

/// Bytes of log entries in a message; the rest of any message is small.
fn weight(message: &Message) -> usize {
    match &message.body {
        Some(Body::Append(append)) => append.entries.iter().map(|entry| entry.payload.len()).sum(),
        Some(_) | None => 0,
    }
}

async fn receive_frames(
    acquaintances: &Acquaintances,
    (node, run): (NodeId, u64),
    waiting: &Waiting,
    mut incoming: Streaming<Frame>,
) -> String {
    loop {
        match incoming.message().await {
            Err(status) => return status.message().to_owned(),
            Ok(None) => return "closed by the peer".into(),
            Ok(Some(frame)) if !acquaintances.hear(node, run, frame.position) => {
                return "another start of it was met".into();
            }
            Ok(Some(frame)) => {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                for message in frame.messages {
                    if let (Some(answer), Some(body)) = (waiting.remove(&message.id), message.body) {
                        // A caller that gave up needs no answer.
                        drop(answer.send(body));
                    }
                }
            }
        }
    }
}
