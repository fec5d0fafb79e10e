//! Asking the store under test, whichever it is: what workloads need of it, and no more.
//!
//! A [`Client`] is the seam between workloads and targets: Trefoil is asked through its client library (`trefoil.rs`),
//! etcd through its gRPC API (`etcd.rs`). What is asked and what comes back are words of this file, so that a history
//! does not tell the targets apart. What an error leaves open is told by `outcome.rs`.
//!
//! Invariants:
//!
//! * A request that may have changed anything is not sent again.
//! * A change is done whole, and only if all its guards hold when it is done.
//!
//! Left out: what no workload asks.

mod etcd;
mod trefoil;
pub(crate) mod untold;

use std::time::Duration;

use trefoil_client::KeyValue;

pub use etcd::EtcdClient;
pub use trefoil::TrefoilClient;

use crate::outcome::{Certainty, Failure};

/// Asks a store. Clones share their connections.
#[derive(Clone, Debug)]
pub enum Client {
    Trefoil(TrefoilClient),
    Etcd(EtcdClient),
}

impl From<trefoil_client::Client> for Client {
    fn from(client: trefoil_client::Client) -> Client {
        Client::Trefoil(client.into())
    }
}

impl From<EtcdClient> for Client {
    fn from(client: EtcdClient) -> Client {
        Client::Etcd(client)
    }
}

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What is not UTF-8 is shown as characters that nobody writes.
    pub text: String,
    /// Of its newest put.
    pub revision: u64,
    /// Puts since it was created, from 1.
    pub version: u64,
}

/// Keys as they stood together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// In the order in which they were asked for; absent where the key was not there.
    pub pairs: Vec<Option<Pair>>,
    /// The store's revision then.
    pub at: u64,
}

/// What must hold of a key for a change to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub key: String,
    pub holds: Holds,
}

/// A property of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It is not there.
    Absent,
    /// Its newest put was at this revision.
    Revision(u64),
    /// This stands there.
    Text(String),
}

/// Puts that are done together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// Keys, each once, with what is put there.
    pub puts: Vec<(String, String)>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whether the guards held, and it was done.
    pub done: bool,
    /// Its revision, or that of the store when it was not done.
    pub revision: u64,
}

impl Client {
    /// Reads one key, linearizably. One pair comes back, or none.
    ///
    /// # Errors
    /// Nothing was read.
    pub async fn get(&self, key: String, timeout: Duration) -> Result<Reading, Failure> {
        match self {
            Client::Trefoil(client) => client.get(key, timeout).await,
            Client::Etcd(client) => client.get(key, timeout).await,
        }
    }

    /// Reads one key of any replica that is as far as all that this client was shown: what it has read, and what it has
    /// written. One pair comes back, or none.
    ///
    /// # Errors
    /// Nothing was read; of etcd never: its reads of one member know nothing of what was shown.
    pub async fn get_stale(&self, key: String, timeout: Duration) -> Result<Reading, Failure> {
        match self {
            Client::Trefoil(client) => client.get_stale(key, timeout).await,
            Client::Etcd(_) => {
                let why = "etcd has no stale read under a context".to_owned();
                Err(Failure { certainty: Certainty::NotDone, why })
            }
        }
    }

    /// Reads keys at one revision, linearizably.
    ///
    /// # Errors
    /// Nothing was read.
    pub async fn get_all(&self, keys: Vec<String>, timeout: Duration) -> Result<Reading, Failure> {
        match self {
            Client::Trefoil(client) => client.get_all(keys, timeout).await,
            Client::Etcd(client) => client.get_all(keys, timeout).await,
        }
    }

    /// All keys as they stood at a revision, in their order, as they stand in the replica of the node that is asked:
    /// nobody else is asked whether it is right. `timeout`: for each piece of the answer.
    ///
    /// # Errors
    /// Not all was read. Nothing was when the node has no replica, or one that has not come to this revision.
    pub async fn all_at(&self, revision: u64, timeout: Duration) -> Result<Vec<KeyValue>, Failure> {
        match self {
            Client::Trefoil(client) => client.all_at(revision, timeout).await,
            Client::Etcd(client) => client.all_at(revision, timeout).await,
        }
    }

    /// Puts `text` at a key, and gives the revision of that.
    ///
    /// # Errors
    /// See [`Failure::certainty`].
    pub async fn put(&self, key: String, text: String, timeout: Duration) -> Result<u64, Failure> {
        match self {
            Client::Trefoil(client) => client.put(key, text, timeout).await,
            Client::Etcd(client) => client.put(key, text, timeout).await,
        }
    }

    /// Does a change if its guards hold.
    ///
    /// # Errors
    /// See [`Failure::certainty`]. That a guard does not hold is no error.
    pub async fn change(&self, change: Change, timeout: Duration) -> Result<Changed, Failure> {
        match self {
            Client::Trefoil(client) => client.change(change, timeout).await,
            Client::Etcd(client) => client.change(change, timeout).await,
        }
    }
}
