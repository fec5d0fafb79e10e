//! Reading keys in order: a stream of chunks, taken up again where it was cut off.
//!
//! The server sends chunks of one revision; each but the last carries a continuation. When the stream ends before the
//! last chunk — because the server ends long ones, or the node died — the scan goes on behind the chunk it has, at
//! the same revision, perhaps at another node.
//!
//! Invariants:
//!
//! * A pair is delivered once, in order, and all pairs are of one revision.
//! * The timeout bounds the wait for the next chunk, not the whole scan: a scan that gets on may take as long as it
//!   takes.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tonic::Streaming;
use trefoil_causality::Revision;
use trefoil_proto::v1;
use trefoil_world::clock;

use super::get;
use super::sent_by_await;
use crate::address::Address;
use crate::call::How;
use crate::client::Client;
use crate::convert;
use crate::error::{Error, Kind, Outcome};
use crate::pair::{Consistency, Context, EffectiveConsistency, Header, KeyValue};
use crate::range::KeyRange;
use crate::retry::{Access, Tries};
use crate::status;

/// Reads a range; see [`Client::scan`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Scan {
    client: Client,
    request: v1::ScanRequest,
    consistency: Consistency,
    timeout: Duration,
}

/// All that a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanReply {
    pub header: Header,
    /// In the order asked for; none when only counting.
    pub pairs: Vec<KeyValue>,
    /// The limit cut the answer.
    pub more: bool,
    /// How many keys the range has, when asked for.
    pub count: Option<u64>,
    pub context: Context,
    pub consistency: EffectiveConsistency,
}

impl Scan {
    pub(crate) fn new(client: Client, range: KeyRange) -> Scan {
        let request =
            v1::ScanRequest { header: Some(client.header()), range: Some(range.into()), ..v1::ScanRequest::default() };
        Scan { timeout: client.timeout, client, request, consistency: Consistency::default() }
    }

    /// At most this many pairs; 0 for all.
    pub fn limit(mut self, limit: u64) -> Scan {
        self.request.limit = limit;
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Scan {
        self.request.reverse = true;
        self
    }

    /// Leaves out the values.
    pub fn keys_only(mut self) -> Scan {
        self.request.keys_only = true;
        self
    }

    /// Also counts all keys of the range, whatever the limit; costs a walk over them.
    pub fn count(mut self) -> Scan {
        self.request.count = true;
        self
    }

    /// Only counts: no pairs.
    pub fn count_only(mut self) -> Scan {
        self.request.count_only = true;
        self
    }

    /// The state at this revision instead of now.
    pub fn revision(mut self, revision: Revision) -> Scan {
        self.request.revision = revision.0;
        self
    }

    /// How fresh it must be; linearizable unless set.
    pub fn consistency(mut self, consistency: Consistency) -> Scan {
        self.consistency = consistency;
        self
    }

    /// A stale read then has at least what the context had seen.
    pub fn context(mut self, context: &Context) -> Scan {
        self.request.context = context.0.clone();
        self
    }

    /// How long the wait for the next chunk may be.
    pub fn timeout(mut self, timeout: Duration) -> Scan {
        self.timeout = timeout;
        self
    }

    /// Reads all of it into memory. `.await` does the same.
    ///
    /// # Errors
    /// Nothing is delivered; a read changes nothing.
    pub async fn collect(self) -> Result<ScanReply, Error> {
        let mut chunks = Chunks::new(self);
        let mut pairs = Vec::new();
        let mut last = v1::ScanResponse::default();
        while let Some(mut chunk) = chunks.next().await? {
            pairs.extend(std::mem::take(&mut chunk.pairs).into_iter().map(KeyValue::from));
            last = chunk;
        }
        Ok(ScanReply {
            header: convert::header(last.header),
            pairs,
            more: last.more || chunks.cut_by_limit,
            count: last.count,
            context: Context(last.context),
            consistency: convert::effective(last.consistency),
        })
    }

    /// Reads it as a stream, in bounded memory.
    ///
    /// ```
    /// # trefoil_client::doctest::run(|endpoint| async move {
    /// # let client = trefoil_client::Client::connect([endpoint]).await?;
    /// use trefoil_client::KeyRange;
    ///
    /// client.put("x/1", "a").await?;
    /// client.put("x/2", "b").await?;
    /// let mut pairs = client.scan(KeyRange::prefix("x/")).stream();
    /// let mut keys = Vec::new();
    /// while let Some(pair) = pairs.next().await? {
    ///     keys.push(pair.key);
    /// }
    /// assert_eq!(keys, ["x/1", "x/2"]);
    /// # Ok::<(), trefoil_client::Error>(())
    /// # });
    /// ```
    pub fn stream(self) -> ScanStream {
        let chunks = stream::try_unfold(Chunks::new(self), |mut chunks| async move {
            Ok::<_, Error>(chunks.next().await?.map(|chunk| (chunk, chunks)))
        });
        let pairs = chunks
            .map_ok(|chunk| stream::iter(chunk.pairs.into_iter().map(|pair| Ok::<_, Error>(KeyValue::from(pair)))));
        ScanStream(pairs.try_flatten().boxed())
    }

    /// Like [`Scan::collect`].
    async fn send(self) -> Result<ScanReply, Error> {
        self.collect().await
    }
}

sent_by_await!(Scan => ScanReply);

/// The pairs of a scan, as they come. Ends after its first error.
pub struct ScanStream(BoxStream<'static, Result<KeyValue, Error>>);

impl ScanStream {
    /// The next pair; `None` after the last one.
    ///
    /// # Errors
    /// The pairs so far are right, and there may be more.
    pub async fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        self.0.next().await.transpose()
    }
}

impl Stream for ScanStream {
    type Item = Result<KeyValue, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// The chunks of a scan over as many streams as it takes.
struct Chunks {
    client: Client,
    request: v1::ScanRequest,
    how: How,
    open: Option<Open>,
    tries: Tries,
    done: bool,
    cut_by_limit: bool,
}

/// A stream of chunks, and who sends it.
struct Open {
    chunks: Streaming<v1::ScanResponse>,
    asked: Address,
    /// Whether a chunk has come over it.
    progressed: bool,
}

impl Chunks {
    fn new(scan: Scan) -> Chunks {
        let mut request = scan.request;
        request.consistency = Some(scan.consistency.into());
        // A walk over many keys is worth waiting for: no node is given up before the timeout.
        let how = How { patience: None, ..get::read(&scan.client, scan.consistency, scan.timeout) };
        let tries = tries(&how);
        Chunks { client: scan.client, request, how, open: None, tries, done: false, cut_by_limit: false }
    }

    /// The next chunk; `None` after the last one.
    async fn next(&mut self) -> Result<Option<v1::ScanResponse>, Error> {
        while !self.done {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.open().await?,
            };
            match self.pull(&mut open).await {
                Ok(Some(chunk)) => {
                    open.progressed = true;
                    self.open = Some(open);
                    self.note(&chunk);
                    return Ok(Some(chunk));
                }
                // Ended in good order before the last chunk: go on behind what we have.
                Ok(None) if open.progressed => {}
                Ok(None) => self.pause(&open.asked, cut_off()).await?,
                Err(error) => self.pause(&open.asked, error).await?,
            }
        }
        Ok(None)
    }

    async fn open(&mut self) -> Result<Open, Error> {
        let how = How { timeout: self.tries.left(clock::now()), ..self.how.clone() };
        let (chunks, asked) = self.client.shared.call_and_tell(&self.request, &how).await?;
        Ok(Open { chunks, asked, progressed: false })
    }

    async fn pull(&self, open: &mut Open) -> Result<Option<v1::ScanResponse>, Error> {
        match clock::timeout(self.tries.left(clock::now()), open.chunks.message()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(status)) => Err(status::read(&status, true, Access::Read, &open.asked).error),
            Err(_) => Err(status::timed_out(true, Access::Read, &open.asked).error),
        }
    }

    async fn pause(&mut self, asked: &Address, error: Error) -> Result<(), Error> {
        let pause = self.tries.after(asked, error, clock::now())?;
        clock::sleep(pause).await;
        Ok(())
    }

    /// What is still to be read once `chunk` is delivered.
    fn note(&mut self, chunk: &v1::ScanResponse) {
        self.tries = tries(&self.how);
        self.request.continuation = chunk.continuation.clone();
        self.done = chunk.continuation.is_empty();
        if self.request.limit > 0 && !self.request.count_only {
            let delivered = chunk.pairs.len() as u64;
            // A limit of 0 would mean all: nothing is asked for any more.
            self.cut_by_limit = delivered >= self.request.limit && !self.done;
            self.done |= self.cut_by_limit;
            self.request.limit = self.request.limit.saturating_sub(delivered).max(1);
        }
    }
}

fn tries(how: &How) -> Tries {
    Tries::new(how.repeat, clock::now() + how.timeout, how.patience)
}

fn cut_off() -> Error {
    Error::new(Kind::ConnectionLost, Outcome::NotDone, "the scan was cut off before its first chunk")
}
