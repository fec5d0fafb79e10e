//! The edges: gRPC in, domain calls, gRPC out. Proto types end here.

pub mod accept;
pub mod answers;
pub mod cluster;
pub mod convert;
pub mod dispatch;
pub mod kv;
pub mod peer;
pub mod requests;
pub mod serve;
pub mod status;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use tonic::Request;
use trefoil_store::mvcc::Limits;
use trefoil_world::clock::{self, Instant};

use crate::api::answers::AnswerRoom;
use crate::cluster::identity::Identity;
use crate::error::Error;
use crate::health::Health;
use crate::router::Router;

/// What a member of a cluster serves clients with.
pub struct Serving {
    pub identity: Identity,
    /// As responses carry it.
    pub cluster_id: Bytes,
    pub name: String,
    pub router: Arc<Router>,
    pub limits: Limits,
    pub message_bytes_max: usize,
    pub request_timeout: Duration,
    pub health: Arc<Health>,
    pub request_bytes: RequestBytes,
    /// Room for large answers, until they are taken.
    pub answers: AnswerRoom,
}

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Bytes of requests in hand, of all connections together.
pub const REQUEST_BYTES_MAX: usize = 512 << 20;
/// How long a reader may take nothing of what waits for it.
pub const READER_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of requests in hand: never more than [`REQUEST_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct RequestBytes(AtomicUsize);

impl RequestBytes {
    /// # Errors
    /// `Exhausted` when requests have all the bytes they may have; nothing is counted then.
    fn take(&self, bytes: usize) -> Result<(), Error> {
        let within = |others: usize| others.checked_add(bytes).filter(|sum| *sum <= REQUEST_BYTES_MAX);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Exhausted { what: "room for requests".into(), limit: REQUEST_BYTES_MAX as u64 }),
        }
    }

    fn give_back(&self, bytes: usize) {
        let before = self.0.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes given back of {before} taken");
    }
}

/// The serving part for one request, whose bytes are counted until this is dropped.
pub struct InHand {
    serving: Arc<Serving>,
    bytes: usize,
}

impl InHand {
    /// # Errors
    /// `Exhausted` when requests have all the bytes they may have ([`REQUEST_BYTES_MAX`]).
    pub fn take(serving: Arc<Serving>, bytes: usize) -> Result<InHand, Error> {
        serving.request_bytes.take(bytes)?;
        Ok(InHand { serving, bytes })
    }
}

impl Deref for InHand {
    type Target = Serving;

    fn deref(&self) -> &Serving {
        &self.serving
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.serving.request_bytes.give_back(self.bytes);
    }
}

/// Filled once the node is a member; empty while the cluster is forming.
pub type MaybeServing = Arc<ArcSwapOption<Serving>>;

/// The serving part, or why there is none.
pub fn serving(serving: &MaybeServing) -> Result<Arc<Serving>, Error> {
    let serving = member(serving)?;
    match serving.health.stays_out() {
        None => Ok(serving),
        Some(why) => Err(Error::Unavailable { why: why.into() }),
    }
}

/// The same for what a node says of itself, which it does also when it serves nothing.
pub fn member(serving: &MaybeServing) -> Result<Arc<Serving>, Error> {
    serving.load_full().ok_or_else(|| Error::Unavailable { why: "this node is not a member of a cluster yet".into() })
}

/// How long a request's client waits for the answer, if it says so.
pub fn given_timeout(head: &HeaderMap) -> Option<Duration> {
    head.get(&GRPC_TIMEOUT).and_then(|value| value.to_str().ok()).and_then(parse_timeout)
}

/// When a request must be answered: by its own grpc-timeout, less what the answer needs, or by the default.
pub fn deadline<T>(request: &Request<T>, default: Duration) -> Instant {
    let given = given_timeout(request.metadata().as_ref());
    let timeout = given.map_or(default, |given| given.saturating_sub((given / 10).min(Duration::from_millis(20))));
    clock::now() + timeout.min(Duration::from_secs(3600))
}

/// gRPC's form: at most eight digits and a unit.
fn parse_timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_requests_are_bounded_and_given_back() {
        let bytes = RequestBytes::default();
        bytes.take(REQUEST_BYTES_MAX - 1).expect("room for so much");
        bytes.take(2).expect_err("expected no room for more than all");
        bytes.take(1).expect("room for the last, if what was refused is not counted");
        bytes.take(usize::MAX).expect_err("expected no room");
        bytes.give_back(REQUEST_BYTES_MAX);
        bytes.take(REQUEST_BYTES_MAX).expect("room for all");
    }

    #[test]
    fn grpc_timeouts() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!([parse_timeout(""), parse_timeout("5"), parse_timeout("123456789S"), parse_timeout("é")], [None; 4]);
    }
}
