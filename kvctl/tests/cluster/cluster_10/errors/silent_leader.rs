//! What the others answer while their leader is frozen, when it is killed then, and when too few are left; and what the
//! client library and `kvctl` make of an answer that does not come.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use trefoil_client::{Client, Error, GetReply, Kind, Outcome, PutReply};
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_world::task;

use super::{PATIENCE, answered, expect_error, failed};
use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::process::finish;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, alone};
use crate::wait::until;

const LEADER_LATE: Case = Case::new(
    "or for the leader it was handed to",
    "UNKNOWN_OUTCOME",
    "outcome unknown: the deadline passed before the leader answered",
);
const WRITE_BROKE: Case =
    Case::new("broke after the forward", "UNKNOWN_OUTCOME", "outcome unknown: the leader's connection: …");
const READ_BROKE: Case =
    Case::new("while it was asked for a read index", "UNAVAILABLE", "not available: the leader's connection: …");
const NOT_CONNECTED: Case = Case::new(
    "cannot be reached for a forward",
    "UNAVAILABLE",
    "not available: node 2 cannot be reached: not connected",
);
const NO_LEADER: Case =
    Case::new("no leader is known", "UNAVAILABLE", "not available: the partition has no leader now");
pub const PROVOKED: [Case; 5] = [LEADER_LATE, WRITE_BROKE, READ_BROKE, NOT_CONNECTED, NO_LEADER];

/// Shorter than it takes the others to elect another leader.
const SHORT: &str = "700ms";
const SHORT_MAX: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_falls_silent_and_dies() {
    Scenario::begin("cluster_10::errors::silent_leader::a_leader_that_falls_silent_and_dies");
    // What is asked of the frozen leader must be asked before there is another one.
    let _turn = alone().await;
    let mut ledger = Ledger::open(PROVOKED);
    let mut cluster = Cluster::form(3, &["--request-timeout-ms", "500"]).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let client = client_that_knows_the_leader(&cluster).await;
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[follower].client).await);
    let before = cluster.status(follower).await.expect("the status of a node that runs").forwards;
    cluster.freeze(leader).await;
    let under_way = task::spawn(UnderWay::ask(kv.clone(), client.clone()));
    let (late, (), ()) = tokio::join!(
        kv.put(Request::new(raw::put("k", "late"))),
        expect_late(&client),
        expect_exit_codes(&cluster, leader),
    );
    ledger.check(LEADER_LATE, &failed("a put behind a frozen leader", late));
    until("three requests handed on to the frozen leader", PATIENCE, async || {
        (cluster.status(follower).await?.forwards >= before + 3).then_some(())
    })
    .await;
    cluster.kill(leader).await;
    under_way.await.expect("requests that end").expect_broken(&mut ledger);
    let second = cluster.leader().await;
    // The three are 0, 1 and 2.
    let last = 3 - leader - second;
    cluster.kill(second).await;
    ledger.check(NOT_CONNECTED, &answered(&cluster.nodes[last].client, NOT_CONNECTED).await);
    cluster.kill(last).await;
    cluster.launch(second);
    ledger.check(NO_LEADER, &answered(&cluster.nodes[second].client, NO_LEADER).await);
    ledger.close();
}

/// One that reports each attempt as it ends.
async fn client_that_knows_the_leader(cluster: &Cluster) -> Client {
    let connected = Client::builder(cluster.endpoints()).retries(false).connect().await;
    let client = connected.unwrap_or_else(|error| panic!("expected to connect: {error}"));
    client.put("k", "v").await.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    client
}

/// A deadline that passes behind a request that was sent: a write may have been done, a read was not.
async fn expect_late(client: &Client) {
    let put = client.put("k", "late").timeout(SHORT_MAX).send();
    let get = client.get("k").timeout(SHORT_MAX).send();
    let (put, get) = tokio::join!(put, get);
    expect_error("a put that was not answered", put.map(drop), &[Kind::Deadline], Outcome::Unknown);
    expect_error("a get that was not answered", get.map(drop), &[Kind::Deadline], Outcome::NotDone);
}

async fn expect_exit_codes(cluster: &Cluster, leader: usize) {
    let mut others = cluster.endpoints();
    others.remove(leader);
    let others = others.join(",");
    let kvctl = |args: &[&str]| {
        let mut command = cluster.kvctl(args);
        command.env("KVCTL_ENDPOINTS", &others);
        finish(command, LONG)
    };
    let (put, get) =
        tokio::join!(kvctl(&["put", "k", "late", "--timeout", SHORT]), kvctl(&["get", "k", "--timeout", SHORT]));
    put.expect_code("kvctl put, not answered by the leader", &[5]);
    get.expect_code("kvctl get, not answered by the leader", &[3]);
}

/// Requests that are with the frozen leader: a put and a get handed on to it, and a put and a get sent to it.
struct UnderWay {
    write: Result<Response<v1::PutResponse>, Status>,
    read: Result<Response<v1::GetResponse>, Status>,
    put: Result<PutReply, Error>,
    get: Result<GetReply, Error>,
}

impl UnderWay {
    /// Waits for all answers.
    async fn ask(mut kv: KvClient<Channel>, client: Client) -> UnderWay {
        let mut reader = kv.clone();
        let (write, read, put, get) = tokio::join!(
            kv.put(bounded(raw::put("k", "broken"), LONG)),
            reader.get(bounded(raw::get("k"), LONG)),
            client.put("k", "broken").timeout(LONG).send(),
            client.get("k").timeout(LONG).send(),
        );
        UnderWay { write, read, put, get }
    }

    /// They were lost with the leader.
    fn expect_broken(self, ledger: &mut Ledger) {
        ledger.check(WRITE_BROKE, &failed("a put handed on to a leader that died", self.write));
        ledger.check(READ_BROKE, &failed("a get handed on to a leader that died", self.read));
        expect_error("a put sent to a leader that died", self.put.map(drop), &[Kind::ConnectionLost], Outcome::Unknown);
        expect_error("a get sent to a leader that died", self.get.map(drop), &[Kind::ConnectionLost], Outcome::NotDone);
    }
}
