//! The `Kv` service: convert, call the router, convert back.
//!
//! Size, header, deadline and disk space are checked before anything is done; what is checked needs no state. A scan
//! pins one state and streams it in chunks by a task of its own, as fast as its reader takes them.
//!
//! Invariants:
//!
//! * Bytes of requests in hand are counted from their arrival to their answer, and bounded.
//! * What may be answered with much is carried out once there is room for the answer (`answers.rs`), and holds nothing that
//!   others wait for until then. What may write has the room before it goes to the log: without room it was not done. What
//!   only reads takes it behind the quorum's answer, once its state is pinned: so nothing that waits for a quorum keeps room
//!   from reads that need none. A pinned state keeps its space on the disk and no place of the long reads, which are taken
//!   for the reading itself.
//! * All chunks of a scan are of one revision.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::{Request, Response, Status};
use trefoil_causality::Revision;
use trefoil_placement::{Epoch, NodeId};
use trefoil_proto::v1::{self, kv_server::Kv};
use trefoil_store::command::{
    Command, Compare, DeleteOp, KeyRange, Op, Outcome, PutOp, RangeEnd, RangeOp, Reply, RequestId, Txn,
};
use trefoil_store::mvcc;
use trefoil_world::clock::{self, Instant};

use crate::api::answers::{self, Counted, Reader, Room, Untaken};
use crate::api::{InHand, MaybeServing, READER_PATIENCE, convert, deadline, serving};
use crate::error::Error;
use crate::replication::Consistency;
use crate::replication::leader::Scan;

/// Bytes of a scan's chunk, about; one pair may exceed it.
const CHUNK_BYTES: usize = 512 << 10;
const PAGE_PAIRS_MAX: u64 = 4096;
/// Chunks that wait for a slow reader.
const CHUNKS_MAX: usize = 2;
const CONTINUATION_FORMAT: u8 = 1;

/// See the file's head. Each connection has its own.
pub struct KvService {
    pub serving: MaybeServing,
    /// Whom the answers are for.
    pub reader: Arc<Reader>,
}

/// What every handler needs.
struct Call {
    /// Held until the request is answered.
    serving: InHand,
    keyspace: String,
    request_id: Option<RequestId>,
    deadline: Instant,
    reader: Arc<Reader>,
}

/// A command that was carried out.
struct Done {
    header: Option<v1::ResponseHeader>,
    revision: Revision,
    reply: Reply,
    /// Room for the answer, if it may be large.
    room: Option<Room>,
}

/// A chunk of a scan with its room, or how the scan ended.
type Chunk = (Result<v1::ScanResponse, Status>, Option<Untaken>);

impl KvService {
    async fn begin<T: Message>(&self, request: &Request<T>, header: Option<v1::RequestHeader>) -> Result<Call, Error> {
        let serving = serving(&self.serving)?;
        let (actual, limit) = (request.get_ref().encoded_len(), serving.message_bytes_max);
        if actual > limit {
            return Err(Error::TooLarge { what: "a request", actual, limit });
        }
        let serving = InHand::take(serving, actual)?;
        let header = header.unwrap_or_default();
        let deadline = deadline(request, serving.request_timeout);
        let request_id = convert::request_id(&header)?;
        if let Some(epoch) = header.epoch {
            serving.router.reach_epoch(&header.keyspace, Epoch(epoch), deadline).await?;
        }
        let reader = self.reader.clone();
        Ok(Call { serving, keyspace: header.keyspace, request_id, deadline, reader })
    }
}

impl Call {
    fn header(&self, revision: Revision, node: NodeId) -> Option<v1::ResponseHeader> {
        Some(v1::ResponseHeader {
            cluster_id: self.serving.cluster_id.clone(),
            node_id: node.0,
            revision: revision.0,
            map_version: self.serving.router.map.load().version.0,
        })
    }

    /// Checks and carries out an operation.
    async fn execute(&self, op: Op) -> Result<Done, Error> {
        mvcc::check(&op, &self.serving.limits)?;
        self.serving.health.room_for(&op)?;
        let room = self.room_for_answer(&op).await?;
        let done = self.command(Command::Op(op)).await?;
        Ok(Done { room, ..done })
    }

    /// Room for what `op` may be answered with, if that may be much.
    async fn room_for_answer(&self, op: &Op) -> Result<Option<Room>, Error> {
        match answers::answer_bytes_max(op, self.serving.message_bytes_max) {
            0 => Ok(None),
            bytes => self.serving.answers.reserve(&self.reader, bytes, self.deadline).await.map(Some),
        }
    }

    /// Room for the next chunk of a scan, which may have a pair more than it should.
    async fn room_for_chunk(&self) -> Result<Room, Error> {
        let bytes = CHUNK_BYTES + self.serving.message_bytes_max;
        self.serving.answers.reserve(&self.reader, bytes, clock::now() + READER_PATIENCE).await
    }

    /// A transaction that only reads needs no log entry.
    async fn read_txn(&self, txn: Txn, consistency: Consistency) -> Result<Response<v1::TxnResponse>, Error> {
        let op = Op::Txn(txn);
        mvcc::check(&op, &self.serving.limits)?;
        let pinned = self.serving.router.scan(&self.keyspace, consistency, self.deadline).await?;
        let room = self.room_for_answer(&op).await?;
        let turn = self.serving.answers.turn_to_read(room.as_ref(), self.deadline).await?;
        let Reply::Txn { succeeded, replies } = pinned.read_txn(op, turn).await? else {
            return Err(Error::Broken { why: "an answer to another question".into() });
        };
        let message = v1::TxnResponse {
            header: self.header(pinned.revision(), self.serving.identity.node),
            succeeded,
            replies: replies.into_iter().map(convert::op_reply).collect::<Result<_, _>>()?,
            context: convert::context(pinned.revision()),
            consistency: Some(convert::effective(pinned.effective)),
        };
        Ok(answers::response(message, room))
    }

    async fn command(&self, command: Command) -> Result<Done, Error> {
        let (Outcome { revision, result }, node) =
            self.serving.router.write(&self.keyspace, command, self.request_id, self.deadline).await?;
        Ok(Done { header: self.header(revision, node), revision, reply: result?, room: None })
    }
}

/// Whether neither branch writes. One that nests another counts as writing, as in etcd.
fn only_reads(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_)))
}

/// An operation, alone or under a condition.
fn conditional(op: Op, compare: Option<Compare>) -> Op {
    match compare {
        None => op,
        Some(compare) => Op::Txn(Txn { compares: vec![compare], success: vec![op], failure: Vec::new() }),
    }
}

/// The reply of a conditional operation; `None` when the condition did not hold.
fn unwrap_conditional(reply: Reply) -> Option<Reply> {
    match reply {
        Reply::Txn { succeeded: true, replies } => replies.into_iter().next(),
        Reply::Txn { succeeded: false, .. } => None,
        reply @ (Reply::Range(_)
        | Reply::Put { .. }
        | Reply::Delete { .. }
        | Reply::Compacted
        | Reply::SessionOpened { .. }
        | Reply::SessionClosed) => Some(reply),
    }
}

fn other_question() -> Status {
    Error::Broken { why: "an answer to another question".into() }.into()
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let call = self.begin(&request, request.get_ref().header.clone()).await?;
        let get = request.into_inner();
        let consistency = convert::consistency(get.consistency, &get.context)?;
        let range = KeyRange { key: get.key, end: RangeEnd::Single };
        let op = RangeOp { revision: convert::revision(get.revision), keys_only: get.keys_only, ..RangeOp::all(range) };
        mvcc::check_range(&op).map_err(Error::from)?;
        let (answer, node) = call.serving.router.read(&call.keyspace, op, consistency, call.deadline).await?;
        let message = v1::GetResponse {
            header: call.header(answer.revision, node),
            values: convert::pairs(answer.reply.pairs),
            context: convert::context(answer.revision),
            consistency: Some(convert::effective(answer.effective)),
        };
        call.serving.answers.response_of_get(&call.reader, message).map_err(Status::from)
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        let call = self.begin(&request, request.get_ref().header.clone()).await?;
        let put = request.into_inner();
        let compare = convert::condition(&put.key, put.condition)?;
        let op = PutOp { key: put.key, value: Some(put.value), lease: Some(put.lease), previous: put.previous };
        let Done { header, revision, reply, room } = call.execute(conditional(Op::Put(op), compare)).await?;
        let (written, previous) = match unwrap_conditional(reply) {
            Some(Reply::Put { previous }) => (true, previous),
            None => (false, None),
            Some(_) => return Err(other_question()),
        };
        let previous = previous.map(convert::pair);
        let message = v1::PutResponse { header, written, previous, context: convert::context(revision) };
        Ok(answers::response(message, room))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        let call = self.begin(&request, request.get_ref().header.clone()).await?;
        let delete = request.into_inner();
        let range = convert::key_range(delete.range)?;
        if delete.condition.is_some() && range.end != RangeEnd::Single {
            return Err(Error::Malformed { field: "condition", why: "is only for a single key".into() }.into());
        }
        let compare = convert::condition(&range.key, delete.condition)?;
        let op = DeleteOp { range, previous: delete.previous };
        let Done { header, revision, reply, room } = call.execute(conditional(Op::Delete(op), compare)).await?;
        let (carried_out, deleted, previous) = match unwrap_conditional(reply) {
            Some(Reply::Delete { deleted, previous }) => (true, deleted, previous),
            None => (false, 0, Vec::new()),
            Some(_) => return Err(other_question()),
        };
        let message = v1::DeleteResponse {
            header,
            carried_out,
            deleted,
            previous: convert::pairs(previous),
            context: convert::context(revision),
        };
        Ok(answers::response(message, room))
    }

    type ScanStream = Pin<Box<dyn Stream<Item = Result<v1::ScanResponse, Status>> + Send>>;

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let call = self.begin(&request, request.get_ref().header.clone()).await?;
        let scan = request.into_inner();
        let op = RangeOp {
            range: convert::key_range(scan.range)?,
            limit: (scan.limit != 0).then_some(scan.limit),
            revision: convert::revision(scan.revision),
            descending: scan.reverse,
            keys_only: scan.keys_only,
            count: scan.count,
            count_only: scan.count_only,
        };
        let op = resume(op, &scan.continuation)?;
        let consistency = convert::consistency(scan.consistency, &scan.context)?;
        let pinned = call.serving.router.scan(&call.keyspace, consistency, call.deadline).await?;
        let (chunks, stream) = tokio::sync::mpsc::channel(CHUNKS_MAX);
        trefoil_world::task::spawn(async move {
            if let Err(error) = send_chunks(&call, &pinned, op, &chunks).await {
                // A reader that hung up needs no error, and one that takes nothing gets none.
                drop(clock::timeout(READER_PATIENCE, chunks.send((Err(error.into()), None))).await);
            }
        });
        let counted = Counted::default();
        let of_response = counted.clone();
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream).map(move |(chunk, untaken)| {
            counted.add(untaken);
            chunk
        });
        let mut response: Response<Self::ScanStream> = Response::new(Box::pin(stream));
        response.extensions_mut().insert(of_response);
        Ok(response)
    }

    async fn txn(&self, request: Request<v1::TxnRequest>) -> Result<Response<v1::TxnResponse>, Status> {
        let call = self.begin(&request, request.get_ref().header.clone()).await?;
        let asked = request.into_inner();
        let txn = convert::txn(asked.txn)?;
        let consistency = convert::consistency(asked.consistency, &asked.context)?;
        if only_reads(&txn) {
            return call.read_txn(txn, consistency).await.map_err(Status::from);
        }
        if consistency != Consistency::Linearizable {
            return Err(Error::Malformed {
                field: "consistency",
                why: "a transaction that may write is linearizable".into(),
            }
            .into());
        }
        let Done { header, revision, reply, room } = call.execute(Op::Txn(txn)).await?;
        let Reply::Txn { succeeded, replies } = reply else { return Err(other_question()) };
        let message = v1::TxnResponse {
            header,
            succeeded,
            replies: replies.into_iter().map(convert::op_reply).collect::<Result<_, _>>()?,
            context: convert::context(revision),
            consistency: None,
        };
        Ok(answers::response(message, room))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let mut call = self.begin(&request, request.get_ref().header.clone()).await?;
        call.request_id = None;
        let Done { header, reply, .. } = call.command(Command::OpenSession).await?;
        let Reply::SessionOpened { session } = reply else { return Err(other_question()) };
        Ok(Response::new(v1::OpenSessionResponse { header, session }))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let mut call = self.begin(&request, request.get_ref().header.clone()).await?;
        call.request_id = None;
        let Done { header, .. } = call.command(Command::CloseSession(request.get_ref().session)).await?;
        Ok(Response::new(v1::CloseSessionResponse { header }))
    }

    async fn compact(&self, request: Request<v1::CompactRequest>) -> Result<Response<v1::CompactResponse>, Status> {
        let call = self.begin(&request, request.get_ref().header.clone()).await?;
        let Done { header, .. } = call.command(Command::Compact(Revision(request.get_ref().revision))).await?;
        Ok(Response::new(v1::CompactResponse { header }))
    }
}

async fn send_chunks(
    call: &Call,
    pinned: &Scan,
    op: RangeOp,
    chunks: &tokio::sync::mpsc::Sender<Chunk>,
) -> Result<(), Error> {
    mvcc::check_range(&op)?;
    let at = op.revision.unwrap_or(pinned.revision());
    let mut left = op.limit;
    let mut page = RangeOp { count: false, revision: Some(at), ..op.clone() };
    loop {
        let room = tokio::select! {
            biased;
            () = chunks.closed() => return Ok(()),
            room = call.room_for_chunk() => room?,
        };
        page.limit = Some(left.map_or(PAGE_PAIRS_MAX, |left| left.min(PAGE_PAIRS_MAX)));
        let mut found = if op.count_only { Default::default() } else { pinned.page(page.clone(), CHUNK_BYTES).await? };
        let taken = found.pairs.len() as u64;
        left = left.map(|left| left - taken);
        let more = found.more;
        let last = !more || left == Some(0) || op.count_only;
        let next = found.pairs.last().map(|pair| pair.key.clone());
        let chunk = v1::ScanResponse {
            header: call.header(pinned.revision(), call.serving.identity.node),
            pairs: convert::pairs(std::mem::take(&mut found.pairs)),
            continuation: match (&next, last) {
                (Some(next), false) => continuation(at, next),
                (Some(_), true) | (None, _) => Bytes::new(),
            },
            more: last && more,
            count: if last { count(pinned, &op, at).await? } else { None },
            context: convert::context(pinned.revision()),
            consistency: Some(convert::effective(pinned.effective)),
        };
        let untaken = room.shrunk_to(chunk.encoded_len());
        match clock::timeout(READER_PATIENCE, chunks.send((Ok(chunk), untaken))).await {
            Ok(Ok(())) if !last => {}
            // A reader that takes nothing would pin this state for ever.
            Ok(_) | Err(_) => return Ok(()),
        }
        if let Some(next) = next {
            page = behind(page, &next);
        }
    }
}

async fn count(pinned: &Scan, op: &RangeOp, at: Revision) -> Result<Option<u64>, Error> {
    if !op.count && !op.count_only {
        return Ok(None);
    }
    let all = RangeOp { limit: None, revision: Some(at), count_only: true, ..op.clone() };
    Ok(pinned.page(all, CHUNK_BYTES).await?.count)
}

/// The rest of a range behind a key.
fn behind(op: RangeOp, key: &Bytes) -> RangeOp {
    let range = match op.descending {
        true => KeyRange { key: op.range.key, end: RangeEnd::Before(key.clone()) },
        false => {
            let mut next = key.to_vec();
            next.push(0);
            KeyRange { key: next.into(), end: op.range.end }
        }
    };
    RangeOp { range, ..op }
}

fn continuation(at: Revision, last: &Bytes) -> Bytes {
    let mut token = vec![CONTINUATION_FORMAT];
    token.extend_from_slice(&at.0.to_be_bytes());
    token.extend_from_slice(last);
    token.into()
}

fn resume(op: RangeOp, token: &Bytes) -> Result<RangeOp, Error> {
    match token.as_ref() {
        [] => Ok(op),
        [CONTINUATION_FORMAT, rest @ ..] if rest.len() > 8 && op.range.end != RangeEnd::Single => {
            let at = Revision(u64::from_be_bytes(rest[..8].try_into().expect("8 bytes")));
            Ok(RangeOp { revision: Some(at), ..behind(op, &token.slice(9..)) })
        }
        _ => Err(Error::Malformed { field: "continuation", why: "is not a token of such a scan".into() }),
    }
}
