//! Carrying out a transaction.

use std::time::Duration;

use trefoil_proto::v1;

use super::sent_by_await;
use crate::client::Client;
use crate::convert;
use crate::error::Error;
use crate::pair::{Context, EffectiveConsistency, Header};
use crate::session::{self, Session};
use crate::txn::{OpReply, Txn};

/// Carries out a transaction when awaited; see [`Client::txn`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Transact {
    client: Client,
    session: Option<Session>,
    txn: Txn,
    timeout: Duration,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    pub header: Header,
    /// Which branch was carried out.
    pub succeeded: bool,
    /// One per operation of that branch, in order.
    pub replies: Vec<OpReply>,
    pub context: Context,
    /// For a transaction that only reads.
    pub consistency: EffectiveConsistency,
}

impl Transact {
    pub(crate) fn new(client: Client, session: Option<Session>, txn: Txn) -> Transact {
        Transact { timeout: client.timeout, client, session, txn }
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> Transact {
        self.timeout = timeout;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// See [`Error::outcome`]: nothing was done, unless the outcome is `Unknown`; then all of it or nothing was.
    pub async fn send(self) -> Result<TxnReply, Error> {
        let only_reads = self.txn.only_reads();
        let txn = v1::Txn::from(self.txn);
        let prepare =
            move |header| v1::TxnRequest { header: Some(header), txn: Some(txn), ..v1::TxnRequest::default() };
        let reply = if only_reads {
            let how = self.client.how_to_read(self.timeout);
            self.client.shared.call(&prepare(self.client.header()), &how).await?
        } else {
            session::write(&self.client, self.session.as_ref(), self.timeout, prepare).await?
        };
        Ok(TxnReply {
            header: convert::header(reply.header),
            succeeded: reply.succeeded,
            replies: convert::op_replies(reply.replies)?,
            context: Context(reply.context),
            consistency: convert::effective(reply.consistency),
        })
    }
}

sent_by_await!(Transact => TxnReply);
