//! One accepted connection: HTTP/2's stream of bytes, which ends when it does not keep its place.
//!
//! It looks at what passes through it: how much is read (`turn.rs`), and which frames are written (`written.rs`). Why it
//! ends is said in `accept.rs`; a read or a write then fails, and HTTP/2 drops it.
//!
//! Invariants:
//!
//! * It asks whether it is given up whenever it waits, so that a timer wakes it for the next look.
//! * A goodbye never stands within a frame.
//!
//! Left out: who waits for what (`answers.rs`, `requests.rs`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Span, warn};
use trefoil_world::{clock, net};

use crate::api::READER_PATIENCE;
use crate::api::accept::silence::Silence;
use crate::api::accept::turn::Turn;
use crate::api::accept::written::Written;
use crate::api::accept::{Accepted, Earned};

/// How soon a connection must have earned its place.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// How often a connection looks whether its reader takes anything.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The frame that tells a client that its connection ends for what it does (RFC 9113, section 6.8): GOAWAY, with any stream
/// as the last one that may have been looked at, and ENHANCE_YOUR_CALM.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

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

impl Connection {
    pub(in crate::api) fn new(
        stream: net::Stream,
        from: SocketAddr,
        earned: Earned,
        place: OwnedSemaphorePermit,
    ) -> Connection {
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

    /// What its requests share with it.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
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
            self.turn.note(bytes);
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

fn takes_nothing() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its reader takes nothing")
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::api::accept::turn::TURN_BYTES;

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
        written.note(&[io::IoSlice::new(&told)], told.len());
        assert!(written.is_between_frames(), "expected a whole frame");
    }
}
