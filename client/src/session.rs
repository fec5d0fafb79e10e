//! Sessions: numbering writes so that repeating them is safe.
//!
//! The server executes each number of a session once and keeps its reply until it is acknowledged, so a write whose
//! fate is unknown is simply sent again, to whoever leads by then. A number is taken when a write begins and given
//! back when it ends, whatever came of it: a write that was given up is acknowledged like an answered one, and behind
//! a later write that says so the server never executes what may still be under way of it. A large reply may be
//! forgotten before it is acknowledged; the write is then not executed again either, and ends as unknown.
//!
//! Invariants:
//!
//! * A number is used for one request only.
//! * The numbers in use span less than [`SPAN`]; a write that would exceed it waits.
//!
//! Left out: reopening. A session unused for ten minutes ends; its writes then fail with `SessionEnded`, as does one
//! whose reply was forgotten, and the caller decides what that means for them.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use trefoil_proto::v1;
use trefoil_world::clock;

use crate::client::Client;
use crate::error::{Error, Kind, Outcome};
use crate::range::KeyRange;
use crate::request::delete::{Delete, DeleteRange};
use crate::request::put::Put;
use crate::request::txn::Transact;
use crate::rpc::Rpc;
use crate::txn::Txn;

/// The server's window: a number this far above the oldest one in use is not sent.
const SPAN: u64 = 1_000;

/// Opens a session when awaited; see [`Client::open_session`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct OpenSession {
    client: Client,
    timeout: Duration,
}

impl OpenSession {
    pub(crate) fn new(client: Client) -> OpenSession {
        OpenSession { timeout: client.timeout, client }
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> OpenSession {
        self.timeout = timeout;
        self
    }

    /// Opens it. A session that was opened by a lost attempt stays unused and ends by itself, so repeating is safe.
    ///
    /// # Errors
    /// No session; nothing else was changed.
    pub async fn send(self) -> Result<Session, Error> {
        let request = v1::OpenSessionRequest { header: Some(self.client.header()) };
        let how = self.client.how_to_write_safely(self.timeout);
        let reply = self.client.shared.call(&request, &how).await?;
        Ok(Session { client: self.client, numbers: Arc::new(Numbers::new(reply.session)) })
    }
}

impl IntoFuture for OpenSession {
    type Output = Result<Session, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Writes that may be repeated safely, and are, until their deadline. Clones are the same session.
///
/// Reads need none of this: use the client.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    numbers: Arc<Numbers>,
}

impl Session {
    /// The session's id.
    pub fn id(&self) -> u64 {
        self.numbers.session
    }

    /// Writes one key; see [`Client::put`].
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put::new(self.client.clone(), Some(self.clone()), key.into(), value.into())
    }

    /// Removes one key; see [`Client::delete`].
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// let session = client.open_session().await?;
    /// session.put("k", "v").await?;
    /// assert_eq!(session.delete("k").await?.deleted, 1);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn delete(&self, key: impl Into<Bytes>) -> Delete {
        Delete::new(self.client.clone(), Some(self.clone()), key.into())
    }

    /// Removes a range; see [`Client::delete_range`].
    pub fn delete_range(&self, range: KeyRange) -> DeleteRange {
        DeleteRange::new(self.client.clone(), Some(self.clone()), range)
    }

    /// Carries out a transaction; see [`Client::txn`].
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::{Op, Txn};
    ///
    /// let session = client.open_session().await?;
    /// let reply = session.txn(Txn::new().then(Op::put("a", "1")).then(Op::put("b", "2"))).await?;
    /// assert_eq!(reply.replies.len(), 2);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn txn(&self, txn: Txn) -> Transact {
        Transact::new(self.client.clone(), Some(self.clone()), txn)
    }

    /// Ends the session. One that is only dropped ends by itself after ten unused minutes.
    ///
    /// # Errors
    /// It may still be open; no write is affected.
    pub async fn close(self) -> Result<(), Error> {
        let request = v1::CloseSessionRequest { header: Some(self.client.header()), session: self.id() };
        // Ending it twice is the same as ending it once.
        let how = self.client.how_to_write_safely(self.client.timeout);
        self.client.shared.call(&request, &how).await.map(|_| ())
    }

    async fn write<R: Rpc>(
        &self,
        timeout: Duration,
        request: impl FnOnce(v1::RequestHeader) -> R + Send,
    ) -> Result<R::Reply, Error> {
        let deadline = clock::now() + timeout;
        let number = clock::timeout_at(deadline, self.numbers.take()).await.map_err(|_| window_full())?;
        let header = v1::RequestHeader { request_id: Some(number.id()), ..self.client.header() };
        let left = deadline.saturating_duration_since(clock::now());
        let reply = self.client.shared.call(&request(header), &self.client.how_to_write_safely(left)).await;
        drop(number);
        reply
    }
}

fn window_full() -> Error {
    let why = format!("a write {SPAN} numbers before this one is still unanswered");
    Error::new(Kind::Deadline, Outcome::NotDone, why)
}

/// Sends a write, numbered when there is a session.
pub(crate) async fn write<R: Rpc>(
    client: &Client,
    session: Option<&Session>,
    timeout: Duration,
    request: impl FnOnce(v1::RequestHeader) -> R + Send,
) -> Result<R::Reply, Error> {
    match session {
        Some(session) => session.write(timeout, request).await,
        None => client.shared.call(&request(client.header()), &client.how_to_write(timeout)).await,
    }
}

/// A session's numbers.
#[derive(Debug)]
struct Numbers {
    session: u64,
    window: Mutex<Window>,
    /// Signalled when the oldest number in use rises.
    risen: Notify,
}

#[derive(Debug)]
struct Window {
    next: u64,
    in_use: BTreeSet<u64>,
}

impl Window {
    fn oldest(&self) -> u64 {
        self.in_use.first().copied().unwrap_or(self.next)
    }

    /// The next number and what may be acknowledged with it.
    fn take(&mut self) -> Option<(u64, u64)> {
        let sequence = self.next;
        if sequence - self.oldest() >= SPAN {
            return None;
        }
        self.next += 1;
        self.in_use.insert(sequence);
        Some((sequence, self.oldest() - 1))
    }

    /// Whether the oldest number in use rose.
    fn give_back(&mut self, sequence: u64) -> bool {
        let oldest = self.oldest();
        self.in_use.remove(&sequence);
        self.oldest() > oldest
    }
}

impl Numbers {
    fn new(session: u64) -> Numbers {
        Numbers { session, window: Mutex::new(Window { next: 1, in_use: BTreeSet::new() }), risen: Notify::new() }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(self: &Arc<Self>) -> Number {
        loop {
            // Made before looking, so that a rise in between is not missed.
            let risen = self.risen.notified();
            let taken = self.window().take();
            if let Some((sequence, acknowledged)) = taken {
                return Number { numbers: self.clone(), sequence, acknowledged };
            }
            risen.await;
        }
    }
}

/// A number in use; dropping it gives it back.
#[derive(Debug)]
struct Number {
    numbers: Arc<Numbers>,
    sequence: u64,
    acknowledged: u64,
}

impl Number {
    fn id(&self) -> v1::RequestId {
        v1::RequestId { session: self.numbers.session, sequence: self.sequence, acknowledged: self.acknowledged }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if self.numbers.window().give_back(self.sequence) {
            self.numbers.risen.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_are_acknowledged_up_to_the_oldest_in_use() {
        let numbers = Arc::new(Numbers::new(7));
        let first = numbers.take().await;
        let second = numbers.take().await;
        assert_eq!((first.sequence, second.sequence, second.acknowledged), (1, 2, 0));
        drop(second);
        assert_eq!(numbers.take().await.acknowledged, 0);
        drop(first);
        let fourth = numbers.take().await;
        assert_eq!((fourth.sequence, fourth.acknowledged), (4, 3));
    }

    #[tokio::test]
    async fn a_full_window_waits_for_its_oldest() {
        let numbers = Arc::new(Numbers::new(7));
        let oldest = numbers.take().await;
        for _ in 1..SPAN {
            drop(numbers.take().await);
        }
        let moment = Duration::from_millis(20);
        assert!(clock::timeout(moment, numbers.take()).await.is_err());
        drop(oldest);
        let next = clock::timeout(moment, numbers.take()).await.expect("room");
        assert_eq!((next.sequence, next.acknowledged), (SPAN + 1, SPAN));
    }
}
