//! Line 10: bad input. Random bytes at both ports and in the fields of messages kill nothing, and every documented
//! error comes with its code and its words.

mod chance;
mod commands;
mod errors;
mod messages;
mod peer_messages;
mod typed;

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trefoil_world::{clock, net};

use crate::cluster::Cluster;
use crate::scenario::{Dice, Scenario, beside_others};

/// Connections with random bytes at a time.
const AT_ONCE: usize = 16;
/// How long an answer to nonsense is listened to.
const LISTENED: Duration = Duration::from_millis(50);
/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Stands for a connection that does not come about.
const NO_CONNECTION: &str = "expected a connection to a node that runs";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_kill_nothing() {
    let scenario = Scenario::begin("cluster_10::random_bytes_kill_nothing");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let seeds = scenario.pick(1000_u64, 50);
    let mut dice = scenario.dice();
    let mut attacks = Vec::new();
    for number in 0..seeds {
        let node = &cluster.nodes[(number % 3) as usize];
        attacks.push((node.client.clone(), nonsense(&mut dice)));
        attacks.push((node.peer.clone(), nonsense(&mut dice)));
    }
    let attacks = attacks.into_iter().map(|(address, bytes)| async move { send(&address, &bytes).await });
    let answered: Vec<bool> = futures::stream::iter(attacks).buffer_unordered(AT_ONCE).collect().await;
    let answered = answered.into_iter().filter(|answered| *answered).count();
    expect_alive(&mut cluster).await;
    println!("{seeds} seeds of random bytes at both ports: {answered} were answered, nobody died");
}

/// Random bytes: alone, behind an HTTP/2 preface, or as HTTP/2 frames with random bodies.
fn nonsense(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    let form = dice.below(3);
    if form > 0 {
        bytes.extend_from_slice(PREFACE);
        bytes.extend_from_slice(SETTINGS);
    }
    if form == 2 {
        for _ in 0..dice.below(8) {
            let body = dice.bytes(300);
            bytes.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
            bytes.extend_from_slice(&[dice.below(11) as u8, dice.roll() as u8, 0, 0, 0, dice.below(8) as u8]);
            bytes.extend_from_slice(&body);
        }
    } else {
        bytes.extend_from_slice(&dice.bytes(4096));
    }
    bytes
}

/// Sends bytes on a connection of their own. Whether anything came back.
async fn send(address: &str, bytes: &[u8]) -> bool {
    let mut stream = net::dial(address).await.unwrap_or_else(|error| panic!("{NO_CONNECTION}, {address}: {error}"));
    // The other side may hang up in the middle of it, which is its good right.
    if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    let mut answer = [0; 256];
    let read = clock::timeout(LISTENED, stream.read(&mut answer)).await;
    matches!(read, Ok(Ok(count)) if count > 0)
}

/// All processes are up, none has panicked anywhere, and a put and a get work.
async fn expect_alive(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        let process = node.running();
        let (exited, log, end) = (process.exited(), process.log(), process.log_end());
        assert_eq!(exited, None, "expected {} to be alive; its log ends:\n{end}", node.name);
        let panicked: Vec<&str> = log.lines().filter(|line| line.contains("panicked at")).collect();
        assert!(panicked.is_empty(), "expected {} not to panic in any task: {panicked:?}", node.name);
    }
    let client = cluster.client().await;
    client.put("alive", "yes").await.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    let found = client.get("alive").await.unwrap_or_else(|error| panic!("expected a get to work: {error}"));
    assert_eq!(found.value().map(|value| &value[..]), Some(&b"yes"[..]), "expected to read what was put");
}
