//! One node's API, spoken without the client library: what must come from this node and no other is asked here.

use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};
use tower::service_fn;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::{self, consistency, key_range};
use trefoil_world::{clock, net};

const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A node's API. Clones share a connection, which is made when it is first needed.
pub type Node = KvClient<Channel>;

/// The API of the node at an endpoint.
pub fn node(endpoint: &str) -> Node {
    let address = endpoint.to_owned();
    let connector = service_fn(move |_: Uri| {
        let address = address.clone();
        async move { net::dial(&address).await.map(TokioIo::new) }
    });
    // The connector dials; the URI only names the authority.
    let endpoint = Endpoint::from_static("http://node.trefoil")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    KvClient::new(endpoint.connect_with_connector_lazy(connector))
}

/// A request that the node has so long for.
pub fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// What comes of a call in time.
///
/// # Errors
/// The node's, or that there was no answer.
pub async fn answer<T>(
    asked: impl Future<Output = Result<Response<T>, Status>>,
    timeout: Duration,
) -> Result<T, Status> {
    match clock::timeout(timeout, asked).await {
        Ok(answered) => answered.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

/// All pairs at `revision`, as the node's own replica has them. `context`: of an answer that had seen the revision.
///
/// # Errors
/// The node's, or that not all chunks came in time.
pub async fn all_pairs(
    mut node: Node,
    revision: u64,
    context: Bytes,
    timeout: Duration,
) -> Result<Vec<v1::KeyValue>, Status> {
    let request = v1::ScanRequest {
        range: Some(v1::KeyRange { key: Bytes::new(), end: Some(key_range::End::Prefix(true)) }),
        revision,
        consistency: Some(v1::Consistency { level: Some(consistency::Level::Stale(v1::Stale {})) }),
        context,
        ..v1::ScanRequest::default()
    };
    let asked = async {
        let mut chunks = node.scan(timed(request, timeout)).await?.into_inner();
        let (mut pairs, mut whole) = (Vec::new(), false);
        while let Some(chunk) = chunks.message().await? {
            whole = chunk.continuation.is_empty();
            pairs.extend(chunk.pairs);
        }
        if whole { Ok(pairs) } else { Err(Status::unavailable("the scan was cut off")) }
    };
    clock::timeout(timeout, asked).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}
