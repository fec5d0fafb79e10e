//! HTTP/2 by hand (RFC 9113): a client that sends what no library would, and keeps account of what it is sent.
//!
//! It does what a client must beside that: it answers pings and settings, and gives back what it has taken of the
//! connection's window, unless it is told to keep it. That window is for the answers of all requests together, also of those
//! that were cancelled behind it: a client that never gives any back is sent the heads of answers, and no message.
//!
//! Left out: what a server may send and this one does not: padding, blocks of headers in several frames, pushes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
use trefoil_world::{clock, net};

use crate::hpack;

/// What a connection takes of all answers together until its client gives some back.
pub const WINDOW: usize = 65_535;
/// A stream that was refused before anything was done for it.
pub const REFUSED_STREAM: u32 = 7;

const WRITE_MAX: Duration = Duration::from_secs(20);
/// Streams whose frames a failure tells.
const TOLD_MAX: usize = 8;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// HEADER_TABLE_SIZE, 0: so that a block of headers can be read without those before.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// What a client does with the connection's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// It gives back what it has taken.
    GivenBack,
    Kept,
}

/// How a stream ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With gRPC's status, which may be that all went well.
    Status(Status),
    /// With this code of HTTP/2.
    Reset(u32),
}

/// What came on one stream.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its frames, in order.
    frames: Vec<Frame>,
    pub message_bytes: usize,
    pub end: Option<End>,
}

impl Answer {
    /// Whether its head is there.
    pub fn has_begun(&self) -> bool {
        !self.frames.is_empty()
    }

    fn note(&mut self, frame: Frame) {
        match frame.kind {
            DATA => self.message_bytes += frame.payload.len(),
            RST_STREAM => _ = self.end.get_or_insert(End::Reset(frame.number())),
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            self.end = Some(End::Status(frame.status()));
        }
        self.frames.push(frame);
    }
}

/// A frame that was read.
struct Frame {
    kind: u8,
    flags: u8,
    id: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn fields(&self) -> Vec<(String, String)> {
        if self.kind == HEADERS { hpack::fields(&self.payload) } else { Vec::new() }
    }

    /// gRPC's status in its fields.
    fn status(&self) -> Status {
        let mut map = HeaderMap::new();
        for (name, value) in self.fields() {
            // Names of HTTP's own are not written out, and are none of gRPC's.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                map.append(name, value);
            }
        }
        Status::from_header_map(&map).unwrap_or_else(|| panic!("expected a stream to end with a status, got {self:?}"))
    }

    /// The first four bytes.
    fn number(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |number| u32::from_be_bytes(*number))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.flags & 1 != 0 { " and the end" } else { "" };
        match self.kind {
            DATA => write!(f, "DATA of {} bytes{end}", self.payload.len()),
            HEADERS => write!(f, "HEADERS{end} {:?}", self.fields()),
            RST_STREAM => write!(f, "RST_STREAM {}", self.number()),
            PING => write!(f, "PING, flags {}", self.flags),
            WINDOW_UPDATE => write!(f, "WINDOW_UPDATE {}", self.number()),
            GOAWAY => write!(f, "GOAWAY {}", String::from_utf8_lossy(&self.payload).escape_debug()),
            kind => write!(f, "frame of kind {kind}, flags {}", self.flags),
        }
    }
}

/// A connection to a node, and all that came on it.
pub struct RawConnection {
    stream: net::Stream,
    window: Window,
    /// DATA since some was given back.
    kept: usize,
    /// DATA of all streams.
    pub data_bytes: usize,
    answers: BTreeMap<u32, Answer>,
}

impl RawConnection {
    pub async fn open(address: &str, window: Window) -> RawConnection {
        let stream = dial(address).await;
        let mut connection = RawConnection { stream, window, kept: 0, data_bytes: 0, answers: BTreeMap::new() };
        connection.send(&opening()).await;
        connection
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = clock::timeout(WRITE_MAX, self.stream.write_all(bytes)).await;
        let sent = sent.unwrap_or_else(|_| panic!("expected the node to read {} bytes in time", bytes.len()));
        sent.unwrap_or_else(|error| panic!("expected to send {} bytes: {error}", bytes.len()));
    }

    /// What came on a stream so far.
    pub fn answer(&self, id: u32) -> Option<&Answer> {
        self.answers.get(&id)
    }

    fn has_ended(&self, id: u32) -> bool {
        self.answer(id).is_some_and(|answer| answer.end.is_some())
    }

    /// How a stream ends.
    pub async fn end_of(&mut self, id: u32, within: Duration) -> End {
        self.ends_of([id], within).await.pop().expect("the end of one stream")
    }

    /// How these streams end.
    ///
    /// # Panics
    /// When they do not end in time, or the connection does.
    pub async fn ends_of(&mut self, ids: impl IntoIterator<Item = u32>, within: Duration) -> Vec<End> {
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        let mut open: BTreeSet<u32> = ids.iter().copied().filter(|id| !self.has_ended(*id)).collect();
        if !open.is_empty() {
            let all_have_ended = |connection: &RawConnection, id: u32| {
                if connection.has_ended(id) {
                    open.remove(&id);
                }
                open.is_empty()
            };
            self.read_until("streams to end", &ids, within, all_have_ended).await;
        }
        ids.iter().filter_map(|id| self.answer(*id)?.end.clone()).collect()
    }

    /// Reads until `is_done`, which is asked after each frame and told its stream.
    ///
    /// # Panics
    /// With all that came on these streams, and on none, when that is not in time, or the connection ends.
    pub async fn read_until(
        &mut self,
        what: &str,
        ids: &BTreeSet<u32>,
        within: Duration,
        is_done: impl FnMut(&RawConnection, u32) -> bool,
    ) {
        let why = match clock::timeout(within, self.read_on(is_done)).await {
            Ok(Ok(())) => return,
            Ok(Err(ended)) => ended,
            Err(_) => format!("that did not come in {within:?}, and the connection lives"),
        };
        panic!("expected {what}, but {why}; {}", self.account(ids));
    }

    async fn read_on(&mut self, mut is_done: impl FnMut(&RawConnection, u32) -> bool) -> Result<(), String> {
        loop {
            let id = self.read_frame().await?;
            if is_done(self, id) {
                return Ok(());
            }
        }
    }

    /// Every frame of the connection itself and of some of these streams that have not ended, and how much came beside.
    fn account(&self, ids: &BTreeSet<u32>) -> String {
        let open = ids.iter().copied().filter(|id| !self.has_ended(*id)).take(TOLD_MAX);
        let frames = |id: u32| match self.answer(id) {
            None => format!("stream {id}: no frame"),
            Some(answer) => format!("stream {id}: {:?}", answer.frames),
        };
        let told: Vec<String> = [0].into_iter().chain(open).map(frames).collect();
        let ended = self.answers.values().filter(|answer| answer.end.is_some()).count();
        format!(
            "{}; in all {} streams with frames, {ended} that ended, {} bytes of DATA; the window is {:?}",
            told.join("; "),
            self.answers.len(),
            self.data_bytes,
            self.window
        )
    }

    /// Reads the next frame, and does what it asks for. Its stream, or why there is no next one.
    async fn read_frame(&mut self) -> Result<u32, String> {
        let mut head = [0; HEAD_BYTES];
        self.stream.read_exact(&mut head).await.map_err(|error| format!("the connection ended: {error}"))?;
        let [high, middle, low, kind, flags, of @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        self.stream.read_exact(&mut payload).await.map_err(|error| format!("a frame was cut off: {error}"))?;
        let frame = Frame { kind, flags, id: u32::from_be_bytes(of), payload };
        self.take(&frame).await?;
        let id = frame.id;
        self.answers.entry(id).or_default().note(frame);
        Ok(id)
    }

    async fn take(&mut self, frame: &Frame) -> Result<(), String> {
        let asks = frame.flags & ACK == 0;
        match frame.kind {
            PING if asks => self.send(&raw(PING, ACK, 0, &frame.payload)).await,
            SETTINGS if asks => self.send(&raw(SETTINGS, ACK, 0, &[])).await,
            GOAWAY => return Err(format!("the node ended the connection: {frame:?}")),
            DATA => {
                self.data_bytes += frame.payload.len();
                self.kept += frame.payload.len();
                if self.window == Window::GivenBack && self.kept > WINDOW / 2 {
                    self.give_back().await;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives back all that was taken of the window.
    pub async fn give_back(&mut self) {
        let taken = u32::try_from(std::mem::take(&mut self.kept)).expect("no more than a window");
        self.send(&raw(WINDOW_UPDATE, 0, 0, &taken.to_be_bytes())).await;
    }
}

pub async fn dial(address: &str) -> net::Stream {
    net::dial(address).await.unwrap_or_else(|error| panic!("expected a connection to {address}: {error}"))
}

/// What a client begins with.
pub fn opening() -> Vec<u8> {
    [PREFACE, &raw(SETTINGS, 0, 0, &NO_TABLE)].concat()
}

/// The id of a client's stream.
pub fn stream_id(number: u32) -> u32 {
    2 * number + 1
}

fn raw(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// The head of a request for a method such as `trefoil.v1.Kv/Get`, every field a literal (RFC 7541, section 6.2.2).
pub fn head(id: u32, method: &str) -> Vec<u8> {
    let path = format!("/{method}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "kvd"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| [vec![0], sized(name.as_bytes()), sized(value.as_bytes())].concat())
        .collect();
    raw(HEADERS, END_HEADERS, id, &block)
}

/// Bytes of a request's body that are not its end.
pub fn part(id: u32, bytes: &[u8]) -> Vec<u8> {
    raw(DATA, 0, id, bytes)
}

/// The rest of a request's body.
pub fn rest(id: u32, bytes: &[u8]) -> Vec<u8> {
    raw(DATA, END_STREAM, id, bytes)
}

/// A whole request.
pub fn request(id: u32, method: &str, message: &[u8]) -> Vec<u8> {
    [head(id, method), rest(id, &enveloped(message))].concat()
}

pub fn cancel(id: u32) -> Vec<u8> {
    raw(RST_STREAM, 0, id, &CANCEL)
}

/// A message as gRPC sends it.
pub fn enveloped(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[0_u8][..], &length[..], message].concat()
}

/// A field of a protobuf message that is bytes.
pub fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![(tag << 3) | 2], sized(bytes)].concat()
}

/// Bytes behind their length, of one byte.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 127).expect("a length of one byte");
    [&[length][..], bytes].concat()
}
