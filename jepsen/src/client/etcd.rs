//! Asking etcd: a connection to each of some members, and its v3 API over them.
//!
//! A client of one member is bound to it. One of several asks one after the other: after a failure the next one.
//! Requests and replies are made and read in `message.rs`.
//!
//! Invariants:
//!
//! * A request is sent once, and ends within its time.
//! * Answers are not bounded in bytes: a bound here could turn a write that was done into an error.
//!
//! Left out: TLS, passwords.

mod message;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};
use tower::service_fn;
use trefoil_client::{KeyValue, NodeStatus};
use trefoil_proto::etcd::etcdserverpb::kv_client::KvClient;
use trefoil_proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use trefoil_proto::etcd::etcdserverpb::{HashKvRequest, StatusRequest};
use trefoil_world::{clock, net};

use super::{Change, Changed, Reading};
use crate::outcome::{self, Access, Failure};

/// How long a connection may take to be made: less than a call may take, so that a write that had none is known not to
/// be done.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Asks members of an etcd cluster. Clones share their connections, which are made when they are first needed.
#[derive(Clone, Debug)]
pub struct EtcdClient {
    /// At least one.
    members: Arc<[Channel]>,
    /// Whose turn it is, counted on.
    turn: Arc<AtomicUsize>,
}

impl EtcdClient {
    /// One for the members at these endpoints (`host:port`). Call it inside a runtime.
    ///
    /// # Errors
    /// There is none, or what is given is no endpoint.
    pub fn of(endpoints: &[String]) -> anyhow::Result<EtcdClient> {
        ensure!(!endpoints.is_empty(), "no endpoint given");
        let members =
            endpoints.iter().map(|endpoint| connection(endpoint)).collect::<anyhow::Result<Vec<Channel>>>()?;
        Ok(EtcdClient { members: members.into(), turn: Arc::default() })
    }

    pub(super) async fn get(&self, key: String, timeout: Duration) -> Result<Reading, Failure> {
        let reply = self.ask(message::range(key), (Access::Read, timeout), |channel, request| async move {
            kv(channel).range(request).await
        });
        Ok(message::got(reply.await?))
    }

    pub(super) async fn get_all(&self, keys: Vec<String>, timeout: Duration) -> Result<Reading, Failure> {
        let reply = self.ask(message::ranges(keys), (Access::Read, timeout), |channel, request| async move {
            kv(channel).txn(request).await
        });
        Ok(message::got_all(reply.await?))
    }

    pub(super) async fn all_at(&self, revision: u64, timeout: Duration) -> Result<Vec<KeyValue>, Failure> {
        let reply = self.ask(message::all_at(revision), (Access::Read, timeout), |channel, request| async move {
            kv(channel).range(request).await
        });
        Ok(message::got_pairs(reply.await?))
    }

    pub(super) async fn put(&self, key: String, text: String, timeout: Duration) -> Result<u64, Failure> {
        let reply = self.ask(message::put(key, text), (Access::Write, timeout), |channel, request| async move {
            kv(channel).put(request).await
        });
        Ok(message::revision(reply.await?.header))
    }

    pub(super) async fn change(&self, change: Change, timeout: Duration) -> Result<Changed, Failure> {
        let reply = self.ask(message::txn(change), (Access::Write, timeout), |channel, request| async move {
            kv(channel).txn(request).await
        });
        let reply = reply.await?;
        Ok(Changed { done: reply.succeeded, revision: message::revision(reply.header) })
    }

    /// How a member says it is, with the sum of what it holds, in the words of Trefoil's status; nothing when it does
    /// not answer both. `member`: by its place among the endpoints.
    pub async fn status(&self, member: usize, timeout: Duration) -> Option<NodeStatus> {
        let mut maintenance = MaintenanceClient::new(self.members.get(member)?.clone());
        let both = async {
            let status = maintenance.status(timed(StatusRequest {}, timeout)).await?.into_inner();
            let sum = maintenance.hash_kv(timed(HashKvRequest::default(), timeout)).await?.into_inner();
            Ok::<_, Status>(message::status(status, sum.hash))
        };
        clock::timeout(timeout, both).await.ok()?.ok()
    }

    /// Sends a request once, to whose turn it is.
    async fn ask<Q, A, F>(
        &self,
        message: Q,
        (access, timeout): (Access, Duration),
        send: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let turn = self.turn.load(Ordering::Relaxed);
        let member = self.members[turn % self.members.len()].clone();
        let failure = match clock::timeout(timeout, send(member, timed(message, timeout))).await {
            Ok(Ok(reply)) => return Ok(reply.into_inner()),
            Ok(Err(status)) => outcome::of_etcd(&status, access),
            Err(_) => outcome::of_silence(access),
        };
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        Err(failure)
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn timed<Q>(message: Q, timeout: Duration) -> Request<Q> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn connection(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.with_context(|| format!("'{address}' is no endpoint"))?.connect_timeout(CONNECT_MAX);
    let address = address.to_owned();
    let connector = service_fn(move |_: Uri| {
        let address = address.clone();
        async move { net::dial(&address).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Certainty;
    use trefoil_world::task;

    const TIMEOUT: Duration = Duration::from_millis(300);

    async fn put(endpoints: &[String]) -> Failure {
        let client = EtcdClient::of(endpoints).expect("endpoints");
        client.put("k".into(), "1".into(), TIMEOUT).await.expect_err("nobody serves there")
    }

    /// An address at which nobody listens any more.
    async fn dead() -> String {
        net::listen("127.0.0.1:0").await.expect("a free port").address().to_string()
    }

    /// One that takes connections and says nothing.
    async fn mute() -> String {
        let mut listener = net::listen("127.0.0.1:0").await.expect("a free port");
        let address = listener.address().to_string();
        task::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(stream);
            }
        });
        address
    }

    #[tokio::test]
    async fn a_write_that_was_never_sent_is_not_done() {
        let failure = put(&[dead().await]).await;
        assert_eq!(failure.certainty, Certainty::NotDone, "{failure}");
    }

    #[tokio::test]
    async fn a_write_without_an_answer_is_open_and_a_read_is_not() {
        let endpoints = [mute().await];
        let failure = put(&endpoints).await;
        assert_eq!(failure.certainty, Certainty::Unknown, "{failure}");
        let client = EtcdClient::of(&endpoints).expect("endpoints");
        let failure = client.get_all(vec!["k".into()], TIMEOUT).await.expect_err("nobody answers");
        assert_eq!(failure.certainty, Certainty::NotDone, "{failure}");
        assert_eq!(client.status(0, TIMEOUT).await, None);
    }

    #[tokio::test]
    async fn behind_one_that_fails_the_next_is_asked() {
        let client = EtcdClient::of(&[dead().await, mute().await]).expect("endpoints");
        let mut seen = Vec::new();
        for _ in 0..3 {
            let failure = client.put("k".into(), "1".into(), TIMEOUT).await.expect_err("nobody serves there");
            seen.push(failure.certainty);
        }
        assert_eq!(seen, [Certainty::NotDone, Certainty::Unknown, Certainty::NotDone]);
    }

    #[tokio::test]
    async fn what_is_no_endpoint_is_an_error() {
        for endpoints in [vec![], vec!["a b".to_owned()]] {
            assert!(EtcdClient::of(&endpoints).is_err(), "{endpoints:?}");
        }
    }
}
