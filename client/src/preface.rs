//! A connection on which the server has spoken: HTTP/2's server preface, waited for before anything is sent.
//!
//! A server with too many connections accepts one more and closes it. The handshake of hyper does not wait for the
//! server, so a write would be on its way into the closed connection, and its outcome unknown. Here a connection counts
//! as made only once the head of the first frame has come, which has to be SETTINGS. The bytes read for that are handed
//! on first; all others pass through.
//!
//! Left out: servers that say nothing before the client does. HTTP/2 allows that; kvd sends its SETTINGS unasked.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use trefoil_world::net;

/// Bytes of a frame's head: length, type, flags, stream.
const HEAD: usize = 9;
const TYPE_AT: usize = 3;
const SETTINGS: u8 = 4;

/// A connection whose server has begun to speak HTTP/2.
pub(crate) struct Prefaced {
    head: [u8; HEAD],
    /// How many bytes of `head` were handed on.
    handed: usize,
    stream: net::Stream,
}

impl Prefaced {
    /// Waits for the server's first words. The caller bounds the wait.
    ///
    /// # Errors
    /// The connection ended before them, or they are not HTTP/2. Nothing was sent.
    pub(crate) async fn wait(mut stream: net::Stream) -> io::Result<Prefaced> {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).await.map_err(named)?;
        if head[TYPE_AT] != SETTINGS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak HTTP/2"));
        }
        Ok(Prefaced { head, handed: 0, stream })
    }
}

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the server closed it without a word"),
        _ => error,
    }
}

impl AsyncRead for Prefaced {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.handed == HEAD {
            return self.stream.as_mut().poll_read(context, into);
        }
        let end = HEAD.min(self.handed + into.remaining());
        into.put_slice(&self.head[self.handed..end]);
        self.handed = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefaced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What a client makes of a server that says this and closes.
    async fn heard(said: &[u8]) -> io::Result<Vec<u8>> {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(said).await.expect("room for it");
        drop(theirs);
        let mut stream = Prefaced::wait(Box::pin(ours)).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_handed_on() {
        let settings = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
        let said = [&settings[..], b"and more"].concat();
        assert_eq!(heard(&said).await.ok(), Some(said));
    }

    #[tokio::test]
    async fn a_server_that_closes_or_speaks_otherwise_is_none() {
        for (said, kind) in [
            (&b""[..], io::ErrorKind::UnexpectedEof),
            (&[0, 0, 0, SETTINGS][..], io::ErrorKind::UnexpectedEof),
            (&b"HTTP/1.1 400 Bad Request"[..], io::ErrorKind::InvalidData),
        ] {
            assert_eq!(heard(said).await.map_err(|error| error.kind()), Err(kind), "{said:?}");
        }
    }
}
