//! Registers: reads, writes and compare-and-swaps of single keys.
//!
//! Every written value is used once in a run, so that a read tells whose write it saw. Replies carry the revisions the
//! server gave: with them the order is given, and only has to be verified.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trefoil_client::{Client, Compare, Error, KeyValue, Op, Txn};

use crate::checker::{Verdict, revision, wgl};
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::Access;
use crate::workload::Workload;

/// Registers in use at a time, and calls after which one is followed by a fresh one: short histories are checked fast.
const AT_ONCE: u64 = 5;
const CALLS_MAX: u64 = 200;
/// Steps of the search for one register.
const STEPS_MAX: u64 = 20_000_000;

/// A register's number; its key in the store is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Register(pub u64);

/// What is asked of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Call {
    Read {
        register: Register,
    },
    Write {
        register: Register,
        value: u64,
    },
    /// Writes `to` if the register holds `from`.
    Cas {
        register: Register,
        from: u64,
        to: u64,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Reply {
    /// `value` and the revision that wrote it, absent when there is none; `at`: the store's revision when it was read.
    Read { value: Option<Versioned>, at: u64 },
    /// The revision of the write.
    Write { revision: u64 },
    /// `swapped`: whether the register held `from`; `revision`: of the write, or of the store when nothing was written.
    Cas { swapped: bool, revision: u64 },
}

/// A value and the revision that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    pub value: u64,
    pub revision: u64,
    /// How often the key was written since it was created: 1 at its creation.
    pub version: u64,
}

impl Call {
    pub fn register(&self) -> Register {
        match self {
            Call::Read { register } | Call::Write { register, .. } | Call::Cas { register, .. } => *register,
        }
    }
}

/// Chooses calls of registers.
#[derive(Debug)]
pub struct Registers {
    next_value: u64,
    /// Per place: the register in use, and how often it was chosen.
    places: Vec<(Register, u64)>,
    next_register: u64,
    /// The newest value seen of each register in use.
    seen: BTreeMap<Register, u64>,
}

impl Default for Registers {
    fn default() -> Registers {
        let places = (0..AT_ONCE).map(|number| (Register(number), 0)).collect();
        Registers { next_value: 1, places, next_register: AT_ONCE, seen: BTreeMap::new() }
    }
}

impl Registers {
    fn choose(&mut self, dice: &mut Dice) -> Register {
        let place = dice.below(AT_ONCE) as usize;
        // Not all end at the same moment.
        if self.places[place].1 >= CALLS_MAX / 2 && dice.below(CALLS_MAX / 2) == 0 || self.places[place].1 >= CALLS_MAX
        {
            self.seen.remove(&self.places[place].0);
            self.places[place] = (Register(self.next_register), 0);
            self.next_register += 1;
        }
        self.places[place].1 += 1;
        self.places[place].0
    }

    fn fresh_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value - 1
    }
}

impl Workload for Registers {
    type Call = Call;
    type Reply = Reply;

    const NAME: &'static str = "register";
    const KINDS: &'static [&'static str] = &["read", "write", "cas"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        let register = self.choose(dice);
        match (dice.below(4), self.seen.get(&register).copied()) {
            (0 | 1, _) => Call::Read { register },
            (2, Some(from)) => Call::Cas { register, from, to: self.fresh_value() },
            _ => Call::Write { register, value: self.fresh_value() },
        }
    }

    fn observe(&mut self, call: &Call, reply: &Reply) {
        let value = match (call, reply) {
            (Call::Write { value, .. }, Reply::Write { .. }) => Some(*value),
            (Call::Cas { to, .. }, Reply::Cas { swapped: true, .. }) => Some(*to),
            (Call::Read { .. }, Reply::Read { value, .. }) => value.map(|value| value.value),
            (Call::Read { .. } | Call::Write { .. } | Call::Cas { .. }, _) => None,
        };
        if let Some(value) = value {
            self.seen.insert(call.register(), value);
        }
    }

    fn last_calls(&self) -> Vec<Call> {
        (0..self.next_register).map(|number| Call::Read { register: Register(number) }).collect()
    }

    fn kind(call: &Call) -> &'static str {
        match call {
            Call::Read { .. } => "read",
            Call::Write { .. } => "write",
            Call::Cas { .. } => "cas",
        }
    }

    fn access(call: &Call) -> Access {
        match call {
            Call::Read { .. } => Access::Read,
            Call::Write { .. } | Call::Cas { .. } => Access::Write,
        }
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Error> {
        let key = format!("register/{}", call.register().0);
        match call {
            Call::Read { .. } => {
                let reply = client.get(key).timeout(timeout).send().await?;
                Ok(Some(Reply::Read { value: reply.pair().map(versioned), at: reply.header.revision.0 }))
            }
            Call::Write { value, .. } => {
                let reply = client.put(key, value.to_string()).timeout(timeout).send().await?;
                Ok(Some(Reply::Write { revision: reply.header.revision.0 }))
            }
            Call::Cas { from, to, .. } => {
                let holds = Compare::value(key.clone(), from.to_string());
                let txn = Txn::new().when(holds).then(Op::put(key, to.to_string()));
                let reply = client.txn(txn).timeout(timeout).send().await?;
                Ok(Some(Reply::Cas { swapped: reply.succeeded, revision: reply.header.revision.0 }))
            }
        }
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![revision::check(operations), wgl::registers(operations, STEPS_MAX)]
    }
}

/// A value that is no number was written by nobody here: it is shown as one that cannot have been.
fn versioned(pair: &KeyValue) -> Versioned {
    let text = std::str::from_utf8(&pair.value).ok();
    let value = text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    Versioned { value, revision: pair.mod_revision.0, version: pair.version }
}
