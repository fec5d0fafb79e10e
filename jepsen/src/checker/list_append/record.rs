//! A history of transactions, checked and indexed: who appended what, and what was read.
//!
//! Invariants, checked here since a history may come from a file:
//!
//! * A value is appended to a list once.
//! * A reply has something for each step: a list for a read, nothing for an append.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::graph::Node;
use crate::checker::evidence::named;
use crate::history::{Operation, Outcome};
use crate::workload::append::{Call, List, Reply, Step};

pub(super) type Transaction = Operation<Call, Reply>;

/// Who appended a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) by: Node,
    /// Its place, from 0, among that transaction's appends to that list; and how many these are.
    pub(super) place: usize,
    pub(super) of: usize,
}

/// What a transaction has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    pub(super) by: Node,
    pub(super) list: List,
    pub(super) values: &'a [u64],
}

/// The history, indexed.
pub(super) struct Record<'a> {
    pub(super) transactions: &'a [Transaction],
    pub(super) appends: BTreeMap<(List, u64), Append>,
    /// Those of acknowledged transactions, in the order of their invocations and steps.
    pub(super) reads: Vec<Read<'a>>,
}

impl<'a> Record<'a> {
    /// # Errors
    /// Why the history is none of this workload.
    pub(super) fn new(transactions: &'a [Transaction]) -> Result<Record<'a>, String> {
        let mut record = Record { transactions, appends: BTreeMap::new(), reads: Vec::new() };
        for (node, transaction) in (0..).map(Node).zip(transactions) {
            record.index_appends(node, &transaction.call)?;
            if let Outcome::Ok(reply) = &transaction.outcome {
                record.index_reads(node, &transaction.call, reply)?;
            }
        }
        Ok(record)
    }

    pub(super) fn transaction(&self, node: Node) -> &'a Transaction {
        &self.transactions[node.0]
    }

    pub(super) fn append(&self, list: List, value: u64) -> Option<Append> {
        self.appends.get(&(list, value)).copied()
    }

    /// The transactions with what came back for each of their steps, of those that were acknowledged.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = (Node, &'a Call, &'a Reply)> {
        (0..).map(Node).zip(self.transactions).filter_map(|(node, transaction)| match &transaction.outcome {
            Outcome::Ok(reply) => Some((node, &transaction.call, reply)),
            Outcome::Fail(_) | Outcome::Info(_) => None,
        })
    }

    fn index_appends(&mut self, by: Node, call: &Call) -> Result<(), String> {
        let mut places: BTreeMap<List, usize> = BTreeMap::new();
        for (list, value) in appends(call) {
            let of = appends(call).filter(|(other, _)| *other == list).count();
            let place = places.entry(list).or_default();
            match self.appends.entry((list, value)) {
                Entry::Vacant(slot) => slot.insert(Append { by, place: *place, of }),
                Entry::Occupied(_) => {
                    let at = named(&self.transactions[by.0]);
                    return Err(format!("{at} appends {value} to list {}, not for the first time", list.0));
                }
            };
            *place += 1;
        }
        Ok(())
    }

    fn index_reads(&mut self, by: Node, call: &'a Call, reply: &'a Reply) -> Result<(), String> {
        let transaction = self.transaction(by);
        let misfit = || format!("{} has a reply that does not fit its steps", named(transaction));
        if call.steps.len() != reply.read.len() {
            return Err(misfit());
        }
        for (step, read) in call.steps.iter().zip(&reply.read) {
            match (step, read) {
                (Step::Append { .. }, None) => {}
                (Step::Read { list }, Some(values)) => self.reads.push(Read { by, list: *list, values }),
                (Step::Append { .. }, Some(_)) | (Step::Read { .. }, None) => return Err(misfit()),
            }
        }
        Ok(())
    }
}

/// What a transaction appends, in order.
pub(super) fn appends(call: &Call) -> impl Iterator<Item = (List, u64)> {
    call.steps.iter().filter_map(|step| match step {
        Step::Append { list, value } => Some((*list, *value)),
        Step::Read { .. } => None,
    })
}
