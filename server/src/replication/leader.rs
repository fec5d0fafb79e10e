//! Leader mode: writes through the Raft log, linearizable reads by a coalesced read index, stale reads from what is
//! applied.
//!
//! Commands queue for the **proposer**, which drains the queue into one log entry while the entries before it are in
//! flight. Linearizable reads join the next of the [`Rounds`] that ask the quorum.
//!
//! Invariants:
//!
//! * A command that was handed to the log and has no outcome by its deadline is `Unknown`, never "failed".
//! * A linearizable read begins its round after it arrived, and reads only what is applied up to the round's index.
//! * Both queues are bounded; a full one is `Exhausted`, and nothing was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use trefoil_causality::Revision;
use trefoil_placement::NodeId;
use trefoil_store::command::{
    ANONYMOUS, Command, Envelope, Op, Outcome, RangeEnd, RangeOp, Reply, RequestId, Txn, encode_batch, encode_envelope,
};
use trefoil_store::engine::{EngineError, Read};
use trefoil_store::mvcc::{self, Head};
use trefoil_store::overlay::Overlay;
use trefoil_world::clock::{self, Instant};
use trefoil_world::planted::{self, Bug};

use crate::error::Error;
use crate::raft::group::{ProposeError, RaftReplica, ReadIndexError};
use crate::raft::state::View;
use crate::replication::{Answer, Consistency, Effective};
use crate::rounds::{ReadIndex, Rounds};

/// Commands that may wait for the proposer.
const COMMANDS_MAX: usize = 16_384;
/// Bytes of commands that may wait for their outcome.
const COMMAND_BYTES_MAX: usize = 256 << 20;
/// Commands of one log entry, and what they may weigh: their bytes, and more for each operation that may touch many keys
/// or answer with values, so that few of those share an entry. One command may exceed it.
const ENTRY_COMMANDS_MAX: usize = 2048;
const ENTRY_WEIGHT_MAX: usize = 512 << 10;
const LARGE_ANSWER_WEIGHT: usize = 64 << 10;
/// Log entries in flight.
const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// After this, an entry without an outcome no longer holds its place.
const ENTRY_PATIENCE: Duration = Duration::from_secs(10);
/// Patience with one asking of the quorum.
const ROUND_PATIENCE: Duration = Duration::from_secs(1);
/// A fresh leader's first moments, while its quorum has not answered yet.
const NOT_YET_RETRIES: u32 = 100;
const NOT_YET_WAIT: Duration = Duration::from_millis(5);
/// Keys of one part of a digest's walk.
const DIGEST_PART_KEYS: usize = 4096;
/// Reads of more keys than this are long: they leave the async threads.
const INLINE_KEYS_MAX: u64 = 64;
/// Long reads at a time on a node: applies run on the same threads.
pub const LONG_READS_MAX: usize = 64;
/// Patience of a long read for its place.
const PLACE_PATIENCE: Duration = Duration::from_secs(5);

/// See the file's head.
pub struct LeaderReplica {
    raft: Arc<RaftReplica>,
    commands: mpsc::Sender<Pending>,
    waiting_bytes: AtomicUsize,
    /// Each asks the quorum.
    rounds: Rounds,
    /// Room for long reads, of all replicas of the node.
    long_reads: Arc<Semaphore>,
}

/// Bytes of a command that waits for its outcome, counted until it has one.
struct Place<'a> {
    bytes: usize,
    waiting: &'a AtomicUsize,
}

impl Place<'_> {
    fn take(waiting: &AtomicUsize, bytes: usize) -> Result<Place<'_>, Error> {
        let place = Place { bytes, waiting };
        match waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= COMMAND_BYTES_MAX {
            true => Ok(place),
            false => Err(Error::Exhausted {
                what: "room for the partition's commands".into(),
                limit: COMMAND_BYTES_MAX as u64,
            }),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Pending {
    envelope: Vec<u8>,
    /// What it counts in an entry: more than its bytes when it may touch many keys or answer with values.
    weight: usize,
    deadline: Instant,
    answer: oneshot::Sender<Result<Outcome, Error>>,
}

/// The state of one moment, for a read in pieces.
pub struct Scan {
    raft: Arc<RaftReplica>,
    read: Arc<dyn Read>,
    view: Arc<View>,
    head: Head,
    long_reads: Arc<Semaphore>,
    pub effective: Effective,
}

impl LeaderReplica {
    /// Starts the proposer and the rounds; they end with the replica.
    pub fn start(raft: Arc<RaftReplica>, long_reads: Arc<Semaphore>) -> LeaderReplica {
        let (commands, pending) = mpsc::channel(COMMANDS_MAX);
        trefoil_world::task::spawn(run_proposer(raft.clone(), pending));
        let asked = raft.clone();
        let rounds = Rounds::start(move || ask_quorum(asked.clone()));
        LeaderReplica { raft, commands, waiting_bytes: AtomicUsize::new(0), rounds, long_reads }
    }

    pub fn raft(&self) -> &Arc<RaftReplica> {
        &self.raft
    }

    pub async fn write(
        &self,
        command: &Command,
        request: Option<RequestId>,
        deadline: Instant,
    ) -> Result<Outcome, Error> {
        let (weight, envelope) = self.enveloped(command, request)?;
        let (answer, answered) = oneshot::channel();
        let _place = Place::take(&self.waiting_bytes, envelope.len())?;
        let pending = Pending { weight: weight + envelope.len(), envelope, deadline, answer };
        self.commands
            .try_send(pending)
            .map_err(|error| not_queued(&error, "the partition's command queue", COMMANDS_MAX))?;
        match clock::timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Unknown { why: "the node is ending".into() }),
            Err(_) => Err(Error::Unknown { why: "the deadline passed before the outcome was known".into() }),
        }
    }

    /// The bytes of a command with all that its outcome depends on, and what it weighs besides them.
    fn enveloped(&self, command: &Command, request: Option<RequestId>) -> Result<(usize, Vec<u8>), Error> {
        let decided = planted::is(Bug::CompareOutsideApply).then(|| self.decided_now(command)).transpose()?;
        let command = decided.as_ref().unwrap_or(command);
        let principal = ANONYMOUS.into();
        let envelope = Envelope { at_ms: clock::wall_ms(), request, principal, auth_revision: 0, command };
        Ok((weight(command), encode_envelope(&envelope)))
    }

    /// What a planted bug makes of a transaction whose compares hold now: one without compares.
    fn decided_now(&self, command: &Command) -> Result<Command, Error> {
        let Command::Op(op @ Op::Txn(txn)) = command else { return Ok(command.clone()) };
        let view = self.raft.published().view();
        let (mut state, mut head) = (Overlay::new(self.raft.engine().as_ref()), view.head);
        let tried = mvcc::execute(&mut state, view.store.number(), &mut head, op);
        match tried.map_err(|error| broken(&self.raft, &error))? {
            Ok(Reply::Txn { succeeded: true, .. }) => {
                Ok(Command::Op(Op::Txn(Txn { compares: Vec::new(), ..txn.clone() })))
            }
            Ok(_) | Err(_) => Ok(command.clone()),
        }
    }

    pub async fn read(&self, op: &RangeOp, consistency: Consistency, deadline: Instant) -> Result<Answer, Error> {
        let effective = self.wait_fresh(consistency, deadline).await?;
        if op.range.end == RangeEnd::Single && op.revision.is_none() {
            return self.read_key(op, effective);
        }
        let scan = self.pin(effective)?;
        let reply = scan.page(op.clone(), usize::MAX).await?;
        Ok(Answer { reply, revision: scan.revision(), effective })
    }

    pub async fn scan(&self, consistency: Consistency, deadline: Instant) -> Result<Scan, Error> {
        let effective = self.wait_fresh(consistency, deadline).await?;
        self.pin(effective)
    }

    /// One key as of now needs no snapshot when it is there: its row is one row, and says its revision. At which revision
    /// a key is absent only a snapshot knows.
    fn read_key(&self, op: &RangeOp, effective: Effective) -> Result<Answer, Error> {
        let view = self.raft.published().view();
        let found = mvcc::range(self.raft.engine().as_ref(), view.store.number(), &view.head, op, usize::MAX);
        let reply = found.map_err(|error| broken(&self.raft, &error))??;
        // The row may be newer than the view that was loaded before it.
        if let Some(pair) = reply.pairs.first() {
            let revision = pair.mod_revision.max(view.head.revision);
            return Ok(Answer { reply, revision, effective });
        }
        let Scan { read, view, head, .. } = self.pin(effective)?;
        let found = mvcc::range(read.as_ref(), view.store.number(), &head, op, usize::MAX);
        let reply = found.map_err(|error| broken(&self.raft, &error))??;
        Ok(Answer { reply, revision: head.revision, effective })
    }

    fn pin(&self, effective: Effective) -> Result<Scan, Error> {
        let view = self.raft.published().view();
        let read: Arc<dyn Read> = Arc::from(self.raft.engine().snapshot());
        let head = Head::load(read.as_ref(), view.store.number()).map_err(|error| broken(&self.raft, &error))?;
        Ok(Scan { raft: self.raft.clone(), read, view, head, long_reads: self.long_reads.clone(), effective })
    }

    async fn wait_fresh(&self, consistency: Consistency, deadline: Instant) -> Result<Effective, Error> {
        match consistency {
            Consistency::Linearizable if planted::is(Bug::LocalReads) => Ok(Effective::Linearizable),
            Consistency::Linearizable => {
                let index = self.read_index(deadline).await?;
                self.wait_applied(index, deadline).await?;
                Ok(Effective::Linearizable)
            }
            Consistency::Stale { context } => {
                if let Some(revision) = context {
                    self.wait_revision(revision, deadline).await?;
                }
                Ok(self.staleness())
            }
        }
    }

    fn staleness(&self) -> Effective {
        let state = self.raft.state();
        let entries = |index: Option<u64>| index.map_or(0, |index| index + 1);
        Effective::Stale {
            entries_behind: entries(state.committed).saturating_sub(entries(state.applied)),
            leader_silent_ms: self.raft.leader_silent().map(|silent| silent.as_millis() as u64),
        }
    }

    /// The index a linearizable read must wait for.
    ///
    /// # Errors
    /// `NotLeader` when another replica should be asked. Nothing was read in any case.
    pub async fn read_index(&self, deadline: Instant) -> ReadIndex {
        self.rounds.join(deadline).await
    }

    /// Waits until everything up to `index` is applied here.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), Error> {
        if self.raft.published().view().applied.is_some_and(|applied| applied.index() >= index) {
            return Ok(());
        }
        clock::timeout_at(deadline, self.raft.published().wait_applied(index)).await.map_err(|_| Error::DeadlinePassed)
    }

    async fn wait_revision(&self, revision: Revision, deadline: Instant) -> Result<(), Error> {
        loop {
            let view = self.raft.published().view();
            if view.head.revision >= revision {
                return Ok(());
            }
            let next = view.applied.map_or(0, |applied| applied.index() + 1);
            self.wait_applied(next, deadline).await?;
        }
    }
}

impl Scan {
    /// The revision of the pinned state.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// Reads some keys of the pinned state, up to about `bytes_max`; many at once leave the async threads.
    pub async fn page(&self, op: RangeOp, bytes_max: usize) -> Result<trefoil_store::command::RangeReply, Error> {
        let (read, store, head) = (self.read.clone(), self.view.store.clone(), self.head);
        let few = op.limit.is_some_and(|limit| limit <= INLINE_KEYS_MAX) && !op.count && !op.count_only;
        // In the past, keys that were not there then are walked over too.
        let few = few && op.revision.is_none_or(|revision| revision == head.revision);
        let find = move || mvcc::range(read.as_ref(), store.number(), &head, &op, bytes_max);
        let found = match few {
            true => find(),
            false => self.walk(find).await?,
        };
        Ok(found.map_err(|error| broken(&self.raft, &error))??)
    }

    /// Carries out a transaction that only reads. Its `turn`, if it needs one, is taken until the read ends, also when
    /// nobody waits for it any more.
    pub async fn read_txn(&self, op: Op, turn: Option<OwnedSemaphorePermit>) -> Result<Reply, Error> {
        let (read, store, mut head) = (self.read.clone(), self.view.store.clone(), self.head);
        let find = move || {
            let found = mvcc::execute(&mut Overlay::new(read.as_ref()), store.number(), &mut head, &op);
            drop(turn);
            found
        };
        let found = self.walk(find).await?;
        Ok(found.map_err(|error| broken(&self.raft, &error))??)
    }

    /// Runs a read of many keys off the async threads. Its place is taken until it ends, also when nobody waits for it
    /// any more.
    async fn walk<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let exhausted = || Error::Exhausted { what: "room for long reads".into(), limit: LONG_READS_MAX as u64 };
        let place = clock::timeout(PLACE_PATIENCE, self.long_reads.clone().acquire_owned()).await;
        let place = place.map_err(|_| exhausted())?.map_err(|_| exhausted())?;
        let held = move || {
            let found = read();
            drop(place);
            found
        };
        trefoil_world::task::blocking(held).await.map_err(|error| Error::Broken { why: error.to_string() })
    }

    /// Keys and content sum at `revision`. After each part of the walk it rests `rests` times as long as that took.
    pub async fn digest(&self, revision: Revision, rests: u32) -> Result<mvcc::Content, Error> {
        let (mut content, mut next) = (mvcc::Content::default(), Some(bytes::Bytes::new()));
        while let Some(from) = next {
            let began = clock::now();
            let (read, store, head) = (self.read.clone(), self.view.store.clone(), self.head);
            let sum =
                move || mvcc::content_part_at(read.as_ref(), store.number(), &head, revision, &from, DIGEST_PART_KEYS);
            let found = trefoil_world::task::blocking(sum).await;
            let found = found.map_err(|error| Error::Broken { why: error.to_string() })?;
            let (part, rest) = found.map_err(|error| broken(&self.raft, &error))??;
            (content, next) = (content.and(part), rest);
            if rests > 0 {
                clock::sleep(began.elapsed() * rests).await;
            }
        }
        Ok(content)
    }
}

fn not_queued<T>(error: &mpsc::error::TrySendError<T>, what: &'static str, limit: usize) -> Error {
    match error {
        mpsc::error::TrySendError::Full(_) => Error::Exhausted { what: what.into(), limit: limit as u64 },
        mpsc::error::TrySendError::Closed(_) => Error::Unavailable { why: "the node is ending".into() },
    }
}

/// A local read that fails is no answer: the node will end over it.
fn broken(raft: &RaftReplica, error: &EngineError) -> Error {
    raft.report_broken(error.to_string());
    Error::Broken { why: error.to_string() }
}

async fn ask_quorum(raft: Arc<RaftReplica>) -> ReadIndex {
    match raft.read_index(ROUND_PATIENCE).await {
        Ok(index) => Ok(index),
        Err(ReadIndexError::NotLeader(leader)) => Err(not_leader(leader)),
        Err(ReadIndexError::NoQuorum(why)) => Err(Error::Unavailable { why }),
    }
}

fn not_leader(leader: Option<NodeId>) -> Error {
    match leader {
        Some(leader) => Error::NotLeader { leader: Some(leader) },
        None => Error::Unavailable { why: "the partition has no leader now".into() },
    }
}

async fn run_proposer(raft: Arc<RaftReplica>, mut commands: mpsc::Receiver<Pending>) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            first = commands.recv(), if in_flight.len() < ENTRIES_IN_FLIGHT_MAX => match first {
                Some(first) => in_flight.push(propose(raft.clone(), gather(first, &mut commands))),
                None => break,
            },
        }
    }
    while in_flight.next().await.is_some() {}
}

/// What a command counts in an entry beyond its bytes.
fn weight(command: &Command) -> usize {
    match command {
        Command::Op(op) => op_weight(op),
        Command::Compact(_) | Command::OpenSession | Command::CloseSession(_) => 0,
    }
}

fn op_weight(op: &Op) -> usize {
    match op {
        Op::Put(put) if !put.previous => 0,
        Op::Delete(delete) if !delete.previous && delete.range.end == RangeEnd::Single => 0,
        Op::Put(_) | Op::Range(_) | Op::Delete(_) => LARGE_ANSWER_WEIGHT,
        Op::Txn(txn) => {
            let ranges = txn.compares.iter().filter(|compare| compare.range.end != RangeEnd::Single).count();
            ranges * LARGE_ANSWER_WEIGHT + txn.success.iter().chain(&txn.failure).map(op_weight).sum::<usize>()
        }
    }
}

fn gather(first: Pending, commands: &mut mpsc::Receiver<Pending>) -> Vec<Pending> {
    let mut weight = first.weight;
    let mut gathered = vec![first];
    while gathered.len() < ENTRY_COMMANDS_MAX && weight < ENTRY_WEIGHT_MAX {
        let Ok(next) = commands.try_recv() else { break };
        weight += next.weight;
        gathered.push(next);
    }
    gathered
}

async fn propose(raft: Arc<RaftReplica>, gathered: Vec<Pending>) {
    let now = clock::now();
    let (waiting, expired): (Vec<Pending>, Vec<Pending>) =
        gathered.into_iter().partition(|pending| pending.deadline > now && !pending.answer.is_closed());
    answer_all(expired, |_| Err(Error::DeadlinePassed));
    if waiting.is_empty() {
        return;
    }
    let entry = encode_batch(waiting.iter().map(|pending| pending.envelope.as_slice()));
    let mut outcome = append(&raft, entry.clone()).await;
    for _ in 0..NOT_YET_RETRIES {
        if outcome != Err(ProposeError::NotYet) {
            break;
        }
        clock::sleep(NOT_YET_WAIT).await;
        outcome = append(&raft, entry.clone()).await;
    }
    match outcome {
        Ok(outcomes) => {
            assert_eq!(outcomes.len(), waiting.len(), "every command has one outcome");
            let mut outcomes = outcomes.into_iter();
            answer_all(waiting, |_| outcomes.next().ok_or(Error::Unknown { why: "no outcome".into() }));
        }
        Err(ProposeError::NotLeader(leader)) => answer_all(waiting, |_| Err(not_leader(leader))),
        Err(ProposeError::NotYet) => {
            let why = "the leader has no quorum now".to_owned();
            answer_all(waiting, |_| Err(Error::Unavailable { why: why.clone() }));
        }
        Err(ProposeError::Unknown(why)) => answer_all(waiting, |_| Err(Error::Unknown { why: why.clone() })),
    }
}

async fn append(raft: &RaftReplica, entry: bytes::Bytes) -> Result<Vec<Outcome>, ProposeError> {
    match clock::timeout(ENTRY_PATIENCE, raft.propose(entry)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ProposeError::Unknown(format!("no outcome in {ENTRY_PATIENCE:?}"))),
    }
}

fn answer_all(waiting: Vec<Pending>, mut answer: impl FnMut(&Pending) -> Result<Outcome, Error>) {
    for pending in waiting {
        let result = answer(&pending);
        // A caller whose deadline passed has been told that the outcome is unknown.
        drop(pending.answer.send(result));
    }
}
