//! One call: attempts until one succeeds, the policy says stop, or the deadline passes.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use trefoil_placement::NodeId;
use trefoil_world::clock::{self, Instant};

use crate::address::Address;
use crate::error::{Error, Kind, Outcome};
use crate::retry::{Access, Repeat, Tries};
use crate::routes::Aim;
use crate::rpc::Rpc;
use crate::shared::Shared;
use crate::status::{self, Failure};
use crate::wire::Witness;

/// How a request is to be carried out.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) aim: Aim,
    pub(crate) access: Access,
    pub(crate) repeat: Repeat,
    pub(crate) timeout: Duration,
    /// How long the first node is given, at most, when others may be asked freely. Absent: nobody is given up before the
    /// timeout.
    pub(crate) patience: Option<Duration>,
}

impl Shared {
    /// Carries out a request.
    pub(crate) async fn call<R: Rpc>(self: &Arc<Self>, request: &R, how: &How) -> Result<R::Reply, Error> {
        Ok(self.call_and_tell(request, how).await?.0)
    }

    /// Carries out a request and tells who was asked.
    pub(crate) async fn call_and_tell<R: Rpc>(
        self: &Arc<Self>,
        request: &R,
        how: &How,
    ) -> Result<(R::Reply, Address), Error> {
        let mut tries = Tries::new(how.repeat, clock::now() + how.timeout, how.patience);
        let mut tried = Vec::new();
        loop {
            let (asked, others) = self.pick(&how.aim, &mut tried)?;
            let failure = match self.attempt(request, &asked, others, how, &tries).await {
                Ok(reply) => return Ok((reply, asked)),
                Err(failure) => failure,
            };
            self.learn_failure(&asked, how, &failure);
            let pause = tries.after(&asked, failure.error, clock::now())?;
            tried.push(asked);
            clock::sleep(pause).await;
        }
    }

    /// Whom to ask next, and whether others are left for this round.
    fn pick(&self, aim: &Aim, tried: &mut Vec<Address>) -> Result<(Address, bool), Error> {
        let (mut routes, now) = (self.routes(), clock::now());
        let picked = routes.pick(aim, tried, now).map(|asked| {
            let others = routes.has_others(aim, tried, &asked, now);
            (asked, others)
        });
        picked.ok_or_else(|| {
            let message = match aim {
                Aim::Node(node) => format!("{node} is not in the map"),
                Aim::Leader(_) | Aim::Replica(_) | Aim::Anybody | Aim::Given | Aim::At(_) => {
                    "no endpoint to ask".to_owned()
                }
            };
            Error::new(Kind::NoSuchNode, Outcome::Refused, message)
        })
    }

    async fn attempt<R: Rpc>(
        self: &Arc<Self>,
        request: &R,
        asked: &Address,
        others: bool,
        how: &How,
        tries: &Tries,
    ) -> Result<R::Reply, Failure> {
        let (wire, witness) = self.lanes.wire(asked);
        let now = clock::now();
        let (connect_by, deadline) = (tries.connect_deadline(now, others), tries.attempt_deadline(now, others));
        let mut message = tonic::Request::new(request.clone());
        message.set_timeout(deadline.saturating_duration_since(now));
        match answer(R::send(message, wire), &witness, connect_by, deadline).await {
            Some(Ok(reply)) => {
                let reply = reply.into_inner();
                self.learn_reply::<R>(asked, how, &reply);
                Ok(reply)
            }
            Some(Err(status)) => Err(status::read(&status, !witness.withdraw(), how.access, asked)),
            None => Err(status::timed_out(!witness.withdraw(), how.access, asked)),
        }
    }

    fn learn_reply<R: Rpc>(self: &Arc<Self>, asked: &Address, how: &How, reply: &R::Reply) {
        let header = R::header(reply);
        let node = header.map(|header| NodeId(header.node_id)).filter(|node| *node != NodeId::default());
        let mut routes = self.routes();
        routes.learn_reply(asked, &how.aim, node);
        let newer_map = header.is_some_and(|header| header.map_version > routes.map().version);
        let wants_leader = routes.wants_leader(&how.aim, clock::now());
        drop(routes);
        if wants_leader {
            self.ask_who_leads(asked.clone());
        }
        if newer_map {
            self.refresh();
        }
    }

    fn learn_failure(self: &Arc<Self>, asked: &Address, how: &How, failure: &Failure) {
        self.routes().learn_failure(asked, &how.aim, &failure.error, failure.answered, clock::now());
        let asked_one = match how.aim {
            Aim::Node(_) | Aim::At(_) => true,
            Aim::Leader(_) | Aim::Replica(_) | Aim::Anybody | Aim::Given => false,
        };
        // The node may have moved; or another cluster has taken the place of the one our map is of, to which our epoch
        // is malformed. Questions to one node are not worth it: they are asked of dead ones on purpose.
        let outdated = !failure.answered || failure.error.kind() == Kind::Malformed;
        if outdated && !asked_one {
            self.refresh();
        }
    }
}

/// What comes of sending, if anything does by `deadline`, and if there is a connection by `connect_by`.
async fn answer<T>(
    sending: impl Future<Output = T>,
    witness: &Witness,
    connect_by: Instant,
    deadline: Instant,
) -> Option<T> {
    let mut sending = pin!(sending);
    match clock::timeout_at(connect_by, &mut sending).await {
        Ok(answer) => Some(answer),
        Err(_) if witness.withdraw_unconnected() => None,
        Err(_) => clock::timeout_at(deadline, sending).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncWriteExt;
    use trefoil_proto::v1;
    use trefoil_world::{net, task};

    /// Takes connections and says this on each: nothing, and closes it, as a full server does; nothing, and keeps it, as
    /// a frozen one; what is not HTTP/2; or no more than that it speaks HTTP/2.
    async fn mute_server(says: &'static [u8], keeps: bool) -> Address {
        counting_server(says, keeps).await.0
    }

    /// One that also counts its connections.
    async fn counting_server(says: &'static [u8], keeps: bool) -> (Address, Arc<AtomicUsize>) {
        let mut listener = net::listen("127.0.0.1:0").await.expect("a free port");
        let address = Address::parse(&listener.address().to_string()).expect("an address");
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        task::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                stream.write_all(says).await.expect("to say something");
                if keeps {
                    kept.push(stream);
                }
            }
        });
        (address, taken)
    }

    /// HTTP/2's empty SETTINGS.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

    /// The second one counts the question whether it answers or not.
    #[tokio::test]
    async fn behind_one_that_stays_silent_the_next_is_asked_when_that_is_harmless() {
        let (timeout, patience) = (Duration::from_millis(400), Some(Duration::from_secs(1)));
        for (access, repeat, outcome, goes_on) in [
            (Access::Read, Repeat::Freely, Outcome::NotDone, true),
            (Access::Write, Repeat::Freely, Outcome::Unknown, true),
            (Access::Write, Repeat::WhenNotDone, Outcome::Unknown, false),
            (Access::Read, Repeat::Never, Outcome::NotDone, false),
        ] {
            let silent = mute_server(SETTINGS, true).await;
            let (second, taken) = counting_server(SETTINGS, true).await;
            let shared = Arc::new(Shared::new(vec![silent, second], 1));
            let how = How { aim: Aim::Anybody, access, repeat, timeout, patience };
            let error = shared.call(&v1::PutRequest::default(), &how).await.expect_err("nobody answers");
            assert_eq!((error.kind(), error.outcome()), (Kind::Deadline, outcome), "{access:?} {repeat:?}: {error}");
            let asked = error.to_string().contains("(2 attempts)") && taken.load(Ordering::Relaxed) > 0;
            assert_eq!(asked, goes_on, "{access:?} {repeat:?}: {error}");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_server_that_does_not_speak_http2() {
        for (says, keeps) in [(&b""[..], false), (b"", true), (b"HTTP/1.1 400 Bad Request\r\n\r\n", true)] {
            let shared = Arc::new(Shared::new(vec![mute_server(says, keeps).await], 1));
            let (timeout, patience) = (Duration::from_millis(300), Some(Duration::from_secs(2)));
            let how = How { aim: Aim::Anybody, access: Access::Write, repeat: Repeat::WhenNotDone, timeout, patience };
            let error = shared.call(&v1::PutRequest::default(), &how).await.expect_err("nobody serves there");
            assert_eq!((error.kind(), error.outcome()), (Kind::Unreachable, Outcome::NotDone), "{error}");
        }
    }
}
