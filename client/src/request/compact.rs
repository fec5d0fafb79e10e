//! Forgetting history.

use std::time::Duration;

use trefoil_causality::Revision;
use trefoil_proto::v1;

use super::sent_by_await;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::pair::Header;

/// Forgets history when awaited; see [`Client::compact`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Compact {
    client: Client,
    revision: Revision,
    timeout: Duration,
}

/// History was forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactReply {
    pub header: Header,
}

impl Compact {
    pub(crate) fn new(client: Client, revision: Revision) -> Compact {
        Compact { timeout: client.timeout, client, revision }
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> Compact {
        self.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// `Refused` as `Compacted` when that history was forgotten before, and as `FutureRevision`. After `Unknown` it
    /// may have been forgotten, or may still be.
    pub async fn send(self) -> Result<CompactReply, Error> {
        let request = v1::CompactRequest { header: Some(self.client.header()), revision: self.revision.0 };
        let reply = self.client.shared.call(&request, &self.client.how_to_write(self.timeout)).await?;
        Ok(CompactReply { header: convert::header(reply.header) })
    }
}

sent_by_await!(Compact => CompactReply);
