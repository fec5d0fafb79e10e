//! Room for large answers: from before a request is carried out until its reader has taken what it was answered.
//!
//! An answer that is not taken waits in HTTP/2's queue, whole. So what may be answered with much reserves [`Room`] for the
//! most it may get, and waits for it until its deadline. Once the answer is known its room shrinks to it, becomes
//! [`Untaken`] and travels with it: with the messages of a body ([`Counted`]) to [`hold`], and there into the bytes
//! ([`Held`]) that HTTP/2 drops when it has written them, or when their stream or connection has ended. A chunk of a scan
//! is such an answer.
//!
//! A get has no room reserved: it takes what it needs for what it has found, or is refused. It has a part of its own, in
//! which nobody waits. In the other one whoever waits has taken all that is free into its hands, and a write holds room for
//! the most it may get for as long as it waits for its quorum: gets would be refused for want of room that nobody uses.
//!
//! A connection has a share of each part, so that one that takes nothing leaves as much to the others. `accept.rs` closes it
//! when its reader has taken nothing for too long, by what the [`Reader`] says: an answer waits for its reader from when it
//! is known, whatever HTTP/2 has asked for of it.
//!
//! A large answer is worked on for milliseconds, and Raft's heartbeats run on the same cores. So transactions that may be
//! answered with much are read a few at a time ([`READ_BYTES_MAX`]), and their answers are encoded off the async threads
//! ([`LargeBody`]).
//!
//! Invariants:
//!
//! * Without room nothing is written, so that what is refused for want of it was not done.
//! * Nothing reserves more than a share: nobody waits for what cannot come.
//! * The share comes first, then the node's room; room never grows. So who waits for room keeps nobody from giving room back.
//! * Nobody waits for the gets' part.
//!
//! Left out: answers of up to 4 KiB, and those of other services, which are small: their requests' places bound their
//! number until they are taken (`requests.rs`). The message, which is there beside its bytes while it is encoded. What peers
//! are answered: they take it. A value that was put when requests could be larger counts as the largest that can be put now.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Response, Status};
use trefoil_store::command::{KeyRange, Op, RangeEnd};
use trefoil_store::mvcc;
use trefoil_world::clock::{self, Instant};
use trefoil_world::task;

use crate::error::Error;

/// Bytes of large answers that may be under way or not yet taken, of all connections together.
pub const ROOM_BYTES_MAX: usize = 384 << 20;
/// The same of one connection.
pub const SHARE_BYTES_MAX: usize = ROOM_BYTES_MAX / 2;
/// Bytes that besides gets alone may be answered with, of all connections together.
pub const GETS_BYTES_MAX: usize = 128 << 20;
/// The same of one connection.
pub const GETS_SHARE_BYTES_MAX: usize = GETS_BYTES_MAX / 2;
/// Bytes of large answers that may be read at a time for transactions; of the largest, two.
pub const READ_BYTES_MAX: usize = 32 << 20;
/// Answers from this on are large to read and to encode.
const LARGE_BYTES_MIN: usize = 1 << 20;
/// Bytes of one permit.
const UNIT: usize = 1024;
/// Answers up to this are not counted.
const SMALL_BYTES_MAX: usize = 4 << 10;

/// The two parts of a node's room, or of a connection's share, in permits of [`UNIT`] bytes.
#[derive(Debug)]
struct Parts {
    /// For all answers; there may be a queue.
    any: Arc<Semaphore>,
    /// For gets only.
    gets: Arc<Semaphore>,
}

impl Parts {
    fn of_bytes(any: usize, gets: usize) -> Parts {
        let semaphore = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Parts { any: semaphore(any), gets: semaphore(gets) }
    }
}

/// The room of a node.
#[derive(Debug)]
pub struct AnswerRoom {
    parts: Parts,
    /// For what is being read, in permits of [`UNIT`] bytes.
    reading: Arc<Semaphore>,
}

impl Default for AnswerRoom {
    fn default() -> AnswerRoom {
        let parts = Parts::of_bytes(ROOM_BYTES_MAX, GETS_BYTES_MAX);
        AnswerRoom { parts, reading: Arc::new(Semaphore::new(READ_BYTES_MAX / UNIT)) }
    }
}

impl AnswerRoom {
    /// Room for an answer of up to `bytes`; waits for it.
    ///
    /// # Errors
    /// `Exhausted` when there was none until the deadline.
    pub async fn reserve(&self, reader: &Arc<Reader>, bytes: usize, deadline: Instant) -> Result<Room, Error> {
        let units = units(bytes, SHARE_BYTES_MAX);
        let share = clock::timeout_at(deadline, reader.share.any.clone().acquire_many_owned(units)).await;
        let share = share.map_err(|_| share_exhausted())?.map_err(|_| share_exhausted())?;
        let node = clock::timeout_at(deadline, self.parts.any.clone().acquire_many_owned(units)).await;
        let node = node.map_err(|_| room_exhausted())?.map_err(|_| room_exhausted())?;
        Ok(Room { share, node, reader: reader.clone() })
    }

    /// The turn to read what has this room, if it may be large; waits for it. To be held until it is read.
    ///
    /// # Errors
    /// `DeadlinePassed` when it did not come until the deadline.
    pub async fn turn_to_read(
        &self,
        room: Option<&Room>,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let bytes = room.map_or(0, Room::bytes);
        if bytes < LARGE_BYTES_MIN {
            return Ok(None);
        }
        let turn = self.reading.clone().acquire_many_owned(units(bytes, READ_BYTES_MAX / 2));
        let turn = clock::timeout_at(deadline, turn).await.map_err(|_| Error::DeadlinePassed)?;
        turn.map(Some).map_err(|_| Error::DeadlinePassed)
    }

    /// The response of a get, which had no room reserved.
    ///
    /// # Errors
    /// `Exhausted` when it needs room and there is none now.
    pub fn response_of_get<T: Message>(&self, reader: &Arc<Reader>, message: T) -> Result<Response<T>, Error> {
        let bytes = message.encoded_len();
        let room = (bytes > SMALL_BYTES_MAX).then(|| self.try_reserve(reader, bytes)).transpose()?;
        Ok(response(message, room))
    }

    /// Room for what a get has found: in the gets' part, or where that is full in the other one, if there is some.
    fn try_reserve(&self, reader: &Arc<Reader>, bytes: usize) -> Result<Room, Error> {
        let units = units(bytes, GETS_SHARE_BYTES_MAX);
        let take = |share: &Arc<Semaphore>, node: &Arc<Semaphore>| -> Result<Room, Error> {
            let share = share.clone().try_acquire_many_owned(units).map_err(|_| share_exhausted())?;
            let node = node.clone().try_acquire_many_owned(units).map_err(|_| room_exhausted())?;
            Ok(Room { share, node, reader: reader.clone() })
        };
        take(&reader.share.gets, &self.parts.gets).or_else(|_| take(&reader.share.any, &self.parts.any))
    }
}

fn room_exhausted() -> Error {
    Error::Exhausted { what: "room for answers".into(), limit: ROOM_BYTES_MAX as u64 }
}

fn share_exhausted() -> Error {
    Error::Exhausted { what: "the connection's room for answers".into(), limit: SHARE_BYTES_MAX as u64 }
}

fn units(bytes: usize, bytes_max: usize) -> u32 {
    bytes.min(bytes_max).div_ceil(UNIT) as u32
}

/// The most bytes that `op` may be answered with, when no pair has more than `pair_max`; 0 when that is little in any
/// case. Of a transaction one branch is carried out.
pub fn answer_bytes_max(op: &Op, pair_max: usize) -> usize {
    pairs_bytes_max(op, pair_max).min(mvcc::ANSWER_BYTES_MAX.saturating_add(pair_max))
}

fn pairs_bytes_max(op: &Op, pair_max: usize) -> usize {
    let branch = |ops: &[Op]| ops.iter().fold(0_usize, |sum, op| sum.saturating_add(pairs_bytes_max(op, pair_max)));
    match op {
        Op::Range(op) if op.count_only => 0,
        Op::Range(op) => pairs_max(&op.range, op.limit).saturating_mul(pair_max),
        Op::Put(op) if op.previous => pair_max,
        Op::Delete(op) if op.previous => pairs_max(&op.range, None).saturating_mul(pair_max),
        Op::Put(_) | Op::Delete(_) => 0,
        Op::Txn(txn) => branch(&txn.success).max(branch(&txn.failure)),
    }
}

fn pairs_max(range: &KeyRange, limit: Option<u64>) -> usize {
    match range.end {
        RangeEnd::Single => 1,
        RangeEnd::Before(_) | RangeEnd::Last => limit.map_or(usize::MAX, |limit| limit as usize),
    }
}

/// Whom the answers of one connection are for.
#[derive(Debug)]
pub struct Reader {
    share: Parts,
    /// What is known and not taken whole: large answers, and bytes in HTTP/2's hands.
    untaken: AtomicUsize,
    /// Places its connection's requests have.
    pub(super) requests: AtomicUsize,
    /// Its connection's requests that were refused for want of a place, until the answer is written.
    pub(super) refused: AtomicUsize,
    /// Whether its connection is to be closed at once.
    over: AtomicBool,
}

impl Default for Reader {
    fn default() -> Reader {
        let share = Parts::of_bytes(SHARE_BYTES_MAX, GETS_SHARE_BYTES_MAX);
        let none = || AtomicUsize::new(0);
        Reader { share, untaken: none(), requests: none(), refused: none(), over: AtomicBool::new(false) }
    }
}

impl Reader {
    /// Whether something waits to be taken whole.
    pub fn is_awaited(&self) -> bool {
        self.untaken.load(Ordering::Relaxed) > 0
    }

    /// Whether its connection is to be closed at once.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Its connection is closed when more would be read from it.
    pub(super) fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Something waits for it from now on, until as much is noted as taken.
    pub(super) fn note_known(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_taken(&self) {
        self.untaken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for an answer that is not known yet; free again when it is dropped.
#[derive(Debug)]
pub struct Room {
    share: OwnedSemaphorePermit,
    node: OwnedSemaphorePermit,
    reader: Arc<Reader>,
}

impl Room {
    fn bytes(&self) -> usize {
        self.node.num_permits() * UNIT
    }

    /// What of it the answer needs, which is known now and has `bytes`.
    pub fn shrunk_to(mut self, bytes: usize) -> Option<Untaken> {
        if bytes <= SMALL_BYTES_MAX {
            return None;
        }
        let needed = bytes.div_ceil(UNIT);
        for permits in [&mut self.share, &mut self.node] {
            drop(permits.split(permits.num_permits().saturating_sub(needed)));
        }
        Some(Untaken::of(self))
    }
}

/// The room of an answer that waits for its reader, who is awaited until this is dropped.
#[derive(Debug)]
pub struct Untaken(Room);

impl Untaken {
    fn of(room: Room) -> Untaken {
        room.reader.note_known();
        Untaken(room)
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.0.reader.note_taken();
    }
}

/// The response of what had `room` reserved, if it had to.
pub fn response<T: Message>(message: T, room: Option<Room>) -> Response<T> {
    let untaken = room.and_then(|room| room.shrunk_to(message.encoded_len()));
    let mut response = Response::new(message);
    if untaken.is_some() {
        let counted = Counted::default();
        counted.add(untaken);
        response.extensions_mut().insert(counted);
    }
    response
}

/// Room of the messages that a body was given and has not made bytes of yet. A response brings it to [`hold`] among its
/// extensions.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    // The stream of a body's messages adds to it, the body takes from it.
    untaken: Arc<Mutex<Vec<Untaken>>>,
}

impl Counted {
    /// Adds the room of the next message.
    pub fn add(&self, untaken: Option<Untaken>) {
        self.lock().extend(untaken);
    }

    fn take(&self) -> Vec<Untaken> {
        std::mem::take(&mut *self.lock())
    }

    fn bytes(&self) -> usize {
        self.lock().iter().map(|untaken| untaken.0.bytes()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Untaken>> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the bytes of a response hold the room of its messages, if they have any.
pub fn hold(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<Counted>() {
        None => response,
        Some(counted) if counted.bytes() < LARGE_BYTES_MIN => {
            response.map(|body| Body::new(CountedBody { body, counted }))
        }
        // Only of an answer of one message the room is known before it is asked for its bytes.
        Some(counted) => response.map(|body| Body::new(LargeBody::Known(CountedBody { body, counted }))),
    }
}

/// A body whose messages may have room.
#[derive(Default)]
struct CountedBody {
    body: Body,
    counted: Counted,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // All messages that were taken in are in the bytes that come out.
        polled.map_ok(|frame| frame.map_data(|bytes| held(bytes, self.counted.take())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of one large message that is known.
enum LargeBody {
    Known(CountedBody),
    /// Off the async threads. It holds the room also when nobody waits for it any more.
    Encoding(BoxFuture<'static, io::Result<Encoded>>),
    /// What comes behind the message.
    Rest(CountedBody),
}

/// The next frame of a body, if it is there, and the rest.
type Encoded = (Option<Option<Result<Frame<Bytes>, Status>>>, CountedBody);

async fn encode(mut body: CountedBody) -> io::Result<Encoded> {
    let encode = move || {
        let frame = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).now_or_never();
        (frame, body)
    };
    task::blocking(encode).await
}

impl http_body::Body for LargeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match &mut *self {
                LargeBody::Known(body) => {
                    let encoding = encode(std::mem::take(body)).boxed();
                    *self = LargeBody::Encoding(encoding);
                }
                LargeBody::Encoding(encoding) => {
                    let encoded = ready!(encoding.as_mut().poll(cx));
                    let (frame, rest) = encoded.unwrap_or_else(|error| {
                        (Some(Some(Err(Status::unavailable(error.to_string())))), CountedBody::default())
                    });
                    *self = LargeBody::Rest(rest);
                    if let Some(frame) = frame {
                        return Poll::Ready(frame);
                    }
                }
                LargeBody::Rest(body) => return Pin::new(body).poll_frame(cx),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            LargeBody::Known(_) | LargeBody::Encoding(_) => false,
            LargeBody::Rest(body) => body.is_end_stream(),
        }
    }
}

fn held(bytes: Bytes, untaken: Vec<Untaken>) -> Bytes {
    match untaken.is_empty() {
        true => bytes,
        false => Bytes::from_owner(Held { bytes, _untaken: untaken }),
    }
}

/// Bytes in HTTP/2's hands, and their room.
struct Held {
    bytes: Bytes,
    _untaken: Vec<Untaken>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body::Body as _;
    use trefoil_proto::v1;
    use trefoil_store::command::{DeleteOp, PutOp, RangeOp, Txn};

    use super::*;

    const PAIR: usize = 1000;
    const MOST: usize = mvcc::ANSWER_BYTES_MAX + PAIR;

    fn range(end: RangeEnd) -> RangeOp {
        RangeOp::all(KeyRange { key: "a".into(), end })
    }

    fn get() -> Op {
        Op::Range(range(RangeEnd::Single))
    }

    fn put(previous: bool) -> Op {
        Op::Put(PutOp { key: "a".into(), value: Some(Bytes::new()), lease: Some(0), previous })
    }

    fn delete(end: RangeEnd, previous: bool) -> Op {
        Op::Delete(DeleteOp { range: KeyRange { key: "a".into(), end }, previous })
    }

    fn either(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Txn { compares: Vec::new(), success, failure })
    }

    #[test]
    fn what_an_operation_may_be_answered_with() {
        let limited = |limit| Op::Range(RangeOp { limit: Some(limit), ..range(RangeEnd::Last) });
        for (op, expected) in [
            (get(), PAIR),
            (limited(3), 3 * PAIR),
            (limited(u64::MAX), MOST),
            (Op::Range(range(RangeEnd::Before("b".into()))), MOST),
            (Op::Range(RangeOp { count_only: true, ..range(RangeEnd::Last) }), 0),
            (put(false), 0),
            (put(true), PAIR),
            (delete(RangeEnd::Last, false), 0),
            (delete(RangeEnd::Single, true), PAIR),
            (delete(RangeEnd::Last, true), MOST),
            (either(vec![put(false)], vec![]), 0),
            (either(vec![get(), put(true)], vec![get()]), 2 * PAIR),
            (either(vec![], vec![get(), put(false), either(vec![get()], vec![get(), get()])]), 3 * PAIR),
            (either(vec![limited(u64::MAX), limited(u64::MAX)], vec![]), MOST),
        ] {
            assert_eq!(answer_bytes_max(&op, PAIR), expected, "{op:?}");
        }
    }

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
        let largest = node.reserve(&reader, mvcc::ANSWER_BYTES_MAX + PAIR, deadline).await.expect("room for it");
        let read = async |room| node.turn_to_read(room, deadline).await.map(|turn| turn.is_some());
        assert_eq!((read(None).await, read(Some(&small)).await), (Ok(false), Ok(false)));
        let turn = async || node.turn_to_read(Some(&largest), deadline).await.expect("a turn");
        let turns = [turn().await, turn().await];
        assert_eq!(read(Some(&small)).await, Ok(false), "expected what is small not to wait");
        assert_eq!((read(Some(&largest)).await, clock::now() >= deadline), (Err(Error::DeadlinePassed), true));
        drop(turns);
        assert_eq!(read(Some(&largest)).await, Ok(true));
    }
}
