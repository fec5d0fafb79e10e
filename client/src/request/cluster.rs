//! Questions about the cluster. Those to one node are asked once: a dead node is an answer too.

use std::time::Duration;

use trefoil_causality::Revision;
use trefoil_placement::{NodeId, PartitionId};
use trefoil_proto::v1;

use super::sent_by_await;
use crate::call::How;
use crate::client::Client;
use crate::cluster::{ClusterMap, Digest, NodeStatus};
use crate::error::Error;
use crate::retry::{Access, Repeat};
use crate::routes::Aim;
use crate::shared::answered_by;

/// Fetches the map when awaited; see [`Client::map`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct MapOf {
    client: Client,
    timeout: Duration,
}

impl MapOf {
    pub(crate) fn new(client: Client) -> MapOf {
        MapOf { timeout: client.timeout, client }
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> MapOf {
        self.timeout = timeout;
        self
    }

    /// Asks any node; what it has may be older than what another one has.
    ///
    /// # Errors
    /// No node answered.
    pub async fn send(self) -> Result<ClusterMap, Error> {
        self.client.shared.fetch_map(self.timeout, Repeat::Freely).await
    }
}

sent_by_await!(MapOf => ClusterMap);

/// Asks a node how it is when awaited; see [`Client::status`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct StatusOf {
    client: Client,
    aim: Aim,
    timeout: Duration,
}

impl StatusOf {
    pub(crate) fn new(client: Client, aim: Aim) -> StatusOf {
        StatusOf { timeout: client.timeout, client, aim }
    }

    /// How long it may take.
    pub fn timeout(mut self, timeout: Duration) -> StatusOf {
        self.timeout = timeout;
        self
    }

    /// Asks, once.
    ///
    /// # Errors
    /// `NoSuchNode` when the map does not name it; else it did not answer.
    pub async fn send(self) -> Result<NodeStatus, Error> {
        self.client.shared.fetch_status(self.aim, self.timeout).await
    }
}

sent_by_await!(StatusOf => NodeStatus);

/// Has a replica summed when awaited; see [`Client::digest`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct DigestOf {
    client: Client,
    node: NodeId,
    partition: PartitionId,
    revision: Option<Revision>,
    timeout: Duration,
}

impl DigestOf {
    pub(crate) fn new(client: Client, node: NodeId, partition: PartitionId) -> DigestOf {
        DigestOf { timeout: client.timeout, client, node, partition, revision: None }
    }

    /// The state at this revision, once the replica has it, instead of what it has.
    pub fn revision(mut self, revision: Revision) -> DigestOf {
        self.revision = Some(revision);
        self
    }

    /// How long it may take: the node walks the whole content.
    pub fn timeout(mut self, timeout: Duration) -> DigestOf {
        self.timeout = timeout;
        self
    }

    /// Asks, once.
    ///
    /// # Errors
    /// Nothing is known about the replica's content.
    pub async fn send(self) -> Result<Digest, Error> {
        let request = v1::DigestRequest {
            keyspace_id: self.partition.keyspace.0,
            partition: self.partition.index,
            revision: self.revision.map_or(0, |revision| revision.0),
        };
        let how = How {
            aim: Aim::Node(self.node),
            access: Access::Read,
            repeat: Repeat::Never,
            timeout: self.timeout,
            patience: None,
        };
        let digest = self.client.shared.call(&request, &how).await.map(Digest::from)?;
        answered_by(self.node, digest.node)?;
        Ok(digest)
    }
}

sent_by_await!(DigestOf => Digest);
