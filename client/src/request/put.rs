//! Writing one key.

use std::time::Duration;

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_proto::v1;

use super::sent_by_await;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::pair::{Context, Header, KeyValue};
use crate::session::{self, Session};

/// Writes one key when awaited; see [`Client::put`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Put {
    client: Client,
    session: Option<Session>,
    request: v1::PutRequest,
    timeout: Duration,
}

/// What became of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReply {
    pub header: Header,
    /// False: the condition did not hold, nothing was written.
    pub written: bool,
    /// The pair as it was before, when asked for.
    pub previous: Option<KeyValue>,
    pub context: Context,
}

impl Put {
    pub(crate) fn new(client: Client, session: Option<Session>, key: Bytes, value: Bytes) -> Put {
        let request = v1::PutRequest { key, value, ..v1::PutRequest::default() };
        Put { timeout: client.timeout, client, session, request }
    }

    /// Only when the key does not exist. The last condition set counts.
    pub fn if_absent(mut self) -> Put {
        self.request.condition = Some(convert::absent());
        self
    }

    /// Only when the key's newest put is the one at `revision`. The last condition set counts.
    pub fn if_revision(mut self, revision: Revision) -> Put {
        self.request.condition = Some(convert::unchanged_since(revision));
        self
    }

    /// Answers with the pair as it was before.
    pub fn previous(mut self) -> Put {
        self.request.previous = true;
        self
    }

    /// Attaches the key to a lease.
    pub fn lease(mut self, lease: u64) -> Put {
        self.request.lease = lease;
        self
    }

    /// What the writer had seen. Mode leader does not need it.
    pub fn context(mut self, context: &Context) -> Put {
        self.request.context = context.0.clone();
        self
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> Put {
        self.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// See [`Error::outcome`]: nothing was written, unless the outcome is `Unknown`. That a condition does not hold
    /// is no error.
    pub async fn send(self) -> Result<PutReply, Error> {
        let request = self.request;
        let prepare = move |header| v1::PutRequest { header: Some(header), ..request };
        let reply = session::write(&self.client, self.session.as_ref(), self.timeout, prepare).await?;
        Ok(PutReply {
            header: convert::header(reply.header),
            written: reply.written,
            previous: reply.previous.map(KeyValue::from),
            context: Context(reply.context),
        })
    }
}

sent_by_await!(Put => PutReply);
