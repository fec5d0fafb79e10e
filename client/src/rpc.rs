//! The requests of the API, each with its method: what lets one function (`call.rs`) carry out all of them.

use std::future::Future;

use tonic::{Request, Response, Status, Streaming};
use trefoil_proto::v1;
use trefoil_proto::v1::cluster_client::ClusterClient;
use trefoil_proto::v1::kv_client::KvClient;

use crate::wire::Wire;

/// A request that can be sent.
pub(crate) trait Rpc: Clone + Send + Sync + 'static {
    type Reply: Send;

    /// Sends it once.
    fn send(message: Request<Self>, wire: Wire) -> impl Future<Output = Result<Response<Self::Reply>, Status>> + Send;

    /// The reply's header, if replies to it have one.
    fn header(reply: &Self::Reply) -> Option<&v1::ResponseHeader>;
}

/// Replies are bounded by the server; a bound of our own could turn a write that was done into an error.
fn kv(wire: Wire) -> KvClient<Wire> {
    KvClient::new(wire).max_decoding_message_size(usize::MAX)
}

fn cluster(wire: Wire) -> ClusterClient<Wire> {
    ClusterClient::new(wire).max_decoding_message_size(usize::MAX)
}

macro_rules! kv_calls {
    ($($request:ident => $method:ident -> $reply:ident),* $(,)?) => {$(
        impl Rpc for v1::$request {
            type Reply = v1::$reply;

            async fn send(message: Request<Self>, wire: Wire) -> Result<Response<v1::$reply>, Status> {
                kv(wire).$method(message).await
            }

            fn header(reply: &v1::$reply) -> Option<&v1::ResponseHeader> {
                reply.header.as_ref()
            }
        }
    )*};
}

kv_calls! {
    GetRequest => get -> GetResponse,
    PutRequest => put -> PutResponse,
    DeleteRequest => delete -> DeleteResponse,
    TxnRequest => txn -> TxnResponse,
    OpenSessionRequest => open_session -> OpenSessionResponse,
    CloseSessionRequest => close_session -> CloseSessionResponse,
    CompactRequest => compact -> CompactResponse,
}

impl Rpc for v1::ScanRequest {
    type Reply = Streaming<v1::ScanResponse>;

    async fn send(message: Request<Self>, wire: Wire) -> Result<Response<Self::Reply>, Status> {
        kv(wire).scan(message).await
    }

    fn header(_: &Self::Reply) -> Option<&v1::ResponseHeader> {
        None
    }
}

macro_rules! cluster_calls {
    ($($request:ident => $method:ident -> $reply:ident),* $(,)?) => {$(
        impl Rpc for v1::$request {
            type Reply = v1::$reply;

            async fn send(message: Request<Self>, wire: Wire) -> Result<Response<v1::$reply>, Status> {
                cluster(wire).$method(message).await
            }

            fn header(_: &v1::$reply) -> Option<&v1::ResponseHeader> {
                None
            }
        }
    )*};
}

cluster_calls! {
    MapRequest => map -> MapResponse,
    StatusRequest => status -> StatusResponse,
    DigestRequest => digest -> DigestResponse,
}
