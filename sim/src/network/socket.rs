//! One side of a connection: what its machine's system keeps of it, and the stream its process holds.
//!
//! Segments that have a place are taken in order, whenever they arrive. The stream is the only one that reads and
//! writes; dropping it ends the connection, except on a machine without power, where the side is gone before.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{HostId, Network, WINDOW_BYTES};

/// Bytes of one packet.
const SEGMENT_BYTES_MAX: usize = 64 << 10;
/// How much a side reads before it says so.
const SAID_AT_BYTES: usize = WINDOW_BYTES / 4;

/// One side of one connection; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SocketId(pub(super) u64);

/// Where a packet comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) host: HostId,
    pub(super) socket: SocketId,
}

/// What travels.
pub(super) struct Packet {
    pub(super) from: Side,
    pub(super) to: Side,
    /// Its place among what its side says; of no meaning where the segment has none.
    pub(super) place: u64,
    pub(super) segment: Segment,
}

/// What a packet says. The first four have a place.
pub(super) enum Segment {
    Open {
        port: u16,
    },
    Accepted,
    Bytes(Bytes),
    /// Nothing follows.
    Fin,
    /// So many bytes were read.
    Read(usize),
    /// Nobody listens there.
    Refused,
    /// There is no such connection.
    Reset,
    /// Of a dial to itself: it has waited long enough.
    GiveUp,
}

impl Packet {
    /// Whether it is a dial.
    pub(super) fn opens(&self) -> bool {
        matches!(self.segment, Segment::Open { .. })
    }
}

impl Segment {
    /// Whether somebody must be told when nobody is there.
    pub(super) fn wants_a_listener(&self) -> bool {
        match self {
            Segment::Accepted | Segment::Bytes(_) => true,
            Segment::Open { .. }
            | Segment::Fin
            | Segment::Read(_)
            | Segment::Refused
            | Segment::Reset
            | Segment::GiveUp => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    Failed(io::ErrorKind),
}

/// What a machine's system knows of a side.
pub(super) struct Socket {
    pub(super) me: Side,
    pub(super) peer: Side,
    /// Of whoever dials: the place, among the packets on their way, of the one that ends its patience.
    pub(super) patience: Option<(u64, u64)>,
    stage: Stage,
    /// The place of what is said next.
    next_said: u64,
    /// The place of what is heard next.
    next_heard: u64,
    /// What came before its turn.
    early: BTreeMap<u64, Segment>,
    inbox: VecDeque<Bytes>,
    /// The other side says nothing more.
    ended: bool,
    /// This side has said that it says nothing more.
    shut: bool,
    /// Nothing of the connection arrives any more, in either direction.
    way_lost: bool,
    /// Bytes said and not known to be read.
    unread: usize,
    /// Bytes read and not yet said to be.
    unsaid: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Socket {
    /// Of whoever dials.
    pub(super) fn opening(me: Side, peer: Side) -> Socket {
        Socket {
            me,
            peer,
            patience: None,
            stage: Stage::Opening,
            next_said: 0,
            next_heard: 0,
            early: BTreeMap::new(),
            inbox: VecDeque::new(),
            ended: false,
            shut: false,
            way_lost: false,
            unread: 0,
            unsaid: 0,
            reader: None,
            writer: None,
        }
    }

    /// Of whoever was dialled: the opening was heard.
    pub(super) fn accepted(me: Side, peer: Side) -> Socket {
        Socket { stage: Stage::Open, next_heard: 1, ..Socket::opening(me, peer) }
    }

    /// The packet of what is said next.
    pub(super) fn next_packet(&mut self, segment: Segment) -> Option<Packet> {
        if self.way_lost {
            return None;
        }
        let place = self.next_said;
        self.next_said += 1;
        Some(Packet { from: self.me, to: self.peer, place, segment })
    }

    pub(super) fn may_speak(&self) -> bool {
        self.stage == Stage::Open && !self.shut
    }

    pub(super) fn lose_way(&mut self) {
        self.way_lost = true;
    }

    pub(super) fn receive(&mut self, packet: Packet, woken: &mut Vec<Waker>) {
        match packet.segment {
            Segment::GiveUp if self.stage == Stage::Opening => self.fail(io::ErrorKind::TimedOut, woken),
            Segment::GiveUp => {}
            _ if self.way_lost => {}
            Segment::Refused => self.fail(io::ErrorKind::ConnectionRefused, woken),
            Segment::Reset => self.fail(io::ErrorKind::ConnectionReset, woken),
            Segment::Read(bytes) => {
                self.unread = self.unread.saturating_sub(bytes);
                woken.extend(self.writer.take());
            }
            Segment::Open { .. } | Segment::Accepted | Segment::Bytes(_) | Segment::Fin => {
                self.early.insert(packet.place, packet.segment);
                self.hear(woken);
            }
        }
    }

    /// Takes what has its turn.
    fn hear(&mut self, woken: &mut Vec<Waker>) {
        while let Some(segment) = self.early.remove(&self.next_heard) {
            self.next_heard += 1;
            match segment {
                Segment::Bytes(bytes) => self.inbox.push_back(bytes),
                Segment::Fin => self.ended = true,
                Segment::Accepted => self.stage = Stage::Open,
                Segment::Open { .. } | Segment::Read(_) | Segment::Refused | Segment::Reset | Segment::GiveUp => {
                    unreachable!("what has no place waits for no turn, and an opening comes first")
                }
            }
            woken.extend(self.reader.take());
        }
    }

    fn fail(&mut self, kind: io::ErrorKind, woken: &mut Vec<Waker>) {
        self.stage = Stage::Failed(kind);
        woken.extend(self.reader.take());
        woken.extend(self.writer.take());
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stage {
            Stage::Opening => {
                self.reader = Some(context.waker().clone());
                Poll::Pending
            }
            Stage::Open => Poll::Ready(Ok(())),
            Stage::Failed(kind) => Poll::Ready(Err(kind.into())),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Stage::Failed(kind) = self.stage {
            return Poll::Ready(Err(kind.into()));
        }
        if self.inbox.is_empty() && !self.ended {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        while into.remaining() > 0
            && let Some(first) = self.inbox.front_mut()
        {
            let taken = first.split_to(first.len().min(into.remaining()));
            into.put_slice(&taken);
            self.unsaid += taken.len();
            if first.is_empty() {
                self.inbox.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the other side how much was read, once it is worth it.
    fn said_read(&mut self) -> Option<Packet> {
        if self.unsaid < SAID_AT_BYTES || self.way_lost {
            return None;
        }
        let read = Segment::Read(std::mem::take(&mut self.unsaid));
        Some(Packet { from: self.me, to: self.peer, place: 0, segment: read })
    }

    /// What of `from` may be said now.
    fn poll_room(&mut self, context: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<Bytes>> {
        if let Stage::Failed(kind) = self.stage {
            return Poll::Ready(Err(kind.into()));
        }
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(self.unread).min(SEGMENT_BYTES_MAX);
        if room == 0 {
            self.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = Vec::new();
        for part in from {
            let taken = part.len().min(room - bytes.len());
            bytes.extend_from_slice(&part[..taken]);
        }
        self.unread += bytes.len();
        Poll::Ready(Ok(bytes.into()))
    }
}

/// What a process holds of a connection.
pub(super) struct SocketStream {
    network: Network,
    id: SocketId,
}

/// The machine has lost its power, and what still runs on it is about to be dropped.
fn unpowered() -> io::Error {
    io::Error::other("the machine has lost its power")
}

impl SocketStream {
    pub(super) fn new(network: Network, id: SocketId) -> SocketStream {
        SocketStream { network, id }
    }

    /// Ready once the other side has answered.
    pub(super) fn poll_open(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.network.lock().sockets.get_mut(&self.id) {
            Some(socket) => socket.poll_open(context),
            None => Poll::Ready(Err(unpowered())),
        }
    }
}

impl Drop for SocketStream {
    fn drop(&mut self) {
        let gone = self.network.lock().close(self.id);
        drop(gone);
    }
}

impl AsyncRead for SocketStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.lock();
        let Some(socket) = state.sockets.get_mut(&self.id) else { return Poll::Ready(Err(unpowered())) };
        let polled = socket.poll_read(context, into);
        if let Some(packet) = socket.said_read() {
            state.send(packet);
        }
        polled
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(from)])
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.lock();
        let Some(socket) = state.sockets.get_mut(&self.id) else { return Poll::Ready(Err(unpowered())) };
        if socket.may_speak() {
            socket.shut = true;
            state.say(self.id, Segment::Fin);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.lock();
        let Some(socket) = state.sockets.get_mut(&self.id) else { return Poll::Ready(Err(unpowered())) };
        let bytes = match socket.poll_room(context, from) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(bytes) => bytes?,
        };
        let written = bytes.len();
        if written > 0 {
            state.say(self.id, Segment::Bytes(bytes));
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
