//! docs/errors.md line by line: every message of its tables is provoked by a test, or stands among those that are not,
//! with the reason.

mod between_nodes;
mod bystanders;
mod endings;
mod forming;
mod limits;
mod quorum;
mod refusals;
mod silent_leader;
mod starts;
mod wordless;

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::Status;
use trefoil_client::{Error, Kind, Outcome};

use crate::checkout;
use crate::disk_space;
use crate::errors_table::{Case, Row, requests};
use crate::many_requests;
use crate::raw::{self, bounded};
use crate::unfinished_requests;
use crate::unread_answers;
use crate::wait::until;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a leader without a quorum takes to say so.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// Where the server's words stand.
const WORDS: &str = "server/src/api/status.rs";

/// What no request to a running server can provoke, and why.
const UNPROVOKED: [(Case, &str); 11] = [
    (
        Case::new("no placement row", "UNAVAILABLE", "not available: partition … is not placed yet"),
        "the first map brings every row, and none is ever removed (server/src/cluster/map.rs, `found`)",
    ),
    (
        Case::new("no placement row", "UNAVAILABLE", "not available: nobody holds the partition"),
        "as before: a row without replicas is never written",
    ),
    (
        Case::new("the node is ending, a read", "UNAVAILABLE", "not available: the node is ending"),
        "requests are answered before the replicas stop, and the process ends right behind them",
    ),
    (Case::new("the node is ending, a write", "UNKNOWN_OUTCOME", "outcome unknown: the node is ending"), "as before"),
    (
        Case::new("in a mode that cannot", "UNSUPPORTED", "a request is not supported in mode leaderless"),
        "no keyspace of another mode can be made yet",
    ),
    (
        Case::new(
            "65 536 reads",
            "EXHAUSTED",
            "the partition's read queue is exhausted: the limit is 65536; try again later",
        ),
        "a round takes all that wait once a second, even without a quorum: no client here is that fast",
    ),
    (
        Case::new(
            "while it was asked for a read index",
            "UNAVAILABLE",
            "not available: the leader did not answer in 5s",
        ),
        "a leader that answers no pings is given up before that, and one that answers them answers this too",
    ),
    (
        Case::new("64 long reads", "EXHAUSTED", "room for long reads is exhausted: the limit is 64; try again later"),
        "it takes 65 reads of over 5 s each at once",
    ),
    (
        Case::new(
            "512 MiB of requests",
            "EXHAUSTED",
            "room for requests is exhausted: the limit is 536870912; try again later",
        ),
        "it takes 340 requests of the largest size at once, and as much memory here",
    ),
    (
        Case::new(
            "512 MiB of requests",
            "EXHAUSTED",
            "room for the partition's commands is exhausted: the limit is 268435456; try again later",
        ),
        "as before, with half of it",
    ),
    (
        Case::new("the engine cannot be read", "BROKEN", "a local read failed: …"),
        "the node ends over it, and whether an answer gets out before is chance; cluster_5 damages files",
    ),
];

/// What the tests provoke.
fn provoked() -> Vec<Case> {
    let mut cases = vec![disk_space::FLOOR];
    cases.extend(bystanders::PROVOKED);
    cases.extend(forming::PROVOKED);
    cases.extend(limits::PROVOKED);
    cases.extend(many_requests::PROVOKED);
    cases.extend(quorum::PROVOKED);
    cases.extend(refusals::cases());
    cases.extend(silent_leader::PROVOKED);
    cases.extend(unfinished_requests::PROVOKED);
    cases.extend(unread_answers::PROVOKED);
    cases
}

#[test]
fn every_message_is_provoked() {
    let rows = requests();
    let (provoked, unprovoked) = (provoked(), UNPROVOKED.map(|(case, _)| case));
    for case in provoked.iter().chain(&unprovoked) {
        // Panics when there is no such row, or the row has no such message.
        case.row(&rows);
    }
    for (case, why) in UNPROVOKED {
        assert!(!provoked.contains(&case), "expected what is provoked not to be among what is not: {case:?}");
        println!("not provoked: {}: {}: {why}", case.condition, case.message);
    }
    for row in &rows {
        for message in &row.messages {
            let known = |case: &&Case| case.is_of(row) && case.message == message;
            let found = provoked.iter().chain(&unprovoked).find(known);
            assert!(found.is_some(), "expected a test that provokes '{message}' of the row '{}'", row.condition);
        }
    }
    println!("{} rows: {} cases provoked, {} not", rows.len(), provoked.len(), unprovoked.len());
}

#[test]
fn exit_codes_follow_from_outcomes() {
    for Row { condition, outcome, kvctl, .. } in requests() {
        let code = if outcome == "unknown" { "5" } else { "3" };
        assert_eq!(
            kvctl, code,
            "expected this exit code of kvctl in the row '{condition}', whose outcome is {outcome}"
        );
    }
}

#[test]
fn the_server_says_the_words_of_the_table() {
    let source = checkout::text(WORDS);
    let is_word = |text: &&str| text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let said: BTreeSet<String> = source.split('"').skip(1).step_by(2).filter(is_word).map(str::to_owned).collect();
    let documented: BTreeSet<String> = requests().into_iter().map(|row| row.reason).collect();
    assert_eq!(documented, said, "expected docs/errors.md (left) to have the words of {WORDS} (right)");
}

/// How a request failed that must fail.
fn failed<T>(what: &str, answer: Result<T, Status>) -> Status {
    match answer {
        Ok(_) => panic!("{what}: expected an error, got an answer"),
        Err(status) => status,
    }
}

/// How a node that may not be there yet fails a get, once it does so in the way of this case.
async fn answered(address: &str, case: Case) -> Status {
    until(case.message, PATIENCE, async || {
        let mut kv = raw::kv(address).await?;
        let answer = kv.get(bounded(raw::get("k"), ATTEMPT_MAX)).await;
        answer.err().filter(|status| case.is(status))
    })
    .await
}

/// A call of the client library must fail with one of these kinds.
fn expect_error(what: &str, answer: Result<(), Error>, kinds: &[Kind], outcome: Outcome) {
    let error = match answer {
        Ok(()) => panic!("{what}: expected an error, got an answer"),
        Err(error) => error,
    };
    let (kind, found) = (error.kind(), error.outcome());
    println!("{what}: {found:?} {kind:?}: {error}");
    assert!(kinds.contains(&kind), "{what}: expected one of {kinds:?}, got {kind:?}: {error}");
    assert_eq!(found, outcome, "{what}: expected this outcome: {error}");
}
