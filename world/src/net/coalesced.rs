//! A connection whose small writes go out together, once all that is ready to run has run.
//!
//! HTTP/2 flushes as soon as one answer is there. Under load many more are about to be: the task that answers next is only
//! waiting for its turn. A write costs as much as a good part of a request, so here what is written and flushed is held
//! until the runtime has nothing else to run, or has run for a while ([`Turn`]); then it goes out in one
//! piece. A runtime that has nothing else to do comes to that at once. What is too much to hold is written straight away,
//! together with what is held, and is not copied.
//!
//! Invariants:
//!
//! * Bytes go out in the order in which they were written; none stay behind: what is held goes out at the next turn, which
//!   wakes the task, or before the end of the connection.
//! * At most [`HELD_MAX`] bytes are held.
//!
//! Only for a task that, whenever it is woken, reads or flushes until that has to wait, as one that serves HTTP/2 does: a
//! flush is done before the bytes are out, and a broken connection shows at the next read or write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::turn::Turn;

/// Bytes held. As much as a frame of HTTP/2 may be long, so that a large answer's frames are not copied.
const HELD_MAX: usize = 16 << 10;
/// Pieces of memory that are written at once.
const PARTS_MAX: usize = 64;

/// See the file's head.
pub struct Coalesced<S> {
    stream: S,
    held: BytesMut,
    turn: Turn,
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// With nothing held.
    pub fn new(stream: S) -> Coalesced<S> {
        Coalesced { stream, held: BytesMut::new(), turn: Turn::default() }
    }

    /// Writes what is held, until the connection takes no more.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        self.turn.take();
        Poll::Ready(Ok(()))
    }

    /// Holds `parts`, or writes them behind what is held.
    fn poll_write_parts(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            if self.held.len() + bytes <= HELD_MAX {
                parts.iter().for_each(|part| self.held.extend_from_slice(part));
                self.turn.await_it(cx);
                return Poll::Ready(Ok(bytes));
            }
            let mut all = [IoSlice::new(&[]); PARTS_MAX];
            all[0] = IoSlice::new(&self.held);
            let rest = all[1..].iter_mut().zip(parts).map(|(place, part)| *place = *part).count();
            let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &all[..=rest]))?;
            let of_held = count.min(self.held.len());
            self.held.advance(of_held);
            // Nothing at all means to the caller what it would without us.
            if count > of_held || count == 0 {
                return Poll::Ready(Ok(count - of_held));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn.has_come()
            && let Poll::Ready(Err(error)) = self.poll_write_out(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let parts = &from[..from.len().min(PARTS_MAX - 1)];
        self.poll_write_parts(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.turn.has_come() {
            ready!(self.poll_write_out(cx))?;
        }
        match self.held.is_empty() {
            true => Pin::new(&mut self.stream).poll_flush(cx),
            false => {
                self.turn.await_it(cx);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// A connection that notes how long each piece was that it took.
    struct Noting {
        stream: DuplexStream,
        pieces: Arc<Mutex<Vec<usize>>>,
    }

    impl Noting {
        fn note(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
            if let Poll::Ready(Ok(count)) = &polled {
                self.pieces.lock().expect("unharmed").push(*count);
            }
            polled
        }
    }

    impl AsyncRead for Noting {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, into)
        }
    }

    impl AsyncWrite for Noting {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
            let polled = Pin::new(&mut self.stream).poll_write(cx, from);
            self.note(polled)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            from: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = from.iter().flat_map(|part| part.iter().copied()).collect();
            let polled = Pin::new(&mut self.stream).poll_write(cx, &all);
            self.note(polled)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    /// Writes these lengths, each followed by a flush, then reads until the other side closes, as a task that serves
    /// HTTP/2 does. The other side reads all of them before it closes. How long the pieces were in which they went out.
    async fn pieces(room: usize, lengths: &[usize]) -> Vec<usize> {
        let (stream, mut other) = tokio::io::duplex(room);
        let pieces: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut connection = Coalesced::new(Noting { stream, pieces: pieces.clone() });
        let bytes = |at: usize, length: usize| (at..at + length).map(|at| at as u8).collect::<Vec<u8>>();
        let total: usize = lengths.iter().sum();
        let reader = tokio::spawn(async move {
            let mut read = vec![0; total];
            other.read_exact(&mut read).await.expect("all of it");
            read
        });
        let mut at = 0;
        for &length in lengths {
            connection.write_all(&bytes(at, length)).await.expect("taken");
            connection.flush().await.expect("taken");
            at += length;
        }
        let mut end = [0];
        assert_eq!(connection.read(&mut end).await.expect("closed"), 0);
        assert_eq!(reader.await.expect("it ends"), bytes(0, total));
        pieces.lock().expect("unharmed").clone()
    }

    #[tokio::test]
    async fn what_is_small_goes_out_together_and_what_is_large_at_once() {
        let cases: [(&[usize], &[usize]); 5] = [
            (&[1], &[1]),
            (&[10, 20, 30], &[60]),
            (&[HELD_MAX], &[HELD_MAX]),
            (&[HELD_MAX + 1], &[HELD_MAX + 1]),
            (&[10, HELD_MAX, 7], &[10 + HELD_MAX, 7]),
        ];
        for (written, expected) in cases {
            assert_eq!(pieces(1 << 20, written).await, expected, "{written:?}");
        }
    }

    #[tokio::test]
    async fn a_slow_reader_has_all_of_it_in_order() {
        for room in [50, 1000, HELD_MAX] {
            let went_out = pieces(room, &[3, 500, HELD_MAX, 2 * HELD_MAX, 1]).await;
            assert!(went_out.iter().all(|piece| *piece <= room), "{room}: {went_out:?}");
        }
    }

    #[tokio::test]
    async fn nothing_stays_behind_at_the_end() {
        let (stream, mut other) = tokio::io::duplex(100);
        let mut connection = Coalesced::new(stream);
        connection.write_all(b"last words").await.expect("taken");
        poll_fn(|cx| Pin::new(&mut connection).poll_shutdown(cx)).await.expect("closed");
        let mut read = String::new();
        other.read_to_string(&mut read).await.expect("closed");
        assert_eq!(read, "last words");
    }

    #[tokio::test]
    async fn a_broken_connection_shows_at_the_next_read() {
        let (stream, other) = tokio::io::duplex(100);
        let mut connection = Coalesced::new(stream);
        connection.write_all(b"words").await.expect("held");
        drop(other);
        connection.flush().await.expect("held");
        tokio::task::yield_now().await;
        assert!(connection.read(&mut [0]).await.is_err());
    }
}
