//! Which keys.

use bytes::Bytes;

/// A set of neighbouring keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// All keys that begin with these bytes; with none, all keys.
    Prefix(Bytes),
    /// From the first key up to, but not including, the second.
    Between(Bytes, Bytes),
    /// This key and all above it.
    From(Bytes),
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> KeyRange {
        KeyRange::Key(key.into())
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        KeyRange::Prefix(prefix.into())
    }

    /// From `from` up to, but not including, `before`.
    pub fn between(from: impl Into<Bytes>, before: impl Into<Bytes>) -> KeyRange {
        KeyRange::Between(from.into(), before.into())
    }

    /// `from` and all keys above it.
    pub fn from_key(from: impl Into<Bytes>) -> KeyRange {
        KeyRange::From(from.into())
    }

    /// All keys.
    pub fn all() -> KeyRange {
        KeyRange::Prefix(Bytes::new())
    }
}
