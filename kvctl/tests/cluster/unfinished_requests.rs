//! Requests that are begun and never ended: each is answered before long, and its place is free again. A stream of messages
//! stays open.
//!
//! The server's patience is 30 s, which the test waits for.

use std::time::Duration;

use tonic::Code;
use trefoil_world::clock;

use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::frames::{self, End, REFUSED_STREAM, RawConnection, Window, stream_id};
use crate::scenario::{Scenario, beside_others};

const LATE: Case = Case::new("not all of a request came", "DEADLINE", "not all of the request came within 30s");
pub const PROVOKED: [Case; 1] = [LATE];

const GET: &str = "trefoil.v1.Kv/Get";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const KEY: &[u8] = b"k";
/// Requests that are begun, and a stream: together as many as the connection may have.
const BEGUN: u32 = 6;
const STREAM: u32 = BEGUN;
const STREAMS_MAX: &str = "7";
const PATIENCE: Duration = Duration::from_secs(20);
const GIVEN_UP_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_ended_is_answered_and_keeps_no_place() {
    Scenario::begin("unfinished_requests::what_is_never_ended_is_answered_and_keeps_no_place");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open(PROVOKED);
    let cluster = Cluster::form(1, &["--streams-max", STREAMS_MAX]).await;
    let mut connection = RawConnection::open(&cluster.nodes[0].client, Window::GivenBack).await;
    connection.send(&begun()).await;
    connection.send(&frames::head(stream_id(STREAM), REFLECTION)).await;
    let refused = get(&mut connection, STREAM + 1).await;
    assert!(matches!(refused, End::Reset(REFUSED_STREAM)), "expected no place for another request, got {refused:?}");

    for end in connection.ends_of((0..BEGUN).map(stream_id), GIVEN_UP_MAX).await {
        match end {
            End::Status(status) => ledger.check(LATE, &status),
            End::Reset(code) => panic!("expected an answer to a request that was begun, got a reset: {code}"),
        }
    }
    get_in_the_end(&mut connection, STREAM + 2).await;
    let open = connection.answer(stream_id(STREAM)).is_none_or(|answer| answer.end.is_none());
    assert!(open, "expected a stream to stay open, got {:?}", connection.answer(stream_id(STREAM)));
    connection.send(&frames::rest(stream_id(STREAM), &[])).await;
    let end = connection.end_of(stream_id(STREAM), PATIENCE).await;
    assert!(is_done(&end), "expected a stream to end as its client ends it, got {end:?}");
    println!("{BEGUN} requests that were never ended were answered, and a stream stayed open");
    ledger.close();
}

/// Heads of requests, with nothing, with a part of the message, and with all of it behind them; none has an end.
fn begun() -> Vec<u8> {
    let message = frames::enveloped(&frames::field(2, KEY));
    let begun = |number: u32| {
        let (id, bytes) = (stream_id(number), &message[..message.len() * (number as usize % 3) / 2]);
        [frames::head(id, GET), frames::part(id, bytes)].concat()
    };
    (0..BEGUN).flat_map(begun).collect()
}

async fn get(connection: &mut RawConnection, number: u32) -> End {
    connection.send(&frames::request(stream_id(number), GET, &frames::field(2, KEY))).await;
    connection.end_of(stream_id(number), PATIENCE).await
}

/// Gets until one is done: a place is free a moment after the answer to what had it.
async fn get_in_the_end(connection: &mut RawConnection, first: u32) {
    let (mut next, from) = (first, clock::now());
    loop {
        let end = get(connection, next).await;
        if is_done(&end) {
            return;
        }
        let refused = matches!(end, End::Reset(REFUSED_STREAM)) && from.elapsed() < PATIENCE;
        assert!(refused, "expected a place to be free again in {PATIENCE:?}, got {end:?}");
        next += 1;
    }
}

fn is_done(end: &End) -> bool {
    matches!(end, End::Status(status) if status.code() == Code::Ok)
}
