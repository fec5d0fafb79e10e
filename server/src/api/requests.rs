//! Places of requests: from when a request is there until its answer is taken or its stream has ended.
//!
//! Each request costs its stream, its task and a small answer, whatever it asks for, also while it is answered and not
//! taken. So each takes a [`Place`] before anything is done, and the place travels: with the future that answers it, then
//! with the body, and with the bytes ([`Held`]) that HTTP/2 drops when it has written them, or when their stream or
//! connection has ended.
//!
//! A connection may have an eighth as many places as are free, and a few in any case. So one alone takes a ninth of all;
//! when others have taken all, who asks for little is served all the same. Those that take nothing are closed before long
//! (`accept.rs`): bytes in HTTP/2's hands wait for their reader.
//!
//! Invariants:
//!
//! * Without a place nothing is done.
//! * There are never more places than [`REQUESTS_MAX`] and [`OWN_MIN`] for each connection.
//! * Nobody waits for a place.
//! * A place is given back once, when the last of its request's parts is dropped.
//!
//! Left out: what peers ask. The heads of answers without a body, such as errors: windows do not hold them back, and a
//! socket that takes nothing has its connection closed. Until then `--streams-max` bounds them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{self, Either, Join, Map, Ready};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::api::accept::Accepted;
use crate::api::answers::Reader;
use crate::error::Error;

/// Requests that may be in hand, or answered and not taken, of all connections together, besides [`OWN_MIN`] of each.
pub const REQUESTS_MAX: usize = 65_536;
/// A connection may have this part of the free places.
const SHARE: usize = 8;
/// Requests that a connection may have in any case.
pub const OWN_MIN: usize = 8;

/// The places of a node, as a layer around what it serves clients with.
#[derive(Clone, Debug, Default)]
pub struct Places {
    taken: Arc<AtomicUsize>,
}

impl<S> Layer<S> for Places {
    type Service = Placing<S>;

    fn layer(&self, inner: S) -> Placing<S> {
        Placing { inner, places: self.clone() }
    }
}

impl Places {
    /// A place for a request of this reader's connection.
    ///
    /// # Errors
    /// `Exhausted` when the connection has its share of them.
    fn take(&self, reader: Arc<Reader>) -> Result<Arc<Place>, Error> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let own = reader.requests.fetch_add(1, Ordering::Relaxed);
        // From here on both are given back.
        let place = Place { places: self.clone(), reader };
        let limit = (REQUESTS_MAX.saturating_sub(taken) / SHARE).max(OWN_MIN);
        match own < limit {
            true => Ok(Arc::new(place)),
            false => Err(Error::Exhausted { what: "the connection's room for requests".into(), limit: limit as u64 }),
        }
    }
}

/// The place of one request; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    reader: Arc<Reader>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reader.requests.fetch_sub(1, Ordering::Relaxed);
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A service whose requests have places, or are refused.
#[derive(Clone, Debug)]
pub struct Placing<S> {
    inner: S,
    places: Places,
}

/// An answer, and the place of its request.
type Answered<E> = (Result<http::Response<Body>, E>, Arc<Place>);
type Placed<E> = Result<http::Response<PlacedBody>, E>;
// Named, and not boxed: every request has one.
type Answering<F, E> = Map<Join<F, Ready<Arc<Place>>>, fn(Answered<E>) -> Placed<E>>;

impl<S> Service<http::Request<Body>> for Placing<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<PlacedBody>;
    type Error = S::Error;
    type Future = Either<Answering<S::Future, S::Error>, Ready<Placed<S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.places.take(Accepted::among(request.extensions()).reader) {
            Ok(place) => {
                let answered = future::join(self.inner.call(request), future::ready(place));
                Either::Left(answered.map(placed::<S::Error> as fn(Answered<S::Error>) -> Placed<S::Error>))
            }
            Err(error) => {
                let refused = Status::from(error).into_http::<Body>();
                Either::Right(future::ready(Ok(refused.map(|body| PlacedBody { body, place: None }))))
            }
        }
    }
}

fn placed<E>((answer, place): Answered<E>) -> Placed<E> {
    answer.map(|response| response.map(|body| PlacedBody { body, place: Some(place) }))
}

/// A body whose bytes hold the place of their request.
#[derive(Debug)]
pub struct PlacedBody {
    body: Body,
    place: Option<Arc<Place>>,
}

impl http_body::Body for PlacedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|bytes| held(bytes, self.place.as_ref())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn held(bytes: Bytes, place: Option<&Arc<Place>>) -> Bytes {
    match place {
        None => bytes,
        Some(place) => {
            place.reader.note_known();
            Bytes::from_owner(Held { bytes, place: place.clone() })
        }
    }
}

/// Bytes in HTTP/2's hands, for which their reader is awaited, and their request's place.
struct Held {
    bytes: Bytes,
    place: Arc<Place>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.place.reader.note_taken();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    /// Places a connection gets until it is refused.
    fn take_all(places: &Places, reader: &Arc<Reader>) -> Vec<Arc<Place>> {
        std::iter::from_fn(|| places.take(reader.clone()).ok()).collect()
    }

    #[test]
    fn one_connection_takes_a_ninth_and_each_gets_a_few() {
        let places = Places::default();
        let first = Arc::<Reader>::default();
        let alone = take_all(&places, &first);
        assert!(alone.len().abs_diff(REQUESTS_MAX / (SHARE + 1)) <= 1, "expected a ninth, got {}", alone.len());
        let refused = places.take(first.clone()).expect_err("a connection that has its share");
        assert!(matches!(refused, Error::Exhausted { .. }), "{refused:?}");
        assert_eq!(places.taken.load(Ordering::Relaxed), alone.len(), "what was refused must give its place back");
        let others: Vec<Vec<Arc<Place>>> = (0..120).map(|_| take_all(&places, &Arc::default())).collect();
        let taken = places.taken.load(Ordering::Relaxed);
        assert!(taken <= REQUESTS_MAX + others.len() * OWN_MIN, "expected the bound to be kept, got {taken}");
        assert_eq!(take_all(&places, &Arc::default()).len(), OWN_MIN, "expected so many for another connection");
        drop((alone, others));
        assert_eq!((places.taken.load(Ordering::Relaxed), first.requests.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn a_place_is_held_until_the_bytes_are_taken() {
        let (places, reader): (Places, Arc<Reader>) = Default::default();
        let place = places.take(reader.clone()).expect("a free place");
        let answer: Answered<Status> = (Ok(http::Response::new(Body::new("the message".to_owned()))), place);
        let mut body = placed(answer).expect("an answer").into_body();
        assert!(!reader.is_awaited(), "expected nothing to wait for its reader yet");
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("a frame").expect("no error");
        drop(body);
        assert!(reader.is_awaited() && places.taken.load(Ordering::Relaxed) == 1);
        assert_eq!(&frame.into_data().expect("data")[..], b"the message");
        assert!(!reader.is_awaited());
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }
}
