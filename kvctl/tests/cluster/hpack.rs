//! The fields in a block of headers (RFC 7541), as far as a server has them that was told to keep no table.
//!
//! Left out: the names and values of the static table, which stand as `static` and their number; the dynamic table; bytes
//! beyond ASCII.

/// Characters by the length of their code in bits: the code of the first, and they in the order of their codes.
const CODES: [(u32, u32, &str); 10] = [
    (5, 0x0, "012aceiost"),
    (6, 0x14, " %-./3456789=A_bdfghlmnpru"),
    (7, 0x5c, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0xf8, "&*,;XZ"),
    (10, 0x3f8, "!\"()?"),
    (11, 0x7fa, "'+|"),
    (12, 0xffa, "#>"),
    (13, 0x1ff8, "\0$@[]~"),
    (14, 0x3ffc, "^}"),
    (15, 0x7ffc, "<`{"),
];

/// Names and values.
///
/// # Panics
/// When the block is cut off.
pub fn fields(block: &[u8]) -> Vec<(String, String)> {
    let (mut rest, mut fields) = (Rest(block), Vec::new());
    while !rest.0.is_empty() {
        let first = rest.byte();
        match first {
            0x80.. => fields.push((named(rest.number(first, 7)), String::new())),
            0x40..0x80 => fields.push(rest.literal(first, 6)),
            // How large the table is from now on.
            0x20..0x40 => {
                rest.number(first, 5);
            }
            0..0x20 => fields.push(rest.literal(first, 4)),
        }
    }
    fields
}

fn named(number: usize) -> String {
    format!("static {number}")
}

/// What is left of a block.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("a block that is not cut off");
        self.0 = rest;
        *first
    }

    /// A number that begins in the last `bits` of a byte.
    fn number(&mut self, first: u8, bits: u32) -> usize {
        let most = (1_usize << bits) - 1;
        let mut number = usize::from(first) & most;
        let (mut more, mut shift) = (number == most, 0);
        while more {
            let next = self.byte();
            number += usize::from(next & 0x7f) << shift;
            (more, shift) = (next >= 0x80, shift + 7);
        }
        number
    }

    fn text(&mut self) -> String {
        let first = self.byte();
        let length = self.number(first, 7);
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        match first < 0x80 {
            true => String::from_utf8_lossy(text).into_owned(),
            false => decoded(text),
        }
    }

    fn literal(&mut self, first: u8, bits: u32) -> (String, String) {
        let name = match self.number(first, bits) {
            0 => self.text(),
            number => named(number),
        };
        (name, self.text())
    }
}

/// What is written in Huffman's code.
fn decoded(bytes: &[u8]) -> String {
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from((byte >> at) & 1)));
    let (mut text, mut code, mut length) = (String::new(), 0_u32, 0);
    for bit in bits {
        (code, length) = ((code << 1) | bit, length + 1);
        if let Some(character) = character(code, length) {
            text.push(character);
            (code, length) = (0, 0);
        }
    }
    text
}

fn character(code: u32, length: u32) -> Option<char> {
    let (_, first, characters) = CODES.iter().find(|(bits, ..)| *bits == length)?;
    characters.chars().nth(code.checked_sub(*first)? as usize)
}

/// RFC 7541, C.6.1.
#[test]
fn a_block_of_the_specification() {
    let block = [
        0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe, 0x94, 0x10,
        0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff, 0x6e,
        0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
    ];
    let fields = fields(&block);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("static 8", "302"),
        ("static 24", "private"),
        ("static 33", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("static 46", "https://www.example.com"),
    ];
    assert_eq!(fields, expected);
}
