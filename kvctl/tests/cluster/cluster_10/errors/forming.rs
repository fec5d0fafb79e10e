//! What a node answers before it serves: while it is no member of a cluster yet, and while it has no map yet.

use super::answered;
use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::scenario::{Scenario, beside_others};

const NO_MEMBER: Case =
    Case::new("not a member yet", "UNAVAILABLE", "not available: this node is not a member of a cluster yet");
/// From adopting the founding record until `_meta` has elected its leader and that one has written the map.
const NO_MAP: Case = Case::new("the node has no map yet", "UNAVAILABLE", "not available: the map is not known yet");
pub const PROVOKED: [Case; 2] = [NO_MEMBER, NO_MAP];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_a_node_serves() {
    Scenario::begin("cluster_10::errors::forming::before_a_node_serves");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open(PROVOKED);
    let mut cluster = Cluster::plan(3, &[]).await;
    let address = cluster.nodes[0].client.clone();
    // Alone, it waits for the others for ever.
    cluster.launch(0);
    ledger.check(NO_MEMBER, &answered(&address, NO_MEMBER).await);
    cluster.launch(1);
    cluster.launch(2);
    ledger.check(NO_MAP, &answered(&address, NO_MAP).await);
    ledger.close();
}
