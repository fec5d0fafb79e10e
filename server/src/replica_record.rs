//! The node's own record of a local replica: which partition it is of, and which store number holds its state.
//!
//! A replica that has such a record has held data; one whose placement row is `live` but which has no record has
//! lost it.

use bytes::Bytes;
use trefoil_placement::{KeyspaceId, Mode, PartitionId};
use trefoil_store::codec::{Decoder, Malformed, put_u64};
use trefoil_store::key::StoreNumber;

const FORMAT: u8 = 1;

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRecord {
    pub partition: PartitionId,
    pub store: StoreNumber,
    /// Kept here, so that a replica starts as what it is before there is a map.
    pub mode: Mode,
}

impl ReplicaRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for number in [self.partition.keyspace.0, self.partition.index, self.store.0] {
            put_u64(&mut out, u64::from(number));
        }
        out.push(self.mode.code());
        out
    }

    pub fn decode(row: Bytes) -> Result<ReplicaRecord, Malformed> {
        let mut from = Decoder::new(row, "replica record");
        if from.u8()? != FORMAT {
            return Err(from.malformed());
        }
        let partition = PartitionId { keyspace: KeyspaceId(from.u32()?), index: from.u32()? };
        let store = StoreNumber(from.u32()?);
        let mode = Mode::of_code(from.u8()?).ok_or_else(|| from.malformed())?;
        from.end()?;
        Ok(ReplicaRecord { partition, store, mode })
    }
}
