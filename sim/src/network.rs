//! A simulated network behind the world's `listen` and `dial`.
//!
//! Machines are joined by directed links. What a connection's side says travels as packets, each with a latency of its
//! own; the receiver puts them back into order, so that a late packet holds up those behind it, as TCP does. Loss is
//! lateness. A **cut** link is silent: packets that arrive at it are held. When it is joined again each connection that
//! was held either goes on, after the pause of a retransmission, or has lost its way and stays silent for ever, so that
//! only its ends' own keepalives find out.
//!
//! Time stands still between steps: [`Network::advance`] delivers what is due, outside of every runtime. Within a step
//! machines hear nothing of each other, since a packet takes at least a millisecond; so the order in which they are
//! stepped cannot be seen.
//!
//! Why not turmoil (0.7.2), whose scheme this is: its `Sim::step` moves the clocks of all hosts by the same tick and
//! offers no way in between, so that a clock that is fast or slow and a machine that stands still (SIGSTOP) would need
//! changes in the server and would not reach tonic's timers; a connection that was cut never goes on; and the world
//! has `listen` and `dial` to stand behind already.
//!
//! Invariants:
//!
//! * A side reads exactly what the other one wrote, in that order, up to some point.
//! * A side has at most [`WINDOW_BYTES`] on the way that the other one has not read.
//! * A machine without power says nothing, not even that a connection has ended.
//! * Nothing is kept of a dial that was given up, neither at a cut link nor for when its patience ends.
//!
//! Left out: bandwidth, datagrams, and refusals that real systems make in silence.

mod socket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::{BoxFuture, poll_fn};
use trefoil_jepsen::generator::Dice;
use trefoil_world::net::{Accept, Listener, Stream};

use self::socket::{Packet, Segment, Side, Socket, SocketId, SocketStream};

/// Bytes on the way from one side that the other one has not read.
pub const WINDOW_BYTES: usize = 256 << 10;
/// Connections waiting to be accepted at one port.
const BACKLOG_MAX: usize = 128;
/// A dial that nobody answers is given up after this.
const DIAL_MAX_MS: u64 = 20_000;
/// What a lost packet is late by, at least, and at most this much more.
const RETRANSMIT_MIN_MS: u64 = 200;
const RETRANSMIT_SPREAD_MS: u64 = 300;
/// How long after a link is joined what it held may go on.
const RESUME_MAX_MS: u64 = 1500;
/// Of the connections a cut has held, one in so many never goes on.
const LOST_ONE_IN: u64 = 4;

/// A machine: a node's, from 0 on, or after them the clients'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

impl HostId {
    /// The machine's address.
    pub fn ip(self) -> Ipv4Addr {
        let last = u8::try_from(self.0 + 1).expect("a cluster has few machines");
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn of(ip: Ipv4Addr) -> Option<HostId> {
        match ip.octets() {
            [10, 0, 0, last] => usize::from(last).checked_sub(1).map(HostId),
            _ => None,
        }
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}", self.0 + 1)
    }
}

/// From one machine to another.
pub type Way = (HostId, HostId);

/// How links are when nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// At least 1.
    pub latency_min_ms: u64,
    pub latency_max_ms: u64,
    /// How many packets in a thousand are lost, and come later.
    pub lost_permille: u64,
}

/// What faults do to a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Nothing arrives, and nobody is told.
    pub cut: bool,
    /// How much later everything arrives.
    pub slower_ms: u64,
}

/// What the network has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub packets: u64,
    pub connections: u64,
}

struct Link {
    weather: Weather,
    trouble: Trouble,
    held: Vec<Packet>,
    /// Packets that trouble has held or slowed down.
    touched: u64,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<(SocketId, SocketAddr)>,
    waker: Option<Waker>,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now_ms: u64,
    dice: Dice,
    links: BTreeMap<Way, Link>,
    unpowered: BTreeSet<HostId>,
    sockets: BTreeMap<SocketId, Socket>,
    backlogs: BTreeMap<(HostId, u16), Backlog>,
    /// Packets by when they arrive; those of one moment in the order in which they were sent.
    flying: BTreeMap<(u64, u64), Packet>,
    next_socket: u64,
    carried: Carried,
}

impl Network {
    /// A network of `hosts` machines, each joined with each other.
    pub fn new(hosts: usize, weather: impl Fn(Way) -> Weather, dice: Dice) -> Network {
        let link = |way| Link { weather: weather(way), trouble: Trouble::default(), held: Vec::new(), touched: 0 };
        let ways = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (HostId(from), HostId(to))));
        Network(Arc::new(Mutex::new(State {
            now_ms: 0,
            dice,
            links: ways.filter(|(from, to)| from != to).map(|way| (way, link(way))).collect(),
            unpowered: BTreeSet::new(),
            sockets: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            flying: BTreeMap::new(),
            next_socket: 0,
            carried: Carried::default(),
        })))
    }

    /// Delivers what is due at `now_ms`.
    pub fn advance(&self, now_ms: u64) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        state.now_ms = now_ms;
        while let Some(next) = state.flying.first_entry().filter(|next| next.key().0 <= now_ms) {
            let packet = next.remove();
            state.arrive(packet, &mut woken);
        }
        // A woken task may come back for the lock.
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Puts a link into trouble, or out of it.
    pub fn set_trouble(&self, way: Way, trouble: Trouble) {
        let mut state = self.lock();
        let Some(link) = state.links.get_mut(&way) else { return };
        link.trouble = trouble;
        if !trouble.cut {
            let held = std::mem::take(&mut link.held);
            state.go_on(held);
        }
    }

    /// How many packets of this link trouble has held or slowed down since the beginning.
    pub fn touched(&self, way: Way) -> u64 {
        self.lock().links.get(&way).map_or(0, |link| link.touched)
    }

    /// Takes power from a machine: its connections and ports are gone, and nobody is told.
    pub fn cut_power(&self, host: HostId) {
        let mut state = self.lock();
        state.unpowered.insert(host);
        let mine = state.sockets.iter().filter(|(_, socket)| socket.me.host == host);
        let ids: Vec<SocketId> = mine.map(|(id, _)| *id).collect();
        let gone: Vec<Socket> = ids.iter().filter_map(|id| state.forget(*id)).collect();
        state.backlogs.retain(|(at, _), _| *at != host);
        drop(state);
        drop(gone);
    }

    /// Gives a machine its power back.
    pub fn give_power(&self, host: HostId) {
        self.lock().unpowered.remove(&host);
    }

    /// What was carried so far.
    pub fn carried(&self) -> Carried {
        self.lock().carried
    }

    /// Accepts connections at `address` (`ip:port`) of `host`.
    ///
    /// # Errors
    /// The address is not this machine's, or in use.
    pub fn listen(&self, host: HostId, address: &str) -> io::Result<Listener> {
        let (at, port) = resolve(address)?;
        if at != host {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{address} is not {host}'s")));
        }
        let mut state = self.lock();
        if state.backlogs.contains_key(&(host, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.backlogs.insert((host, port), Backlog::default());
        let door = Door { network: self.clone(), at: (host, port) };
        Ok(Listener::new(Box::new(door), SocketAddr::from((host.ip(), port))))
    }

    /// Connects `host` to `address` (`ip:port`). Given up after a while; callers have less patience.
    pub fn dial(&self, host: HostId, address: &str) -> BoxFuture<'static, io::Result<Stream>> {
        let opened = resolve(address).map(|(to, port)| self.open(host, to, port));
        async move {
            let stream = opened?;
            poll_fn(|context| stream.poll_open(context)).await?;
            let stream: Stream = Box::pin(stream);
            Ok(stream)
        }
        .boxed()
    }

    fn open(&self, from: HostId, to: HostId, port: u16) -> SocketStream {
        let mut state = self.lock();
        let me = Side { host: from, socket: state.fresh_socket() };
        let peer = Side { host: to, socket: state.fresh_socket() };
        state.carried.connections += 1;
        state.sockets.insert(me.socket, Socket::opening(me, peer));
        state.say(me.socket, Segment::Open { port });
        let patience = Packet { from: me, to: me, place: 0, segment: Segment::GiveUp };
        let given_up_ms = state.now_ms + DIAL_MAX_MS;
        let patience = state.put(given_up_ms, patience);
        if let Some(socket) = state.sockets.get_mut(&me.socket) {
            socket.patience = Some(patience);
        }
        SocketStream::new(self.clone(), me.socket)
    }

    fn poll_accept(&self, at: (HostId, u16), context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let mut state = self.lock();
        let Some(backlog) = state.backlogs.get_mut(&at) else {
            return Poll::Ready(Err(io::Error::other("the machine has lost its power")));
        };
        let Some((socket, from)) = backlog.waiting.pop_front() else {
            backlog.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let stream: Stream = Box::pin(SocketStream::new(self.clone(), socket));
        Poll::Ready(Ok((stream, from)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `ip:port` of a machine of this network.
fn resolve(address: &str) -> io::Result<(HostId, u16)> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("{address}: no such address"));
    let (ip, port) = address.rsplit_once(':').ok_or_else(unknown)?;
    let host = ip.parse().ok().and_then(HostId::of).ok_or_else(unknown)?;
    Ok((host, port.parse().map_err(|_| unknown())?))
}

/// Accepts at one port until it is dropped.
struct Door {
    network: Network,
    at: (HostId, u16),
}

impl Accept for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        poll_fn(|context| self.network.poll_accept(self.at, context)).boxed()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut state = self.network.lock();
        let backlog = state.backlogs.remove(&self.at).unwrap_or_default();
        let gone: Vec<Option<Socket>> = backlog.waiting.iter().map(|(socket, _)| state.close(*socket)).collect();
        drop(state);
        drop((backlog.waker, gone));
    }
}

impl State {
    fn fresh_socket(&mut self) -> SocketId {
        self.next_socket += 1;
        SocketId(self.next_socket)
    }

    /// Sends the next segment of a side, in order. Nothing, when its connection has lost its way.
    fn say(&mut self, id: SocketId, segment: Segment) {
        let Some(packet) = self.sockets.get_mut(&id).and_then(|socket| socket.next_packet(segment)) else { return };
        self.send(packet);
    }

    /// Sends a packet on its way.
    fn send(&mut self, packet: Packet) {
        let due_ms = self.now_ms + self.delay_ms((packet.from.host, packet.to.host));
        self.put(due_ms, packet);
    }

    /// Gives its place among those that are on their way.
    fn put(&mut self, due_ms: u64, packet: Packet) -> (u64, u64) {
        self.carried.packets += 1;
        let place = (due_ms, self.carried.packets);
        self.flying.insert(place, packet);
        place
    }

    fn delay_ms(&mut self, way: Way) -> u64 {
        // To itself a machine speaks at once.
        let Some(link) = self.links.get_mut(&way) else { return 1 };
        let Weather { latency_min_ms, latency_max_ms, lost_permille } = link.weather;
        let mut delay_ms = latency_min_ms + self.dice.below(latency_max_ms - latency_min_ms + 1);
        if self.dice.below(1000) < lost_permille {
            delay_ms += RETRANSMIT_MIN_MS + self.dice.below(RETRANSMIT_SPREAD_MS);
        }
        if link.trouble.slower_ms > 0 {
            link.touched += 1;
            delay_ms += link.trouble.slower_ms;
        }
        delay_ms.max(1)
    }

    fn arrive(&mut self, packet: Packet, woken: &mut Vec<Waker>) {
        let way = (packet.from.host, packet.to.host);
        if let Some(link) = self.links.get_mut(&way).filter(|link| link.trouble.cut) {
            link.touched += 1;
            let given_up = packet.opens() && !self.sockets.contains_key(&packet.from.socket);
            if !given_up {
                link.held.push(packet);
            }
            return;
        }
        if self.unpowered.contains(&packet.to.host) {
            return;
        }
        match packet.segment {
            Segment::Open { port } => self.opened(packet.from, packet.to, port, woken),
            Segment::Accepted
            | Segment::Bytes(_)
            | Segment::Fin
            | Segment::Read(_)
            | Segment::Refused
            | Segment::Reset
            | Segment::GiveUp => self.receive(packet, woken),
        }
    }

    /// Somebody dials this machine. Its system takes the call, whether or not the process runs.
    fn opened(&mut self, from: Side, me: Side, port: u16, woken: &mut Vec<Waker>) {
        let backlog = self.backlogs.get_mut(&(me.host, port)).filter(|backlog| backlog.waiting.len() < BACKLOG_MAX);
        let Some(backlog) = backlog else {
            return self.send(Packet { from: me, to: from, place: 0, segment: Segment::Refused });
        };
        // Whoever dials has a port that nobody listens at; connections can be told apart by it in logs.
        let dialler_port = 32_768 + (from.socket.0 % 28_000) as u16;
        backlog.waiting.push_back((me.socket, SocketAddr::from((from.host.ip(), dialler_port))));
        woken.extend(backlog.waker.take());
        self.sockets.insert(me.socket, Socket::accepted(me, from));
        self.say(me.socket, Segment::Accepted);
    }

    fn receive(&mut self, packet: Packet, woken: &mut Vec<Waker>) {
        match self.sockets.get_mut(&packet.to.socket) {
            Some(socket) => socket.receive(packet, woken),
            // There is no such connection any more: whoever speaks on it is told.
            None if packet.segment.wants_a_listener() => {
                self.send(Packet { from: packet.to, to: packet.from, place: 0, segment: Segment::Reset });
            }
            None => {}
        }
    }

    /// The application has dropped its side.
    fn close(&mut self, id: SocketId) -> Option<Socket> {
        if self.sockets.get(&id)?.may_speak() {
            self.say(id, Segment::Fin);
        }
        self.forget(id)
    }

    /// A side is gone, and with it what is kept of its dial.
    fn forget(&mut self, id: SocketId) -> Option<Socket> {
        let socket = self.sockets.remove(&id)?;
        if let Some(patience) = socket.patience {
            self.flying.remove(&patience);
        }
        if let Some(link) = self.links.get_mut(&(socket.me.host, socket.peer.host)) {
            link.held.retain(|packet| packet.from != socket.me || !packet.opens());
        }
        Some(socket)
    }

    /// A link is joined again: decides for each connection it has held whether that goes on.
    fn go_on(&mut self, held: Vec<Packet>) {
        let mut fates: BTreeMap<(SocketId, SocketId), Option<u64>> = BTreeMap::new();
        for packet in held {
            let sides = (packet.from.socket.min(packet.to.socket), packet.from.socket.max(packet.to.socket));
            let fate = match fates.get(&sides) {
                Some(fate) => *fate,
                None => {
                    let fate = self.decide(sides);
                    fates.insert(sides, fate);
                    fate
                }
            };
            if let Some(pause_ms) = fate {
                let due_ms = self.now_ms + pause_ms + self.delay_ms((packet.from.host, packet.to.host));
                self.put(due_ms, packet);
            }
        }
    }

    /// After which pause a connection goes on; `None`: never.
    fn decide(&mut self, (one, other): (SocketId, SocketId)) -> Option<u64> {
        if self.dice.below(LOST_ONE_IN) > 0 {
            return Some(self.dice.below(RESUME_MAX_MS));
        }
        for id in [one, other] {
            if let Some(socket) = self.sockets.get_mut(&id) {
                socket.lose_way();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
