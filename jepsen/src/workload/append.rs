//! List-append: transactions that read lists and append to them.
//!
//! Appended values are unique per list, so that a read tells which transactions it saw, and in which order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guarded::{self, text_of};
use crate::checker::{Verdict, list_append};
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::workload::{Name, Workload};

/// Lists in use at a time, steps of a transaction, and appends after which a list is followed by a fresh one.
const AT_ONCE: u64 = 3;
const STEPS_MAX: u64 = 4;
const APPENDS_MAX: u64 = 64;

/// A list's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct List(pub u64);

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Step {
    Append { list: List, value: u64 },
    Read { list: List },
}

/// A transaction: its steps, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub steps: Vec<Step>,
}

/// For each step, what it read; `None` for an append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub read: Vec<Option<Vec<u64>>>,
}

/// Chooses transactions.
#[derive(Debug)]
pub struct Lists {
    /// Per place: the list in use, and how often it was appended to. Values are 1, 2, 3, …
    places: Vec<(List, u64)>,
    next_list: u64,
}

impl Default for Lists {
    fn default() -> Lists {
        Lists { places: (0..AT_ONCE).map(|number| (List(number), 0)).collect(), next_list: AT_ONCE }
    }
}

impl Lists {
    fn step(&mut self, dice: &mut Dice) -> Step {
        let place = dice.below(AT_ONCE) as usize;
        if dice.flag() {
            return Step::Read { list: self.places[place].0 };
        }
        if self.places[place].1 == APPENDS_MAX {
            self.places[place] = (List(self.next_list), 0);
            self.next_list += 1;
        }
        let (list, appends) = &mut self.places[place];
        *appends += 1;
        Step::Append { list: *list, value: *appends }
    }
}

impl Workload for Lists {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::Append;
    const KINDS: &'static [&'static str] = &["read", "append"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        let steps = 1 + dice.below(STEPS_MAX);
        Call { steps: (0..steps).map(|_| self.step(dice)).collect() }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        (0..self.next_list).map(|number| Call { steps: vec![Step::Read { list: List(number) }] }).collect()
    }

    fn kind(call: &Call) -> &'static str {
        match Self::access(call) {
            Access::Read => "read",
            Access::Write => "append",
        }
    }

    fn access(call: &Call) -> Access {
        match call.steps.iter().any(|step| matches!(step, Step::Append { .. })) {
            true => Access::Write,
            false => Access::Read,
        }
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        let lists: BTreeMap<List, usize> = call.steps.iter().map(|step| (step.list(), 0)).collect();
        let seen = guarded::read(client, lists.keys().map(key).collect(), timeout).await?;
        let mut contents: BTreeMap<List, Vec<u64>> =
            lists.into_keys().zip(seen.rows.iter().map(guarded::Row::numbers)).collect();
        let mut puts = BTreeMap::new();
        let mut read = Vec::new();
        for step in &call.steps {
            let content = contents.entry(step.list()).or_default();
            read.push(match step {
                Step::Append { list, value } => {
                    content.push(*value);
                    puts.insert(key(list), text_of(content));
                    None
                }
                Step::Read { .. } => Some(content.clone()),
            });
        }
        let puts: Vec<(String, String)> = puts.into_iter().collect();
        let done = puts.is_empty() || guarded::write(client, &seen.rows, puts, timeout).await?.is_some();
        Ok(done.then_some(Reply { read }))
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![list_append::check(operations)]
    }
}

impl Step {
    pub fn list(&self) -> List {
        match self {
            Step::Append { list, .. } | Step::Read { list } => *list,
        }
    }
}

fn key(list: &List) -> String {
    format!("append/{}", list.0)
}
