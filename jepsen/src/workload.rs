//! Workloads: what is asked, how it is carried out, and by which checkers it is judged.
//!
//! [`Workload`] is what one has to say of itself. [`Name`] is the closed list of those there are, and
//! [`with_workload!`](crate::with_workload) goes from a name to the type that implements it.

pub mod append;
pub mod bank;
pub mod cas_register;
pub mod counter;
mod guarded;
#[cfg(test)]
pub(crate) mod model;
pub mod register;
pub mod set;

use std::fmt::{self, Debug};
use std::future::Future;
use std::time::Duration;

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checker::Verdict;
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::target::Target;

/// The workloads there are, as the command line and files have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Reads, writes and compare-and-swaps of registers, judged by their revisions too
    Register,
    /// The same with few values, which come again: judged by values and versions alone
    CasRegister,
    /// Transactions that read lists and append to them
    Append,
    /// Elements added to sets
    Set,
    /// A counter incremented by compare-and-swap
    Counter,
    /// Transfers between accounts, of which all are read together
    Bank,
}

impl Name {
    pub const ALL: [Name; 6] = [Name::Register, Name::CasRegister, Name::Append, Name::Set, Name::Counter, Name::Bank];

    pub fn as_str(self) -> &'static str {
        match self {
            Name::Register => "register",
            Name::CasRegister => "cas-register",
            Name::Append => "append",
            Name::Set => "set",
            Name::Counter => "counter",
            Name::Bank => "bank",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An expression for the workload of a [`Name`], in which a type stands for it:
/// `with_workload!(name, W => check::<W>(file))`.
#[macro_export]
macro_rules! with_workload {
    ($name:expr, $workload:ident => $body:expr) => {
        match $name {
            $crate::workload::Name::Register => {
                type $workload = $crate::workload::register::Registers;
                $body
            }
            $crate::workload::Name::CasRegister => {
                type $workload = $crate::workload::cas_register::CasRegisters;
                $body
            }
            $crate::workload::Name::Append => {
                type $workload = $crate::workload::append::Lists;
                $body
            }
            $crate::workload::Name::Set => {
                type $workload = $crate::workload::set::Set;
                $body
            }
            $crate::workload::Name::Counter => {
                type $workload = $crate::workload::counter::Counter;
                $body
            }
            $crate::workload::Name::Bank => {
                type $workload = $crate::workload::bank::Transfers;
                $body
            }
        }
    };
}

/// What somebody asks next, of what a workload knows.
pub type Choose<W> = fn(&mut W, &mut Dice) -> <W as Workload>::Call;

/// A kind of load and its model. Choosing is pure; only [`Workload::carry_out`] acts.
pub trait Workload: Send + 'static {
    type Call: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;
    type Reply: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    const NAME: Name;

    /// The kinds of calls, each of which must succeed for a run to prove anything; so must others, once asked.
    const KINDS: &'static [&'static str];

    /// What those ask who watch beside the load, one at each node as long as there is load. `None`: nobody does.
    const WATCH: Option<fn(&mut Self, &mut Dice) -> Self::Call> = None;

    /// The same with what this target can do beyond the others: kinds of calls that are not in [`Workload::KINDS`].
    fn for_target(self, _: Target) -> Self
    where
        Self: Sized,
    {
        self
    }

    /// What is asked next.
    fn next(&mut self, dice: &mut Dice) -> Self::Call;

    /// Takes note of a reply, for the sake of later calls.
    fn observe(&mut self, call: &Self::Call, reply: &Self::Reply);

    /// What is asked when all faults are healed: reads of all that was written.
    fn last_calls(&self) -> Vec<Self::Call>;

    /// Which kind a call is.
    fn kind(call: &Self::Call) -> &'static str;

    /// As which kind an answered call counts: a name of its own, outside of [`Workload::KINDS`], when the answer is that
    /// nothing was done.
    fn kind_of_success(call: &Self::Call, _: &Self::Reply) -> &'static str {
        Self::kind(call)
    }

    fn access(call: &Self::Call) -> Access;

    /// Asks it of the store. `None` when a guard did not hold and nothing was done.
    fn carry_out(
        client: &Client,
        call: &Self::Call,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<Self::Reply>, Failure>> + Send;

    fn check(operations: &[Operation<Self::Call, Self::Reply>]) -> Vec<Verdict>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_leads_to_its_workload() {
        for name in Name::ALL {
            assert_eq!(crate::with_workload!(name, W => W::NAME), name);
            assert_eq!(Name::from_str(name.as_str(), false), Ok(name), "the command line has it");
            assert_eq!(serde_json::to_string(&name).expect("a word"), format!("\"{name}\""), "files have it");
        }
        assert_eq!(Name::value_variants(), Name::ALL);
    }

    #[test]
    fn what_is_chosen_has_a_kind_and_comes_from_the_seed() {
        for name in Name::ALL {
            crate::with_workload!(name, W => {
                let chosen = |seed| {
                    let (mut workload, mut dice) = (W::default(), Dice::new(seed));
                    (0..200).map(|_| workload.next(&mut dice)).collect::<Vec<_>>()
                };
                assert!(chosen(7) == chosen(7) && chosen(7) != chosen(8), "{name}");
                let kinds: BTreeSet<&str> = chosen(7).iter().map(W::kind).collect();
                assert!(kinds.iter().all(|kind| W::KINDS.contains(kind)), "{name}: {kinds:?}");
                assert!(!W::default().last_calls().is_empty(), "{name}");
                if let Some(watch) = W::WATCH {
                    let asked = watch(&mut W::default(), &mut Dice::new(7));
                    assert!(W::KINDS.contains(&W::kind(&asked)), "{name}");
                }
            });
        }
    }
}
