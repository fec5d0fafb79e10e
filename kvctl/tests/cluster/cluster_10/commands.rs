//! Random commands in the encoding in which nodes hand them on (`store/src/command/codec.rs`), whole and damaged.

use super::chance::{flag, junk, key, number, some};
use crate::scenario::Dice;

const FORMAT: u8 = 1;
/// How deep transactions nest.
const DEPTH: u32 = 3;

/// A command, or what is left of one. One that deletes is left whole, so that its keys stay where they belong.
pub fn command(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![FORMAT];
    let mut deletes = false;
    match dice.below(8) {
        0 => out = dice.bytes(60),
        1 => {
            out.push(2);
            put_number(&mut out, number(dice));
        }
        2 => out.push(3),
        3 => {
            out.push(4);
            put_number(&mut out, number(dice));
        }
        _ => {
            out.push(1);
            deletes = op(dice, &mut out, DEPTH);
        }
    }
    if !deletes && dice.below(3) == 0 {
        damage(dice, &mut out);
    }
    out
}

/// A command that changes nothing, whatever it is sent to.
pub fn read_command(dice: &mut Dice) -> Vec<u8> {
    let mut out = vec![FORMAT, 1];
    range_op(dice, &mut out);
    out
}

/// One wrong byte, one too many, or a part only.
fn damage(dice: &mut Dice, out: &mut Vec<u8>) {
    let at = dice.below(out.len() as u64) as usize;
    match dice.below(3) {
        0 if !out.is_empty() => out[at] = dice.roll() as u8,
        1 => out.push(dice.roll() as u8),
        _ => out.truncate(at),
    }
}

/// Appends an operation; whether it deletes.
fn op(dice: &mut Dice, out: &mut Vec<u8>, depth: u32) -> bool {
    match dice.below(8) {
        0..2 => {
            range_op(dice, out);
            false
        }
        2..4 => {
            out.push(3);
            range(dice, out);
            out.push(flag(dice).into());
            true
        }
        4 if depth > 0 => {
            out.push(4);
            txn(dice, out, depth - 1)
        }
        _ => {
            put_op(dice, out);
            false
        }
    }
}

fn range_op(dice: &mut Dice, out: &mut Vec<u8>) {
    out.push(1);
    range(dice, out);
    option(dice, out, |dice, out| put_number(out, number(dice)));
    option(dice, out, |dice, out| put_number(out, number(dice)));
    for _ in 0..4 {
        out.push(flag(dice).into());
    }
}

fn put_op(dice: &mut Dice, out: &mut Vec<u8>) {
    out.push(2);
    put_bytes(out, &key(dice));
    option(dice, out, |dice, out| put_bytes(out, &junk(dice)));
    option(dice, out, |dice, out| put_number(out, number(dice)));
    out.push(flag(dice).into());
}

fn range(dice: &mut Dice, out: &mut Vec<u8>) {
    put_bytes(out, &key(dice));
    match dice.below(3) {
        0 => out.push(1),
        1 => {
            out.push(2);
            put_bytes(out, &key(dice));
        }
        _ => out.push(3),
    }
}

fn txn(dice: &mut Dice, out: &mut Vec<u8>, depth: u32) -> bool {
    let compares = some(dice, |dice| {
        let mut out = Vec::new();
        compare(dice, &mut out);
        out
    });
    put_number(out, compares.len() as u64);
    out.extend(compares.concat());
    let mut deletes = false;
    for _ in 0..2 {
        let count = dice.below(4);
        put_number(out, count);
        for _ in 0..count {
            deletes |= op(dice, out, depth);
        }
    }
    deletes
}

fn compare(dice: &mut Dice, out: &mut Vec<u8>) {
    range(dice, out);
    out.push(1 + dice.below(4) as u8);
    let target = 1 + dice.below(5) as u8;
    out.push(target);
    match target {
        5 => put_bytes(out, &dice.bytes(20)),
        _ => put_number(out, number(dice)),
    }
}

fn option(dice: &mut Dice, out: &mut Vec<u8>, put: impl FnOnce(&mut Dice, &mut Vec<u8>)) {
    let there = flag(dice);
    out.push(there.into());
    if there {
        put(dice, out);
    }
}

/// Seven bits a byte, lowest first.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Length and bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
