//! How numbers and byte strings stand in a stored record: LEB128 varints, and length-prefixed bytes.
//!
//! Every record begins with a format byte, checked by the record's own decoder. Decoding never panics and never
//! allocates more than its input holds; byte strings are slices of the input, not copies.

use std::borrow::Cow;

use bytes::Bytes;

use crate::engine::EngineError;

/// A record whose bytes are not what its format says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}")]
pub struct Malformed {
    /// The record or field that could not be read.
    pub what: &'static str,
}

impl From<Malformed> for EngineError {
    fn from(malformed: Malformed) -> EngineError {
        EngineError::Corrupt(malformed.to_string())
    }
}

/// Appends `value` as a varint: seven bits a byte, lowest first.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes` and `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a yes or no.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Reads a record from its front.
#[derive(Clone, Debug)]
pub struct Decoder {
    bytes: Bytes,
    what: &'static str,
}

impl Decoder {
    /// `what` names the record in errors.
    pub fn new(bytes: Bytes, what: &'static str) -> Decoder {
        Decoder { bytes, what }
    }

    /// An error that names this record.
    pub fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.first().ok_or(self.malformed())?;
        self.bytes = self.bytes.slice(1..);
        Ok(byte)
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (place, &byte) in self.bytes.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * place);
            if byte < 0x80 {
                self.bytes = self.bytes.slice(place + 1..);
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| self.malformed())
    }

    /// A count of things that each take at least one byte, so a larger one than the rest of the record is malformed.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.u64()?;
        if count > self.bytes.len() as u64 {
            return Err(self.malformed());
        }
        Ok(count as usize)
    }

    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.count()?;
        Ok(self.bytes.split_to(length))
    }

    pub fn string(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed())
    }

    /// A string; the `usual` one is not copied.
    pub fn string_or(&mut self, usual: &'static str) -> Result<Cow<'static, str>, Malformed> {
        let bytes = self.bytes()?;
        match bytes == usual {
            true => Ok(Cow::Borrowed(usual)),
            false => String::from_utf8(bytes.to_vec()).map(Cow::Owned).map_err(|_| self.malformed()),
        }
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The record must end here.
    pub fn end(self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_is_read(number in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            put_u64(&mut out, number);
            put_bytes(&mut out, &text);
            put_bool(&mut out, true);
            let mut decoder = Decoder::new(out.into(), "test");
            prop_assert_eq!(decoder.u64(), Ok(number));
            prop_assert_eq!(decoder.bytes().unwrap(), text);
            prop_assert_eq!(decoder.bool(), Ok(true));
            prop_assert_eq!(decoder.end(), Ok(()));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut decoder = Decoder::new(bytes.into(), "test");
            while decoder.u64().is_ok() && decoder.bytes().is_ok() {}
        }
    }

    #[test]
    fn an_overlong_number_is_malformed() {
        let too_long = vec![0xff; 11];
        assert_eq!(Decoder::new(too_long.into(), "number").u64(), Err(Malformed { what: "number" }));
    }
}
