//! Registers: reads, writes and compare-and-swaps of single keys.
//!
//! Every written value is used once in a run, so that a read tells whose write it saw. Replies carry the revisions the
//! server gave: with them the order is given, and only has to be verified. `cas_register.rs` asks the same of registers
//! whose values come again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checker::stale::{self, Shown};
use crate::checker::{Verdict, revision, wgl};
use crate::client::{Change, Client, Guard, Holds, Pair, Reading};
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::target::Target;
use crate::workload::{Name, Workload};

/// Registers in use at a time, and calls after which one is followed by a fresh one: short histories are checked fast.
const AT_ONCE: u64 = 5;
const CALLS_MAX: u64 = 200;
/// One in so many calls is a stale read, of a target that has them.
const STALE_ONE_IN: u64 = 5;

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
    /// A read of any replica that is as far as its process has been shown. Not every target has it.
    StaleRead {
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
            Call::Read { register } | Call::StaleRead { register } => *register,
            Call::Write { register, .. } | Call::Cas { register, .. } => *register,
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
    /// Whether replicas are read that may be behind.
    stale_reads: bool,
}

impl Default for Registers {
    fn default() -> Registers {
        Registers { rotation: Rotation::new(CALLS_MAX), next_value: 1, seen: BTreeMap::new(), stale_reads: false }
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

    fn for_target(self, target: Target) -> Registers {
        let stale_reads = match target {
            Target::Trefoil => true,
            // Its serializable reads know no context: they may go back.
            Target::Etcd => false,
        };
        Registers { stale_reads, ..self }
    }

    fn next(&mut self, dice: &mut Dice) -> Call {
        let register = self.rotation.choose(dice);
        if self.stale_reads && dice.below(STALE_ONE_IN) == 0 {
            return Call::StaleRead { register };
        }
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
            (Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. }, _) => None,
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

    fn kind_of_success(call: &Call, reply: &Reply) -> &'static str {
        kind_of_success(call, reply)
    }

    fn access(call: &Call) -> Access {
        access(call)
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        carry_out(client, format!("register/{}", call.register().0), call, timeout).await.map(Some)
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        let mut verdicts = vec![revision::check(operations), wgl::registers(operations, wgl::STEPS_MAX)];
        if operations.iter().any(|operation| matches!(operation.call, Call::StaleRead { .. })) {
            verdicts.push(stale::never_back(operations, shown));
        }
        verdicts
    }
}

pub(super) fn kind(call: &Call) -> &'static str {
    match call {
        Call::Read { .. } => "read",
        Call::StaleRead { .. } => "stale-read",
        Call::Write { .. } => "write",
        Call::Cas { .. } => "cas",
    }
}

/// A swap that found another value has swapped nothing.
pub(super) fn kind_of_success(call: &Call, reply: &Reply) -> &'static str {
    match reply {
        Reply::Cas { swapped: false, .. } => "cas-refused",
        Reply::Cas { swapped: true, .. } | Reply::Read { .. } | Reply::Write { .. } => kind(call),
    }
}

pub(super) fn access(call: &Call) -> Access {
    match call {
        Call::Read { .. } | Call::StaleRead { .. } => Access::Read,
        Call::Write { .. } | Call::Cas { .. } => Access::Write,
    }
}

/// Asks it of the register that is at `key`.
pub(super) async fn carry_out(client: &Client, key: String, call: &Call, timeout: Duration) -> Result<Reply, Failure> {
    match call {
        Call::Read { .. } => Ok(read(&client.get(key, timeout).await?)),
        Call::StaleRead { .. } => Ok(read(&client.get_stale(key, timeout).await?)),
        Call::Write { value, .. } => {
            let revision = client.put(key, value.to_string(), timeout).await?;
            Ok(Reply::Write { revision })
        }
        Call::Cas { from, to, .. } => {
            let guards = vec![Guard { key: key.clone(), holds: Holds::Text(from.to_string()) }];
            let changed = client.change(Change { guards, puts: vec![(key, to.to_string())] }, timeout).await?;
            Ok(Reply::Cas { swapped: changed.done, revision: changed.revision })
        }
    }
}

fn read(reading: &Reading) -> Reply {
    Reply::Read { value: reading.pairs.iter().flatten().next().map(versioned), at: reading.at }
}

/// What a reply has shown its process.
pub fn shown(call: &Call, reply: &Reply) -> Option<Shown> {
    match (call, reply) {
        (Call::Read { .. }, Reply::Read { at, .. }) => Some(Shown::Read(*at)),
        (Call::StaleRead { .. }, Reply::Read { at, .. }) => Some(Shown::StaleRead(*at)),
        (Call::Write { .. }, Reply::Write { revision }) => Some(Shown::Wrote(*revision)),
        (Call::Cas { .. }, Reply::Cas { swapped: true, revision }) => Some(Shown::Wrote(*revision)),
        (Call::Cas { .. }, Reply::Cas { swapped: false, revision }) => Some(Shown::Read(*revision)),
        (
            Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
            Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. },
        ) => None,
    }
}

/// A value that is no number was written by nobody here: it is shown as one that cannot have been.
fn versioned(pair: &Pair) -> Versioned {
    let value = pair.text.parse().unwrap_or(u64::MAX);
    Versioned { value, revision: pair.revision, version: pair.version }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Valid;
    use crate::history::{Nanos, Outcome, Process};

    #[test]
    fn stale_reads_are_asked_of_targets_that_have_them() {
        let asked = |registers: Registers| {
            let (mut registers, mut dice) = (registers, Dice::new(7));
            (0..500).filter(|_| kind(&registers.next(&mut dice)) == "stale-read").count()
        };
        assert!(asked(Registers::default().for_target(Target::Trefoil)) > 50);
        assert_eq!(asked(Registers::default().for_target(Target::Etcd)), 0);
        assert_eq!(asked(Registers::default()), 0, "what nobody was told to ask");
    }

    fn done(number: u64, process: u64, call: Call, reply: Reply) -> Operation<Call, Reply> {
        let (invoked, completed) = (Nanos(10 * number), Some(Nanos(10 * number + 5)));
        let (process, outcome) = (Process(process), Outcome::Ok(reply));
        Operation { index: 2 * number as usize, process, call, invoked, completed, outcome }
    }

    /// Process, value and its revision, revision looked at.
    type Shown = (u64, Option<(u64, u64)>, u64);

    /// Process 0 writes 1 and 2 at revisions 2 and 3, one after the other; then each of these reads what it holds at a
    /// revision.
    fn history(stale_reads: &[Shown]) -> Vec<Operation<Call, Reply>> {
        let register = Register(0);
        let write = |value| (Call::Write { register, value }, Reply::Write { revision: value + 1 });
        let reads = stale_reads.iter().map(|&(process, found, at)| {
            let value = found.map(|(value, revision)| Versioned { value, revision, version: value });
            (process, (Call::StaleRead { register }, Reply::Read { value, at }))
        });
        let all = [(0, write(1)), (0, write(2))].into_iter().chain(reads);
        all.zip(1..).map(|((process, (call, reply)), number)| done(number, process, call, reply)).collect()
    }

    #[test]
    fn a_stale_read_may_be_behind_but_not_go_back_nor_be_made_up() {
        let (first, second) = (Some((1, 2)), Some((2, 3)));
        let cases = [
            ("others may be behind", vec![(1, None, 1), (2, first, 2), (1, second, 3)], Valid::True),
            ("its own write", vec![(0, first, 2)], Valid::False),
            ("back", vec![(1, second, 3), (1, first, 2)], Valid::False),
            ("another value than its revision has", vec![(1, first, 3)], Valid::False),
            ("a value of a later revision", vec![(1, second, 2)], Valid::False),
            ("a value that nobody wrote", vec![(1, Some((9, 2)), 2)], Valid::False),
        ];
        for (what, reads, expected) in cases {
            let verdicts = Registers::check(&history(&reads));
            assert_eq!(crate::checker::worst(&verdicts), expected, "{what}: {verdicts:?}");
            assert_eq!(verdicts.len(), 3, "{what}");
        }
        assert_eq!(Registers::check(&history(&[])).len(), 2, "without one there is nothing to say");
    }
}
