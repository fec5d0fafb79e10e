//! Clients of a life: they write and read for as long as it lasts, and note what they were told.
//!
//! Invariant: a read is held against what was acknowledged before it began, and against nothing later.

use std::time::Duration;

use trefoil_client::Client;
use trefoil_world::clock;

use super::dice::Dice;
use super::ledger::Shared;
use super::{NODES, READY_PATIENCE};

pub(super) const WRITERS: usize = 4;

pub(super) async fn connect() -> Client {
    let endpoints = (0..NODES).map(|place| format!("127.0.0.1:{}", 1001 + place));
    let until = clock::now() + READY_PATIENCE;
    loop {
        let built = Client::builder(endpoints.clone()).timeout(Duration::from_secs(4)).connect().await;
        match built {
            Ok(client) => return client,
            Err(error) => assert!(clock::now() < until, "the cluster does not answer in {READY_PATIENCE:?}: {error}"),
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn write_for_ever(client: Client, ledger: Shared, writer: usize, mut next: u64, mut dice: Dice) {
    loop {
        let key = format!("k{writer}/{}", dice.below(3));
        let put = client.put(key.clone(), next.to_string()).await;
        ledger.borrow_mut().note_put(key, next, put);
        next += 1;
        clock::sleep(Duration::from_millis(dice.below(20))).await;
    }
}

pub(super) async fn read_for_ever(client: Client, ledger: Shared, mut dice: Dice) {
    loop {
        let key = format!("k{}/{}", dice.below(WRITERS as u64), dice.below(3));
        read(&client, &ledger, &key).await;
        clock::sleep(Duration::from_millis(dice.below(20))).await;
    }
}

/// A read may begin only with what was promised before it.
async fn read(client: &Client, ledger: &Shared, key: &str) -> bool {
    let promised = ledger.borrow().acknowledged.get(key).copied().unwrap_or(0);
    let Ok(reply) = client.get(key.to_owned()).await else { return false };
    let mut book = ledger.borrow_mut();
    let value: u64 = reply.value().map_or(0, |value| String::from_utf8_lossy(value).parse().expect("a number"));
    let revision = reply.pair().map_or(0, |pair| pair.mod_revision.0);
    // What was acknowledged while the read ran may or may not be in it.
    let newest = book.acknowledged.insert(key.to_owned(), promised);
    book.saw(key, value, revision);
    if let Some(newest) = newest {
        book.acknowledged.insert(key.to_owned(), newest.max(promised));
    } else {
        book.acknowledged.remove(key);
    }
    true
}

pub(super) async fn read_all(client: &Client, ledger: &Shared) {
    let keys: Vec<String> = ledger.borrow().acknowledged.keys().cloned().collect();
    let until = clock::now() + READY_PATIENCE;
    for key in keys {
        while !read(client, ledger, &key).await {
            assert!(clock::now() < until, "{key} cannot be read in {READY_PATIENCE:?}");
            clock::sleep(Duration::from_millis(50)).await;
        }
    }
}
