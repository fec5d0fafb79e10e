//! The yardstick: a gRPC server that answers each get at once, with nothing behind it. This program starts itself as
//! one (`--serve-echo`) and measures it as it measures a cluster: an echo is what a call costs whoever serves it by tonic.
//!
//! To a client it is a cluster of one node. As `kvd` has them: the fields of a reply, the way to the sockets, the
//! allocator, the runtime, and the settings of HTTP/2 (`server/src/node.rs`, defaults of `server/src/config/raw.rs`). But
//! it serves by tonic's own server and routes, and `kvd` by less (docs/decisions/0004).
//!
//! Left out: all other requests, which are refused.

use std::io;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use trefoil_proto::v1::cluster_server::{Cluster, ClusterServer};
use trefoil_proto::v1::kv_server::{Kv, KvServer};
use trefoil_proto::v1::{self, effective_consistency::Level};
use trefoil_world::net;

use crate::process::{Process, free_ports, wait_ready};

/// The settings of `kvd`'s gRPC server.
const STREAMS_MAX: u32 = 1024;
const MESSAGE_BYTES_MAX: usize = 3 << 20;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

const CLUSTER_ID: &[u8] = &[1; 16];
/// As long as `kvd`'s, and as opaque.
const CONTEXT: &[u8] = &[1; 9];
const NODE_ID: u64 = 1;
const REPLICA_ID: u64 = 1;
const KEYSPACE_ID: u32 = 1;
const MAP_VERSION: u64 = 1;

/// A process of this program that serves echoes, killed when dropped.
pub struct EchoProcess {
    pub endpoint: String,
    process: Process,
}

impl EchoProcess {
    /// Starts it and waits until it is ready.
    pub async fn start(value_bytes: usize) -> anyhow::Result<EchoProcess> {
        let endpoint = format!("127.0.0.1:{}", free_ports(1)?[0]);
        let value_bytes = value_bytes.to_string();
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::start(command.args(["--serve-echo", &endpoint, "--value-bytes", &value_bytes]))?;
        let echo = EchoProcess { endpoint, process };
        wait_ready(&echo.endpoint).await?;
        Ok(echo)
    }

    /// User and system time since it started.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.process.cpu()
    }
}

/// Serves echoes at `address`, for ever.
pub async fn serve(address: &str, value_bytes: usize) -> anyhow::Result<()> {
    let listener = net::listen(address).await.with_context(|| format!("--serve-echo {address}"))?;
    let kv = EchoKv { value: Bytes::from(vec![b'v'; value_bytes]) };
    let cluster = EchoCluster { address: address.to_owned() };
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(KvServer::new(kv).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ClusterServer::new(cluster))
        .serve_with_incoming(connections(listener))
        .await?;
    Ok(())
}

/// Holds every key, with the same value.
struct EchoKv {
    value: Bytes,
}

#[tonic::async_trait]
impl Kv for EchoKv {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let pair = v1::KeyValue {
            key: request.into_inner().key,
            value: self.value.clone(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease: 0,
        };
        Ok(Response::new(v1::GetResponse {
            header: Some(v1::ResponseHeader {
                cluster_id: Bytes::from_static(CLUSTER_ID),
                node_id: NODE_ID,
                revision: 1,
                map_version: MAP_VERSION,
            }),
            values: vec![pair],
            context: Bytes::from_static(CONTEXT),
            consistency: Some(v1::EffectiveConsistency { level: Some(Level::Linearizable(v1::Linearizable {})) }),
        }))
    }

    async fn put(&self, _: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        Err(only_gets())
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(only_gets())
    }

    type ScanStream = Streaming<v1::ScanResponse>;

    async fn scan(&self, _: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        Err(only_gets())
    }

    async fn txn(&self, _: Request<v1::TxnRequest>) -> Result<Response<v1::TxnResponse>, Status> {
        Err(only_gets())
    }

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        Err(only_gets())
    }

    async fn close_session(
        &self,
        _: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        Err(only_gets())
    }

    async fn compact(&self, _: Request<v1::CompactRequest>) -> Result<Response<v1::CompactResponse>, Status> {
        Err(only_gets())
    }
}

/// What a client must hear in order to send its gets here.
struct EchoCluster {
    address: String,
}

#[tonic::async_trait]
impl Cluster for EchoCluster {
    async fn map(&self, _: Request<v1::MapRequest>) -> Result<Response<v1::MapResponse>, Status> {
        let node = v1::Node {
            id: NODE_ID,
            name: "echo".into(),
            client_address: self.address.clone(),
            weight: 1,
            ..v1::Node::default()
        };
        let keyspace = v1::Keyspace {
            id: KEYSPACE_ID,
            name: "default".into(),
            mode: v1::Mode::Leader.into(),
            partitions: 1,
            replication_factor: 1,
        };
        let replica = v1::Replica { id: REPLICA_ID, node_id: NODE_ID, live: true };
        let row = v1::PlacementRow { keyspace_id: KEYSPACE_ID, partition: 0, epoch: 1, replicas: vec![replica] };
        Ok(Response::new(v1::MapResponse {
            cluster_id: Bytes::from_static(CLUSTER_ID),
            version: MAP_VERSION,
            nodes: vec![node],
            keyspaces: vec![keyspace],
            rows: vec![row],
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let replica = v1::ReplicaStatus {
            keyspace_id: KEYSPACE_ID,
            partition: 0,
            replica_id: REPLICA_ID,
            leader_replica_id: REPLICA_ID,
            leader_node_id: NODE_ID,
            term: 1,
            ..v1::ReplicaStatus::default()
        };
        Ok(Response::new(v1::StatusResponse {
            cluster_id: Bytes::from_static(CLUSTER_ID),
            node_id: NODE_ID,
            name: "echo".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            map_version: MAP_VERSION,
            start_count: 1,
            ready: true,
            replicas: vec![replica],
            ..v1::StatusResponse::default()
        }))
    }

    async fn digest(&self, _: Request<v1::DigestRequest>) -> Result<Response<v1::DigestResponse>, Status> {
        Err(only_gets())
    }
}

fn only_gets() -> Status {
    Status::unimplemented("an echo server answers gets only")
}

/// The connections of `listener`, as they come.
fn connections(listener: net::Listener) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, |mut listener| async move {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _)| Connection(stream)), listener))
    })
}

/// One accepted connection.
struct Connection(net::Stream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
