//! Options of a client, and making one.

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::client::Client;
use crate::error::{Error, Kind, Outcome};
use crate::retry::Repeat;
use crate::routes::Aim;
use crate::shared::Shared;

/// How long a call may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Options of a [`Client`].
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<String>,
    keyspace: String,
    timeout: Duration,
    retries: bool,
    routed: bool,
    connections: usize,
}

impl Builder {
    pub(crate) fn new(endpoints: Vec<String>) -> Builder {
        let keyspace = "default".to_owned();
        Builder { endpoints, keyspace, timeout: TIMEOUT, retries: true, routed: true, connections: 1 }
    }

    /// How long each call may take, all its attempts included; 5 s unless set here or on the call.
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout;
        self
    }

    /// The keyspace of keys; `default` unless set.
    pub fn keyspace(mut self, keyspace: impl Into<String>) -> Builder {
        self.keyspace = keyspace.into();
        self
    }

    /// Whether calls that surely were not done, and reads, are repeated until their deadline; on unless set. With it
    /// off each call is one attempt at one node, whose fate is reported as it is: what chaos testers want.
    pub fn retries(mut self, retries: bool) -> Builder {
        self.retries = retries;
        self
    }

    /// Whether requests go to the node that leads, or that has a replica; on unless set. With it off they go to the given
    /// endpoints and to nobody else, who forward them: for finding out whether a certain node serves.
    pub fn routed(mut self, routed: bool) -> Builder {
        self.routed = routed;
        self
    }

    /// How many connections per node; 1 unless set.
    pub fn connections(mut self, connections: usize) -> Builder {
        self.connections = connections;
        self
    }

    /// Learns the map from any of the endpoints.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// use std::time::Duration;
    /// use trefoil_client::Client;
    ///
    /// let client = Client::builder([endpoint]).timeout(Duration::from_secs(2)).connections(2).connect().await?;
    /// assert_eq!(client.known_map().nodes.len(), 1);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// `InvalidEndpoint` when an endpoint is not `host:port` or there is none; `Unreachable` when none of them
    /// answered within the timeout, or none that has this API: the message names each of them, and why.
    pub async fn connect(self) -> Result<Client, Error> {
        let given = self.endpoints.iter().map(|text| Address::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if given.is_empty() {
            return Err(Error::new(Kind::InvalidEndpoint, Outcome::Refused, "no endpoint given"));
        }
        let shared = Arc::new(Shared::new(given, self.connections));
        shared.fetch_map(self.timeout, Repeat::Freely).await.map_err(|error| nobody_answered(error, self.timeout))?;
        learn_leaders(&shared, self.timeout).await;
        shared.survey();
        Ok(Client::new(shared, self.keyspace.into(), self.timeout, (self.retries, self.routed)))
    }
}

/// Somebody who takes a connection and says nothing has not answered.
fn nobody_answered(error: Error, timeout: Duration) -> Error {
    if error.kind() == Kind::Deadline {
        let message = format!("no endpoint answered within {timeout:?}: {error}");
        return Error::new(Kind::Unreachable, Outcome::NotDone, message);
    }
    error
}

/// So that even the first request goes to the leader. Not knowing one is no error.
async fn learn_leaders(shared: &Arc<Shared>, timeout: Duration) {
    let _ = shared.fetch_status(Aim::Anybody, timeout).await;
}
