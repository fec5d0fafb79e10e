//! Bytes of answers that hold the room of their messages until HTTP/2 drops them.
//!
//! tonic makes bytes of messages only when HTTP/2 asks for them. So a response brings what its messages have reserved
//! among its extensions ([`Counted`]), and a body around tonic's ([`CountedBody`]) puts it into the bytes as they come
//! out ([`Held`]). A large answer is encoded off the async threads ([`LargeBody`]).
//!
//! Invariants:
//!
//! * Room is given to bytes that come out after its message was taken in, never to earlier ones.
//! * What is being encoded holds its room also when nobody waits for it any more.
//!
//! Left out: how much room there is, and who gets it (`answers.rs`).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use trefoil_world::task;

use crate::api::answers::{LARGE_BYTES_MIN, Untaken};

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
