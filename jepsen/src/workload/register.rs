//! Registers: reads, writes and compare-and-swaps of single keys.
//!
//! Every written value is used once in a run, so that a read tells whose write it saw. Replies carry the revisions the
//! server gave: with them the order is given, and only has to be verified. `cas_register.rs` asks the same of registers
//! whose values come again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trefoil_client::{Client, Compare, Error, KeyValue, Op, Txn};

use crate::checker::{Verdict, revision, wgl};
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::Access;
use crate::workload::{Name, Workload};

/// Registers in use at a time, and calls after which one is followed by a fresh one: short histories are checked fast.
const AT_ONCE: u64 = 5;
const CALLS_MAX: u64 = 200;
/// Steps of the search for one register.
pub(super) const STEPS_MAX: u64 = 20_000_000;

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

/// The registers in use: each is followed by a fresh one after a while.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Per place: the register in use, and how often it was chosen.
    places: Vec<(Register, u64)>,
    next: u64,
    calls_max: u64,
}

impl Rotation {
    /// Each register is chosen `calls_max` times at most.
    pub(super) fn new(calls_max: u64) -> Rotation {
        Rotation { places: (0..AT_ONCE).map(|number| (Register(number), 0)).collect(), next: AT_ONCE, calls_max }
    }

    /// One of those in use.
    pub(super) fn choose(&mut self, dice: &mut Dice) -> Register {
        let (register, calls) = &mut self.places[dice.below(AT_ONCE) as usize];
        // Not all end at the same moment.
        let is_old = *calls >= self.calls_max / 2;
        if is_old && dice.below(self.calls_max / 2) == 0 || *calls >= self.calls_max {
            (*register, *calls) = (Register(self.next), 0);
            self.next += 1;
        }
        *calls += 1;
        *register
    }

    /// A read of each register that was ever in use.
    pub(super) fn reads(&self) -> Vec<Call> {
        (0..self.next).map(|number| Call::Read { register: Register(number) }).collect()
    }
}

/// Chooses calls of registers.
#[derive(Debug)]
pub struct Registers {
    rotation: Rotation,
    next_value: u64,
    /// The newest value seen of each register.
    seen: BTreeMap<Register, u64>,
}

impl Default for Registers {
    fn default() -> Registers {
        Registers { rotation: Rotation::new(CALLS_MAX), next_value: 1, seen: BTreeMap::new() }
    }
}

impl Registers {
    fn fresh_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value - 1
    }
}

impl Workload for Registers {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::Register;
    const KINDS: &'static [&'static str] = &["read", "write", "cas"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        let register = self.rotation.choose(dice);
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
        self.rotation.reads()
    }

    fn kind(call: &Call) -> &'static str {
        kind(call)
    }

    fn access(call: &Call) -> Access {
        access(call)
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Error> {
        carry_out(client, format!("register/{}", call.register().0), call, timeout).await.map(Some)
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![revision::check(operations), wgl::registers(operations, STEPS_MAX)]
    }
}

pub(super) fn kind(call: &Call) -> &'static str {
    match call {
        Call::Read { .. } => "read",
        Call::Write { .. } => "write",
        Call::Cas { .. } => "cas",
    }
}

pub(super) fn access(call: &Call) -> Access {
    match call {
        Call::Read { .. } => Access::Read,
        Call::Write { .. } | Call::Cas { .. } => Access::Write,
    }
}

/// Asks it of the register that is at `key`.
pub(super) async fn carry_out(client: &Client, key: String, call: &Call, timeout: Duration) -> Result<Reply, Error> {
    match call {
        Call::Read { .. } => {
            let reply = client.get(key).timeout(timeout).send().await?;
            Ok(Reply::Read { value: reply.pair().map(versioned), at: reply.header.revision.0 })
        }
        Call::Write { value, .. } => {
            let reply = client.put(key, value.to_string()).timeout(timeout).send().await?;
            Ok(Reply::Write { revision: reply.header.revision.0 })
        }
        Call::Cas { from, to, .. } => {
            let holds = Compare::value(key.clone(), from.to_string());
            let txn = Txn::new().when(holds).then(Op::put(key, to.to_string()));
            let reply = client.txn(txn).timeout(timeout).send().await?;
            Ok(Reply::Cas { swapped: reply.succeeded, revision: reply.header.revision.0 })
        }
    }
}

/// A value that is no number was written by nobody here: it is shown as one that cannot have been.
fn versioned(pair: &KeyValue) -> Versioned {
    let text = std::str::from_utf8(&pair.value).ok();
    let value = text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    Versioned { value, revision: pair.mod_revision.0, version: pair.version }
}
