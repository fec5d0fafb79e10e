//! What RocksDB's list of tables tells of a family: how much of it is dead, and which part of it to rewrite next.
//!
//! Rows that were removed or replaced stand on in the lowest level until a merge meets them with what hides them, which
//! stands in the levels above. So rewriting a range of keys gives something back only where a table of an upper level
//! lies over it. A pass over a family goes through it in portions, each of about [`PORTION_BYTES`] of the lowest level.
//!
//! Invariants:
//!
//! * A portion begins where the one before ended, or later, and ends behind its beginning: a pass comes to its end.
//! * What lies between two portions has no table above it.
//!
//! Left out: asking RocksDB, and what hides rows from memory only, which a flush brings to the tables.

/// Bytes of the lowest level in one portion; one table may exceed it.
const PORTION_BYTES: u64 = 64 << 20;

/// A table as RocksDB lists it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// 0 is where flushes put their tables, which may overlap each other; those of another level do not.
    pub level: i32,
    pub first: Vec<u8>,
    pub last: Vec<u8>,
    pub bytes: u64,
    /// Rows and what hides rows; 0 when RocksDB has not looked yet.
    pub entries: u64,
    /// How many of the entries hide a row.
    pub deletions: u64,
}

impl Table {
    fn meets(&self, from: &[u8], to: Option<&[u8]>) -> bool {
        self.last.as_slice() >= from && to.is_none_or(|to| self.first.as_slice() < to)
    }
}

/// A range of keys to rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Portion {
    pub from: Vec<u8>,
    /// `None`: to the end of the family.
    pub to: Option<Vec<u8>>,
    /// Bytes of the tables that are merged, and so of the room it takes meanwhile, at most.
    pub bytes: u64,
}

/// The first portion at or behind the key `from` that has anything to merge.
pub(super) fn next_portion(tables: &[Table], from: &[u8]) -> Option<Portion> {
    let (lowest, above) = levels(tables);
    let mut from = from.to_vec();
    loop {
        let to = end_of_portion(&lowest, &from);
        let meets = |table: &&&Table| table.meets(&from, to.as_deref());
        if above.iter().any(|table| meets(&table)) {
            let bytes = |tables: &[&Table]| tables.iter().filter(meets).map(|table| table.bytes).sum::<u64>();
            // A merge of level 0 takes all of it, and all that lies below it in the next level.
            let whole = above.iter().any(|table| table.level == 0 && meets(&table));
            let upper: u64 = if whole { above.iter().map(|table| table.bytes).sum() } else { bytes(&above) };
            let bytes = upper + bytes(&lowest);
            return Some(Portion { from, to, bytes });
        }
        from = to?;
    }
}

/// The tables of the lowest level in the order of their keys, and all others. Level 0 alone has none below it.
fn levels(tables: &[Table]) -> (Vec<&Table>, Vec<&Table>) {
    let lowest = tables.iter().map(|table| table.level).max().filter(|level| *level > 0);
    let (mut lowest, above): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(|table| Some(table.level) == lowest);
    lowest.sort_by(|one, other| one.first.cmp(&other.first));
    (lowest, above)
}

/// Where the portion that begins at `from` ends: where a table of the lowest level begins, once it has enough of them.
fn end_of_portion(lowest: &[&Table], from: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = 0;
    for table in lowest.iter().filter(|table| table.last.as_slice() >= from) {
        if bytes >= PORTION_BYTES && table.first.as_slice() > from {
            return Some(table.first.clone());
        }
        bytes += table.bytes;
    }
    None
}

/// An estimate of the bytes that rewriting a family gives back. `merged` are the bytes of a largest set of tables none
/// of which overlap: the others hold what replaces rows of these, or hides them. Each deletion, the `in_memory` ones
/// too, is taken to hide a row of the usual size.
pub(super) fn dead_bytes(tables: &[Table], merged: u64, in_memory: u64) -> u64 {
    let all: u64 = tables.iter().map(|table| table.bytes).sum();
    let known = || tables.iter().filter(|table| table.entries > 0);
    let deletions = known().map(|table| table.deletions).sum::<u64>();
    let rows = known().map(|table| table.entries).sum::<u64>().saturating_sub(deletions);
    let bytes: u64 = known().map(|table| table.bytes).sum();
    let hidden = (deletions + in_memory).min(rows) * bytes.checked_div(rows).unwrap_or(0);
    (all.saturating_sub(merged) + hidden).min(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn table(level: i32, keys: [u8; 2], megabytes: u64) -> Table {
        let [first, last] = keys.map(|key| vec![key]);
        Table { level, first, last, bytes: megabytes * MB, entries: 0, deletions: 0 }
    }

    /// Four tables of 40 MB each in the lowest level.
    fn lowest() -> Vec<Table> {
        [[0, 9], [10, 19], [20, 29], [30, 39]].map(|keys| table(6, keys, 40)).to_vec()
    }

    /// Where a portion begins and ends, and its megabytes.
    type Seen = (u8, Option<u8>, u64);

    /// The portions of a whole pass.
    fn pass(tables: &[Table]) -> Vec<Seen> {
        let first = |key: &[u8]| key.first().copied();
        let (mut portions, mut from) = (Vec::new(), Some(Vec::new()));
        while let Some(portion) = from.and_then(|from| next_portion(tables, &from)) {
            let ends = portion.to.as_deref().and_then(first);
            portions.push((first(&portion.from).unwrap_or(0), ends, portion.bytes / MB));
            from = portion.to;
        }
        portions
    }

    #[test]
    fn a_pass_goes_where_there_is_something_to_merge() {
        let over = |more: &[Table]| [lowest(), more.to_vec()].concat();
        let cases: [(&str, Vec<Table>, &[Seen]); 7] = [
            ("nothing", Vec::new(), &[]),
            ("nothing above", lowest(), &[]),
            ("level 0 alone", vec![table(0, [0, 5], 3), table(0, [2, 9], 4)], &[(0, None, 7)]),
            ("over all", over(&[table(5, [0, 39], 2)]), &[(0, Some(20), 82), (20, None, 82)]),
            ("over the end", over(&[table(5, [33, 35], 2)]), &[(20, None, 82)]),
            ("behind the end", over(&[table(5, [50, 60], 2)]), &[(20, None, 82)]),
            (
                "level 0 takes the one below it along",
                over(&[table(0, [5, 6], 1), table(5, [30, 39], 2)]),
                &[(0, Some(20), 83), (20, None, 82)],
            ),
        ];
        for (what, tables, expected) in cases {
            assert_eq!(pass(&tables), expected, "{what}");
        }
    }

    #[test]
    fn what_is_dead() {
        let counted = |level: i32, megabytes: u64, entries: u64, deletions: u64| {
            let bytes = megabytes * MB;
            Table { bytes, entries, deletions, ..table(level, [0, 9], 0) }
        };
        let rows = counted(6, 100, 100, 0);
        let cases = [
            ("nothing", Vec::new(), 0, 7, 0),
            ("only living rows", vec![rows.clone()], 100, 0, 0),
            ("removals in memory", vec![rows.clone()], 100, 30, 30),
            ("more removals than rows", vec![rows.clone()], 100, 300, 100),
            ("removals in a table", vec![rows.clone(), counted(0, 0, 30, 30)], 100, 0, 30),
            ("replaced rows", vec![rows, counted(0, 20, 20, 0)], 100, 0, 20),
            ("not counted yet", vec![table(6, [0, 9], 100)], 100, 30, 0),
        ];
        for (what, tables, merged, in_memory, expected) in cases {
            assert_eq!(dead_bytes(&tables, merged * MB, in_memory) / MB, expected, "{what}");
        }
    }
}
