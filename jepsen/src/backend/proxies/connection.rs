//! One connection between two nodes: dialled, passed on line by line, broken.
//!
//! What is read from one end is queued with the time at which it is to get through, and written to the other end then,
//! unless the line is cut: then it waits. The queue is bounded, so a cut line soon takes no more, as TCP's window does.

use std::future::pending;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, watch};
use trefoil_world::clock::{self, Instant};
use trefoil_world::net::{Stream, dial};

use super::rules::{Break, Line, Rules, Weather};
use super::{Meter, Proxies};
use crate::generator::Dice;

/// Pieces on their way on a line.
const PIECES_MAX: usize = 64;
const PIECE_BYTES: usize = 16 << 10;
/// How long unread bytes are let gather before a reset: closing an end with such is what makes it one.
const UNREAD: Duration = Duration::from_millis(300);
/// How many pieces a drip has in a second.
const DRIPS_A_SECOND: u64 = 20;

/// What was read at a time, and is to get through at another one.
struct Piece {
    read: Instant,
    /// What there was then.
    weather: Option<Weather>,
    due: Instant,
    bytes: Bytes,
}

/// Runs until either end is closed, or it is broken.
pub(super) async fn run(proxies: &Proxies, mut caller: Stream, from: usize, to: usize) {
    let mut rules = proxies.0.rules.subscribe();
    let (line, mut said) = (Line { from, to }, Vec::new());
    tokio::select! {
        // Who gives up while it waits leaves nothing behind.
        () = listen_until_gone(proxies.meter(line), &mut caller, &mut said) => return,
        // A connection needs both directions.
        opened = rules.wait_for(|rules| rules.is_open(line) && rules.is_open(line.back())) => if opened.is_err() { return },
    }
    // Nobody listens: the caller sees its connection closed.
    let Ok(mut called) = dial(&proxies.0.targets[to]).await else { return };
    if called.write_all(&said).await.is_err() {
        return;
    }
    proxies.meter(line).passed.fetch_add(said.len() as u64, Ordering::Relaxed);
    let broken = {
        let _standing = Standing::new(proxies, [from, to]);
        let (known, _) = rules.borrow().last_break([from, to]);
        let mut halves = Halves::of(caller, called);
        tokio::select! {
            () = halves.pass(proxies, line) => return,
            broken = broken(&mut rules, [from, to], known) => (broken, halves),
        }
    };
    let (Some(broken), halves) = broken else { return };
    proxies.0.broken.fetch_add(1, Ordering::Relaxed);
    halves.end(broken, broken.node == from, (proxies, &mut rules)).await;
}

/// Passes on what comes over a connection that stands already, until both ends are closed.
pub(super) async fn carry(proxies: &Proxies, caller: Stream, called: Stream, line: Line) {
    Halves::of(caller, called).pass(proxies, line).await;
}

/// Takes what a caller says, to some amount, until it is gone.
async fn listen_until_gone(meter: &Meter, caller: &mut Stream, said: &mut Vec<u8>) {
    while said.len() < PIECE_BYTES {
        match caller.read_buf(said).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => meter.offered.fetch_add(bytes as u64, Ordering::Relaxed),
        };
    }
    pending().await
}

/// That connections of a node were broken: for the how-manieth time, of all nodes together, and how.
#[derive(Clone, Copy, Debug)]
struct Broken {
    number: u64,
    node: usize,
    how: Break,
}

/// Waits until connections of one of these nodes are broken after the time of this number.
async fn broken(rules: &mut watch::Receiver<Rules>, nodes: [usize; 2], known: u64) -> Option<Broken> {
    let rules = rules.wait_for(|rules| rules.last_break(nodes).0 > known).await.ok()?;
    let (number, last) = rules.last_break(nodes);
    let (node, how) = last?;
    Some(Broken { number, node, how })
}

/// Counts a connection for both nodes until it is dropped.
struct Standing<'a> {
    proxies: &'a Proxies,
    nodes: [usize; 2],
}

impl Standing<'_> {
    fn new(proxies: &Proxies, nodes: [usize; 2]) -> Standing<'_> {
        for node in nodes {
            proxies.0.standing[node].fetch_add(1, Ordering::Relaxed);
        }
        Standing { proxies, nodes }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        for node in self.nodes {
            self.proxies.0.standing[node].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Both ends of a connection.
struct Halves {
    from_caller: ReadHalf<Stream>,
    to_caller: WriteHalf<Stream>,
    from_called: ReadHalf<Stream>,
    to_called: WriteHalf<Stream>,
}

impl Halves {
    fn of(caller: Stream, called: Stream) -> Halves {
        let ((from_caller, to_caller), (from_called, to_called)) = (split(caller), split(called));
        Halves { from_caller, to_caller, from_called, to_called }
    }

    /// Until both ends are closed: either end's end is passed on to the other one.
    async fn pass(&mut self, proxies: &Proxies, line: Line) {
        let (there, back) = (Passage { proxies, line }, Passage { proxies, line: line.back() });
        tokio::join!(
            there.pass(&mut self.from_caller, &mut self.to_called),
            back.pass(&mut self.from_called, &mut self.to_caller),
        );
    }

    /// Ends a connection that was broken. `by_caller`: it is the caller's end that stays when it is left half open.
    async fn end(self, broken: Broken, by_caller: bool, (proxies, rules): (&Proxies, &mut watch::Receiver<Rules>)) {
        match broken.how {
            Break::Reset => clock::sleep(UNREAD).await,
            Break::HalfOpen => {
                let caller = (self.from_caller, self.to_caller);
                let called = (self.from_called, self.to_called);
                let (kept, closed) = if by_caller { (caller, called) } else { (called, caller) };
                drop(closed);
                proxies.0.half_open.fetch_add(1, Ordering::Relaxed);
                // When there are no rules any more the connection ends too.
                let _ = rules.wait_for(|rules| rules.is_healed(broken.number)).await;
                drop(kept);
                proxies.0.half_open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// One line of a connection.
struct Passage<'a> {
    proxies: &'a Proxies,
    line: Line,
}

impl Passage<'_> {
    /// Until the one end is closed, which closes the other one, or fails.
    async fn pass(&self, from: &mut ReadHalf<Stream>, to: &mut WriteHalf<Stream>) {
        let (queue, pieces) = mpsc::channel(PIECES_MAX);
        // An end that fails is as one that was closed.
        let _ = tokio::join!(self.take(from, queue), self.give(to, pieces));
    }

    async fn take(&self, from: &mut ReadHalf<Stream>, queue: mpsc::Sender<Piece>) -> io::Result<()> {
        let rules = self.proxies.0.rules.subscribe();
        let mut dice = None;
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let bytes = from.read(&mut buffer).await?;
            if bytes == 0 {
                return Ok(());
            }
            self.proxies.meter(self.line).offered.fetch_add(bytes as u64, Ordering::Relaxed);
            let (read, weather) = (clock::now(), rules.borrow().weather.get(&self.line).copied());
            let later = weather.map_or(Duration::ZERO, |weather| {
                weather.later(dice.get_or_insert_with(|| Dice::new(seed_of(weather, self.line))))
            });
            let bytes = Bytes::copy_from_slice(&buffer[..bytes]);
            if queue.send(Piece { read, weather, due: read + later, bytes }).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn give(&self, to: &mut WriteHalf<Stream>, mut pieces: mpsc::Receiver<Piece>) -> io::Result<()> {
        let mut rules = self.proxies.0.rules.subscribe();
        while let Some(mut piece) = pieces.recv().await {
            clock::sleep_until(piece.due).await;
            while !piece.bytes.is_empty() {
                if rules.wait_for(|rules| rules.is_open(self.line)).await.is_err() {
                    pending::<()>().await;
                }
                let weather = rules.borrow().weather.get(&self.line).copied();
                let (bytes, pause) = share(weather, piece.bytes.len());
                clock::sleep(pause).await;
                to.write_all(&piece.bytes.split_to(bytes)).await?;
                self.proxies.meter(self.line).passed.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            // What was read in other weather tells nothing of this one.
            if piece.weather == rules.borrow().weather.get(&self.line).copied() {
                let took = piece.read.elapsed().as_millis() as u64;
                self.proxies.meter(self.line).slowest_ms.fetch_max(took, Ordering::Relaxed);
            }
        }
        to.shutdown().await
    }
}

/// How much of so many bytes is written next, and after which pause.
fn share(weather: Option<Weather>, bytes: usize) -> (usize, Duration) {
    match weather {
        None | Some(Weather::Slow { .. }) => (bytes, Duration::ZERO),
        Some(Weather::Drip { bytes_per_second }) => {
            let drip = (bytes_per_second / DRIPS_A_SECOND).max(1).min(bytes as u64);
            (drip as usize, Duration::from_micros(drip * 1_000_000 / bytes_per_second))
        }
    }
}

/// Lines differ in their jitter.
fn seed_of(weather: Weather, line: Line) -> u64 {
    match weather {
        Weather::Slow { seed, .. } => seed ^ ((line.from as u64) << 32 | line.to as u64),
        Weather::Drip { .. } => 0,
    }
}
