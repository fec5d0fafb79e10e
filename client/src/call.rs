//! One call: attempts until one succeeds, the policy says stop, or the deadline passes.

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
            let deadline = tries.attempt_deadline(clock::now());
            let failure = match self.attempt(request, &asked, how, deadline).await {
                Ok(reply) => return Ok((reply, asked)),
                Err(failure) => failure,
            };
            self.learn_failure(&asked, how, &failure);
            let pause = tries.after(failure.error, clock::now())?;
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
        deadline: Instant,
    ) -> Result<R::Reply, Failure> {
        let witness = Arc::new(Witness::default());
        let wire = self.lanes.wire(asked, witness.clone());
        let mut message = tonic::Request::new(request.clone());
        message.set_timeout(deadline.saturating_duration_since(clock::now()));
        match clock::timeout_at(deadline, R::send(message, wire)).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                self.learn_reply::<R>(asked, how, &reply);
                Ok(reply)
            }
            Ok(Err(status)) => Err(status::read(&status, !witness.withdraw(), how.access, asked)),
            Err(_) => Err(status::timed_out(!witness.withdraw(), how.access, asked)),
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
        // The node may have moved. Questions to one node are not worth it: they are asked of dead ones on purpose.
        if !failure.answered && !asked_one {
            self.refresh();
        }
    }
}
