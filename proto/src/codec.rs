//! The codec of all services: prost's, with small buffers.
//!
//! For each message of one request and for each answer tonic makes a buffer before it knows how much is to come. Its own
//! are of 8 KiB. Most messages have a few hundred bytes, and as many buffers as requests are in hand at a time: small ones
//! stay in the processor's caches, and the allocator has them at hand. A buffer that is too small grows.
//!
//! Invariant: what is on the wire is as with tonic's own codec.
//!
//! Left out: compression, which no service uses.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes a buffer begins with. tonic wants twice a message's bytes to read it: a value of 256 bytes leaves room.
const BUFFER_BYTES: usize = 1 << 10;
/// Bytes of ready messages of a stream after which they are handed on; as tonic's own.
const YIELD_BYTES: usize = 32 << 10;

/// See the file's head. Encodes `T`, decodes `U`.
#[derive(Clone, Debug)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> SmallBuffers<T, U> {
        SmallBuffers(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::new(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}
