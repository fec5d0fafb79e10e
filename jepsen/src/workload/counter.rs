//! A counter: one key that is incremented by compare-and-swap, and read.
//!
//! An increment that was answered says what it made of the counter, so its place among the others is given. All
//! increments are by one: those of unknown outcome are then alike, and the search for an order need not choose among
//! them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guarded;
use crate::checker::{Verdict, counter};
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::workload::{Name, Workload};

const KEY: &str = "counter";

/// What is asked of the counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Call {
    /// `by` is above 0.
    Increment {
        by: u64,
    },
    Read,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Reply {
    /// `value`: what it has made of the counter.
    Increment { value: u64 },
    /// 0 when nobody has incremented it.
    Read { value: u64 },
}

/// Chooses increments and reads, one as often as the other.
#[derive(Debug, Default)]
pub struct Counter;

impl Workload for Counter {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::Counter;
    const KINDS: &'static [&'static str] = &["increment", "read"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        match dice.flag() {
            true => Call::Read,
            false => Call::Increment { by: 1 },
        }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        vec![Call::Read]
    }

    fn kind(call: &Call) -> &'static str {
        match call {
            Call::Increment { .. } => "increment",
            Call::Read => "read",
        }
    }

    fn access(call: &Call) -> Access {
        match call {
            Call::Increment { .. } => Access::Write,
            Call::Read => Access::Read,
        }
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        let seen = guarded::read(client, vec![KEY.into()], timeout).await?;
        let held = seen.rows.iter().flat_map(guarded::Row::numbers).next().unwrap_or(0);
        match call {
            Call::Read => Ok(Some(Reply::Read { value: held })),
            Call::Increment { by } => {
                let value = held.saturating_add(*by);
                let puts = vec![(KEY.into(), value.to_string())];
                let done = guarded::write(client, &seen.rows, puts, timeout).await?;
                Ok(done.map(|_| Reply::Increment { value }))
            }
        }
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![counter::bounds(operations), counter::linearizable(operations)]
    }
}
