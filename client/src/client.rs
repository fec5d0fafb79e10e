//! The client: a handle from which all calls start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trefoil_causality::Revision;
use trefoil_placement::{NodeId, PartitionId};
use trefoil_proto::v1;

use crate::address::Address;
use crate::builder::Builder;
use crate::call::How;
use crate::cluster::ClusterMap;
use crate::error::Error;
use crate::range::KeyRange;
use crate::request::cluster::{DigestOf, MapOf, StatusOf};
use crate::request::compact::Compact;
use crate::request::delete::{Delete, DeleteRange};
use crate::request::get::Get;
use crate::request::put::Put;
use crate::request::scan::Scan;
use crate::request::txn::Transact;
use crate::retry::{Access, Repeat};
use crate::routes::Aim;
use crate::session::OpenSession;
use crate::shared::Shared;
use crate::txn::Txn;

/// How long the first node is given before a request that may be repeated freely goes to another one as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// A handle on the cluster. Clones share connections and knowledge.
///
/// Each call answers a builder of its request, which is sent by `.await` (or `.send().await`).
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    keyspace: Arc<str>,
    pub(crate) timeout: Duration,
    retries: bool,
    routed: bool,
}

impl Client {
    pub(crate) fn new(
        shared: Arc<Shared>,
        keyspace: Arc<str>,
        timeout: Duration,
        (retries, routed): (bool, bool),
    ) -> Client {
        Client { shared, keyspace, timeout, retries, routed }
    }

    /// Options first. An endpoint is `host:port` or `http://host:port`; any nodes of the cluster will do.
    pub fn builder<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Builder {
        Builder::new(endpoints.into_iter().map(Into::into).collect())
    }

    /// A client with the usual options.
    ///
    /// # Errors
    /// See [`Builder::connect`].
    pub async fn connect<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Client, Error> {
        Client::builder(endpoints).connect().await
    }

    /// The same client for another keyspace.
    pub fn in_keyspace(&self, keyspace: impl AsRef<str>) -> Client {
        Client { keyspace: keyspace.as_ref().into(), ..self.clone() }
    }

    /// The keyspace of the keys this client is given.
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// Reads one key.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// let before = client.put("color", "red").await?.header.revision;
    /// client.put("color", "blue").await?;
    /// assert_eq!(client.get("color").await?.pair().unwrap().version, 2);
    /// assert_eq!(&client.get("color").revision(before).await?.value().unwrap()[..], b"red");
    /// assert!(client.get("taste").await?.pair().is_none());
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn get(&self, key: impl Into<Bytes>) -> Get {
        Get::new(self.clone(), key.into())
    }

    /// Writes one key.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// assert!(client.put("lamp", "on").if_absent().await?.written);
    /// assert!(!client.put("lamp", "on").if_absent().await?.written);
    /// let read = client.get("lamp").await?;
    /// let put = client.put("lamp", "off").if_revision(read.pair().unwrap().mod_revision).previous().await?;
    /// assert!(put.written);
    /// assert_eq!(&put.previous.unwrap().value[..], b"on");
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put::new(self.clone(), None, key.into(), value.into())
    }

    /// Removes one key.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// client.put("old", "x").await?;
    /// assert_eq!(client.delete("old").await?.deleted, 1);
    /// assert_eq!(client.delete("old").await?.deleted, 0);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn delete(&self, key: impl Into<Bytes>) -> Delete {
        Delete::new(self.clone(), None, key.into())
    }

    /// Removes all keys of a range, as one change.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::KeyRange;
    ///
    /// client.put("tmp/1", "a").await?;
    /// client.put("tmp/2", "b").await?;
    /// let reply = client.delete_range(KeyRange::prefix("tmp/")).previous().await?;
    /// assert_eq!(reply.deleted, 2);
    /// assert_eq!(&reply.previous[0].value[..], b"a");
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn delete_range(&self, range: KeyRange) -> DeleteRange {
        DeleteRange::new(self.clone(), None, range)
    }

    /// Reads the keys of a range, in order: all at once (`.await`) or as a stream ([`Scan::stream`]).
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::KeyRange;
    ///
    /// for fruit in ["apple", "cherry", "plum"] {
    ///     client.put(fruit, "1").await?;
    /// }
    /// let found = client.scan(KeyRange::between("a", "d")).reverse().limit(1).count().await?;
    /// assert_eq!(&found.pairs[0].key[..], b"cherry");
    /// assert!(found.more);
    /// assert_eq!(found.count, Some(2));
    /// assert_eq!(client.scan(KeyRange::all()).count_only().await?.count, Some(3));
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn scan(&self, range: KeyRange) -> Scan {
        Scan::new(self.clone(), range)
    }

    /// Compares, and carries out one of two lists of operations, as one change.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::{Compare, Op, OpReply, Txn};
    ///
    /// let take = Txn::new().when(Compare::absent("lock")).then(Op::put("lock", "me")).otherwise(Op::get("lock"));
    /// assert!(client.txn(take.clone()).await?.succeeded);
    /// let second = client.txn(take).await?;
    /// assert!(!second.succeeded);
    /// let OpReply::Range { pairs, .. } = &second.replies[0] else { panic!("a get answers pairs") };
    /// assert_eq!(&pairs[0].value[..], b"me");
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn txn(&self, txn: Txn) -> Transact {
        Transact::new(self.clone(), None, txn)
    }

    /// Forgets history below `revision`, the first one that stays readable.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::Kind;
    ///
    /// let old = client.put("k", "1").await?.header.revision;
    /// let new = client.put("k", "2").await?.header.revision;
    /// client.compact(new).await?;
    /// assert_eq!(client.get("k").revision(old).await.unwrap_err().kind(), Kind::Compacted);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn compact(&self, revision: Revision) -> Compact {
        Compact::new(self.clone(), revision)
    }

    /// Opens a session, within which writes may be repeated safely.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// let session = client.open_session().await?;
    /// session.put("counted", "once").await?;
    /// assert_eq!(client.get("counted").await?.pair().unwrap().version, 1);
    /// session.close().await?;
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn open_session(&self) -> OpenSession {
        OpenSession::new(self.clone())
    }

    /// Fetches the map: who is in the cluster and which node holds which partition.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// let map = client.map().await?;
    /// assert!(map.keyspaces.iter().any(|keyspace| keyspace.name == "default"));
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn map(&self) -> MapOf {
        MapOf::new(self.clone())
    }

    /// The map as this client has it, without asking anybody.
    pub fn known_map(&self) -> Arc<ClusterMap> {
        self.shared.map()
    }

    /// Asks a node of the map how it and its replicas are.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// let node = client.known_map().nodes[0].id;
    /// let status = client.status(node).await?;
    /// assert!(status.ready && status.node == node);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn status(&self, node: NodeId) -> StatusOf {
        StatusOf::new(self.clone(), Aim::Node(node))
    }

    /// Asks the node behind an endpoint how it and its replicas are.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint.clone()]).await?;
    /// assert!(client.status_at(&endpoint)?.await?.ready);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// `InvalidEndpoint` when it is none.
    pub fn status_at(&self, endpoint: &str) -> Result<StatusOf, Error> {
        Ok(StatusOf::new(self.clone(), Aim::At(Address::parse(endpoint)?)))
    }

    /// Has a node sum the whole content of its replica of a partition, for comparing replicas.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::PartitionId;
    ///
    /// client.put("a", "1").await?;
    /// let node = client.known_map().nodes[0].id;
    /// assert_eq!(client.digest(node, PartitionId::DEFAULT).await?.keys, 1);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn digest(&self, node: NodeId, partition: PartitionId) -> DigestOf {
        DigestOf::new(self.clone(), node, partition)
    }

    /// What every request begins with. The epoch makes a node that knows only an older placement look for the newest.
    pub(crate) fn header(&self) -> v1::RequestHeader {
        let epoch = self.shared.map().epoch(&self.keyspace).map(|epoch| epoch.0);
        v1::RequestHeader { keyspace: self.keyspace.to_string(), epoch, request_id: None }
    }

    /// The partition of this client's keys.
    pub(crate) fn partition(&self) -> Option<PartitionId> {
        self.shared.map().partition(&self.keyspace)
    }

    /// A read by the leader.
    pub(crate) fn how_to_read(&self, timeout: Duration) -> How {
        self.how(Access::Read, Repeat::Freely, timeout)
    }

    /// A write that must not be done twice.
    pub(crate) fn how_to_write(&self, timeout: Duration) -> How {
        self.how(Access::Write, Repeat::WhenNotDone, timeout)
    }

    /// A write of which repeating does no harm.
    pub(crate) fn how_to_write_safely(&self, timeout: Duration) -> How {
        self.how(Access::Write, Repeat::Freely, timeout)
    }

    fn how(&self, access: Access, repeat: Repeat, timeout: Duration) -> How {
        let repeat = if self.retries { repeat } else { Repeat::Never };
        How { aim: self.aim(Aim::Leader(self.partition())), access, repeat, timeout, patience: Some(PATIENCE) }
    }

    /// Whom a request goes to that is best answered by `best`.
    pub(crate) fn aim(&self, best: Aim) -> Aim {
        if self.routed { best } else { Aim::Given }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Keyspace;
    use trefoil_placement::{Epoch, PlacementRow};

    #[test]
    fn a_request_carries_its_partitions_epoch_once_there_is_a_map() {
        let shared = Arc::new(Shared::new(Vec::new(), 1));
        let client = Client::new(shared.clone(), "default".into(), Duration::from_secs(1), (true, true));
        assert_eq!(client.header().epoch, None);
        let partition = PartitionId::DEFAULT;
        let (id, name) = (partition.keyspace, "default".to_owned());
        let keyspace = Keyspace { id, name, mode: None, partitions: 1, replication_factor: 3 };
        let row = PlacementRow { partition, epoch: Epoch(7), replicas: Vec::new() };
        let map = ClusterMap { version: 1, keyspaces: vec![keyspace], rows: vec![row], ..ClusterMap::default() };
        shared.routes().learn_map(map);
        assert_eq!(client.header().epoch, Some(7));
        assert_eq!(client.in_keyspace("other").header().epoch, None);
    }
}
