//! Registers with few values, which come again: a swap may find what it asks for by another's doing.
//!
//! Calls and replies are those of `register.rs`, but without the revisions that the server gave, which are 0: a value
//! does not tell whose write it is, so that only an order of all calls explains what was read. Versions are kept: they
//! count the writes.

use std::time::Duration;

use super::register::{self, Call, Reply, Rotation, Versioned};
use crate::checker::{Verdict, wgl};
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::workload::{Name, Workload};

/// Values are below this.
pub(crate) const VALUES: u64 = 5;
/// Calls after which a register is followed by a fresh one. Fewer than where values are unique: each write of unknown
/// outcome doubles what the search may have to look at.
const CALLS_MAX: u64 = 100;

/// Chooses calls of registers.
#[derive(Debug)]
pub struct CasRegisters {
    rotation: Rotation,
}

impl Default for CasRegisters {
    fn default() -> CasRegisters {
        CasRegisters { rotation: Rotation::new(CALLS_MAX) }
    }
}

impl Workload for CasRegisters {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::CasRegister;
    const KINDS: &'static [&'static str] = &["read", "write", "cas"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        let register = self.rotation.choose(dice);
        match dice.below(4) {
            0 | 1 => Call::Read { register },
            2 => Call::Cas { register, from: dice.below(VALUES), to: dice.below(VALUES) },
            _ => Call::Write { register, value: dice.below(VALUES) },
        }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        self.rotation.reads()
    }

    fn kind(call: &Call) -> &'static str {
        register::kind(call)
    }

    fn kind_of_success(call: &Call, reply: &Reply) -> &'static str {
        register::kind_of_success(call, reply)
    }

    fn access(call: &Call) -> Access {
        register::access(call)
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        let key = format!("cas-register/{}", call.register().0);
        Ok(Some(without_revisions(register::carry_out(client, key, call, timeout).await?)))
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![wgl::registers(operations, wgl::STEPS_MAX)]
    }
}

/// A reply as this workload keeps it.
pub(crate) fn without_revisions(reply: Reply) -> Reply {
    match reply {
        Reply::Read { value, .. } => {
            let value = value.map(|seen| Versioned { revision: 0, ..seen });
            Reply::Read { value, at: 0 }
        }
        Reply::Write { .. } => Reply::Write { revision: 0 },
        Reply::Cas { swapped, .. } => Reply::Cas { swapped, revision: 0 },
    }
}
