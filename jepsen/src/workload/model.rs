//! For tests: each workload's store in memory, a single copy on which every call is carried out at once.

use std::collections::BTreeMap;

use super::append::{self, List, Lists, Step};
use super::bank::{self, Account, BANK, Bank, Held, Transfers};
use super::cas_register::{CasRegisters, without_revisions};
use super::counter::{self, Counter};
use super::register::{self, Register, Registers, Versioned};
use super::set::{self, Set, SetId};
use crate::workload::Workload;

/// A workload with its store.
pub(crate) trait Model: Workload + Default {
    type Store;

    fn store() -> Self::Store;

    fn execute(store: &mut Self::Store, call: &Self::Call) -> Self::Reply;
}

/// Registers, and the revision of their store.
#[derive(Default)]
pub(crate) struct Cells {
    cells: BTreeMap<Register, Versioned>,
    revision: u64,
}

impl Cells {
    fn execute(&mut self, call: &register::Call) -> register::Reply {
        let held = self.cells.get(&call.register()).copied();
        match call {
            register::Call::Read { .. } | register::Call::StaleRead { .. } => {
                register::Reply::Read { value: held, at: self.revision }
            }
            register::Call::Write { register, value } => {
                self.put(*register, *value);
                register::Reply::Write { revision: self.revision }
            }
            register::Call::Cas { register, from, to } => {
                let swapped = held.is_some_and(|held| held.value == *from);
                if swapped {
                    self.put(*register, *to);
                }
                register::Reply::Cas { swapped, revision: self.revision }
            }
        }
    }

    fn put(&mut self, register: Register, value: u64) {
        self.revision += 1;
        let version = self.cells.get(&register).map_or(1, |held| held.version + 1);
        self.cells.insert(register, Versioned { value, revision: self.revision, version });
    }
}

impl Model for Registers {
    type Store = Cells;

    fn store() -> Cells {
        Cells::default()
    }

    fn execute(store: &mut Cells, call: &register::Call) -> register::Reply {
        store.execute(call)
    }
}

impl Model for CasRegisters {
    type Store = Cells;

    fn store() -> Cells {
        Cells::default()
    }

    fn execute(store: &mut Cells, call: &register::Call) -> register::Reply {
        without_revisions(store.execute(call))
    }
}

impl Model for Lists {
    type Store = BTreeMap<List, Vec<u64>>;

    fn store() -> BTreeMap<List, Vec<u64>> {
        BTreeMap::new()
    }

    fn execute(store: &mut BTreeMap<List, Vec<u64>>, call: &append::Call) -> append::Reply {
        let carried_out = call.steps.iter().map(|step| match step {
            Step::Append { list, value } => {
                store.entry(*list).or_default().push(*value);
                None
            }
            Step::Read { list } => Some(store.get(list).cloned().unwrap_or_default()),
        });
        append::Reply { read: carried_out.collect() }
    }
}

impl Model for Set {
    type Store = BTreeMap<SetId, Vec<u64>>;

    fn store() -> BTreeMap<SetId, Vec<u64>> {
        BTreeMap::new()
    }

    fn execute(store: &mut BTreeMap<SetId, Vec<u64>>, call: &set::Call) -> set::Reply {
        let elements = store.entry(call.set()).or_default();
        match call {
            set::Call::Read { .. } => set::Reply::Read { elements: elements.clone() },
            set::Call::Add { element, .. } => {
                elements.push(*element);
                set::Reply::Add
            }
        }
    }
}

impl Model for Counter {
    type Store = u64;

    fn store() -> u64 {
        0
    }

    fn execute(store: &mut u64, call: &counter::Call) -> counter::Reply {
        match call {
            counter::Call::Read => counter::Reply::Read { value: *store },
            counter::Call::Increment { by } => {
                *store += by;
                counter::Reply::Increment { value: *store }
            }
        }
    }
}

/// A bank's accounts, and the revision of their store.
#[derive(Clone)]
pub(crate) struct Accounts {
    bank: Bank,
    held: Vec<Held>,
    revision: u64,
}

impl Accounts {
    /// As they open, at revision 1.
    pub(crate) fn opened(bank: Bank) -> Accounts {
        Accounts { bank, held: (0..bank.accounts).map(|_| bank.opened()).collect(), revision: 1 }
    }

    pub(crate) fn execute(&mut self, call: &bank::Call) -> bank::Reply {
        match call {
            bank::Call::Read => {
                bank::Reply::Read { accounts: self.held.iter().copied().map(Some).collect(), at: self.revision }
            }
            bank::Call::Transfer { id, from: Account(giver), to: Account(taker), amount } => {
                let (giver, taker) = (*giver as usize, *taker as usize);
                let (from, to) = (self.held[giver], self.held[taker]);
                let done = self.bank.allows(&from, *amount);
                if done {
                    self.revision += 1;
                    let amount = i64::try_from(*amount).expect("amounts are small");
                    self.held[giver] = self.after(from, -amount, *id);
                    self.held[taker] = self.after(to, amount, *id);
                }
                bank::Reply::Transfer { done, from, to, revision: self.revision }
            }
        }
    }

    fn after(&self, held: Held, more: i64, by: u64) -> Held {
        Held { balance: held.balance + more, by, revision: self.revision, version: held.version + 1 }
    }
}

impl Model for Transfers {
    type Store = Accounts;

    fn store() -> Accounts {
        Accounts::opened(BANK)
    }

    fn execute(store: &mut Accounts, call: &bank::Call) -> bank::Reply {
        store.execute(call)
    }
}
