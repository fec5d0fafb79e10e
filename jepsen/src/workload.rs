//! Workloads: what is asked, how it is carried out, and by which checkers it is judged.

pub mod append;
pub mod bank;
mod guarded;
pub mod register;
pub mod set;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trefoil_client::{Client, Error};

use crate::checker::Verdict;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::Access;

/// A kind of load and its model. Choosing is pure; only [`Workload::carry_out`] acts.
pub trait Workload: Send + 'static {
    type Call: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Reply: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// As the command line and files have it.
    const NAME: &'static str;

    /// The kinds of calls, each of which must succeed at least once for a run to prove anything.
    const KINDS: &'static [&'static str];

    /// What is asked next.
    fn next(&mut self, dice: &mut Dice) -> Self::Call;

    /// Takes note of a reply, for the sake of later calls.
    fn observe(&mut self, call: &Self::Call, reply: &Self::Reply);

    /// What is asked when all faults are healed: reads of all that was written.
    fn last_calls(&self) -> Vec<Self::Call>;

    /// Which of [`Workload::KINDS`] a call is.
    fn kind(call: &Self::Call) -> &'static str;

    fn access(call: &Self::Call) -> Access;

    /// Asks it of the store. The client must not retry. `None` when a guard did not hold and nothing was done.
    fn carry_out(
        client: &Client,
        call: &Self::Call,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<Self::Reply>, Error>> + Send;

    fn check(operations: &[Operation<Self::Call, Self::Reply>]) -> Vec<Verdict>;
}
