//! Connections: a few per address, made when first used and made again when they break.
//!
//! A [`Wire`] is one attempt's way out. Its [`Witness`] knows whether the request was sent: HTTP/2 asks for the body
//! only when it sends it, and a server can do nothing without the body. So a request whose body was never asked for
//! was surely not done. A connection is used only once its server has spoken (`preface.rs`).
//!
//! Invariant: after [`Witness::withdraw`] said so, nothing of the request leaves this process any more.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, service_fn};
use trefoil_world::net;

use crate::address::Address;
use crate::preface::Prefaced;

/// How long a connection may take to be made, the server's first words included; then another node is asked.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(1);
/// An unused or silent connection is probed this often, and given up when the probe stays unanswered as long.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Requests of a connection that were cancelled within the last second, whose late answers are passed over. HTTP/2 counts
/// the answer of one it has forgotten as a fault of the other side, and ends a connection for 1024 of them.
const CANCELLED_MAX: usize = 4096;

/// The connections of a client.
#[derive(Debug)]
pub(crate) struct Lanes {
    per_node: usize,
    open: Mutex<BTreeMap<Address, Lane>>,
}

/// The connections to one address, used in turn.
#[derive(Debug)]
struct Lane {
    connections: Vec<Connection>,
    turn: usize,
}

#[derive(Debug)]
struct Connection {
    channel: Channel,
    /// Whether it was made; false again while it is made anew.
    made: Arc<AtomicBool>,
}

impl Lanes {
    pub(crate) fn new(per_node: usize) -> Lanes {
        Lanes { per_node: per_node.max(1), open: Mutex::default() }
    }

    /// A way to `address` for one attempt. Needs a runtime.
    pub(crate) fn wire(&self, address: &Address) -> (Wire, Arc<Witness>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = open.entry(address.clone()).or_insert_with(|| Lane::new(address, self.per_node));
        lane.turn = (lane.turn + 1) % lane.connections.len();
        let Connection { channel, made } = &lane.connections[lane.turn];
        let witness = Arc::new(Witness { state: AtomicU8::new(Witness::FRESH), connected: made.clone() });
        (Wire { channel: channel.clone(), witness: witness.clone() }, witness)
    }
}

impl Lane {
    fn new(address: &Address, connections: usize) -> Lane {
        Lane { connections: (0..connections).map(|_| connection(address)).collect(), turn: 0 }
    }
}

fn connection(address: &Address) -> Connection {
    let made = Arc::new(AtomicBool::new(false));
    let endpoint = Endpoint::from(address.uri())
        .connect_timeout(CONNECT_MAX)
        .http2_max_concurrent_reset_streams(CANCELLED_MAX)
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_EVERY);
    let (address, makes) = (address.clone(), made.clone());
    let channel = endpoint.connect_with_connector_lazy(service_fn(move |_: http::Uri| {
        let (address, made) = (address.clone(), makes.clone());
        made.store(false, Ordering::Release);
        async move {
            let stream = Prefaced::wait(net::dial(address.as_str()).await?).await?;
            made.store(true, Ordering::Release);
            Ok::<_, io::Error>(TokioIo::new(net::Coalesced::new(stream)))
        }
    }));
    Connection { channel, made }
}

/// Knows whether a request was sent.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    state: AtomicU8,
    /// Whether there is a connection to send it on.
    connected: Arc<AtomicBool>,
}

impl Witness {
    const FRESH: u8 = 0;
    const SENT: u8 = 1;
    const WITHDRAWN: u8 = 2;

    /// Whether nothing was sent. From then on nothing will be.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave_fresh(Self::WITHDRAWN) == Self::WITHDRAWN
    }

    /// Withdraws a request for which there is no connection yet; whether it did.
    pub(crate) fn withdraw_unconnected(&self) -> bool {
        !self.connected.load(Ordering::Acquire) && self.withdraw()
    }

    /// Whether sending may begin or go on.
    fn may_send(&self) -> bool {
        self.leave_fresh(Self::SENT) == Self::SENT
    }

    /// The first to come decides what a fresh one becomes.
    fn leave_fresh(&self, becomes: u8) -> u8 {
        match self.state.compare_exchange(Self::FRESH, becomes, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => becomes,
            Err(already) => already,
        }
    }
}

/// A connection for one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    channel: Channel,
    witness: Arc<Witness>,
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let witness = self.witness.clone();
        Service::call(&mut self.channel, request.map(|body| Body::new(Witnessed { body, witness })))
    }
}

/// A request's body that tells when it is asked for.
struct Witnessed {
    body: Body,
    witness: Arc<Witness>,
}

impl http_body::Body for Witnessed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.witness.may_send() {
            return Poll::Ready(Some(Err(Status::cancelled("given up before it was sent"))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_decides() {
        let sent = Witness::default();
        assert!(sent.may_send() && !sent.withdraw() && sent.may_send());
        let withdrawn = Witness::default();
        assert!(withdrawn.withdraw() && !withdrawn.may_send() && withdrawn.withdraw());
    }

    #[test]
    fn with_a_connection_it_is_waited_for() {
        let connected = Witness { connected: Arc::new(AtomicBool::new(true)), ..Witness::default() };
        assert!(!connected.withdraw_unconnected() && connected.may_send());
        let unconnected = Witness::default();
        assert!(unconnected.withdraw_unconnected() && !unconnected.may_send());
    }
}
