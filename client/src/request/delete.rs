//! Removing one key, perhaps on a condition, or a range of keys, without one.

use std::time::Duration;

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_proto::v1;

use super::sent_by_await;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::pair::{Context, Header, KeyValue};
use crate::range::KeyRange;
use crate::session::{self, Session};

/// Removes one key when awaited; see [`Client::delete`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Delete(Removal);

/// Removes a range of keys when awaited; see [`Client::delete_range`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct DeleteRange(Removal);

/// What became of a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteReply {
    pub header: Header,
    /// False: the condition did not hold, nothing was removed.
    pub carried_out: bool,
    /// How many keys were removed.
    pub deleted: u64,
    /// The pairs as they were before, when asked for.
    pub previous: Vec<KeyValue>,
    pub context: Context,
}

impl Delete {
    pub(crate) fn new(client: Client, session: Option<Session>, key: Bytes) -> Delete {
        Delete(Removal::new(client, session, KeyRange::Key(key)))
    }

    /// Only when the key does not exist, which makes it a test. The last condition set counts.
    pub fn if_absent(mut self) -> Delete {
        self.0.request.condition = Some(convert::absent());
        self
    }

    /// Only when the key's newest put is the one at `revision`. The last condition set counts.
    pub fn if_revision(mut self, revision: Revision) -> Delete {
        self.0.request.condition = Some(convert::unchanged_since(revision));
        self
    }

    /// Answers with the pair as it was before.
    pub fn previous(mut self) -> Delete {
        self.0.request.previous = true;
        self
    }

    /// What the writer had seen. Mode leader does not need it.
    pub fn context(mut self, context: &Context) -> Delete {
        self.0.request.context = context.0.clone();
        self
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> Delete {
        self.0.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// See [`Error::outcome`]: nothing was removed, unless the outcome is `Unknown`. That the key does not exist, or
    /// that a condition does not hold, is no error.
    pub async fn send(self) -> Result<DeleteReply, Error> {
        self.0.send().await
    }
}

sent_by_await!(Delete => DeleteReply);

impl DeleteRange {
    pub(crate) fn new(client: Client, session: Option<Session>, range: KeyRange) -> DeleteRange {
        DeleteRange(Removal::new(client, session, range))
    }

    /// Answers with the pairs as they were before.
    pub fn previous(mut self) -> DeleteRange {
        self.0.request.previous = true;
        self
    }

    /// What the writer had seen. Mode leader does not need it.
    pub fn context(mut self, context: &Context) -> DeleteRange {
        self.0.request.context = context.0.clone();
        self
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> DeleteRange {
        self.0.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// See [`Error::outcome`]: nothing was removed, unless the outcome is `Unknown`; then all or nothing was.
    pub async fn send(self) -> Result<DeleteReply, Error> {
        self.0.send().await
    }
}

sent_by_await!(DeleteRange => DeleteReply);

#[derive(Clone, Debug)]
struct Removal {
    client: Client,
    session: Option<Session>,
    request: v1::DeleteRequest,
    timeout: Duration,
}

impl Removal {
    fn new(client: Client, session: Option<Session>, range: KeyRange) -> Removal {
        let request = v1::DeleteRequest { range: Some(range.into()), ..v1::DeleteRequest::default() };
        Removal { timeout: client.timeout, client, session, request }
    }

    async fn send(self) -> Result<DeleteReply, Error> {
        let request = self.request;
        let prepare = move |header| v1::DeleteRequest { header: Some(header), ..request };
        let reply = session::write(&self.client, self.session.as_ref(), self.timeout, prepare).await?;
        Ok(DeleteReply {
            header: convert::header(reply.header),
            carried_out: reply.carried_out,
            deleted: reply.deleted,
            previous: convert::pairs(reply.previous),
            context: Context(reply.context),
        })
    }
}
