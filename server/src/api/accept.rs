//! Accepting connections: bounded in number, each counted until it closes. One that does not earn its place in its first
//! moments is closed, so that silent ones, or strangers, do not take all places.
//!
//! So is one whose reader takes nothing for [`READER_PATIENCE`] while something waits for it: large answers (`answers.rs`),
//! bytes of others (`requests.rs`), or bytes the socket does not take. Every few seconds the connection looks whether DATA
//! was written since the last look. Only DATA counts: who answers pings, or sends them, takes nothing by that. How much of an
//! answer has gone the frames that are written say ([`Written`]), not what HTTP/2 has asked for of it: that may be all of it
//! while the reader's window is closed, or nothing.
//!
//! And so is one that is over: of its requests, and of all connections', too many were refused and their answers not taken
//! (`requests.rs`). It is told, if it can be (GOAWAY, ENHANCE_YOUR_CALM).
//!
//! HTTP/2 reads all there is to read before it hands out a request. So a client's connection rests once it has read
//! [`TURN_BYTES`], until the tasks that waited meanwhile had their turn: what was read becomes requests with places, or
//! refused ones, before more is read.
//!
//! Left out: a reader that takes some answers and leaves others. It keeps its connection, and at most its share of the room.
//! A client that begins requests and never ends them: they keep their places. What a peer sends at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::transport::server::Connected;
use tracing::{Instrument, Span, warn};
use trefoil_world::{clock, net, task};

use crate::api::READER_PATIENCE;
use crate::api::answers::Reader;

/// How soon a connection must have earned its place.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// How often a connection looks whether its reader takes anything.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often the log says that connections are too many.
const REFUSED_EVERY: Duration = Duration::from_secs(5);

/// Bytes that are read from a client without a rest: some hundred requests.
const TURN_BYTES: usize = 32 << 10;

/// The frame that tells a client that its connection ends for what it does (RFC 9113, section 6.8): GOAWAY, with any stream
/// as the last one that may have been looked at, and ENHANCE_YOUR_CALM.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

/// How a connection earns its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earned {
    ByFirstBytes,
    /// By opening words that are believed.
    ByBelief,
}

/// What a connection and its requests share; a request finds it among its extensions.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    believed: Believed,
    /// Whom the answers are for.
    pub reader: Arc<Reader>,
}

impl Accepted {
    /// That of the connection a request came on.
    pub fn of<T>(request: &Request<T>) -> Accepted {
        Accepted::among(request.extensions())
    }

    /// That of the connection whose request has these extensions.
    pub fn among(extensions: &http::Extensions) -> Accepted {
        extensions.get().cloned().unwrap_or_default()
    }
}

/// Whether the other side's opening words were believed.
#[derive(Clone, Debug, Default)]
pub struct Believed(Arc<AtomicBool>);

impl Believed {
    /// That of the connection a request came on.
    pub fn of<T>(request: &Request<T>) -> Believed {
        Accepted::of(request).believed
    }

    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One accepted connection; its place is free again when it is dropped.
pub struct Connection {
    stream: net::Coalesced<net::Stream>,
    from: SocketAddr,
    earned: Earned,
    accepted: Accepted,
    /// Until its place is earned: when it is given up.
    first: Option<Pin<Box<clock::Sleep>>>,
    written: Written,
    /// Whether the socket took nothing when it was last written to.
    blocked: bool,
    silence: Silence,
    next_look: Pin<Box<clock::Sleep>>,
    turn: Turn,
    /// The node's, for its lines in the log.
    span: Span,
    _place: OwnedSemaphorePermit,
}

/// Says once in a while how many connections were too many.
#[derive(Default)]
struct RefusedConnections {
    unsaid: u64,
    said: Option<clock::Instant>,
}

impl RefusedConnections {
    fn note(&mut self, from: &str, max: usize) {
        self.unsaid += 1;
        if self.said.is_none_or(|said| said.elapsed() >= REFUSED_EVERY) {
            warn!("{} connections closed, the last from {from}: there are {max} already, the limit", self.unsaid);
            (self.unsaid, self.said) = (0, Some(clock::now()));
        }
    }
}

impl Connection {
    fn new(stream: net::Stream, from: SocketAddr, earned: Earned, place: OwnedSemaphorePermit) -> Connection {
        Connection {
            stream: net::Coalesced::new(stream),
            from,
            earned,
            accepted: Accepted::default(),
            first: Some(Box::pin(clock::sleep(FIRST_PATIENCE))),
            written: Written::default(),
            blocked: false,
            silence: Silence::default(),
            next_look: Box::pin(clock::sleep(LOOK_EVERY)),
            turn: Turn::default(),
            span: Span::current(),
            _place: place,
        }
    }

    fn has_earned(&self, bytes: usize) -> bool {
        match self.earned {
            Earned::ByFirstBytes => bytes > 0,
            Earned::ByBelief => self.accepted.believed.0.load(Ordering::Relaxed),
        }
    }

    /// Whether it is given up because its reader takes nothing. To be asked whenever it waits: only then is it woken for
    /// the next look.
    fn is_given_up(&mut self, cx: &mut Context<'_>) -> bool {
        let mut given_up = false;
        // A busy task may be out of budget at each poll, which a timer that has elapsed shows all the same.
        while self.next_look.is_elapsed() || self.next_look.as_mut().poll(cx).is_ready() {
            let now = clock::now();
            self.next_look.as_mut().reset(now + LOOK_EVERY);
            let awaited = self.blocked || self.accepted.reader.is_awaited();
            given_up |= self.silence.is_too_long(now, awaited, self.written.data_bytes);
        }
        if given_up {
            let from = self.from;
            let closed = || warn!("a connection from {from} closed: its reader took nothing for {READER_PATIENCE:?}");
            self.span.in_scope(closed);
        }
        given_up
    }

    /// Tells a client that its connection is over, if it is between two frames and takes it at once.
    fn say_goodbye(&mut self, cx: &mut Context<'_>) {
        if self.written.is_between_frames() {
            // Whether it was told changes nothing. The stream holds small writes back: its end sends them.
            drop(Pin::new(&mut self.stream).poll_write(cx, &GOAWAY));
            drop(Pin::new(&mut self.stream).poll_shutdown(cx));
        }
        let from = self.from;
        let closed = || warn!("a connection from {from} closed: too many of its requests were refused at once");
        self.span.in_scope(closed);
    }

    /// Takes note of a write of `parts`.
    fn note_write(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.blocked = polled.is_pending();
        if let Poll::Ready(Ok(count)) = &polled {
            self.written.note(parts, *count);
        }
        match self.blocked && self.is_given_up(cx) {
            true => Poll::Ready(Err(takes_nothing())),
            false => polled,
        }
    }
}

fn takes_nothing() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its reader takes nothing")
}

/// How much was read since others had their turn.
#[derive(Debug, Default)]
struct Turn {
    bytes: usize,
    /// Ends once the tasks that waited have had theirs.
    rest: Option<JoinHandle<()>>,
}

impl Turn {
    /// Whether others have theirs now; the task is woken when they had it.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let resting = self.rest.as_mut().is_some_and(|rest| Pin::new(rest).poll(cx).is_pending());
        if self.rest.is_some() && !resting {
            *self = Turn::default();
        }
        resting
    }

    /// Takes note of a read of so many bytes, or of one that has to wait.
    fn note(&mut self, waits: bool, bytes: usize) {
        self.bytes = if waits { 0 } else { self.bytes + bytes };
        if self.bytes >= TURN_BYTES {
            // Behind all that is ready to run now.
            self.rest = Some(task::spawn(tokio::task::yield_now()));
        }
    }
}

/// How long a reader has taken nothing of what waits for it.
#[derive(Debug, Default)]
struct Silence {
    since: Option<clock::Instant>,
    /// Bytes taken by the last look.
    taken: u64,
}

impl Silence {
    /// Looks at a reader that has taken so much in all, and for whom something waits, or not.
    fn is_too_long(&mut self, now: clock::Instant, awaited: bool, taken: u64) -> bool {
        let took = std::mem::replace(&mut self.taken, taken) != taken;
        if took || !awaited || self.since.is_none() {
            self.since = awaited.then_some(now);
        }
        self.since.is_some_and(|since| now - since >= READER_PATIENCE)
    }
}

/// Bytes of an HTTP/2 frame's head: length of the payload (3), kind, flags, stream (4).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;

/// Counts the DATA in the HTTP/2 frames that are written.
#[derive(Debug, Default)]
struct Written {
    data_bytes: u64,
    /// What has come of the next frame's head.
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// What is still to come of this frame's payload.
    payload_left: usize,
}

impl Written {
    /// Whether what was written ends with a whole frame.
    fn is_between_frames(&self) -> bool {
        self.head_bytes == 0 && self.payload_left == 0
    }

    /// The first `count` bytes of `parts` were written.
    fn note(&mut self, parts: &[io::IoSlice<'_>], mut count: usize) {
        for part in parts {
            let written = &part[..part.len().min(count)];
            count -= written.len();
            self.walk(written);
        }
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.payload_left {
                0 => self.walk_head(bytes),
                left => self.walk_payload(left.min(bytes.len())),
            };
            bytes = &bytes[taken..];
        }
    }

    fn walk_head(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(HEAD_BYTES - self.head_bytes);
        self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
        self.head_bytes += taken;
        if self.head_bytes == HEAD_BYTES {
            let [high, middle, low, ..] = self.head;
            self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.head_bytes = 0;
        }
        taken
    }

    fn walk_payload(&mut self, taken: usize) -> usize {
        self.payload_left -= taken;
        if self.head[3] == DATA {
            self.data_bytes += taken as u64;
        }
        taken
    }
}

/// The connections of `listener`, at most `max` at a time; more are closed at once.
pub fn connections(
    mut listener: net::Listener,
    max: usize,
    earned: Earned,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    let (accepted, stream) = tokio::sync::mpsc::channel(1);
    let mut refused = RefusedConnections::default();
    let accept = async move {
        loop {
            let (connection, from) = tokio::select! {
                () = accepted.closed() => return,
                next = listener.accept() => match next {
                    Ok(next) => next,
                    Err(error) => {
                        warn!("cannot accept a connection: {error}");
                        clock::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            match places.clone().try_acquire_owned() {
                Ok(place) => {
                    if accepted.send(Ok(Connection::new(connection, from, earned, place))).await.is_err() {
                        return;
                    }
                }
                Err(_) => refused.note(&from.to_string(), max),
            }
        }
    };
    trefoil_world::task::spawn(accept.in_current_span());
    tokio_stream::wrappers::ReceiverStream::new(stream)
}

impl Connected for Connection {
    type ConnectInfo = Accepted;

    fn connect_info(&self) -> Accepted {
        self.accepted.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.accepted.reader.is_over() {
            self.say_goodbye(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it is over")));
        }
        if self.turn.is_over(cx) {
            return Poll::Pending;
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        let bytes = into.filled().len() - before;
        if self.first.is_some() && self.has_earned(bytes) {
            self.first = None;
        }
        if self.earned == Earned::ByFirstBytes {
            self.turn.note(polled.is_pending(), bytes);
        }
        let late = self.first.as_mut().is_some_and(|patience| patience.as_mut().poll(cx).is_ready());
        if late {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it has not earned its place")));
        }
        match polled.is_pending() && self.is_given_up(cx) {
            true => Poll::Ready(Err(takes_nothing())),
            false => polled,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, from);
        self.note_write(cx, polled, &[io::IoSlice::new(from)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        self.note_write(cx, polled, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// A client's connection, and the client's end of it, which has room for a few turns' bytes.
    fn connected() -> (Connection, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(4 * TURN_BYTES);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a free place");
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        (Connection::new(Box::pin(ours), from, Earned::ByFirstBytes, place), theirs)
    }

    #[tokio::test]
    async fn others_have_their_turn_when_much_was_read() {
        let (mut connection, mut theirs) = connected();
        theirs.write_all(&vec![0; 2 * TURN_BYTES]).await.expect("room for it");
        let (mut buffer, mut at_once) = ([0; 8 << 10], 0);
        while let Poll::Ready(read) = futures::poll!(pin!(connection.read(&mut buffer))) {
            at_once += read.expect("bytes");
        }
        assert_eq!(at_once, TURN_BYTES, "expected so much to be read in one turn");
        let mut rest = vec![0; TURN_BYTES];
        connection.read_exact(&mut rest).await.expect("the rest in the next turn");
    }

    #[tokio::test]
    async fn a_client_is_told_that_its_connection_is_over() {
        let (mut connection, mut theirs) = connected();
        theirs.write_all(b"a request").await.expect("room for it");
        connection.accepted.reader.give_up();
        let ended = connection.read(&mut [0; 9]).await.expect_err("a connection that is over");
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
        drop(connection);
        let mut told = Vec::new();
        theirs.read_to_end(&mut told).await.expect("what it was told");
        assert_eq!(told, GOAWAY);
        let mut written = Written::default();
        written.walk(&told);
        assert!(written.is_between_frames(), "expected a whole frame");
    }

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("a small payload").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(HEAD_BYTES + payload, 0);
        bytes
    }

    #[test]
    fn only_data_counts_however_it_is_cut() {
        const PING: u8 = 6;
        let frames = [frame(PING, 8), frame(DATA, 0), frame(DATA, 20), frame(4, 0), frame(PING, 8), frame(DATA, 1)];
        let bytes = frames.concat();
        for at_once in 1..=bytes.len() {
            let mut written = Written::default();
            for cut in bytes.chunks(at_once) {
                let (front, back) = cut.split_at(cut.len() / 2);
                // Of the last part nothing was written.
                let parts = [front, back, &[0; 50]].map(io::IoSlice::new);
                written.note(&parts, cut.len());
            }
            assert_eq!(written.data_bytes, 21, "in pieces of {at_once}");
        }
    }

    #[test]
    fn a_reader_is_given_up_when_it_takes_nothing_of_what_waits() {
        // At each look: the seconds since the first, whether something waits, bytes taken so far, whether it is given up.
        let scenarios: [&[(u64, bool, u64, bool)]; 5] = [
            &[(0, true, 0, false), (29, true, 0, false), (30, true, 0, true)],
            &[
                (0, false, 0, false),
                (40, false, 0, false),
                (80, true, 0, false),
                (109, true, 0, false),
                (110, true, 0, true),
            ],
            &[(0, true, 0, false), (25, true, 1, false), (50, true, 1, false), (55, true, 1, true)],
            &[
                (0, true, 0, false),
                (25, false, 0, false),
                (50, true, 0, false),
                (75, true, 0, false),
                (80, true, 0, true),
            ],
            &[(0, true, 7, false), (20, true, 8, false), (40, true, 9, false), (60, true, 10, false)],
        ];
        let start = clock::now();
        for looks in scenarios {
            let mut silence = Silence::default();
            for &(seconds, awaited, taken, given_up) in looks {
                let now = start + Duration::from_secs(seconds);
                assert_eq!(silence.is_too_long(now, awaited, taken), given_up, "{looks:?}: at {seconds}");
            }
        }
    }
}
