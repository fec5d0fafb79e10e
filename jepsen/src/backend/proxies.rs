//! Proxies before the peer ports of nodes on the loopback interface: faults of the network without root.
//!
//! Each node hears its peers at a port that it does not tell them; what it tells them is its proxy's, in the harness.
//! Who connects there is found by the kernel's tables: the process that owns the connection (`owner.rs`). So each
//! connection is between two known nodes, and each of its two directions is a **line** with rules of its own
//! (`rules.rs`): cut, slow, or a drip. A connection can also be broken (`connection.rs`).
//!
//! Each line is metered: what was given in at one end, and what came out at the other one. Not every two nodes have
//! something to say to each other, so for a measurement the harness says **words** too, over connections of its own that
//! count as standing already (`words.rs`).
//!
//! Invariants:
//!
//! * A line passes bytes in their order, and loses none as long as its connection stands: as TCP does.
//! * A connection of nobody known is not passed on.
//! * No task outlives [`Serving`].
//!
//! Left out: packets. Nothing is lost, doubled or reordered below TCP; a cut is one that TCP would see: bytes wait. What
//! clients send to nodes does not come by here.

mod connection;
mod owner;
mod rules;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, watch};
use trefoil_world::net::{self, Listener, Stream};
use trefoil_world::{clock, task};

use super::{Cut, Measured, Metered, Reach};

pub(super) use owner::TABLE as OWNERS;
pub use rules::{Break, Line, Weather};

use rules::Rules;

/// Connections at a time, of all nodes together.
const CONNECTIONS_MAX: usize = 2000;
/// How long an attempt to connect waits for the first word of who listens.
const REACH_MAX: Duration = Duration::from_millis(400);
/// What an attempt may be sent before it is read.
const REACH_BYTES: usize = 4096;
/// After accepting has failed, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A handle to the proxies of a cluster. See the file's head.
#[derive(Clone, Debug)]
pub struct Proxies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Where each node really listens.
    targets: Vec<String>,
    rules: watch::Sender<Rules>,
    // Written when a node is started, read when a connection comes in.
    pids: Mutex<Vec<Option<u32>>>,
    places: Arc<Semaphore>,
    /// Of each line, by its number.
    meters: Vec<Meter>,
    /// How many connections of each node stand.
    standing: Vec<AtomicU64>,
    /// Connections broken since the last healing.
    broken: AtomicU64,
    /// Connections of which one end is kept open now.
    half_open: AtomicU64,
}

/// What has passed on a line.
#[derive(Debug, Default)]
struct Meter {
    /// The longest that bytes were under way, in milliseconds, since the last change of the line's weather.
    slowest_ms: AtomicU64,
    /// Bytes that came from who sends.
    offered: AtomicU64,
    /// Bytes that were given to whom they are for.
    passed: AtomicU64,
}

/// Proxies at work, until it is dropped.
#[derive(Debug)]
pub(super) struct Serving(Proxies);

impl Serving {
    /// Listens at `(address, target)` for each node, in their order.
    ///
    /// # Errors
    /// A port is in use.
    pub(super) async fn start(addresses: Vec<(String, String)>) -> io::Result<Serving> {
        let mut listeners = Vec::new();
        for (address, _) in &addresses {
            listeners.push(net::listen(address).await?);
        }
        let nodes = addresses.len();
        let shared = Shared {
            targets: addresses.into_iter().map(|(_, target)| target).collect(),
            rules: watch::Sender::new(Rules::default()),
            pids: Mutex::new(vec![None; nodes]),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            meters: (0..nodes * nodes).map(|_| Meter::default()).collect(),
            standing: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
            broken: AtomicU64::new(0),
            half_open: AtomicU64::new(0),
        };
        let proxies = Proxies(Arc::new(shared));
        for (to, listener) in listeners.into_iter().enumerate() {
            task::spawn(proxies.clone().accept_all(listener, to));
        }
        Ok(Serving(proxies))
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.rules.send_modify(|rules| rules.over = true);
    }
}

impl Proxies {
    /// Notes which process a node is.
    pub(crate) fn note_process(&self, node: usize, pid: u32) {
        self.0.pids.lock().unwrap_or_else(PoisonError::into_inner)[node] = Some(pid);
    }

    /// Puts cuts in force, beside those that are. All that nodes send to each other goes to a peer port: cuts of either
    /// traffic are the same here.
    pub(super) fn cut(&self, cuts: &[Cut]) {
        self.0.rules.send_modify(|rules| rules.cuts.extend(cuts.iter().map(Line::of)));
    }

    /// Undoes everything.
    pub(super) fn heal(&self) {
        self.0.rules.send_modify(Rules::heal);
        self.0.broken.store(0, Ordering::Relaxed);
    }

    /// What passes on every line while words are said on all of them. `cut`: the lines that are said to be cut.
    pub(super) async fn measure(&self, cut: &BTreeSet<Line>) -> Measured {
        let before = self.readings();
        self.words(cut).await;
        let since = |(line, now): (Line, Metered)| {
            let before = before[&line];
            (line, Metered { offered: now.offered - before.offered, passed: now.passed - before.passed })
        };
        Measured(self.readings().into_iter().map(since).collect())
    }

    /// What the meters of all lines show.
    fn readings(&self) -> BTreeMap<Line, Metered> {
        let reading = |line: Line| {
            let meter = self.meter(line);
            // First what has passed: it was offered before.
            let passed = meter.passed.load(Ordering::Relaxed);
            (line, Metered { offered: meter.offered.load(Ordering::Relaxed), passed })
        };
        Line::all(self.0.targets.len()).into_iter().map(reading).collect()
    }

    /// Gives lines weather, from now on.
    pub fn weather(&self, lines: &BTreeSet<Line>, weather: Weather) {
        for line in lines {
            self.meter(*line).slowest_ms.store(0, Ordering::Relaxed);
        }
        self.0.rules.send_modify(|rules| rules.weather.extend(lines.iter().map(|line| (*line, weather))));
    }

    /// The longest that bytes were under way on a line since it was given its weather.
    pub fn slowest(&self, line: Line) -> Duration {
        Duration::from_millis(self.meter(line).slowest_ms.load(Ordering::Relaxed))
    }

    /// How many connections between a node and others stand now.
    pub fn standing(&self, node: usize) -> u64 {
        self.0.standing[node].load(Ordering::Relaxed)
    }

    /// Breaks the connections that stand now between a node and all others.
    pub fn break_connections(&self, node: usize, how: Break) {
        self.0.rules.send_modify(|rules| rules.break_all(node, how));
    }

    /// How many connections are half open now: both when they were left so, and when they are healed, it takes a moment.
    pub fn half_open(&self) -> u64 {
        self.0.half_open.load(Ordering::Relaxed)
    }

    /// How many connections were broken since the last healing.
    pub fn broken(&self) -> u64 {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// An attempt to connect as a node, which ends with the first word of who listens: peers speak first.
    pub(super) async fn reach(&self, from: usize, to: usize) -> Reach {
        let (ours, theirs) = tokio::io::duplex(REACH_BYTES);
        let attempt = task::spawn(self.clone().pass_on(Box::pin(theirs), from, to));
        let mut ours = Box::pin(ours);
        // Whatever comes, an end too, has come through.
        let heard = clock::timeout(REACH_MAX, ours.read_u8()).await;
        attempt.abort();
        if heard.is_ok() { Reach::Answers } else { Reach::Silent }
    }

    fn meter(&self, line: Line) -> &Meter {
        &self.0.meters[line.from * self.0.targets.len() + line.to]
    }

    async fn accept_all(self, mut listener: Listener, to: usize) {
        let mut rules = self.0.rules.subscribe();
        loop {
            let accepted = tokio::select! {
                _ = rules.wait_for(|rules| rules.over) => return,
                accepted = listener.accept() => accepted,
            };
            match (accepted, self.0.places.clone().try_acquire_owned()) {
                (Ok((stream, address)), Ok(place)) => {
                    let (proxies, here) = (self.clone(), listener.address());
                    task::spawn(async move {
                        proxies.admit(stream, address, here, to).await;
                        drop(place);
                    });
                }
                // One connection too many is closed.
                (Ok(_), Err(_)) => {}
                (Err(_), _) => clock::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn admit(self, stream: Stream, address: SocketAddr, here: SocketAddr, to: usize) {
        let pids = self.0.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let owner = task::blocking(move || owner::find(address, here, &pids)).await;
        if let Ok(Some(from)) = owner {
            self.pass_on(stream, from, to).await;
        }
    }

    /// Until the connection ends, or is broken, or all is over.
    async fn pass_on(self, caller: Stream, from: usize, to: usize) {
        let mut rules = self.0.rules.subscribe();
        tokio::select! {
            _ = rules.wait_for(|rules| rules.over) => {}
            () = connection::run(&self, caller, from, to) => {}
        }
    }
}

#[cfg(test)]
mod tests;
