//! Serves HTTP/2 on accepted connections: what stands between hyper and our services.
//!
//! It does what tonic's server does around services: a task for each connection, which has the connection end when the node
//! stops, and a request's grpc-timeout. What tonic's server does besides, for services it does not know, each request would
//! pay for: a copy of all services, a box around their future, and one around each body, which each frame would pass through.
//!
//! Each connection has services of its own, which know what its requests share ([`Accepted`]).
//!
//! Invariants:
//!
//! * A connection that ends tells its client to begin no requests, and takes none once the client has answered that; its task
//!   ends once the requests it has are answered, and streams of messages are over. Whoever stops bounds how long that takes.
//! * What a service does when it is called, before its future is polled, is done in the connection's task: it may not panic.
//! * A request whose time is over is answered as by tonic's server, and what was being done for it is dropped. The handlers
//!   answer before that (`api.rs`), unless they cannot: while the request's body is on its way, say.
//! * Of a request without a grpc-timeout no timer is made.
//!
//! Left out: HTTP/1, TLS, a date in answers' heads, and how long a connection may live.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;

use futures::future::{Either, Map};
use futures::{FutureExt, Stream, StreamExt};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Timeout;
use tokio::time::error::Elapsed;
use tonic::{Status, TimeoutExpired};
use tower::BoxError;
use tracing::debug;
use trefoil_world::{clock, task};

use crate::api::accept::{Accepted, Connection};
use crate::api::given_timeout;

/// HTTP/2 as a port speaks it.
pub type Http2 = http2::Builder<TokioExecutor>;

/// HTTP/2 as hyper speaks it unless it is told otherwise, with timers. An answer's head has no date: gRPC needs none, and it
/// would be the machine's, also in a simulation.
pub fn http2() -> Http2 {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).auto_date_header(false);
    http
}

/// Serves each of `connections` by what `service_for` makes for it, until `stop`. Then no more are taken, and it ends once
/// all are closed, which they are when the requests they have are answered.
pub async fn serve<S, B>(
    http: Http2,
    connections: impl Stream<Item = Connection>,
    service_for: impl Fn(&Accepted) -> S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    // Each connection has a receiver until it is closed.
    let ending = watch::Sender::new(());
    {
        let mut connections = pin!(connections);
        let mut stop = pin!(stop);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stop => None,
                next = connections.next() => next,
            };
            let Some(connection) = next else { break };
            let service = service_for(connection.accepted());
            serve_one(&http, connection, service, ending.subscribe());
        }
    }
    ending.send_replace(());
    ending.closed().await;
}

/// Serves a connection, in a task of its own, until it ends by itself or, once `ending` changes, has no request left.
fn serve_one<S, B>(http: &Http2, connection: Connection, service: S, mut ending: watch::Receiver<()>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    let serving = http.serve_connection(TokioIo::new(connection), service);
    task::spawn(async move {
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            biased;
            // First, or a connection that is always busy never heard of it. It ends as well when nobody is left to tell it to.
            _ = ending.changed() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
            ended = &mut serving => ended,
        };
        if let Err(error) = ended {
            debug!("a connection ended: {:#}", anyhow::Error::from(error));
        }
    });
}

/// A service whose requests are answered within their grpc-timeout, if they have one.
#[derive(Debug)]
pub struct InTime<S>(pub S);

type Answer<B> = Result<Response<B>, Infallible>;
type Judging<B> = fn(Result<Answer<B>, Elapsed>) -> Answer<B>;
// Named, and not boxed: every request has one.
type Timed<F, B> = Either<F, Map<Timeout<F>, Judging<B>>>;

impl<S, R, B> Service<Request<R>> for InTime<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Timed<S::Future, B>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let timeout = given_timeout(request.headers());
        let answering = self.0.call(request);
        match timeout {
            None => Either::Left(answering),
            Some(timeout) => Either::Right(clock::timeout(timeout, answering).map(in_time::<B> as Judging<B>)),
        }
    }
}

fn in_time<B: Default>(answer: Result<Answer<B>, Elapsed>) -> Answer<B> {
    answer.unwrap_or_else(|_| Ok(Status::from_error(Box::new(TimeoutExpired(()))).into_http()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use futures::future::BoxFuture;
    use hyper::service::service_fn;
    use tokio::sync::{Semaphore, mpsc, oneshot};
    use tonic::Code;
    use tonic::body::Body;

    use super::*;
    use crate::api::accept::Earned;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A service that never answers.
    fn silent(_: Request<String>) -> BoxFuture<'static, Answer<Body>> {
        Box::pin(std::future::pending())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_for_a_request_ends_with_its_time() {
        let held = Arc::new(());
        let holding = |_: Request<String>| {
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok(Response::new(Body::default()))
            }
        };
        let mut request = Request::new(String::new());
        request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("1S"));
        let Ok(_) = InTime(service_fn(holding)).call(request).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_the_time_its_client_gives_it() {
        let service = InTime(service_fn(silent));
        // In hundredths of a second.
        for (given, expected) in [(Some("250m"), Some(25)), (Some("2S"), Some(200)), (Some("2"), None), (None, None)] {
            let mut request = Request::new(String::new());
            if let Some(given) = given {
                request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static(given));
            }
            let from = clock::now();
            let answer = clock::timeout(Duration::from_secs(60), service.call(request)).await;
            let told = answer.ok().map(|answer| {
                let Ok(response) = answer;
                let status = Status::from_header_map(response.headers()).expect("a status");
                assert_eq!((status.code(), status.message()), (Code::Cancelled, "Timeout expired"));
                from.elapsed().as_millis() / 10
            });
            assert_eq!(told, expected, "{given:?}");
        }
    }

    #[tokio::test]
    async fn what_has_no_time_given_makes_no_timer() {
        let timed = InTime(service_fn(silent)).call(Request::new(String::new()));
        assert!(matches!(timed, Either::Left(_)));
    }

    /// A request under way, and what answers it.
    type Asked = oneshot::Sender<()>;

    /// Answers when the test says so.
    fn asking(asked: mpsc::Sender<Asked>) -> impl Fn(Request<Incoming>) -> BoxFuture<'static, Answer<Body>> {
        move |_| {
            let asked = asked.clone();
            Box::pin(async move {
                let (answer, answered) = oneshot::channel();
                asked.send(answer).await.expect("a test that waits for it");
                answered.await.expect("a test that answers it");
                Ok(Response::new(Body::default()))
            })
        }
    }

    #[tokio::test]
    async fn what_is_under_way_at_the_stop_is_answered_and_no_more_is_taken() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a free place");
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let connection = Connection::new(Box::pin(ours), from, Earned::ByFirstBytes, place);
        let (asked, mut requests) = mpsc::channel::<Asked>(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let connections = futures::stream::iter([connection]).chain(futures::stream::pending());
        let service_for = move |_: &Accepted| InTime(service_fn(asking(asked.clone())));
        let stopped = stopped.map(|told| told.expect("a test that stops it"));
        let mut serving = task::spawn(serve(http2(), connections, service_for, stopped));

        let (mut client, connection) = h2::client::handshake(theirs).await.expect("HTTP/2");
        task::spawn(connection);
        let request = Request::post("http://node/service/method").body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("a stream");
        let answer = requests.recv().await.expect("a request under way");
        stop.send(()).expect("a server");
        // Until the client is told that its connection takes no more.
        let told = async {
            while let Ok(ready) = client.ready().await {
                client = ready;
                tokio::task::yield_now().await;
            }
        };
        clock::timeout(PATIENCE, told).await.expect("a client that is told");
        assert!(futures::poll!(&mut serving).is_pending(), "expected the request to be waited for");
        answer.send(()).expect("a request that waits");
        let response = response.await.expect("an answer");
        assert_eq!((response.status(), response.headers().len()), (http::StatusCode::OK, 0));
        let ended = clock::timeout(PATIENCE, serving).await.expect("an end");
        ended.expect("no panic");
    }
}
