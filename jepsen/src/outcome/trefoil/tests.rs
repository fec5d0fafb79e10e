//! The table beside `docs/errors.md`, and beside the client library's word for each error that a server answers with.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, Stream};
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::AsciiMetadataValue;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use trefoil_client::Client;
use trefoil_proto::v1;
use trefoil_proto::v1::cluster_server::{Cluster, ClusterServer};
use trefoil_world::{net, task};

use super::*;

const ERRORS: &str = include_str!("../../../../docs/errors.md");
const CODES: i32 = 17;
const TIMEOUT: Duration = Duration::from_secs(20);
const BUFFER: usize = 64 << 10;

/// A reason as `docs/errors.md` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Documented {
    code: Code,
    /// As the server says it in `trefoil-outcome`.
    outcome: &'static str,
}

impl Documented {
    fn certainty(self) -> Certainty {
        if self.outcome == "unknown" { Certainty::Unknown } else { Certainty::NotDone }
    }
}

/// Each reason of the table "Requests".
fn documented() -> BTreeMap<&'static str, Documented> {
    let mut all = BTreeMap::new();
    let lines = ERRORS.lines().skip_while(|line| *line != "## Requests").skip(1);
    // The first two rows are the head.
    for line in lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, code, reason, _, assumed, _] = cells[..] else { panic!("expected six cells in {line}") };
        let outcome = match assumed {
            "refused" => "refused",
            assumed if assumed.starts_with("unknown") => "unknown",
            assumed if assumed.ends_with("not done") => "not-done",
            assumed => panic!("expected an outcome, got '{assumed}'"),
        };
        let row = Documented { code: code_of(code), outcome };
        let other = all.insert(reason.trim_matches('`'), row);
        assert!(other.is_none_or(|other| other == row), "{reason} is documented in two ways");
    }
    all
}

/// A code by the name that the documents have: `DEADLINE_EXCEEDED`.
fn code_of(name: &str) -> Code {
    let plain = name.replace('_', "").to_lowercase();
    let code = (0..CODES).map(Code::from).find(|code| format!("{code:?}").to_lowercase() == plain);
    code.unwrap_or_else(|| panic!("'{name}' is no code"))
}

#[test]
fn the_table_is_that_of_the_documents() {
    let documented = documented();
    for (reason, code, certainty) in TABLE {
        let row = documented.get(reason).unwrap_or_else(|| panic!("{reason} is not documented"));
        assert_eq!((code, certainty), (row.code, row.certainty()), "{reason}");
    }
    let table: BTreeSet<&str> = TABLE.iter().map(|(reason, _, _)| *reason).collect();
    let reasons: BTreeSet<&str> = documented.keys().copied().collect();
    assert_eq!(table, reasons, "expected the table (left) to have what is documented");
}

#[test]
fn what_is_not_in_the_table_leaves_a_write_open() {
    for code in (0..CODES).map(Code::from) {
        for (reason, with, certainty) in TABLE {
            let expected = if code == with { certainty } else { Certainty::Unknown };
            assert_eq!(answered(code, reason), expected, "{reason} with {code:?}");
        }
        for reason in ["", "NEW", "not_leader"] {
            assert_eq!(answered(code, reason), Certainty::Unknown, "'{reason}' with {code:?}");
        }
    }
}

/// Library and harness read the same answer, each in its own way.
#[tokio::test]
async fn the_client_library_says_the_same_of_each_answer() {
    for (reason, row) in documented() {
        let error = asked(answer(row.code, reason, row.outcome)).await;
        assert_eq!((error.code(), error.reason()), (Some(row.code as i32), reason), "{error}");
        assert_eq!(said(error.outcome()), answered(row.code, reason), "library (left) and table of {reason}");
        let expected = Failure { certainty: row.certainty(), why: error.to_string() };
        assert_eq!(of_trefoil(&error, Access::Write), expected, "{reason}");
        assert_eq!(of_trefoil(&error, Access::Read).certainty, Certainty::NotDone, "{reason}");
    }
}

#[tokio::test]
async fn what_the_library_believes_and_the_table_does_not_is_open_and_told() {
    for (reason, code) in [("UNKNOWN_OUTCOME", Code::Unknown), ("NEW", Code::Unavailable), ("EXHAUSTED", Code::Aborted)]
    {
        let failure = of_trefoil(&asked(answer(code, reason, "not-done")).await, Access::Write);
        assert_eq!(failure.certainty, Certainty::Unknown, "{reason}");
        assert!(failure.why.ends_with("(the client library says: not-done)"), "{failure}");
    }
    let failure = of_trefoil(&asked(answer(Code::Unavailable, "NOT_LEADER", "unknown")).await, Access::Write);
    assert_eq!(failure.certainty, Certainty::Unknown, "an earlier attempt may have been done");
    assert!(failure.why.ends_with("(the client library says: unknown)"), "{failure}");
}

#[tokio::test]
async fn without_words_only_what_was_never_sent_is_not_done() {
    let lost = asked(Status::unavailable("x")).await;
    assert_eq!(of_trefoil(&lost, Access::Write).certainty, Certainty::Unknown);
    let refused = asked(Status::failed_precondition("somebody's words")).await;
    assert_eq!(of_trefoil(&refused, Access::Write).certainty, Certainty::Unknown);
    // What answers there does not have the method.
    let foreign = asked(Status::unimplemented("")).await;
    assert_eq!(foreign.kind(), Kind::Unreachable, "{foreign}");
    assert_eq!(of_trefoil(&foreign, Access::Write).certainty, Certainty::NotDone);
}

/// An error as a node answers with it.
fn answer(code: Code, reason: &str, outcome: &'static str) -> Status {
    let mut status = Status::new(code, "words");
    let metadata = status.metadata_mut();
    metadata.insert("trefoil-outcome", AsciiMetadataValue::from_static(outcome));
    metadata.insert("trefoil-reason", AsciiMetadataValue::try_from(reason).expect("a word"));
    status
}

/// What the client library makes of a put that is answered so.
async fn asked(status: Status) -> Error {
    let listener = net::listen("127.0.0.1:0").await.expect("a free port");
    let endpoint = listener.address().to_string();
    let server = Server::builder().add_service(Refuses(status)).add_service(ClusterServer::new(Empty));
    let serving = task::spawn(server.serve_with_incoming(connections(listener)));
    let builder = Client::builder([endpoint]).timeout(TIMEOUT).retries(false).routed(false);
    let client = builder.connect().await.expect("it answers for the map");
    let error = client.put("k", "1").send().await.expect_err("it refuses all puts");
    serving.abort();
    error
}

/// The connections of `listener`, as they come.
fn connections(listener: net::Listener) -> impl Stream<Item = io::Result<DuplexStream>> {
    stream::unfold(listener, |mut listener| async move {
        let accepted = listener.accept().await.map(|(mut stream, _)| {
            let (near, mut far) = duplex(BUFFER);
            task::spawn(async move { copy_bidirectional(&mut stream, &mut far).await });
            near
        });
        Some((accepted, listener))
    })
}

/// Answers whatever is asked of the keys with this.
#[derive(Clone)]
struct Refuses(Status);

impl NamedService for Refuses {
    const NAME: &'static str = "trefoil.v1.Kv";
}

impl tower::Service<http::Request<Body>> for Refuses {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(self.0.clone().into_http()))
    }
}

/// A cluster of which nothing is known.
struct Empty;

#[tonic::async_trait]
impl Cluster for Empty {
    async fn map(&self, _: Request<v1::MapRequest>) -> Result<Response<v1::MapResponse>, Status> {
        Ok(Response::new(v1::MapResponse::default()))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Err(Status::unavailable("nothing is known"))
    }

    async fn digest(&self, _: Request<v1::DigestRequest>) -> Result<Response<v1::DigestResponse>, Status> {
        Err(Status::unavailable("nothing is known"))
    }
}
