//! How each workload's calls and replies look to Jepsen's models.

use super::Value;
use crate::workload::{append, bank, counter, register, set};

/// A call as an operation of one of Jepsen's models.
pub trait Form {
    type Reply;

    /// Which of a history's independent objects it is about; `None` when all is one.
    fn part(&self) -> Option<u64> {
        None
    }

    /// Whether the model has such a call; one that it has not is left out of the files.
    fn is_in_model(&self) -> bool {
        true
    }

    fn asked(&self) -> Asked;

    fn answered(&self, reply: &Self::Reply) -> Answer;
}

/// `:f` and `:value` of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub f: &'static str,
    pub value: Value,
}

/// What an answered call counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok(Value),
    /// Answered, and nothing was done: what Jepsen's models call a failure.
    Fail(&'static str),
    /// A reply to another kind of call.
    Unfit,
}

/// Knossos' `cas-register`, one register a file.
impl Form for register::Call {
    type Reply = register::Reply;

    fn part(&self) -> Option<u64> {
        Some(self.register().0)
    }

    fn is_in_model(&self) -> bool {
        !matches!(self, register::Call::StaleRead { .. })
    }

    fn asked(&self) -> Asked {
        match self {
            register::Call::Read { .. } => Asked { f: "read", value: Value::Nil },
            register::Call::StaleRead { .. } => Asked { f: "stale-read", value: Value::Nil },
            register::Call::Write { value, .. } => Asked { f: "write", value: Value::from(*value) },
            register::Call::Cas { from, to, .. } => Asked { f: "cas", value: Value::numbers(&[*from, *to]) },
        }
    }

    fn answered(&self, reply: &register::Reply) -> Answer {
        use register::{Call, Reply};
        match (self, reply) {
            (Call::Read { .. } | Call::StaleRead { .. }, Reply::Read { value, .. }) => {
                Answer::Ok(value.map_or(Value::Nil, |seen| Value::from(seen.value)))
            }
            (Call::Write { .. }, Reply::Write { .. }) | (Call::Cas { .. }, Reply::Cas { swapped: true, .. }) => {
                Answer::Ok(self.asked().value)
            }
            (Call::Cas { .. }, Reply::Cas { swapped: false, .. }) => Answer::Fail("not swapped"),
            (
                Call::Read { .. } | Call::StaleRead { .. } | Call::Write { .. } | Call::Cas { .. },
                Reply::Read { .. } | Reply::Write { .. } | Reply::Cas { .. },
            ) => Answer::Unfit,
        }
    }
}

/// Elle's `list-append`.
impl Form for append::Call {
    type Reply = append::Reply;

    fn asked(&self) -> Asked {
        let steps = self.steps.iter().map(|step| micro_operation(step, None));
        Asked { f: "txn", value: Value::Vector(steps.collect()) }
    }

    fn answered(&self, reply: &append::Reply) -> Answer {
        if reply.read.len() != self.steps.len() {
            return Answer::Unfit;
        }
        let steps = self.steps.iter().zip(&reply.read);
        Answer::Ok(Value::Vector(steps.map(|(step, read)| micro_operation(step, read.as_deref())).collect()))
    }
}

/// `[:append 5 17]`, or `[:r 6 [1 4]]`.
fn micro_operation(step: &append::Step, read: Option<&[u64]>) -> Value {
    Value::Vector(match step {
        append::Step::Append { list, value } => {
            vec![Value::keyword("append"), Value::from(list.0), Value::from(*value)]
        }
        append::Step::Read { list } => {
            vec![Value::keyword("r"), Value::from(list.0), read.map_or(Value::Nil, Value::numbers)]
        }
    })
}

/// Jepsen's `set` and `set-full`.
impl Form for set::Call {
    type Reply = set::Reply;

    fn part(&self) -> Option<u64> {
        Some(self.set().0)
    }

    fn asked(&self) -> Asked {
        match self {
            set::Call::Add { element, .. } => Asked { f: "add", value: Value::from(*element) },
            set::Call::Read { .. } => Asked { f: "read", value: Value::Nil },
        }
    }

    fn answered(&self, reply: &set::Reply) -> Answer {
        match (self, reply) {
            (set::Call::Add { element, .. }, set::Reply::Add) => Answer::Ok(Value::from(*element)),
            (set::Call::Read { .. }, set::Reply::Read { elements }) => Answer::Ok(Value::numbers(elements)),
            (set::Call::Add { .. }, set::Reply::Read { .. }) | (set::Call::Read { .. }, set::Reply::Add) => {
                Answer::Unfit
            }
        }
    }
}

/// Jepsen's `counter`, which wants to see what was added, not what came of it.
impl Form for counter::Call {
    type Reply = counter::Reply;

    fn asked(&self) -> Asked {
        match self {
            counter::Call::Increment { by } => Asked { f: "add", value: Value::from(*by) },
            counter::Call::Read => Asked { f: "read", value: Value::Nil },
        }
    }

    fn answered(&self, reply: &counter::Reply) -> Answer {
        match (self, reply) {
            (counter::Call::Increment { by }, counter::Reply::Increment { .. }) => Answer::Ok(Value::from(*by)),
            (counter::Call::Read, counter::Reply::Read { value }) => Answer::Ok(Value::from(*value)),
            (counter::Call::Increment { .. }, counter::Reply::Read { .. })
            | (counter::Call::Read, counter::Reply::Increment { .. }) => Answer::Unfit,
        }
    }
}

/// Jepsen's `bank`.
impl Form for bank::Call {
    type Reply = bank::Reply;

    fn asked(&self) -> Asked {
        match self {
            bank::Call::Read => Asked { f: "read", value: Value::Nil },
            bank::Call::Transfer { from, to, amount, .. } => {
                let fields = [("from", from.0), ("to", to.0), ("amount", *amount)];
                let fields = fields.map(|(name, number)| (Value::keyword(name), Value::from(number)));
                Asked { f: "transfer", value: Value::Map(fields.into()) }
            }
        }
    }

    fn answered(&self, reply: &bank::Reply) -> Answer {
        match (self, reply) {
            (bank::Call::Read, bank::Reply::Read { accounts, .. }) => {
                let held = |held: &Option<bank::Held>| held.map_or(Value::Nil, |held| Value::from(held.balance));
                let accounts = (0_u64..).zip(accounts).map(|(account, found)| (Value::from(account), held(found)));
                Answer::Ok(Value::Map(accounts.collect()))
            }
            (bank::Call::Transfer { .. }, bank::Reply::Transfer { done: true, .. }) => Answer::Ok(self.asked().value),
            (bank::Call::Transfer { .. }, bank::Reply::Transfer { done: false, .. }) => Answer::Fail("not done"),
            (bank::Call::Read, bank::Reply::Transfer { .. })
            | (bank::Call::Transfer { .. }, bank::Reply::Read { .. }) => Answer::Unfit,
        }
    }
}
