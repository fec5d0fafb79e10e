//! The mark: a small file that remembers how far the history was synced.
//!
//! RocksDB cannot tell a log that ended from a log whose end was lost. So every batch of the writer carries the
//! **writer position**, and after each sync the writer notes the synced position here. A database recovered below its
//! mark has lost acknowledged writes.
//!
//! The file holds two slots of [`SLOT_BYTES`], overwritten in place in turn and never synced: an old mark is still a
//! true lower bound, and one torn slot leaves the other.
//!
//! Left out: file handling, which is the server's.

/// Bytes of one slot: magic, position, storage id, crc32.
pub const SLOT_BYTES: usize = 4 + 8 + 16 + 4;
/// Bytes of the whole file.
pub const FILE_BYTES: usize = 2 * SLOT_BYTES;

const MAGIC: [u8; 4] = *b"TFM1";

/// How far the history of the directory `storage_id` was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The writer position of the last batch known to be synced.
    pub position: u64,
    /// The directory the mark belongs to.
    pub storage_id: u128,
}

/// Why a mark file cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMark {
    #[error("neither slot of the mark is readable")]
    Unreadable,
    #[error("the mark has {0} bytes instead of {FILE_BYTES}")]
    Length(usize),
}

impl Mark {
    /// The offset in the file of the slot for this position: the two are used in turn.
    pub fn offset(&self) -> u64 {
        (self.position % 2) * SLOT_BYTES as u64
    }

    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..4].copy_from_slice(&MAGIC);
        slot[4..12].copy_from_slice(&self.position.to_be_bytes());
        slot[12..28].copy_from_slice(&self.storage_id.to_be_bytes());
        let sum = crc32fast::hash(&slot[..28]);
        slot[28..].copy_from_slice(&sum.to_be_bytes());
        slot
    }

    /// The newer readable slot of a mark file.
    pub fn decode_file(file: &[u8]) -> Result<Mark, BadMark> {
        if file.len() != FILE_BYTES {
            return Err(BadMark::Length(file.len()));
        }
        let slots = file.chunks_exact(SLOT_BYTES).filter_map(Mark::decode);
        slots.max_by_key(|mark| mark.position).ok_or(BadMark::Unreadable)
    }

    /// Both slots of a fresh file.
    pub fn fresh_file(storage_id: u128) -> [u8; FILE_BYTES] {
        let slot = Mark { position: 0, storage_id }.encode();
        let mut file = [0; FILE_BYTES];
        file[..SLOT_BYTES].copy_from_slice(&slot);
        file[SLOT_BYTES..].copy_from_slice(&slot);
        file
    }

    fn decode(slot: &[u8]) -> Option<Mark> {
        let (body, sum) = slot.split_at_checked(28)?;
        let sound = body.starts_with(&MAGIC) && crc32fast::hash(body).to_be_bytes() == sum;
        sound.then(|| Mark {
            position: u64::from_be_bytes(body[4..12].try_into().expect("8 bytes")),
            storage_id: u128::from_be_bytes(body[12..28].try_into().expect("16 bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(positions: &[u64]) -> [u8; FILE_BYTES] {
        let mut file = Mark::fresh_file(9);
        for &position in positions {
            let mark = Mark { position, storage_id: 9 };
            let at = mark.offset() as usize;
            file[at..at + SLOT_BYTES].copy_from_slice(&mark.encode());
        }
        file
    }

    #[test]
    fn the_newer_readable_slot_counts() {
        let mark = |position| Ok(Mark { position, storage_id: 9 });
        assert_eq!(Mark::decode_file(&file(&[])), mark(0));
        assert_eq!(Mark::decode_file(&file(&[1, 2, 3])), mark(3));
        for byte in 0..FILE_BYTES {
            let mut flipped = file(&[1, 2, 3]);
            flipped[byte] ^= 0x10;
            let expected = if byte < SLOT_BYTES { 3 } else { 2 };
            assert_eq!(Mark::decode_file(&flipped), mark(expected), "byte {byte}");
        }
        assert_eq!(Mark::decode_file(&[0; FILE_BYTES]), Err(BadMark::Unreadable));
        assert_eq!(Mark::decode_file(&[0; 7]), Err(BadMark::Length(7)));
    }
}
