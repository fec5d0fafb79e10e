//! Accepting connections: bounded in number, each counted until it closes. One that does not earn its place in its first
//! moments is closed, so that silent ones, or strangers, do not take all places.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Request;
use tonic::transport::server::Connected;
use tracing::{Instrument, warn};
use trefoil_world::{clock, net};

/// How soon a connection must have earned its place.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// How often the log says that connections are too many.
const REFUSED_EVERY: Duration = Duration::from_secs(5);

/// How a connection earns its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earned {
    ByFirstBytes,
    /// By opening words that are believed.
    ByBelief,
}

/// Whether the other side's opening words were believed; a request finds it among its extensions.
#[derive(Clone, Debug, Default)]
pub struct Believed(Arc<AtomicBool>);

impl Believed {
    /// That of the connection a request came on.
    pub fn of<T>(request: &Request<T>) -> Believed {
        request.extensions().get().cloned().unwrap_or_default()
    }

    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One accepted connection; its place is free again when it is dropped.
pub struct Connection {
    stream: net::Stream,
    earned: Earned,
    believed: Believed,
    /// Until its place is earned: when it is given up.
    first: Option<Pin<Box<clock::Sleep>>>,
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
    fn new(stream: net::Stream, earned: Earned, place: OwnedSemaphorePermit) -> Connection {
        let first = Some(Box::pin(clock::sleep(FIRST_PATIENCE)));
        Connection { stream, earned, believed: Believed::default(), first, _place: place }
    }

    fn has_earned(&self, bytes: usize) -> bool {
        match self.earned {
            Earned::ByFirstBytes => bytes > 0,
            Earned::ByBelief => self.believed.0.load(Ordering::Relaxed),
        }
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
                    if accepted.send(Ok(Connection::new(connection, earned, place))).await.is_err() {
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
    type ConnectInfo = Believed;

    fn connect_info(&self) -> Believed {
        self.believed.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = self.stream.as_mut().poll_read(cx, into);
        if self.first.is_some() && self.has_earned(into.filled().len() - before) {
            self.first = None;
        }
        let late = self.first.as_mut().is_some_and(|patience| patience.as_mut().poll(cx).is_ready());
        match late {
            true => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it has not earned its place"))),
            false => polled,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
