//! What is done to directories. Rows of a database are changed in its write-ahead log, checksum included.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::bad_start::{delete, manifest};
use crate::files::{Damage, below, live_log, regular_files};
use crate::log_record;

/// Beside the directory, its copy as the first start left it.
pub const FIRST: &str = "first";
/// A key that has been put.
pub const KEY: &str = "spoiled";

pub const FOUNDING: &[u8] = b"founding";
/// The record of the first replica, and its vote.
pub const REPLICA: &[u8] = b"replica/\0\0\0\0\0\0\0\x01";
pub const VOTE: &[u8] = b"\0\0\0\0\0\0\0\x01\x01";
/// The row of [`KEY`] in the second store, which is the keyspace `default`'s.
pub const CURRENT: &[u8] = b"\0\0\0\x02spoiled";
/// The format of all rows, and one that nobody knows.
const FORMAT: u8 = 1;
const UNKNOWN_FORMAT: u8 = 99;
/// How much longer a manifest is said to have been.
const CUT_BYTES: u64 = 1000;

/// A folder in the place of a file.
pub fn put_folder(directory: &Path, name: &str) {
    delete(directory, name);
    fs::create_dir(directory.join(name)).expect("a folder");
}

/// A pipe that nobody writes to in the place of a file.
pub fn put_pipe(directory: &Path, name: &str) {
    delete(directory, name);
    let path = directory.join(name).into_os_string().into_vec();
    let path = CString::new(path).expect("a path without a zero byte");
    // SAFETY: the path is a terminated string that lives until the call returns.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "expected to make a pipe {path:?}");
}

/// A device that can be read without end in the place of a file.
pub fn put_zeroes(directory: &Path, name: &str) {
    delete(directory, name);
    symlink("/dev/zero", directory.join(name)).expect("a link");
}

/// Another first byte of a table.
pub fn damage_table(directory: &Path) {
    let mut files = regular_files(directory).into_iter();
    let (_, table) = files.find(|(name, _)| name.ends_with(b".sst")).expect("a table after the second start");
    let mut content = fs::read(&table).expect("to read a table");
    content[0] ^= 0xff;
    fs::write(&table, content).expect("to write a table");
}

/// The end of what the node wrote before it was killed is gone.
pub fn cut_log(directory: &Path) {
    Damage::Cut.inflict(&below(directory, &live_log(directory)));
}

/// The list of files that the first start used.
pub fn put_first_manifest_back(directory: &Path) {
    let first = directory.with_file_name(FIRST);
    for file in [manifest(&first), first.join("db/CURRENT")] {
        let name = file.file_name().expect("the name of a file");
        fs::copy(&file, directory.join("db").join(name)).expect("to copy a file");
    }
}

/// The mark remembers a longer manifest: one that was cut is only so short where RocksDB makes do with the rest.
pub fn remember_longer_manifest(directory: &Path) {
    let mark = directory.join("mark");
    let mut slots = fs::read(&mark).expect("to read the mark");
    for slot in slots.chunks_exact_mut(48) {
        let bytes = u64::from_be_bytes(slot[36..44].try_into().expect("8 bytes"));
        slot[36..44].copy_from_slice(&(bytes + CUT_BYTES).to_be_bytes());
        let sum = crc32(&slot[..44]);
        slot[44..].copy_from_slice(&sum.to_be_bytes());
    }
    fs::write(&mark, slots).expect("to write the mark");
}

/// The checksum of the mark's slots (CRC-32 as in zlib).
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

/// Gives a row of the first start a format that nobody knows. In the log its key and its value stand behind their
/// lengths, which are of one byte each; the value begins with the format.
pub fn spoil_row(directory: &Path, key: &[u8]) {
    let log = below(directory, &live_log(directory));
    let content = fs::read(&log).expect("to read a log");
    let length = u8::try_from(key.len()).expect("a short key");
    let row = [&[length][..], key].concat();
    let at = content.windows(row.len()).position(|window| window == row);
    let at = at.unwrap_or_else(|| panic!("expected a row {key:?} in {log:?}"));
    let found = &content[at..at + row.len() + 2];
    assert_eq!(found.last(), Some(&FORMAT), "expected a row of the first format at {key:?} in {log:?}");
    let spoiled = [&found[..row.len() + 1], &[UNKNOWN_FORMAT]].concat();
    log_record::replace(&log, found, &spoiled);
}
