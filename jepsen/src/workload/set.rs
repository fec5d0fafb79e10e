//! A set: elements are added to one key by compare-and-swap, and the whole set is read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guarded::{self, text_of};
use crate::checker::{Verdict, set_full};
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::workload::{Name, Workload};

const KEY: &str = "set";

/// What is asked of the set. Each element is added once in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Call {
    Add { element: u64 },
    Read,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Reply {
    Add,
    /// As they stood in the store, so that one that stands there twice is seen.
    Read {
        elements: Vec<u64>,
    },
}

/// Chooses elements: 1, 2, 3, …
#[derive(Debug, Default)]
pub struct Set {
    added: u64,
}

impl Workload for Set {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::Set;
    const KINDS: &'static [&'static str] = &["add", "read"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        if dice.flag() {
            return Call::Read;
        }
        self.added += 1;
        Call::Add { element: self.added }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        vec![Call::Read]
    }

    fn kind(call: &Call) -> &'static str {
        match call {
            Call::Add { .. } => "add",
            Call::Read => "read",
        }
    }

    fn access(call: &Call) -> Access {
        match call {
            Call::Add { .. } => Access::Write,
            Call::Read => Access::Read,
        }
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        let seen = guarded::read(client, vec![KEY.into()], timeout).await?;
        let mut elements: Vec<u64> = seen.rows.iter().flat_map(guarded::Row::numbers).collect();
        match call {
            Call::Read => Ok(Some(Reply::Read { elements })),
            Call::Add { element } => {
                elements.push(*element);
                let puts = vec![(KEY.into(), text_of(&elements))];
                let added = guarded::write(client, &seen.rows, puts, timeout).await?;
                Ok(added.map(|_| Reply::Add))
            }
        }
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![set_full::check(operations)]
    }
}
