//! Trefoil's client library.
//!
//! A [`Client`] is given a few endpoints, learns the map from them, and sends each request to the node that leads
//! the key's partition, so that a warmed client causes no forwards. It is cheap to clone and meant to be shared.
//!
//! ```
//! # trefoil_client::doctest::run(|endpoint| async move {
//! use trefoil_client::{Client, KeyRange};
//!
//! let client = Client::connect([endpoint]).await?;
//! client.put("greeting", "hello").await?;
//! let reply = client.get("greeting").await?;
//! assert_eq!(reply.value().map(|value| &value[..]), Some(&b"hello"[..]));
//! assert_eq!(client.scan(KeyRange::prefix("greet")).await?.pairs.len(), 1);
//! # Ok::<(), trefoil_client::Error>(())
//! # });
//! ```
//!
//! How it works: a call (`call.rs`) asks `routes.rs` whom to ask, sends one attempt over `wire.rs`, has `status.rs`
//! read the answer, tells `routes.rs` what was learned, and asks `retry.rs` whether to go on.
//!
//! Invariants:
//!
//! * Every call ends by its deadline, with a reply or with an [`Error`] whose [`Outcome`] says what may be assumed.
//! * A write that may have been carried out is never sent again, but within a [`Session`], where that is safe.
//! * `NotDone` is said of a write only when the request never left this process, when the server said so, or when
//!   whoever answered does not have this API.
//! * Proto types do not leave this crate: `convert.rs` is the only place that knows both sides.
//!
//! Left out: TLS, authentication, watches and leases, which come with the server's.

mod address;
mod builder;
mod call;
mod client;
mod cluster;
mod convert;
#[doc(hidden)]
pub mod doctest;
mod error;
mod pair;
mod preface;
mod range;
mod request;
mod retry;
mod routes;
mod rpc;
mod session;
mod shared;
mod status;
mod txn;
mod wire;

pub use builder::Builder;
pub use client::Client;
pub use cluster::{ClusterMap, Digest, Keyspace, Node, NodeStatus, PeerStatus, ReplicaStatus};
pub use error::{Error, Kind, Outcome};
pub use pair::{Consistency, Context, EffectiveConsistency, Header, KeyValue};
pub use range::KeyRange;
pub use request::cluster::{DigestOf, MapOf, StatusOf};
pub use request::compact::{Compact, CompactReply};
pub use request::delete::{Delete, DeleteRange, DeleteReply};
pub use request::get::{Get, GetReply};
pub use request::put::{Put, PutReply};
pub use request::scan::{Scan, ScanReply, ScanStream};
pub use request::txn::{Transact, TxnReply};
pub use session::{OpenSession, Session};
pub use txn::{Compare, DeleteOp, Op, OpReply, PutOp, RangeOp, Relation, Target, Txn};

pub use trefoil_causality::{ReplicaId, Revision};
pub use trefoil_placement::{Epoch, KeyspaceId, Mode, NodeId, PartitionId, Placed, PlacementRow, Stage};
