//! A session that is watched: each of its requests is executed once, and each node shows it as it is.
//!
//! The client library hides what is to be seen here: it asks the leader, and repeats a request only when it has to. So
//! this speaks the API itself. A writer counts: its number `n` puts the counter and the mark of `n`, and removes the mark
//! of [`MARKS`] numbers before, as a key or as a range, in one transaction with a request id. It asks any node until it
//! has an answer, and now and then repeats a number that was answered long ago. Readers are bound to one node each; they
//! read the counter and all marks at once.
//!
//! What must hold:
//!
//! * A number is executed once: all answers to it name one revision, and the counter was put as often as it says.
//! * A read shows at least what was answered, or read anywhere, before it began, and nothing that was not begun.
//! * The marks that are there are those of the last numbers.
//!
//! Left out: clocks that are wrong. Log time follows the furthest, and ends a session that was unused for ten minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::Status;
use trefoil_jepsen::generator::Dice;
use trefoil_proto::v1::{self, key_range, op, op_reply};
use trefoil_world::{clock, task};

use crate::direct::{Node, answer, node, timed};
use crate::parameters::SessionParameters;
use crate::watcher::{Judged, Violations, Watcher};

const COUNTER: &str = "session/counter";
const MARK: &str = "session/mark/";
/// Marks that stay.
const MARKS: u64 = 8;
/// How far back a number may lie that is repeated, and one whose answer is still kept. The server keeps a thousand.
const REPEATED_MAX: u64 = 100;
const KEPT: u64 = 200;
/// One request in so many repeats an old number.
const REPEATED_ONE_IN: u64 = 3;
const CALL_TIMEOUT: Duration = Duration::from_millis(800);
const ASKED_AGAIN: Duration = Duration::from_millis(20);

/// See the file's head.
pub type Watched = Watcher<Ledger>;

impl Watched {
    /// Starts writer and readers. Runs on the clients' machine, at its beginning.
    pub fn start(parameters: &SessionParameters, endpoints: &[String], mut dice: Dice) -> Watched {
        let nodes: Vec<Node> = endpoints.iter().map(|endpoint| node(endpoint)).collect();
        let watched = Watched::default();
        for (place, node) in nodes.iter().enumerate() {
            for _ in 0..parameters.readers {
                let pauses = Pauses { longest_ms: parameters.pause_ms, dice: dice.split() };
                task::spawn(read_on(place, node.clone(), watched.clone(), pauses));
            }
        }
        let pauses = Pauses { longest_ms: parameters.pause_ms, dice: dice.split() };
        let writer = Writer { nodes, session: 0, number: 0, dice, pauses, watched: watched.clone() };
        task::spawn(writer.count());
        watched
    }
}

/// What was begun, answered and seen.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The highest number that was begun.
    begun: u64,
    /// The highest number that was answered or read: what reads that begin now must show.
    known: u64,
    /// The revision of each answered number.
    answered: BTreeMap<u64, u64>,
    repeats: u64,
    reads: u64,
    violations: Violations,
}

impl Judged for Ledger {
    const CHECKER: &'static str = "session";

    fn violations(&self) -> &Violations {
        &self.violations
    }

    fn lacks(&self) -> Option<String> {
        let Ledger { repeats, reads, .. } = self;
        let enough = *repeats > 0 && *reads > 0;
        (!enough).then(|| format!("answered: {repeats} repeats and {reads} reads"))
    }
}

/// What a read has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    counter: u64,
    /// How often the counter was put.
    version: u64,
    marks: Vec<u64>,
}

impl Ledger {
    fn answer(&mut self, number: u64, revision: u64) {
        self.known = self.known.max(number);
        match self.answered.insert(number, revision) {
            None => {}
            Some(before) if before == revision => self.repeats += 1,
            Some(before) => {
                self.violations.add(format!("{number} was executed at revision {before} and at {revision}"));
            }
        }
    }

    /// A read at a node has shown this; `known` is what was known when it began.
    fn see(&mut self, place: usize, known: u64, seen: Seen) {
        self.reads += 1;
        let Seen { counter, version, marks } = seen;
        let node = format!("n{}", place + 1);
        if counter < known {
            self.violations.add(format!("{node} showed {counter} when {known} was known before"));
        }
        if counter > self.begun {
            self.violations.add(format!("{node} showed {counter}, and only {} was begun", self.begun));
        }
        if version != counter {
            self.violations.add(format!("{node} showed {counter}, put {version} times"));
        }
        let expected: Vec<u64> = (counter.saturating_sub(MARKS - 1).max(1)..=counter).collect();
        if marks != expected {
            self.violations.add(format!("{node} showed {counter} with the marks {marks:?}"));
        }
        self.known = self.known.max(counter);
    }
}

/// Pauses of up to so long.
struct Pauses {
    longest_ms: u64,
    dice: Dice,
}

impl Pauses {
    async fn pause(&mut self) {
        clock::sleep(Duration::from_millis(1 + self.dice.below(self.longest_ms))).await;
    }
}

/// Counts in a session.
struct Writer {
    nodes: Vec<Node>,
    session: u64,
    /// The highest number so far.
    number: u64,
    dice: Dice,
    pauses: Pauses,
    watched: Watched,
}

/// What becomes of a request that has no answer.
enum Unanswered {
    /// Nobody knows, and it may be asked again.
    Open,
    /// The session has forgotten it.
    Forgotten(String),
}

impl Writer {
    async fn count(mut self) {
        while self.session == 0 && !self.watched.is_stopped() {
            self.session = self.open().await.unwrap_or(0);
            clock::sleep(ASKED_AGAIN).await;
        }
        while !self.watched.is_stopped() {
            let number = self.choose();
            if let Err(why) = self.insist(number).await {
                let what = format!("{number} has no outcome any more: {why}");
                self.watched.seen().violations.add(what);
                return;
            }
            self.pauses.pause().await;
        }
    }

    fn choose(&mut self) -> u64 {
        if self.number > 0 && self.dice.below(REPEATED_ONE_IN) == 0 {
            return self.number - self.dice.below(REPEATED_MAX.min(self.number));
        }
        self.number += 1;
        self.watched.seen().begun = self.number;
        self.number
    }

    /// Asks until it is answered, or told to stop.
    ///
    /// # Errors
    /// The session has forgotten it.
    async fn insist(&mut self, number: u64) -> Result<(), String> {
        while !self.watched.is_stopped() {
            match self.write(number).await {
                Ok(revision) => {
                    self.watched.seen().answer(number, revision);
                    return Ok(());
                }
                Err(Unanswered::Forgotten(why)) => return Err(why),
                Err(Unanswered::Open) => clock::sleep(ASKED_AGAIN).await,
            }
        }
        Ok(())
    }

    async fn open(&mut self) -> Option<u64> {
        let mut node = self.dice.pick(&self.nodes).clone();
        let asked = async { node.open_session(timed(v1::OpenSessionRequest { header: None }, CALL_TIMEOUT)).await };
        answer(asked, CALL_TIMEOUT).await.ok().map(|reply| reply.session)
    }

    async fn write(&mut self, number: u64) -> Result<u64, Unanswered> {
        let acknowledged = self.number.saturating_sub(KEPT);
        let id = v1::RequestId { session: self.session, sequence: number, acknowledged };
        let header = v1::RequestHeader { request_id: Some(id), ..v1::RequestHeader::default() };
        let mut ops = vec![put(COUNTER.to_owned(), number), put(mark(number), number)];
        ops.extend(number.checked_sub(MARKS).filter(|old| *old > 0).map(removal));
        let txn = v1::Txn { success: ops, ..v1::Txn::default() };
        let request = v1::TxnRequest { header: Some(header), txn: Some(txn), ..v1::TxnRequest::default() };
        let mut node = self.dice.pick(&self.nodes).clone();
        let reply = answer(async { node.txn(timed(request, CALL_TIMEOUT)).await }, CALL_TIMEOUT).await;
        reply.map(|reply| reply.header.unwrap_or_default().revision).map_err(|status| unanswered(&status))
    }
}

fn unanswered(status: &Status) -> Unanswered {
    let reason = status.metadata().get("trefoil-reason").and_then(|reason| reason.to_str().ok()).unwrap_or_default();
    match ["SESSION_ENDED", "BELOW_WINDOW", "REPLY_FORGOTTEN"].contains(&reason) {
        true => Unanswered::Forgotten(status.message().to_owned()),
        false => Unanswered::Open,
    }
}

/// Reads at one node again and again.
async fn read_on(place: usize, mut node: Node, watched: Watched, mut pauses: Pauses) {
    while !watched.is_stopped() {
        let known = watched.seen().known;
        let ops = [(COUNTER, None), (MARK, Some(key_range::End::Prefix(true)))].map(|(key, end)| range(key, end));
        let txn = v1::Txn { success: ops.into(), ..v1::Txn::default() };
        let request = v1::TxnRequest { txn: Some(txn), ..v1::TxnRequest::default() };
        if let Ok(reply) = answer(async { node.txn(timed(request, CALL_TIMEOUT)).await }, CALL_TIMEOUT).await {
            watched.seen().see(place, known, shown(reply));
        }
        pauses.pause().await;
    }
}

/// What a read was answered. A number that is none is shown as one that nobody has begun.
fn shown(reply: v1::TxnResponse) -> Seen {
    let number = |pair: &v1::KeyValue| std::str::from_utf8(&pair.value).ok().and_then(|text| text.parse().ok());
    let mut pairs = reply.replies.into_iter().map(|reply| match reply.reply {
        Some(op_reply::Reply::Range(range)) => range.pairs,
        Some(op_reply::Reply::Put(_) | op_reply::Reply::Delete(_) | op_reply::Reply::Txn(_)) | None => Vec::new(),
    });
    let (counter, marks) = (pairs.next().unwrap_or_default(), pairs.next().unwrap_or_default());
    Seen {
        counter: counter.first().map_or(0, |pair| number(pair).unwrap_or(u64::MAX)),
        version: counter.first().map_or(0, |pair| pair.version),
        marks: marks.iter().map(|pair| number(pair).unwrap_or(u64::MAX)).collect(),
    }
}

fn mark(number: u64) -> String {
    format!("{MARK}{number:08}")
}

fn range_of(key: String, end: Option<key_range::End>) -> v1::KeyRange {
    v1::KeyRange { key: key.into(), end }
}

fn range(key: &str, end: Option<key_range::End>) -> v1::Op {
    let range = Some(range_of(key.to_owned(), end));
    v1::Op { op: Some(op::Op::Range(v1::RangeOp { range, ..v1::RangeOp::default() })) }
}

fn put(key: String, value: u64) -> v1::Op {
    let put = v1::PutOp { key: key.into(), value: value.to_string().into(), ..v1::PutOp::default() };
    v1::Op { op: Some(op::Op::Put(put)) }
}

/// Removes one mark: of every other number by a range that has no other one in it.
fn removal(old: u64) -> v1::Op {
    let end = old.is_multiple_of(2).then(|| key_range::End::Before(mark(old + 1).into()));
    let range = Some(range_of(mark(old), end));
    v1::Op { op: Some(op::Op::Delete(v1::DeleteOp { range, ..v1::DeleteOp::default() })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty numbers were begun and answered, each at the revision that follows it.
    fn counted() -> Ledger {
        let mut ledger = Ledger { begun: 20, ..Ledger::default() };
        (1..=20).for_each(|number| ledger.answer(number, number + 1));
        ledger
    }

    fn well() -> Seen {
        Seen { counter: 20, version: 20, marks: (13..=20).collect() }
    }

    #[test]
    fn what_a_read_may_not_show_is_found() {
        let few = Seen { counter: 3, version: 3, marks: vec![1, 2, 3] };
        let cases = [
            (well(), 20, None),
            (few.clone(), 3, None),
            (Seen::default(), 0, None),
            (few, 4, Some("4 was known")),
            (Seen { counter: 21, version: 21, marks: (14..=21).collect() }, 20, Some("only 20 was begun")),
            (Seen { version: 21, ..well() }, 20, Some("put 21 times")),
            (Seen { marks: (12..=20).collect(), ..well() }, 20, Some("with the marks")),
            (Seen { marks: (14..=20).collect(), ..well() }, 20, Some("with the marks")),
        ];
        for (seen, known, expected) in cases {
            let mut ledger = counted();
            ledger.see(0, known, seen.clone());
            match expected {
                None => assert_eq!(ledger.violations.told(), &[] as &[String], "{seen:?}"),
                Some(words) => assert!(ledger.violations.told().iter().any(|line| line.contains(words)), "{seen:?}"),
            }
        }
    }

    #[test]
    fn a_number_that_is_executed_twice_is_found() {
        let mut ledger = counted();
        ledger.answer(7, 8);
        assert_eq!((ledger.repeats, ledger.violations.told().len()), (1, 0));
        ledger.answer(7, 30);
        assert_eq!((ledger.repeats, ledger.violations.told().len()), (1, 1));
    }
}
