//! What the clones of a client share: its knowledge and its connections.
//!
//! The map is fetched again, in the background and by one task at a time, when a reply carries a newer version or an
//! address stays silent. Failing to fetch it is no error: the client goes on with what it has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trefoil_placement::NodeId;
use trefoil_proto::v1;
use trefoil_world::task;

use crate::address::Address;
use crate::call::How;
use crate::cluster::{ClusterMap, NodeStatus};
use crate::error::{Error, Kind, Outcome};
use crate::retry::{Access, Repeat};
use crate::routes::{Aim, Routes};
use crate::wire::Lanes;

/// How long fetching the map in the background may take.
const REFRESH_MAX: Duration = Duration::from_secs(5);
/// How long one node is given to answer what every node can answer from memory.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Shared {
    routes: Mutex<Routes>,
    pub(crate) lanes: Lanes,
    refreshing: AtomicBool,
}

/// Another node may have taken over the address of the one that was asked.
///
/// # Errors
/// It was another one that answered: nothing is known of the one that was asked.
pub(crate) fn answered_by(asked: NodeId, answered: NodeId) -> Result<(), Error> {
    match asked == answered {
        true => Ok(()),
        false => {
            let why = format!("{answered} answers at the address of {asked}");
            Err(Error::new(Kind::Unavailable, Outcome::NotDone, why))
        }
    }
}

impl Shared {
    pub(crate) fn new(given: Vec<Address>, connections: usize) -> Shared {
        Shared {
            routes: Mutex::new(Routes::new(given)),
            lanes: Lanes::new(connections),
            refreshing: AtomicBool::new(false),
        }
    }

    /// Held for a moment only, never while waiting.
    pub(crate) fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The map as we have it.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.routes().map().clone()
    }

    /// Fetches the map from any node.
    pub(crate) async fn fetch_map(self: &Arc<Self>, timeout: Duration, repeat: Repeat) -> Result<ClusterMap, Error> {
        let how = How { aim: Aim::Anybody, access: Access::Read, repeat, timeout, patience: Some(PATIENCE) };
        let map = ClusterMap::from(self.call(&v1::MapRequest {}, &how).await?);
        self.routes().learn_map(map.clone());
        Ok(map)
    }

    /// Asks one node how it is. Not repeated: the question is how it is now.
    pub(crate) async fn fetch_status(self: &Arc<Self>, aim: Aim, timeout: Duration) -> Result<NodeStatus, Error> {
        let how = How { aim, access: Access::Read, repeat: Repeat::Never, timeout, patience: Some(PATIENCE) };
        let (reply, asked) = self.call_and_tell(&v1::StatusRequest {}, &how).await?;
        let status = NodeStatus::from(reply);
        // One that is no member yet does not know its id.
        if let Aim::Node(node) = how.aim
            && status.node != NodeId::default()
        {
            answered_by(node, status.node)?;
        }
        self.routes().learn_status(&asked, &status);
        Ok(status)
    }

    /// Fetches the map beside whatever the caller does.
    pub(crate) fn refresh(self: &Arc<Self>) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.clone();
        task::spawn(async move {
            // The next reply or failure asks again.
            let _ = shared.fetch_map(REFRESH_MAX, Repeat::Freely).await;
            shared.refreshing.store(false, Ordering::Release);
        });
    }

    /// Finds out, beside whatever the caller does, which nodes are behind given endpoints the map does not name.
    pub(crate) fn survey(self: &Arc<Self>) {
        let strangers = self.routes().strangers();
        strangers.into_iter().for_each(|address| self.ask_who_leads(address));
    }

    /// Asks one node for its status beside whatever the caller does: it says who the node is and who leads.
    pub(crate) fn ask_who_leads(self: &Arc<Self>, address: Address) {
        let shared = self.clone();
        task::spawn(async move {
            // No answer teaches nothing; later requests ask again.
            let _ = shared.fetch_status(Aim::At(address), PATIENCE).await;
        });
    }
}
