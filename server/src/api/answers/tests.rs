//! Who gets room, who waits for it, and when it is free again.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use http_body::Body as _;
use tonic::body::Body;
use trefoil_proto::v1;
use trefoil_store::mvcc;

use super::*;

/// Bytes of the largest answer there is, where no pair has more than 1000.
const MOST: usize = mvcc::ANSWER_BYTES_MAX + 1000;

/// Bytes that are free on the node for all answers, and of the reader's share.
fn free(room: &AnswerRoom, reader: &Reader) -> (usize, usize) {
    (room.parts.any.available_permits() * UNIT, reader.share.any.available_permits() * UNIT)
}

/// The same of the gets' part.
fn free_for_gets(room: &AnswerRoom, reader: &Reader) -> (usize, usize) {
    (room.parts.gets.available_permits() * UNIT, reader.share.gets.available_permits() * UNIT)
}

fn message(bytes: usize) -> v1::GetResponse {
    v1::GetResponse { context: vec![0; bytes].into(), ..v1::GetResponse::default() }
}

#[tokio::test(start_paused = true)]
async fn a_share_and_the_room_are_waited_for_until_the_deadline() {
    let (node, deadline) = (AnswerRoom::default(), clock::now() + Duration::from_secs(5));
    let readers: [Arc<Reader>; 3] = Default::default();
    // More than a share counts as one.
    let first = node.reserve(&readers[0], usize::MAX, deadline).await.expect("an empty room");
    let refused = node.reserve(&readers[0], 1, deadline).await.expect_err("the share is taken");
    assert_eq!((refused, clock::now() >= deadline), (share_exhausted(), true));
    let second = node.reserve(&readers[1], SHARE_BYTES_MAX, deadline).await.expect("the other half");
    let refused = node.reserve(&readers[2], 1, deadline).await.expect_err("the room is taken");
    assert_eq!(refused, room_exhausted());
    assert_eq!(free(&node, &readers[2]), (0, SHARE_BYTES_MAX), "what was refused must give its share back");
    drop((first, second));
    assert_eq!(free(&node, &readers[0]), (ROOM_BYTES_MAX, SHARE_BYTES_MAX));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_keeps_no_get_from_being_answered() {
    let (node, reader): (AnswerRoom, Arc<Reader>) = Default::default();
    let deadline = clock::now() + Duration::from_secs(5);
    let most = node.reserve(&reader, SHARE_BYTES_MAX - 9 * UNIT, deadline).await.expect("an empty room");
    let mut waiting = Box::pin(node.reserve(&reader, 10 * UNIT, deadline));
    assert!(futures::poll!(&mut waiting).is_pending(), "expected more than is left to be waited for");
    assert_eq!(free(&node, &reader).1, 0, "expected who waits to have taken what is left");
    drop(node.response_of_get(&reader, message(9 * UNIT)).expect("room of the gets' own"));
    let gets = node.try_reserve(&reader, GETS_SHARE_BYTES_MAX).expect("all room of the gets' own");
    let refused = node.response_of_get(&reader, message(8 * UNIT)).err();
    assert_eq!(refused, Some(share_exhausted()), "expected a get not to take what another one waits for");
    drop(waiting);
    let beyond = node.response_of_get(&reader, message(8 * UNIT)).expect("room that nobody waits for");
    drop((most, gets, beyond));
    assert_eq!(free(&node, &reader), (ROOM_BYTES_MAX, SHARE_BYTES_MAX));
    assert_eq!(free_for_gets(&node, &reader), (GETS_BYTES_MAX, GETS_SHARE_BYTES_MAX));
}

#[tokio::test]
async fn room_shrinks_to_the_answer() {
    let (node, reader): (AnswerRoom, Arc<Reader>) = Default::default();
    for (bytes, needed) in
        [(0, 0), (SMALL_BYTES_MAX, 0), (SMALL_BYTES_MAX + 1, SMALL_BYTES_MAX + UNIT), (MOST, 9 * UNIT)]
    {
        let room = node.reserve(&reader, 9 * UNIT, clock::now()).await.expect("an empty room");
        let untaken = room.shrunk_to(bytes);
        let free = free(&node, &reader);
        assert_eq!(free, (ROOM_BYTES_MAX - needed, SHARE_BYTES_MAX - needed), "an answer of {bytes} bytes");
        assert_eq!(reader.is_awaited(), needed > 0, "an answer of {bytes} bytes");
        drop(untaken);
        assert!(!reader.is_awaited(), "an answer of {bytes} bytes that was taken");
    }
}

#[tokio::test]
async fn bytes_hold_the_room_of_their_message_until_they_are_dropped() {
    let (node, reader): (AnswerRoom, Arc<Reader>) = Default::default();
    let small = node.response_of_get(&reader, message(9)).expect("a small answer");
    assert!(small.extensions().is_empty(), "expected a small answer not to be counted");
    // The larger one is encoded off the async threads.
    for bytes in [9 * UNIT, 2 * LARGE_BYTES_MIN] {
        let (_, _, extensions) = node.response_of_get(&reader, message(bytes)).expect("an empty room").into_parts();
        let mut response = http::Response::new(Body::new("the message".to_owned()));
        *response.extensions_mut() = extensions;
        let mut body = hold(response).into_body();
        assert!(reader.is_awaited(), "expected the reader to be awaited before HTTP/2 asks for the bytes");
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("a frame").expect("no error");
        drop(body);
        let (front, back) = {
            let bytes = frame.into_data().expect("data");
            (bytes.slice(..3), bytes.slice(3..))
        };
        assert_eq!((&front[..], &back[..]), (&b"the"[..], &b" message"[..]));
        drop(front);
        assert!(reader.is_awaited() && free_for_gets(&node, &reader).0 < GETS_BYTES_MAX - bytes);
        drop(back);
        assert!(!reader.is_awaited());
        assert_eq!(free_for_gets(&node, &reader), (GETS_BYTES_MAX, GETS_SHARE_BYTES_MAX));
    }
}

#[tokio::test(start_paused = true)]
async fn two_of_the_largest_are_read_at_a_time() {
    let (node, reader): (AnswerRoom, Arc<Reader>) = Default::default();
    let deadline = clock::now() + Duration::from_secs(5);
    let small = node.reserve(&reader, 9 * UNIT, deadline).await.expect("an empty room");
    let largest = node.reserve(&reader, MOST, deadline).await.expect("room for it");
    let read = async |room| node.turn_to_read(room, deadline).await.map(|turn| turn.is_some());
    assert_eq!((read(None).await, read(Some(&small)).await), (Ok(false), Ok(false)));
    let turn = async || node.turn_to_read(Some(&largest), deadline).await.expect("a turn");
    let turns = [turn().await, turn().await];
    assert_eq!(read(Some(&small)).await, Ok(false), "expected what is small not to wait");
    assert_eq!((read(Some(&largest)).await, clock::now() >= deadline), (Err(Error::DeadlinePassed), true));
    drop(turns);
    assert_eq!(read(Some(&largest)).await, Ok(true));
}
