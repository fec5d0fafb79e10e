//! The mark: a small file that remembers how far the history was synced.
//!
//! RocksDB cannot tell a log that ended from a log whose end was lost. So every batch of the writer carries the
//! **writer position**, and after each sync the writer notes the synced position here. A database recovered below its
//! mark has lost acknowledged writes.
//!
//! The mark also remembers how large the engine's manifest was: RocksDB takes one whose end was cut off for an older
//! version of the database, forgets the tables named in the missing part, and removes them.
//!
//! The file holds two slots of [`SLOT_BYTES`], overwritten in place in turn and never synced: an old mark is still a
//! true lower bound, and one torn slot leaves the other.
//!
//! Left out: file handling, which is the server's.

use crate::engine::Manifest;

/// Bytes of one slot: magic, position, storage id, number and bytes of the manifest, crc32.
pub const SLOT_BYTES: usize = BODY_BYTES + 4;
/// Bytes of the whole file.
pub const FILE_BYTES: usize = 2 * SLOT_BYTES;

const BODY_BYTES: usize = 4 + 8 + 16 + 8 + 8;
const MAGIC: [u8; 4] = *b"TFM1";

/// How far the history of the directory `storage_id` was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The writer position of the last batch known to be synced.
    pub position: u64,
    /// The directory the mark belongs to.
    pub storage_id: u128,
    /// What the database's own list of files was at least; number 0 when that is not known.
    pub manifest: Manifest,
}

/// Why a mark file cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMark {
    #[error("neither slot of the mark is readable")]
    Unreadable,
    #[error("the mark has {0} bytes instead of {FILE_BYTES}")]
    Length(usize),
}

/// One of the two slots. Whoever notes marks takes them in turn, whatever the positions: a torn slot then leaves the
/// mark before it, not one of long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    #[default]
    First,
    Second,
}

impl Slot {
    pub fn other(self) -> Slot {
        match self {
            Slot::First => Slot::Second,
            Slot::Second => Slot::First,
        }
    }

    /// Where it begins in the file.
    pub fn offset(self) -> usize {
        match self {
            Slot::First => 0,
            Slot::Second => SLOT_BYTES,
        }
    }
}

impl Mark {
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..4].copy_from_slice(&MAGIC);
        slot[4..12].copy_from_slice(&self.position.to_be_bytes());
        slot[12..28].copy_from_slice(&self.storage_id.to_be_bytes());
        slot[28..36].copy_from_slice(&self.manifest.number.to_be_bytes());
        slot[36..44].copy_from_slice(&self.manifest.bytes.to_be_bytes());
        let sum = crc32fast::hash(&slot[..BODY_BYTES]);
        slot[BODY_BYTES..].copy_from_slice(&sum.to_be_bytes());
        slot
    }

    /// The newer readable slot of a mark file.
    pub fn decode_file(file: &[u8]) -> Result<Mark, BadMark> {
        if file.len() != FILE_BYTES {
            return Err(BadMark::Length(file.len()));
        }
        let slots = file.chunks_exact(SLOT_BYTES).filter_map(Mark::decode);
        slots.max_by_key(|mark| (mark.position, mark.manifest)).ok_or(BadMark::Unreadable)
    }

    /// The slot to write to next: the older one, or the one that cannot be read, so that the newer mark stays.
    pub fn next_slot(file: &[u8; FILE_BYTES]) -> Slot {
        let (first, second) = file.split_at(SLOT_BYTES);
        let at = |slot| Mark::decode(slot).map(|mark| (mark.position, mark.manifest));
        if at(first) > at(second) { Slot::Second } else { Slot::First }
    }

    /// Both slots of a fresh file.
    pub fn fresh_file(storage_id: u128) -> [u8; FILE_BYTES] {
        let slot = Mark { position: 0, storage_id, manifest: Manifest::default() }.encode();
        let mut file = [0; FILE_BYTES];
        file[..SLOT_BYTES].copy_from_slice(&slot);
        file[SLOT_BYTES..].copy_from_slice(&slot);
        file
    }

    fn decode(slot: &[u8]) -> Option<Mark> {
        let (body, sum) = slot.split_at_checked(BODY_BYTES)?;
        let sound = body.starts_with(&MAGIC) && crc32fast::hash(body).to_be_bytes() == sum;
        sound.then(|| Mark {
            position: u64::from_be_bytes(body[4..12].try_into().expect("8 bytes")),
            storage_id: u128::from_be_bytes(body[12..28].try_into().expect("16 bytes")),
            manifest: Manifest {
                number: u64::from_be_bytes(body[28..36].try_into().expect("8 bytes")),
                bytes: u64::from_be_bytes(body[36..44].try_into().expect("8 bytes")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(positions: &[u64]) -> [u8; FILE_BYTES] {
        let mut file = Mark::fresh_file(9);
        let mut slot = Slot::First;
        for &position in positions {
            let mark = Mark { position, storage_id: 9, manifest: Manifest { number: 5, bytes: position } };
            let at = slot.offset();
            file[at..at + SLOT_BYTES].copy_from_slice(&mark.encode());
            slot = slot.other();
        }
        file
    }

    #[test]
    fn the_newer_readable_slot_counts() {
        let manifest =
            |position| if position == 0 { Manifest::default() } else { Manifest { number: 5, bytes: position } };
        let mark = |position| Ok(Mark { position, storage_id: 9, manifest: manifest(position) });
        assert_eq!(Mark::decode_file(&file(&[])), mark(0));
        assert_eq!(Mark::decode_file(&file(&[2, 4, 6])), mark(6));
        for byte in 0..FILE_BYTES {
            let mut flipped = file(&[2, 4, 6]);
            flipped[byte] ^= 0x10;
            let expected = if byte < SLOT_BYTES { 4 } else { 6 };
            assert_eq!(Mark::decode_file(&flipped), mark(expected), "byte {byte}");
        }
        assert_eq!(Mark::decode_file(&[0; FILE_BYTES]), Err(BadMark::Unreadable));
    }

    #[test]
    fn the_newer_readable_slot_is_not_written_to() {
        for (positions, expected) in
            [(&[][..], Slot::First), (&[2], Slot::Second), (&[2, 4], Slot::First), (&[2, 4, 6], Slot::Second)]
        {
            let file = file(positions);
            assert_eq!(Mark::next_slot(&file), expected, "{positions:?}");
            for torn in [Slot::First, Slot::Second] {
                let mut file = file;
                file[torn.offset() + 9] ^= 0x10;
                assert_eq!(Mark::next_slot(&file), torn, "{positions:?}: the other one is all there is");
            }
        }
    }

    #[test]
    fn a_file_of_another_length_is_none() {
        assert_eq!(Mark::decode_file(&[0; 7]), Err(BadMark::Length(7)));
    }
}
