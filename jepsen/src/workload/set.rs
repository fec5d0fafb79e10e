//! Sets: elements are added to one key by compare-and-swap, and the whole set is read.
//!
//! Each read that is answered has all of its set. So that a history does not grow with the square of its calls, a set that
//! was added to often is followed by a fresh one, which is a key of its own; what became of the old ones some reads ask
//! under load, and the last calls of all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guarded::{self, text_of};
use crate::checker::{Verdict, set_full};
use crate::client::Client;
use crate::generator::Dice;
use crate::history::Operation;
use crate::outcome::{Access, Failure};
use crate::workload::{Name, Workload};

/// Adds after which a set is followed by a fresh one. Those that were not done count too.
const ADDS_MAX: u64 = 500;
/// Of so many reads one is of any set that there has been.
const READS_OF_ANY: u64 = 8;

/// A set's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetId(pub u64);

impl SetId {
    fn key(self) -> String {
        format!("set{}", self.0)
    }
}

/// What is asked of a set; of the first one in histories of older builds, which had no other. Each element is added once
/// in a run, to one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Call {
    Add {
        #[serde(default)]
        set: SetId,
        element: u64,
    },
    Read {
        #[serde(default)]
        set: SetId,
    },
}

impl Call {
    pub fn set(&self) -> SetId {
        match self {
            Call::Add { set, .. } | Call::Read { set } => *set,
        }
    }
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

impl Set {
    /// The set that was added to last.
    fn newest(&self) -> SetId {
        SetId(self.added.saturating_sub(1) / ADDS_MAX)
    }

    fn read(&self, dice: &mut Dice) -> SetId {
        let SetId(newest) = self.newest();
        match newest > 0 && dice.below(READS_OF_ANY) == 0 {
            true => SetId(dice.below(newest + 1)),
            false => SetId(newest),
        }
    }
}

impl Workload for Set {
    type Call = Call;
    type Reply = Reply;

    const NAME: Name = Name::Set;
    const KINDS: &'static [&'static str] = &["add", "read"];

    fn next(&mut self, dice: &mut Dice) -> Call {
        if dice.flag() {
            return Call::Read { set: self.read(dice) };
        }
        self.added += 1;
        Call::Add { set: self.newest(), element: self.added }
    }

    fn observe(&mut self, _: &Call, _: &Reply) {}

    fn last_calls(&self) -> Vec<Call> {
        (0..=self.newest().0).map(|number| Call::Read { set: SetId(number) }).collect()
    }

    fn kind(call: &Call) -> &'static str {
        match call {
            Call::Add { .. } => "add",
            Call::Read { .. } => "read",
        }
    }

    fn access(call: &Call) -> Access {
        match call {
            Call::Add { .. } => Access::Write,
            Call::Read { .. } => Access::Read,
        }
    }

    async fn carry_out(client: &Client, call: &Call, timeout: Duration) -> Result<Option<Reply>, Failure> {
        let seen = guarded::read(client, vec![call.set().key()], timeout).await?;
        let mut elements: Vec<u64> = seen.rows.iter().flat_map(guarded::Row::numbers).collect();
        match call {
            Call::Read { .. } => Ok(Some(Reply::Read { elements })),
            Call::Add { set, element } => {
                elements.push(*element);
                let puts = vec![(set.key(), text_of(&elements))];
                let added = guarded::write(client, &seen.rows, puts, timeout).await?;
                Ok(added.map(|_| Reply::Add))
            }
        }
    }

    fn check(operations: &[Operation<Call, Reply>]) -> Vec<Verdict> {
        vec![set_full::check(operations)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_set_is_followed_by_a_fresh_one_and_all_are_read_in_the_end() {
        let (mut workload, mut dice) = (Set::default(), Dice::new(7));
        assert_eq!(workload.last_calls(), [Call::Read { set: SetId(0) }]);
        let mut added: BTreeMap<SetId, BTreeSet<u64>> = BTreeMap::new();
        let (mut newest, mut of_older) = (SetId(0), 0);
        for _ in 0..10_000 {
            let call = workload.next(&mut dice);
            match call {
                Call::Add { set, element } => {
                    assert!(added.entry(set).or_default().insert(element), "{element} was added before");
                    assert!(set == newest || set == SetId(newest.0 + 1), "{set:?} comes after {newest:?}");
                    newest = set;
                }
                Call::Read { set } => {
                    assert!(set <= newest, "{set:?} is not there yet");
                    of_older += u64::from(set < newest);
                }
            }
        }
        assert!(newest > SetId(5) && of_older > 100, "{newest:?}, {of_older} reads of older ones");
        assert!(added.values().all(|elements| elements.len() <= ADDS_MAX as usize));
        let of_all: Vec<Call> = added.keys().map(|set| Call::Read { set: *set }).collect();
        assert_eq!(workload.last_calls(), of_all);
    }

    #[test]
    fn histories_of_older_builds_have_one_set() {
        let read = |text: &str| serde_json::from_str::<Call>(text).expect("a call");
        assert_eq!(read(r#"{"f":"read"}"#), Call::Read { set: SetId(0) });
        assert_eq!(read(r#"{"f":"add","element":7}"#), Call::Add { set: SetId(0), element: 7 });
        let call = Call::Add { set: SetId(3), element: 7 };
        assert_eq!(read(&serde_json::to_string(&call).expect("plain data")), call);
    }
}
