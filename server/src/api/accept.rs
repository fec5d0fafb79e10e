//! Accepting connections: bounded in number, each counted until it closes. One that says nothing at first is closed, so
//! that silent ones do not take all places.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;
use tracing::{Instrument, warn};
use trefoil_world::{clock, net};

/// How long a connection may say nothing at first.
const FIRST_BYTES_PATIENCE: Duration = Duration::from_secs(10);

/// How often the log says that connections are too many.
const REFUSED_EVERY: Duration = Duration::from_secs(5);

/// One accepted connection; its place is free again when it is dropped.
pub struct Connection {
    stream: net::Stream,
    /// Until its first bytes came: when it is given up.
    first_bytes: Option<Pin<Box<clock::Sleep>>>,
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
    fn new(stream: net::Stream, place: OwnedSemaphorePermit) -> Connection {
        Connection { stream, first_bytes: Some(Box::pin(clock::sleep(FIRST_BYTES_PATIENCE))), _place: place }
    }
}

/// The connections of `listener`, at most `max` at a time; more are closed at once.
pub fn connections(mut listener: net::Listener, max: usize) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(max));
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
                    if accepted.send(Ok(Connection::new(connection, place))).await.is_err() {
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
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = self.stream.as_mut().poll_read(cx, into);
        if let Some(patience) = &mut self.first_bytes {
            if into.filled().len() > before {
                self.first_bytes = None;
            } else if polled.is_pending() && patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it said nothing")));
            }
        }
        polled
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
