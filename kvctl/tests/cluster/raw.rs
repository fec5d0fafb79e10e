//! The native API without the client library: one request to one node, and its answer as it comes.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;

const CONNECT_MAX: Duration = Duration::from_secs(1);

/// A connection to a node, if it accepts one.
pub async fn channel(address: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URI");
    endpoint.connect_timeout(CONNECT_MAX).connect().await.ok()
}

/// A connection to a node that runs.
pub async fn connected(address: &str) -> Channel {
    channel(address).await.unwrap_or_else(|| panic!("expected a connection to {address}, where a node runs"))
}

/// The `Kv` service of a node, if it accepts a connection.
pub async fn kv(address: &str) -> Option<KvClient<Channel>> {
    channel(address).await.map(KvClient::new)
}

/// A message with a deadline.
pub fn bounded<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Reads a key without asking anybody but this node.
pub fn stale_get(key: &str) -> v1::GetRequest {
    let level = v1::consistency::Level::Stale(v1::Stale {});
    let consistency = Some(v1::Consistency { level: Some(level) });
    v1::GetRequest { consistency, ..get(key) }
}

/// Reads a key, linearizably.
pub fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: key.to_owned().into(), ..v1::GetRequest::default() }
}

/// Writes a key.
pub fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> v1::PutRequest {
    v1::PutRequest { key: key.into(), value: value.into(), ..v1::PutRequest::default() }
}

/// Reads a scan to its end.
pub async fn drain(scan: Result<Response<Streaming<v1::ScanResponse>>, Status>) -> Result<(), Status> {
    let mut chunks = scan?.into_inner();
    while chunks.message().await?.is_some() {}
    Ok(())
}

/// Code, `trefoil-outcome` and `trefoil-reason` of an error.
pub fn words(status: &Status) -> (Code, String, String) {
    let word = |metadata: &MetadataMap, name: &str| {
        let value = metadata.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let metadata = status.metadata();
    (status.code(), word(metadata, "trefoil-outcome"), word(metadata, "trefoil-reason"))
}
