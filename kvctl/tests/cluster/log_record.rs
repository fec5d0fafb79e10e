//! Records of RocksDB's log files, the write-ahead log and the manifest: changing what one says, checksum included, as
//! if another version had written it.
//!
//! Blocks of 32 KiB hold records: masked CRC-32C of type and body (u32), length of the body (u16), type (u8), body;
//! numbers are little-endian. What is left of a block that has no room for a head is filled up.

use std::fs;
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEAD: usize = 7;

/// Puts `new` in the place of `old`, which must be as long and stand in some record of the file.
pub fn replace(path: &Path, old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len(), "expected a replacement of the same length");
    let mut file = fs::read(path).unwrap_or_else(|error| panic!("expected to read {path:?}: {error}"));
    let (mut at, mut replaced) = (0, 0);
    while at + HEAD <= file.len() {
        let room = BLOCK - at % BLOCK;
        if room < HEAD {
            at += room;
            continue;
        }
        let end = at + HEAD + usize::from(u16::from_le_bytes([file[at + 4], file[at + 5]]));
        // A process that was killed may have left the last record in part.
        let Some(record) = file.get_mut(at..end) else { break };
        if let Some(found) = record[HEAD..].windows(old.len()).position(|window| window == old) {
            record[HEAD + found..][..new.len()].copy_from_slice(new);
            let sum = mask(crc32c(&record[HEAD - 1..]));
            record[..4].copy_from_slice(&sum.to_le_bytes());
            replaced += 1;
        }
        at = end;
    }
    assert!(replaced > 0, "expected a record of {path:?} to hold {old:?}");
    fs::write(path, file).unwrap_or_else(|error| panic!("expected to write {path:?}: {error}"));
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        }
    }
    !sum
}

/// RocksDB stores sums of data that may hold sums itself.
fn mask(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}
