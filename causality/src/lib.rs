//! The ids that say what happened before what.
//!
//! Pure: no clock, no randomness, no I/O. Leader mode orders changes by [`Revision`]; the other modes will bring
//! dots and version vectors here.

use std::fmt;

/// One partition's copy on one node. Minted by the metadata log and never reused, so a replica that lost its disk
/// comes back as somebody else. Raft voters are `ReplicaId`s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl From<u64> for ReplicaId {
    fn from(id: u64) -> ReplicaId {
        ReplicaId(id)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Leader mode: the position of a change in its partition's total order. The empty store is at revision 1, the
/// first change makes 2 (etcd's rule).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store nothing was ever written to.
    pub const EMPTY: Revision = Revision(1);

    /// The revision the next change gets.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
