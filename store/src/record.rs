//! The stored values of MVCC rows: format byte first, decoded before anything is believed.
//!
//! Left out: key bytes ([`crate::key`]) and log entries, which the Raft adapter owns.

use bytes::Bytes;
use trefoil_causality::Revision;

use crate::codec::{Decoder, Malformed, put_bytes, put_u64};
use crate::command::Pair;
use crate::key::ChangeId;

const FORMAT: u8 = 1;

/// A living key's newest version: the row of the `current` family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub create_revision: Revision,
    /// The change that made it; its revision is the key's `mod_revision`.
    pub modified: ChangeId,
    pub version: u64,
    pub lease: u64,
    pub value: Bytes,
}

impl Version {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.value.len());
        out.push(FORMAT);
        for number in
            [self.create_revision.0, self.modified.revision.0, u64::from(self.modified.sub), self.version, self.lease]
        {
            put_u64(&mut out, number);
        }
        out.extend_from_slice(&self.value);
        out
    }

    pub fn decode(bytes: Bytes) -> Result<Version, Malformed> {
        let mut from = Decoder::new(bytes, "current row");
        if from.u8()? != FORMAT {
            return Err(Malformed { what: "current row: unknown format" });
        }
        Ok(Version {
            create_revision: Revision(from.u64()?),
            modified: ChangeId { revision: Revision(from.u64()?), sub: from.u32()? },
            version: from.u64()?,
            lease: from.u64()?,
            value: from.rest(),
        })
    }

    pub fn into_pair(self, key: Bytes) -> Pair {
        Pair {
            key,
            value: self.value,
            create_revision: self.create_revision,
            mod_revision: self.modified.revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// One retained change: the row of the `changes` family, under its [`ChangeId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeRecord {
    Put { key: Bytes, create_revision: Revision, version: u64, lease: u64, value: Bytes },
    Delete { key: Bytes },
}

impl ChangeRecord {
    const PUT: u8 = 1;
    const DELETE: u8 = 2;

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        match self {
            ChangeRecord::Put { key, create_revision, version, lease, value } => {
                out.reserve(24 + key.len() + value.len());
                out.push(ChangeRecord::PUT);
                put_bytes(&mut out, key);
                for number in [create_revision.0, *version, *lease] {
                    put_u64(&mut out, number);
                }
                out.extend_from_slice(value);
            }
            ChangeRecord::Delete { key } => {
                out.push(ChangeRecord::DELETE);
                put_bytes(&mut out, key);
            }
        }
        out
    }

    pub fn decode(bytes: Bytes) -> Result<ChangeRecord, Malformed> {
        let mut from = Decoder::new(bytes, "change row");
        if from.u8()? != FORMAT {
            return Err(Malformed { what: "change row: unknown format" });
        }
        match from.u8()? {
            ChangeRecord::PUT => Ok(ChangeRecord::Put {
                key: from.bytes()?,
                create_revision: Revision(from.u64()?),
                version: from.u64()?,
                lease: from.u64()?,
                value: from.rest(),
            }),
            ChangeRecord::DELETE => Ok(ChangeRecord::Delete { key: from.bytes()? }),
            _ => Err(from.malformed()),
        }
    }
}

/// The value of an index row: what kind of change it names, so that a walk at an old revision needs no second read
/// for keys that were gone.
pub fn index_value(record: &ChangeRecord) -> [u8; 2] {
    match record {
        ChangeRecord::Put { .. } => [FORMAT, ChangeRecord::PUT],
        ChangeRecord::Delete { .. } => [FORMAT, ChangeRecord::DELETE],
    }
}

/// Whether the change an index row names left the key alive.
pub fn index_alive(value: &[u8]) -> Result<bool, Malformed> {
    match value {
        [FORMAT, ChangeRecord::PUT] => Ok(true),
        [FORMAT, ChangeRecord::DELETE] => Ok(false),
        _ => Err(Malformed { what: "index row" }),
    }
}
