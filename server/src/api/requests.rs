//! Places of requests: from when a request is there until its answer is taken or its stream has ended.
//!
//! Each request costs its stream, its task and a small answer, whatever it asks for, also while it is answered and not
//! taken. So each takes a [`Place`] before anything is done, and the place travels: with the future that answers it, then
//! with the body, and with the bytes ([`Held`]) that HTTP/2 drops when it has written them, or when their stream or
//! connection has ended. An answer that is a head alone, such as an error, has it in a value of that head ([`HeldHead`]).
//!
//! A connection may have a quarter as many places as are free, and a few in any case. So one alone takes a fifth of all;
//! when others have taken all, who asks for little is served all the same. Those that take nothing are closed before long
//! (`accept.rs`): bytes in HTTP/2's hands wait for their reader.
//!
//! A request without a place is refused, and its answer is counted in the same way ([`Refusal`]): it costs HTTP/2 less, but
//! not little. Whoever is refused while all connections have too many such answers under way, and has more than a few
//! itself, is over: its connection is closed (`accept.rs`).
//!
//! Invariants:
//!
//! * Without a place nothing is done.
//! * There are never more places than [`REQUESTS_MAX`] and [`OWN_MIN`] for each connection.
//! * Nobody waits for a place.
//! * A place is given back once, when the last of its request's parts is dropped; so is a refusal.
//! * A refusal is answered once all of its request has come. HTTP/2 resets what comes behind an answer, and ends a connection
//!   it has to do that too often on (`node.rs`): so a client that only asks for too much never loses its connection by that.
//! * A request that does not end is answered all the same (`requests/arriving.rs`), and keeps its place no longer.
//!
//! Left out: what peers ask. The trailers of an answer that has a body: windows do not hold them back, and a socket that
//! takes nothing has its connection closed. Until then `--streams-max` bounds them. What a connection has sent in one turn
//! (`accept.rs`) when it is over.

mod arriving;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::FutureExt;
use futures::future::{self, BoxFuture, Either, Join, Map, Ready};
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use hyper::service::Service;
use tonic::Status;
use tonic::body::Body;
use tower::BoxError;

use crate::api::answers::{self, Reader};
use crate::error::Error;

pub use self::arriving::Arriving;

/// Requests that may be in hand, or answered and not taken, of all connections together, besides [`OWN_MIN`] of each. An
/// answer that waits costs up to 13 KiB: its bytes, up to 8 KiB the gRPC layer encodes into, and its stream.
pub const REQUESTS_MAX: usize = 20_480;
/// A connection may have this part of the free places.
const SHARE: usize = 4;
/// Requests that a connection may have in any case, and refusals.
pub const OWN_MIN: usize = 8;
/// Refusals that may be under way or not taken, of all connections together, before one that gets more is over.
pub const REFUSED_MAX: usize = 16_384;

/// The places of a node's clients.
#[derive(Clone, Debug, Default)]
pub struct Places {
    counts: Arc<Counts>,
}

/// Of all connections together.
#[derive(Debug, Default)]
struct Counts {
    taken: AtomicUsize,
    refused: AtomicUsize,
}

impl Places {
    /// What serves a connection, whose requests have places or are refused.
    pub fn around<S>(&self, inner: S, reader: Arc<Reader>) -> Placing<S> {
        Placing { inner, places: self.clone(), reader }
    }

    /// A place for a request of this reader's connection.
    ///
    /// # Errors
    /// `Exhausted` when the connection has its share of them; counted as a refusal.
    fn take(&self, reader: Arc<Reader>) -> Result<Arc<Place>, (Error, Refusal)> {
        let taken = self.counts.taken.fetch_add(1, Ordering::Relaxed);
        let own = reader.requests.fetch_add(1, Ordering::Relaxed);
        // From here on both are given back.
        let place = Place { places: self.clone(), reader };
        let limit = (REQUESTS_MAX.saturating_sub(taken) / SHARE).max(OWN_MIN);
        match own < limit {
            true => Ok(Arc::new(place)),
            false => {
                let error = Error::Exhausted { what: "the connection's room for requests".into(), limit: limit as u64 };
                Err((error, self.refuse(place.reader.clone())))
            }
        }
    }

    fn refuse(&self, reader: Arc<Reader>) -> Refusal {
        let all = self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let own = reader.refused.fetch_add(1, Ordering::Relaxed);
        if all >= REFUSED_MAX && own >= OWN_MIN {
            reader.give_up();
        }
        Refusal { places: self.clone(), reader }
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
        self.places.counts.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request without a place whose answer is not written yet; counted until it is dropped.
#[derive(Debug)]
struct Refusal {
    places: Places,
    reader: Arc<Reader>,
}

impl Drop for Refusal {
    fn drop(&mut self) {
        self.reader.refused.fetch_sub(1, Ordering::Relaxed);
        self.places.counts.refused.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What serves a connection; its requests have places, or are refused.
#[derive(Debug)]
pub struct Placing<S> {
    inner: S,
    places: Places,
    reader: Arc<Reader>,
}

/// An answer, and the place of its request.
type Answered = (Result<http::Response<Body>, Infallible>, Arc<Place>);
type Placed = Result<http::Response<PlacedBody>, Infallible>;
// Named, and not boxed: every request has one.
type Answering<F> = Map<Join<F, Ready<Arc<Place>>>, fn(Answered) -> Placed>;

impl<S, B> Service<http::Request<B>> for Placing<S>
where
    S: Service<http::Request<Arriving<B>>, Response = http::Response<Body>, Error = Infallible>,
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<PlacedBody>;
    type Error = Infallible;
    type Future = Either<Answering<S::Future>, BoxFuture<'static, Placed>>;

    fn call(&self, request: http::Request<B>) -> Self::Future {
        match self.places.take(self.reader.clone()) {
            Ok(place) => {
                let (head, body) = request.into_parts();
                let body = Arriving::for_method(head.uri.path(), body);
                let answered = self.inner.call(http::Request::from_parts(head, body));
                let answered = future::join(answered, future::ready(place));
                Either::Left(answered.map(placed as fn(Answered) -> Placed))
            }
            Err((error, refusal)) => Either::Right(refused(request.into_body(), error, refusal).boxed()),
        }
    }
}

fn placed((answer, place): Answered) -> Placed {
    let Ok(response) = answer;
    let mut response = answers::hold(response);
    Ok(match http_body::Body::is_end_stream(response.body()) {
        false => response.map(|body| PlacedBody { body, place: Some(place) }),
        true => {
            hold(response.headers_mut(), place);
            response.map(|body| PlacedBody { body, place: None })
        }
    })
}

/// The answer to a request without a place, once all of it has come, or did not come for too long.
async fn refused<B>(request: B, error: Error, refusal: Refusal) -> Placed
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut request = Arriving::to_its_end(request);
    while let Some(Ok(_)) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut request), cx)).await {}
    let mut response = Status::from(error).into_http::<Body>();
    hold(response.headers_mut(), refusal);
    Ok(response.map(|body| PlacedBody { body, place: None }))
}

/// Makes the head of an answer hold `what` until HTTP/2 has written it.
fn hold(head: &mut HeaderMap, what: impl Send + 'static) {
    if let Some(value) = head.values_mut().next() {
        let bytes = Bytes::from_owner(HeldHead { value: value.clone(), _what: what });
        *value = HeaderValue::from_maybe_shared(bytes).expect("these are the bytes of such a value");
        // Any other value HTTP/2 may keep in a table, for the next head that has it.
        value.set_sensitive(true);
    }
}

/// A value of a head in HTTP/2's hands, and what the answer holds.
struct HeldHead<T> {
    value: HeaderValue,
    _what: T,
}

impl<T> AsRef<[u8]> for HeldHead<T> {
    fn as_ref(&self) -> &[u8] {
        self.value.as_bytes()
    }
}

/// A body whose bytes hold the place of their request.
#[derive(Debug, Default)]
pub struct PlacedBody {
    body: Body,
    place: Option<Arc<Place>>,
}

impl http_body::Body for PlacedBody {
    type Data = Held;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Held>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|bytes| Held::of(bytes, self.place.clone())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes in HTTP/2's hands, for which their reader is awaited, and their request's place, if it has one.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    place: Option<Arc<Place>>,
}

impl Held {
    fn of(bytes: Bytes, place: Option<Arc<Place>>) -> Held {
        if let Some(place) = &place {
            place.reader.note_known();
        }
        Held { bytes, place }
    }
}

impl Buf for Held {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.reader.note_taken();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use hyper::service::service_fn;
    use tonic::Code;

    use super::*;
    use crate::api::serve::InTime;

    /// Places a connection gets until it is refused.
    fn take_all(places: &Places, reader: &Arc<Reader>) -> Vec<Arc<Place>> {
        std::iter::from_fn(|| places.take(reader.clone()).ok()).collect()
    }

    /// Places and refusals of all connections.
    fn counts(places: &Places) -> (usize, usize) {
        (places.counts.taken.load(Ordering::Relaxed), places.counts.refused.load(Ordering::Relaxed))
    }

    fn an_error() -> Error {
        Error::Exhausted { what: "a test's room".into(), limit: 1 }
    }

    #[test]
    fn one_connection_takes_a_fifth_and_each_gets_a_few() {
        let places = Places::default();
        let first = Arc::<Reader>::default();
        let alone = take_all(&places, &first);
        assert!(alone.len().abs_diff(REQUESTS_MAX / (SHARE + 1)) <= 1, "expected a fifth, got {}", alone.len());
        let (refused, _) = places.take(first.clone()).expect_err("a connection that has its share");
        assert!(matches!(refused, Error::Exhausted { .. }), "{refused:?}");
        assert_eq!(counts(&places), (alone.len(), 0), "what was refused must give all back");
        let others: Vec<Vec<Arc<Place>>> = (0..120).map(|_| take_all(&places, &Arc::default())).collect();
        let (taken, _) = counts(&places);
        assert!(taken <= REQUESTS_MAX + others.len() * OWN_MIN, "expected the bound to be kept, got {taken}");
        assert_eq!(take_all(&places, &Arc::default()).len(), OWN_MIN, "expected so many for another connection");
        drop((alone, others));
        assert_eq!((counts(&places), first.requests.load(Ordering::Relaxed)), ((0, 0), 0));
    }

    #[test]
    fn sixteen_connections_have_a_thousand_requests_each() {
        let places = &Places::default();
        let readers: [Arc<Reader>; 16] = Default::default();
        let taken = readers.iter().flat_map(|reader| (0..1000).map(move |_| places.take(reader.clone())));
        let taken: Vec<Arc<Place>> = taken.map(|place| place.expect("places for all")).collect();
        assert_eq!(counts(places), (taken.len(), 0));
    }

    #[tokio::test]
    async fn a_place_is_held_until_the_bytes_are_taken() {
        let (places, reader): (Places, Arc<Reader>) = Default::default();
        let place = places.take(reader.clone()).expect("a free place");
        let answer: Answered = (Ok(http::Response::new(Body::new("the message".to_owned()))), place);
        let Ok(response) = placed(answer);
        let mut body = response.into_body();
        assert!(!reader.is_awaited(), "expected nothing to wait for its reader yet");
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("a frame").expect("no error");
        drop(body);
        assert!(reader.is_awaited() && counts(&places) == (1, 0));
        assert_eq!(frame.into_data().expect("data").chunk(), b"the message");
        assert!(!reader.is_awaited());
        assert_eq!(counts(&places), (0, 0));
    }

    #[test]
    fn a_head_alone_holds_the_place() {
        let (places, reader): (Places, Arc<Reader>) = Default::default();
        let place = places.take(reader).expect("a free place");
        let plain = Status::from(an_error()).into_http::<Body>();
        let head = plain.headers().clone();
        let answer: Answered = (Ok(plain), place);
        let Ok(response) = placed(answer);
        let (parts, body) = response.into_parts();
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!((parts.headers.clone(), counts(&places)), (head, (1, 0)));
        drop(parts);
        assert_eq!(counts(&places), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_has_its_place_until_it_is_taken() {
        let (places, reader): (Places, Arc<Reader>) = Default::default();
        let silent = service_fn(|_: http::Request<Arriving<Body>>| {
            future::pending::<Result<http::Response<Body>, Infallible>>()
        });
        let mut request = http::Request::new(Body::default());
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1S"));
        let Ok(response) = places.around(InTime(silent), reader).call(request).await;
        assert_eq!(Status::from_header_map(response.headers()).map(|status| status.code()), Some(Code::Cancelled));
        assert_eq!(counts(&places), (1, 0));
        drop(response);
        assert_eq!(counts(&places), (0, 0));
    }

    #[tokio::test]
    async fn a_refusal_waits_for_its_request_and_is_counted_until_it_is_written() {
        let (places, reader): (Places, Arc<Reader>) = Default::default();
        let (sender, request) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let request = Body::new(Coming(request));
        let mut answer = Box::pin(refused(request, an_error(), places.refuse(reader.clone())));
        assert!(futures::poll!(&mut answer).is_pending(), "expected the rest of the request to be waited for");
        sender.send(Ok(Frame::data(Bytes::from_static(b"the rest")))).await.expect("a reader");
        drop(sender);
        let Ok(response) = answer.await;
        assert_eq!((counts(&places), reader.refused.load(Ordering::Relaxed)), ((0, 1), 1));
        drop(response);
        assert_eq!((counts(&places), reader.refused.load(Ordering::Relaxed)), ((0, 0), 0));
    }

    /// A request that is still coming.
    struct Coming(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, Status>>);

    impl http_body::Body for Coming {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.poll_recv(cx)
        }
    }

    #[test]
    fn who_is_refused_too_often_is_over() {
        let places = Places::default();
        let (many, few): (Arc<Reader>, Arc<Reader>) = Default::default();
        let refusals: Vec<Refusal> = (0..REFUSED_MAX).map(|_| places.refuse(many.clone())).collect();
        assert!(!many.is_over(), "expected so many to be counted and no more");
        let mut others: Vec<Refusal> = (0..OWN_MIN).map(|_| places.refuse(few.clone())).collect();
        assert!(!few.is_over(), "expected a few for each");
        others.push(places.refuse(few.clone()));
        assert!(few.is_over() && !many.is_over());
        drop((refusals, others));
        assert_eq!(counts(&places), (0, 0));
    }
}
