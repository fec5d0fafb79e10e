//! What RocksDB's list of tables tells of a family: how much of it is dead, which part of it to rewrite next, and what
//! room that takes.
//!
//! Rows that were removed or replaced stand on in the lowest level until a merge meets them with what hides them, which
//! stands in the levels above. So rewriting a range of keys gives something back only where a table of an upper level
//! lies over it. A pass over a family goes through it in portions, each of about [`PORTION_BYTES`] of the lowest level.
//!
//! RocksDB rewrites a range level by level, in several merges, and each removes the tables it read when it is done. So
//! a portion takes the room of its largest merge. One from level 0 takes all of that level, and what lies below it in
//! the base level. One from any other level takes a table as a whole, and every table below it, also those that lie
//! outside the range. Where that is little it takes more tables along, up to twice [`MERGE_BYTES_MAX`]; and it cuts new
//! tables where more than [`MERGE_BYTES_MAX`] lie below.
//!
//! Invariants:
//!
//! * A portion begins behind the end of the one before, and ends no sooner than it begins: a pass comes to its end.
//! * What lies between two portions has no table above it.
//!
//! Left out: asking RocksDB; what hides rows from memory only, which a flush brings to the tables; and tables that were
//! read and merged, and stay because somebody is reading them.

/// Bytes of the lowest level in one portion; one table may exceed it.
const PORTION_BYTES: u64 = 64 << 20;
/// What RocksDB is told to keep a merge below. One that can take more along without more of the level below may have
/// twice as many bytes, and one of a single table and what lies below it has what these have.
pub(super) const MERGE_BYTES_MAX: u64 = 64 << 20;

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
    fn keys(&self) -> Keys<'_> {
        Keys { first: &self.first, last: Some(&self.last) }
    }
}

/// A range of keys, with both its ends: so RocksDB takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keys<'a> {
    first: &'a [u8],
    /// `None`: to the end of the family.
    last: Option<&'a [u8]>,
}

impl<'a> Keys<'a> {
    const ALL: Keys<'static> = Keys { first: &[], last: None };

    fn meet(self, table: &Table) -> bool {
        table.last.as_slice() >= self.first && self.last.is_none_or(|last| table.first.as_slice() <= last)
    }

    /// The smallest range that holds both.
    fn with(self, other: Keys<'a>) -> Keys<'a> {
        let last = self.last.zip(other.last).map(|(one, another)| std::cmp::max(one, another));
        Keys { first: std::cmp::min(self.first, other.first), last }
    }
}

/// A range of keys to rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Portion {
    pub from: Vec<u8>,
    /// The last key; `None`: to the end of the family.
    pub last: Option<Vec<u8>>,
    /// About as many bytes are written.
    pub bytes: u64,
    /// The room it takes meanwhile, at most.
    pub room: u64,
}

impl Portion {
    /// Where the next one may begin; `None`: there is none.
    pub fn next(&self) -> Option<Vec<u8>> {
        self.last.as_deref().map(after)
    }
}

/// The key that comes next after `key`.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A family as RocksDB has it.
pub(super) struct Family<'a> {
    pub tables: &'a [Table],
    /// The level that level 0 is merged into.
    pub base: i32,
    /// Bytes of its memtables, if they hold anything: RocksDB may flush them before it rewrites.
    pub in_memory: u64,
}

impl Family<'_> {
    /// The first portion at or behind the key `from` that has anything to merge.
    pub fn next_portion(&self, from: &[u8]) -> Option<Portion> {
        let (lowest, above) = levels(self.tables);
        let mut from = from.to_vec();
        loop {
            let last = last_of_portion(&lowest, &from);
            let keys = Keys { first: &from, last: last.as_deref() };
            if above.iter().any(|table| keys.meet(table)) {
                let (bytes, room) = (self.rewritten(keys, &above), self.room(keys, &above));
                return Some(Portion { from, last, bytes, room });
            }
            from = after(&last?);
        }
    }

    /// Bytes of the tables that are rewritten with these keys, each counted once.
    fn rewritten(&self, keys: Keys<'_>, above: &[&Table]) -> u64 {
        let top = self.level_0(keys, 0);
        let wide = above.iter().filter(|table| table.level > 0 && keys.meet(table));
        let wide = wide.fold(keys, |wide, table| wide.with(table.keys()));
        let takes = |table: &&Table| match table.level {
            0 => top.is_some(),
            level if level == self.base && top.is_some_and(|top| top.meet(table)) => true,
            _ => wide.meet(table),
        };
        bytes(self.tables.iter().filter(takes))
    }

    /// The room that rewriting these keys takes, at most: the flush of the memtables, and the largest merge.
    fn room(&self, keys: Keys<'_>, above: &[&Table]) -> u64 {
        let from_level_0 = self.level_0(keys, self.in_memory).map_or(0, |top| {
            let takes = |table: &&Table| table.level == 0 || table.level == self.base && top.meet(table);
            bytes(self.tables.iter().filter(takes)) + self.in_memory
        });
        let met = above.iter().filter(|table| table.level > 0 && keys.meet(table));
        let of_one_table = met.map(|table| self.with_what_lies_below(table)).max().unwrap_or(0);
        let reach = reach(keys, above);
        let of_several = bytes(self.tables.iter().filter(|table| reach.meet(table))) + self.in_memory;
        self.in_memory + from_level_0.max(of_one_table).max(of_several.min(2 * MERGE_BYTES_MAX))
    }

    /// The keys that a merge of level 0 takes along in the level below, if these keys lead to one.
    fn level_0(&self, keys: Keys<'_>, in_memory: u64) -> Option<Keys<'_>> {
        let tables = || self.tables.iter().filter(|table| table.level == 0);
        match in_memory {
            0 => tables().any(|table| keys.meet(table)).then(|| tables().map(Table::keys).reduce(Keys::with))?,
            // Which keys they hold RocksDB does not say.
            _ => Some(Keys::ALL),
        }
    }

    /// Bytes of a merge of this table with the next level that has any.
    fn with_what_lies_below(&self, table: &Table) -> u64 {
        let next = self.tables.iter().map(|other| other.level).filter(|level| *level > table.level).min();
        let below = |other: &&Table| Some(other.level) == next && table.keys().meet(other);
        table.bytes + bytes(self.tables.iter().filter(below))
    }
}

/// How far merges of these keys may reach: over the tables above that meet them, those that meet these, and so on.
fn reach<'a>(mut keys: Keys<'a>, above: &[&'a Table]) -> Keys<'a> {
    loop {
        let met = above.iter().filter(|table| keys.meet(table));
        let wider = met.fold(keys, |wider, table| wider.with(table.keys()));
        if wider == keys {
            return keys;
        }
        keys = wider;
    }
}

fn bytes<'a>(tables: impl Iterator<Item = &'a Table>) -> u64 {
    tables.map(|table| table.bytes).sum()
}

/// The tables of the lowest level in the order of their keys, and all others. Level 0 alone has none below it.
fn levels(tables: &[Table]) -> (Vec<&Table>, Vec<&Table>) {
    let lowest = tables.iter().map(|table| table.level).max().filter(|level| *level > 0);
    let (mut lowest, above): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(|table| Some(table.level) == lowest);
    lowest.sort_by(|one, other| one.first.cmp(&other.first));
    (lowest, above)
}

/// Where the portion that begins at `from` ends: with a table of the lowest level, once it has enough of them.
fn last_of_portion(lowest: &[&Table], from: &[u8]) -> Option<Vec<u8>> {
    let mut ahead = lowest.iter().filter(|table| table.last.as_slice() >= from).peekable();
    let mut bytes = 0;
    while let Some(table) = ahead.next() {
        bytes += table.bytes;
        if bytes >= PORTION_BYTES && ahead.peek().is_some() {
            return Some(table.last.clone());
        }
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

    /// Where a portion begins and ends, the megabytes it writes, and the room it takes.
    type Seen = (u8, Option<u8>, u64, u64);

    /// Of which tables over which base level, with how many megabytes in memory, what is seen.
    type Case<'a> = (&'a str, Vec<Table>, i32, u64, &'a [Seen]);

    /// The portions of a whole pass.
    fn pass(tables: &[Table], base: i32, in_memory: u64) -> Vec<Seen> {
        let first = |key: &[u8]| key.first().copied();
        let family = Family { tables, base, in_memory: in_memory * MB };
        let (mut portions, mut from) = (Vec::new(), Some(Vec::new()));
        while let Some(portion) = from.and_then(|from| family.next_portion(&from)) {
            let ends = portion.last.as_deref().and_then(first);
            portions.push((first(&portion.from).unwrap_or(0), ends, portion.bytes / MB, portion.room / MB));
            from = portion.next();
        }
        portions
    }

    #[test]
    fn a_pass_goes_where_there_is_something_to_merge() {
        let over = |more: &[Table]| [lowest(), more.to_vec()].concat();
        let cases: [(&str, Vec<Table>, i32, &[Seen]); 12] = [
            ("nothing", Vec::new(), 6, &[]),
            ("nothing above", lowest(), 6, &[]),
            ("level 0 alone", vec![table(0, [0, 5], 3), table(0, [2, 9], 4)], 6, &[(0, None, 7, 7)]),
            (
                "over all: its table takes all along",
                over(&[table(5, [0, 39], 2)]),
                5,
                &[(0, Some(19), 162, 162), (19, None, 162, 162)],
            ),
            ("over the end", over(&[table(5, [33, 35], 2)]), 5, &[(19, None, 82, 82)]),
            ("behind the end", over(&[table(5, [50, 60], 2)]), 5, &[(19, None, 82, 82)]),
            (
                "up to where the next begins",
                over(&[table(5, [12, 20], 2)]),
                5,
                &[(0, Some(19), 122, 122), (19, None, 122, 122)],
            ),
            (
                "one after the other",
                over(&[table(5, [0, 15], 2), table(5, [16, 25], 2)]),
                5,
                &[(0, Some(19), 124, 124), (19, None, 122, 122)],
            ),
            (
                "over one another: no merge takes all",
                over(&[table(5, [0, 19], 2), table(4, [9, 30], 2)]),
                4,
                &[(0, Some(19), 164, 128), (19, None, 164, 128)],
            ),
            (
                "level 0 into a level of its own",
                over(&[table(0, [0, 39], 1)]),
                5,
                &[(0, Some(19), 81, 128), (19, None, 81, 128)],
            ),
            (
                "level 0 takes the level below along",
                over(&[table(0, [5, 6], 1), table(5, [2, 15], 60)]),
                5,
                &[(0, Some(19), 141, 140)],
            ),
            (
                "level 0 into the lowest",
                over(&[table(0, [0, 39], 1)]),
                6,
                &[(0, Some(19), 161, 161), (19, None, 161, 161)],
            ),
        ];
        for (what, tables, base, expected) in cases {
            assert_eq!(pass(&tables, base, 0), expected, "{what}");
        }
    }

    #[test]
    fn what_is_in_memory_takes_room_twice() {
        let small = || vec![table(6, [0, 9], 40), table(5, [0, 1], 2)];
        let cases: [Case<'_>; 4] = [
            ("nothing above: nothing is flushed", lowest(), 6, 5, &[]),
            ("nothing in memory", small(), 5, 0, &[(0, None, 42, 42)]),
            ("flushed, and merged with all", small(), 5, 5, &[(0, None, 42, 52)]),
            (
                "with all of the base level",
                [small(), vec![table(5, [2, 9], 200)]].concat(),
                5,
                5,
                &[(0, None, 242, 245)],
            ),
        ];
        for (what, tables, base, in_memory, expected) in cases {
            assert_eq!(pass(&tables, base, in_memory), expected, "{what}");
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
