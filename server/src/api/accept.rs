//! Accepting connections: bounded in number, each counted until it closes. One that does not earn its place in its first
//! moments is closed, so that silent ones, or strangers, do not take all places.
//!
//! So is one whose reader takes nothing for [`READER_PATIENCE`](crate::api::READER_PATIENCE) while something waits for it:
//! large answers (`answers.rs`), bytes of others (`requests.rs`), or bytes the socket does not take. Every few seconds the
//! connection looks whether DATA was written since the last look (`accept/silence.rs`). Only DATA counts: who answers pings,
//! or sends them, takes nothing by that. How much of an answer has gone the frames that are written say
//! (`accept/written.rs`), not what HTTP/2 has asked for of it: that may be all of it while the reader's window is closed, or
//! nothing.
//!
//! And so is one that is over: of its requests, and of all connections', too many were refused and their answers not taken
//! (`requests.rs`). It is told, if it can be (GOAWAY, ENHANCE_YOUR_CALM).
//!
//! HTTP/2 reads all there is to read before it hands out a request. So a client's connection rests once it has read much
//! (`accept/turn.rs`), until the tasks that waited meanwhile had their turn: what was read becomes requests with places, or
//! refused ones, before more is read.
//!
//! Left out: a reader that takes some answers and leaves others. It keeps its connection, and at most its share of the room.
//! A client that begins streams and sends nothing on them: they keep their places. What a peer sends at once.

mod connection;
mod silence;
mod turn;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::Stream;
use tokio::sync::Semaphore;
use tracing::{Instrument, warn};
use trefoil_world::{clock, net};

use crate::api::answers::Reader;

pub use self::connection::Connection;

/// How often the log says that connections are too many.
const REFUSED_EVERY: Duration = Duration::from_secs(5);

/// How a connection earns its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earned {
    ByFirstBytes,
    /// By opening words that are believed.
    ByBelief,
}

/// What a connection and its requests share: the services of a connection have it.
#[derive(Clone, Debug, Default)]
pub struct Accepted {
    /// Whether the other side is.
    pub believed: Believed,
    /// Whom the answers are for.
    pub reader: Arc<Reader>,
}

/// Whether the other side's opening words were believed.
#[derive(Clone, Debug, Default)]
pub struct Believed(Arc<AtomicBool>);

impl Believed {
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
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

/// The connections of `listener`, at most `max` at a time; more are closed at once.
pub fn connections(mut listener: net::Listener, max: usize, earned: Earned) -> impl Stream<Item = Connection> {
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
                    if accepted.send(Connection::new(connection, from, earned, place)).await.is_err() {
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
