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
    /// How long the first node is given when others may be asked freely.
    pub(crate) patience: Duration,
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
            let asked = self.pick(&how.aim, &mut tried)?;
            let failure = match self.attempt(request, &asked, how, &tries).await {
                Ok(reply) => return Ok((reply, asked)),
                Err(failure) => failure,
            };
            self.learn_failure(&asked, how, &failure);
            let pause = tries.after(&asked, failure.error, clock::now())?;
            tried.push(asked);
            clock::sleep(pause).await;
        }
    }

    fn pick(&self, aim: &Aim, tried: &mut Vec<Address>) -> Result<Address, Error> {
        let picked = self.routes().pick(aim, tried, clock::now());
        picked.ok_or_else(|| {
            let message = match aim {
                Aim::Node(node) => format!("{node} is not in the map"),
                Aim::Leader(_) | Aim::Replica(_) | Aim::Anybody | Aim::At(_) => "no endpoint to ask".to_owned(),
            };
            Error::new(Kind::NoSuchNode, Outcome::Refused, message)
        })
    }

    async fn attempt<R: Rpc>(
        self: &Arc<Self>,
        request: &R,
        asked: &Address,
        how: &How,
        tries: &Tries,
    ) -> Result<R::Reply, Failure> {
        let (wire, witness) = self.lanes.wire(asked);
        let now = clock::now();
        let (connect_by, deadline) = (tries.connect_deadline(now), tries.attempt_deadline(now));
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
            Aim::Leader(_) | Aim::Replica(_) | Aim::Anybody => false,
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
    use tokio::io::AsyncWriteExt;
    use trefoil_proto::v1;
    use trefoil_world::{net, task};

    /// Takes connections and says this on each: nothing, and closes it, as a full server does; nothing, and keeps it, as
    /// a frozen one; or what is not HTTP/2.
    async fn mute_server(says: &'static [u8], keeps: bool) -> Address {
        let mut listener = net::listen("127.0.0.1:0").await.expect("a free port");
        let address = Address::parse(&listener.address().to_string()).expect("an address");
        task::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(says).await.expect("to say something");
                if keeps {
                    kept.push(stream);
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_server_that_does_not_speak_http2() {
        for (says, keeps) in [(&b""[..], false), (b"", true), (b"HTTP/1.1 400 Bad Request\r\n\r\n", true)] {
            let shared = Arc::new(Shared::new(vec![mute_server(says, keeps).await], 1));
            let (timeout, patience) = (Duration::from_millis(300), Duration::from_secs(2));
            let how = How { aim: Aim::Anybody, access: Access::Write, repeat: Repeat::WhenNotDone, timeout, patience };
            let error = shared.call(&v1::PutRequest::default(), &how).await.expect_err("nobody serves there");
            assert_eq!((error.kind(), error.outcome()), (Kind::Unreachable, Outcome::NotDone), "{error}");
        }
    }
}
