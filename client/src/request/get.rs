//! Reading one key.

use std::time::Duration;

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_proto::v1;

use super::sent_by_await;
use crate::call::How;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::pair::{Consistency, Context, EffectiveConsistency, Header, KeyValue};
use crate::routes::Aim;

/// Reads one key when awaited; see [`Client::get`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Get {
    client: Client,
    request: v1::GetRequest,
    consistency: Consistency,
    timeout: Duration,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetReply {
    pub header: Header,
    /// Empty: no such key. More than one: siblings, in modes that have them.
    pub values: Vec<KeyValue>,
    pub context: Context,
    pub consistency: EffectiveConsistency,
}

impl GetReply {
    /// The pair, in modes where a key has one value.
    pub fn pair(&self) -> Option<&KeyValue> {
        self.values.first()
    }

    /// Its value.
    pub fn value(&self) -> Option<&Bytes> {
        self.pair().map(|pair| &pair.value)
    }
}

impl Get {
    pub(crate) fn new(client: Client, key: Bytes) -> Get {
        let request = v1::GetRequest { header: Some(client.header()), key, ..v1::GetRequest::default() };
        Get { timeout: client.timeout, client, request, consistency: Consistency::default() }
    }

    /// The state at this revision instead of now.
    pub fn revision(mut self, revision: Revision) -> Get {
        self.request.revision = revision.0;
        self
    }

    /// How fresh it must be; linearizable unless set.
    pub fn consistency(mut self, consistency: Consistency) -> Get {
        self.consistency = consistency;
        self
    }

    /// A stale read then has at least what the context had seen.
    pub fn context(mut self, context: &Context) -> Get {
        self.request.context = context.0.clone();
        self
    }

    /// Leaves out the value.
    pub fn keys_only(mut self) -> Get {
        self.request.keys_only = true;
        self
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> Get {
        self.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// Nothing was read; a read changes nothing. `Refused` for `Compacted` and `FutureRevision`, among others.
    pub async fn send(mut self) -> Result<GetReply, Error> {
        self.request.consistency = Some(self.consistency.into());
        let how = read(&self.client, self.consistency, self.timeout);
        let reply = self.client.shared.call(&self.request, &how).await?;
        Ok(GetReply {
            header: convert::header(reply.header),
            values: convert::pairs(reply.values),
            context: Context(reply.context),
            consistency: convert::effective(reply.consistency),
        })
    }
}

sent_by_await!(Get => GetReply);

/// Who is asked for a read of this consistency.
pub(super) fn read(client: &Client, consistency: Consistency, timeout: Duration) -> How {
    let how = client.how_to_read(timeout);
    match consistency {
        Consistency::Linearizable => how,
        Consistency::Stale => How { aim: client.aim(Aim::Replica(client.partition())), ..how },
    }
}
