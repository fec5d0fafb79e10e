//! Room for large answers: from before a request is carried out until its reader has taken what it was answered.
//!
//! An answer that is not taken waits in HTTP/2's queue, whole. So what may be answered with much reserves [`Room`] for the
//! most it may get, and waits for it until its deadline. Once the answer is known its room shrinks to it, becomes
//! [`Untaken`] and travels with it: with the messages of a body ([`Counted`]) to [`hold`], and there into the bytes
//! (`answers/body.rs`) that HTTP/2 drops when it has written them, or when their stream or connection has ended. A chunk
//! of a scan is such an answer.
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
//! answered with much ([`answer_bytes_max`]) are read a few at a time ([`READ_BYTES_MAX`]), and their answers are encoded
//! off the async threads (`answers/body.rs`).
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

mod body;
mod bound;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Response;
use trefoil_world::clock::{self, Instant};

use crate::error::Error;

pub use self::body::{Counted, hold};
pub use self::bound::answer_bytes_max;
pub use self::reader::Reader;

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
