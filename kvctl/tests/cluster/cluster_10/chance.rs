//! Random field values, boundaries above all. Keys stay below [`PREFIX`], and no range that begins there reaches what
//! sorts before it.

use bytes::Bytes;

use crate::scenario::Dice;

/// All keys that random messages name begin with this.
pub const PREFIX: &[u8] = b"fuzz/";
/// Somewhat longer than a key may be.
const LONG_KEY: usize = 70_000;
/// Somewhat larger than a request may be.
const LARGE: usize = 1_600_000;

pub fn flag(dice: &mut Dice) -> bool {
    dice.below(2) == 0
}

pub fn number(dice: &mut Dice) -> u64 {
    match dice.below(6) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => dice.below(10),
        4 => 1 << dice.below(64),
        _ => dice.roll(),
    }
}

pub fn small_number(dice: &mut Dice) -> u32 {
    number(dice) as u32
}

/// Something, or nothing.
pub fn maybe<T>(dice: &mut Dice, make: impl FnOnce(&mut Dice) -> T) -> Option<T> {
    (dice.below(4) > 0).then(|| make(dice))
}

/// A few of them.
pub fn some<T>(dice: &mut Dice, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
    (0..dice.below(4)).map(|_| make(dice)).collect()
}

/// Bytes without a meaning.
pub fn junk(dice: &mut Dice) -> Bytes {
    match dice.below(64) {
        0..8 => Bytes::new(),
        8..16 => vec![0xff; 16].into(),
        16 => vec![0; LARGE].into(),
        _ => dice.bytes(60).into(),
    }
}

pub fn text(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => String::new(),
        1 => "\u{0}\u{7f}\u{fffd}\n".to_owned(),
        2 => "x".repeat(LONG_KEY),
        _ => String::from_utf8_lossy(&dice.bytes(12)).into_owned(),
    }
}

/// A key below the prefix.
pub fn key(dice: &mut Dice) -> Bytes {
    let rest = match dice.below(32) {
        0 => vec![0xff; LONG_KEY],
        1..8 => Vec::new(),
        8..16 => vec![b'a' + dice.below(4) as u8],
        _ => dice.bytes(20),
    };
    [PREFIX, &rest].concat().into()
}
