//! The body of a request as it comes: of a request that is one message all must have come before long.
//!
//! A request has a place from its beginning on (`requests.rs`), and nothing is done before its end. So who begins requests
//! and never ends them is given up: reading its body fails, with the error that answers it. Time runs from the first wait
//! on. What comes earns more of it, so that a large request is not given up on a slow link; the bound on a message's bytes is
//! then one on its time too. A request that is to be refused has no such bound, and earns nothing.
//!
//! Invariant: of a request that is all there when it is read no timer is made, as is usual.
//!
//! Left out: requests that are streams of messages, which stay open for as long as their client likes, also before the first
//! message. They are bounded in number by their places.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tower::BoxError;
use trefoil_proto::v1::{cluster_server, kv_server};
use trefoil_world::clock;

use crate::error::Error;

/// How long a request may take to come, all of it, ...
const PATIENCE: Duration = Duration::from_secs(30);

/// ... and how many bytes of it earn another second.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Services each of whose requests is one message.
const OF_ONE_MESSAGE: [&str; 3] = [kv_server::SERVICE_NAME, cluster_server::SERVICE_NAME, "grpc.health.v1.Health"];

/// How long a body is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// For ever: it is a stream of messages.
    Forever,
    /// [`PATIENCE`], and as long as its bytes earn.
    WhileItComes,
    /// [`PATIENCE`], whatever comes.
    NoLonger,
}

/// See the file's head.
#[derive(Debug)]
pub struct Arriving<B> {
    body: B,
    waited: Waited,
    came_bytes: u64,
    /// Once it was waited for: since when, and until when.
    late: Option<(clock::Instant, Pin<Box<clock::Sleep>>)>,
}

impl<B> Arriving<B> {
    /// The body of a request for a method.
    pub(super) fn for_method(path: &str, body: B) -> Arriving<B> {
        let waited = if is_one_message(path) { Waited::WhileItComes } else { Waited::Forever };
        Arriving { body, waited, came_bytes: 0, late: None }
    }

    /// A body whose end is waited for in any case.
    pub(super) fn to_its_end(body: B) -> Arriving<B> {
        Arriving { body, waited: Waited::NoLonger, came_bytes: 0, late: None }
    }

    /// How long it may take.
    fn patience(&self) -> Duration {
        match self.waited {
            Waited::Forever | Waited::NoLonger => PATIENCE,
            Waited::WhileItComes => PATIENCE + Duration::from_secs(self.came_bytes / BYTES_PER_SECOND_MIN),
        }
    }

    /// Takes note of what has come.
    fn note(&mut self, bytes: usize) {
        self.came_bytes += bytes as u64;
        let patience = self.patience();
        if let Some((since, late)) = &mut self.late {
            late.as_mut().reset(*since + patience);
        }
    }

    /// Whether it is given up now; else the task is woken when it is.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let patience = self.patience();
        let (_, late) = self.late.get_or_insert_with(|| (clock::now(), Box::pin(clock::sleep(patience))));
        late.as_mut().poll(cx).map(|()| patience)
    }
}

/// Whether a request for this method is one message.
fn is_one_message(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    service.is_some_and(|(service, _)| OF_ONE_MESSAGE.contains(&service))
}

impl<B> http_body::Body for Arriving<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx).map_err(|error| Status::from_error(error.into()));
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.note(frame.data_ref().map_or(0, Bytes::len));
        }
        if polled.is_ready() || self.waited == Waited::Forever {
            return polled;
        }
        let within = ready!(self.poll_late(cx));
        Poll::Ready(Some(Err(Error::NotWhole { within }.into())))
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
    use std::future::poll_fn;

    use http_body::Body as _;
    use tonic::Code;
    use tonic::body::Body;

    use super::*;

    const GET: &str = "/trefoil.v1.Kv/Get";
    const SECOND: Duration = Duration::from_secs(1);
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

    /// What a client has begun with. More does not come.
    struct Begun(Option<Bytes>);

    impl http_body::Body for Begun {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
        }
    }

    fn begun(bytes: Option<&'static str>) -> Body {
        Body::new(Begun(bytes.map(Bytes::from)))
    }

    /// Reads a body to its end, or to its error.
    async fn read(body: &mut Arriving<Body>) -> Result<(), Status> {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            frame?;
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_begun_and_never_ended_is_given_up() {
        for bytes in [None, Some("the beginning")] {
            let bodies = [Arriving::for_method(GET, begun(bytes)), Arriving::to_its_end(begun(bytes))];
            for mut body in bodies {
                let from = clock::now();
                let status = read(&mut body).await.expect_err("a request that is given up");
                assert_eq!((status.code(), from.elapsed().as_secs()), (Code::DeadlineExceeded, PATIENCE.as_secs()));
                assert_eq!(status.message(), "not all of the request came within 30s");
            }
        }
    }

    /// So many parts of so many bytes, a second after each other. More does not come.
    struct Dripping {
        parts: u64,
        bytes: usize,
        pause: Pin<Box<clock::Sleep>>,
    }

    impl http_body::Body for Dripping {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.parts == 0 {
                return Poll::Pending;
            }
            ready!(self.pause.as_mut().poll(cx));
            self.parts -= 1;
            self.pause.as_mut().reset(clock::now() + SECOND);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; self.bytes])))))
        }
    }

    fn dripping(bytes: usize) -> Body {
        Body::new(Dripping { parts: 100, bytes, pause: Box::pin(clock::sleep(SECOND)) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_earns_time_unless_it_is_refused() {
        let second = BYTES_PER_SECOND_MIN as usize;
        let for_get: fn(Body) -> Arriving<Body> = |body| Arriving::for_method(GET, body);
        let cases = [
            (for_get, second, 100 + 30),
            (for_get, second / 2, 59),
            (for_get, 1, 30),
            (Arriving::to_its_end as fn(Body) -> Arriving<Body>, second, 30),
        ];
        for (arriving, bytes, expected_s) in cases {
            let (mut body, from) = (arriving(dripping(bytes)), clock::now());
            read(&mut body).await.expect_err("a request that is given up");
            assert_eq!(from.elapsed().as_secs(), expected_s);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_stay_open() {
        for bytes in [None, Some("a message")] {
            let mut body = Arriving::for_method(REFLECTION, begun(bytes));
            let read = clock::timeout(10 * PATIENCE, read(&mut body)).await;
            assert!(read.is_err(), "expected a stream to be read on, got {read:?}");
        }
    }

    #[tokio::test]
    async fn what_is_there_makes_no_timer() {
        let mut body = Arriving::for_method(GET, Body::new("a message".to_owned()));
        read(&mut body).await.expect("a whole request");
        assert!(body.late.is_none());
    }
}
