//! A state with changes on top that nobody else sees yet.
//!
//! Applying a log entry reads through an [`Overlay`]: the engine's state below, the entry's own writes above. When
//! the entry is done the writes leave as one [`Batch`], so readers of the engine see all of it or nothing.
//!
//! Invariants:
//!
//! * Reading an overlay equals reading the engine after the overlay's batch was written.
//! * A scan merges while it visits: it holds one row of the base at a time.
//!
//! Left out: undoing single writes. Whoever may have to give up puts an overlay on the overlay, and has it absorbed or
//! drops it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::engine::{Batch, EngineError, Family, Order, Read, Span, Visit};

/// The writes to one family; `None` for a row that was removed.
type Writes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// What was written to an overlay, without the state below it.
pub struct OwnWrites([Writes; Family::ALL.len()]);

impl OwnWrites {
    /// Those to `family`, in key order.
    pub(crate) fn into_family(mut self, family: Family) -> impl Iterator<Item = (Vec<u8>, Option<Bytes>)> {
        std::mem::take(&mut self.0[family as usize]).into_iter()
    }
}

/// See the file's head.
pub struct Overlay<'a> {
    base: &'a dyn Read,
    /// One map per family, in the order of [`Family::ALL`].
    writes: [Writes; Family::ALL.len()],
    bytes: usize,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn Read) -> Overlay<'a> {
        Overlay { base, writes: Default::default(), bytes: 0 }
    }

    pub fn put(&mut self, family: Family, key: Vec<u8>, value: impl Into<Bytes>) {
        self.write(family, key, Some(value.into()));
    }

    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.write(family, key, None);
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.writes.iter().all(Writes::is_empty)
    }

    /// Bytes of the written keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The writes, each row once, in key order within a family.
    pub fn into_batch(self) -> Batch {
        self.into_parts().0
    }

    /// The writes as [`Overlay::into_batch`] has them, and alone.
    pub fn into_parts(self) -> (Batch, OwnWrites) {
        let changes = self.writes.iter().map(Writes::len).sum();
        let mut batch = Batch::with_capacity(changes, self.bytes);
        for (family, writes) in Family::ALL.into_iter().zip(&self.writes) {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.put(family, key, value),
                    None => batch.delete(family, key),
                }
            }
        }
        (batch, OwnWrites(self.writes))
    }

    /// The writes alone, for [`Overlay::absorb`].
    pub fn into_writes(self) -> OwnWrites {
        OwnWrites(self.writes)
    }

    /// Makes the writes of an overlay that lay on this one.
    pub fn absorb(&mut self, writes: OwnWrites) {
        for (family, writes) in Family::ALL.into_iter().zip(writes.0) {
            for (key, value) in writes {
                self.write(family, key, value);
            }
        }
    }

    fn write(&mut self, family: Family, key: Vec<u8>, value: Option<Bytes>) {
        let (key_bytes, value_bytes) = (key.len(), value.as_ref().map_or(0, Bytes::len));
        self.bytes += key_bytes + value_bytes;
        if let Some(replaced) = self.writes[family as usize].insert(key, value) {
            self.bytes -= key_bytes + replaced.map_or(0, |replaced| replaced.len());
        }
    }
}

impl Read for Overlay<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.writes[family as usize].get(key) {
            Some(own) => Ok(own.clone()),
            None => self.base.get(family, key),
        }
    }

    fn scan(
        &self,
        family: Family,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), EngineError> {
        if span.is_empty() {
            return Ok(());
        }
        let from = Bound::Included(span.from.as_slice());
        let to = span.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let own = self.writes[family as usize].range::<[u8], _>((from, to));
        match order {
            Order::Ascending => merge(self.base, family, span, order, own, visit),
            Order::Descending => merge(self.base, family, span, order, own.rev(), visit),
        }
    }
}

/// Shows the rows of `base` and `own` in one order; a row of `own` replaces or hides the base's row of the same key.
fn merge<'w>(
    base: &dyn Read,
    family: Family,
    span: &Span,
    order: Order,
    own: impl Iterator<Item = (&'w Vec<u8>, &'w Option<Bytes>)>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
) -> Result<(), EngineError> {
    let mut own = own.peekable();
    let mut last = Visit::Next;
    base.scan(family, span, order, &mut |key, value| {
        while let Some((own_key, row)) = own.next_if(|next| !comes_after(next.0, key, order)) {
            if let Some(row) = row {
                last = visit(own_key, row);
            }
            if last == Visit::Stop || own_key.as_slice() == key {
                return last;
            }
        }
        last = visit(key, value);
        last
    })?;
    for (key, row) in own {
        if last == Visit::Stop {
            break;
        }
        if let Some(row) = row {
            last = visit(key, row);
        }
    }
    Ok(())
}

/// Whether `a` is shown after `b`.
fn comes_after(a: &[u8], b: &[u8], order: Order) -> bool {
    match order {
        Order::Ascending => a > b,
        Order::Descending => a < b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::memory::MemoryEngine;
    use crate::engine::{Durability, Engine};

    type Rows = Vec<(Vec<u8>, Vec<u8>)>;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0u8, 97, 255]), 0..3)
    }

    fn families() -> impl Strategy<Value = Family> {
        prop::sample::select(vec![Family::State, Family::Current])
    }

    /// The rows a scan shows when the visitor stops after `most`.
    fn scanned(read: &dyn Read, family: Family, span: &Span, order: Order, most: usize) -> Rows {
        let mut rows = Rows::new();
        read.scan(family, span, order, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() < most { Visit::Next } else { Visit::Stop }
        })
        .expect("memory does not fail");
        rows
    }

    fn expected(
        model: &BTreeMap<(Family, Vec<u8>), Vec<u8>>,
        family: Family,
        span: &Span,
        order: Order,
        most: usize,
    ) -> Rows {
        let inside = |key: &Vec<u8>| *key >= span.from && span.to.as_ref().is_none_or(|to| key < to);
        let rows = model.iter().filter(|((of, key), _)| *of == family && inside(key));
        let mut rows: Rows = rows.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        if order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(most);
        rows
    }

    proptest! {
        #[test]
        fn reads_as_if_its_writes_were_made(
            base in prop::collection::vec((families(), keys()), 0..12),
            writes in prop::collection::vec((families(), keys(), any::<bool>()), 0..12),
            spans in prop::collection::vec((keys(), prop::option::of(keys()), 1usize..5), 1..8),
        ) {
            let engine = MemoryEngine::new();
            let mut model = BTreeMap::new();
            let mut batch = Batch::new();
            for (family, key) in base {
                batch.put(family, &key, b"base");
                model.insert((family, key), b"base".to_vec());
            }
            engine.write(&batch, Durability::NoSync).expect("memory does not fail");
            let mut view = Overlay::new(&engine);
            for (family, key, put) in writes {
                if put {
                    view.put(family, key.clone(), b"own".to_vec());
                    model.insert((family, key), b"own".to_vec());
                } else {
                    view.delete(family, key.clone());
                    model.remove(&(family, key));
                }
            }
            for (from, to, most) in spans {
                let span = Span { from: from.clone(), to };
                for family in [Family::State, Family::Current] {
                    let got = view.get(family, &from).expect("memory does not fail").map(|row| row.to_vec());
                    prop_assert_eq!(got, model.get(&(family, from.clone())).cloned());
                    for order in [Order::Ascending, Order::Descending] {
                        prop_assert_eq!(
                            scanned(&view, family, &span, order, most),
                            expected(&model, family, &span, order, most)
                        );
                    }
                }
            }
            let batch = view.into_batch();
            engine.write(&batch, Durability::NoSync).expect("memory does not fail");
            let all = Span { from: Vec::new(), to: None };
            for family in [Family::State, Family::Current] {
                prop_assert_eq!(
                    scanned(&engine, family, &all, Order::Ascending, usize::MAX),
                    expected(&model, family, &all, Order::Ascending, usize::MAX)
                );
            }
        }
    }

    #[test]
    fn bytes_count_each_row_once() {
        let engine = MemoryEngine::new();
        let mut view = Overlay::new(&engine);
        assert!(view.is_empty());
        view.put(Family::Node, b"key".to_vec(), b"value".to_vec());
        assert_eq!(view.bytes(), 8);
        view.put(Family::Node, b"key".to_vec(), b"v".to_vec());
        assert_eq!(view.bytes(), 4);
        view.delete(Family::Node, b"key".to_vec());
        assert_eq!((view.bytes(), view.is_empty()), (3, false));
        assert_eq!(view.into_batch().bytes(), 3);
    }
}
