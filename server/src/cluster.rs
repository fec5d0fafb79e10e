//! Who is in the cluster: identity, founding, the map, addresses.

pub mod addresses;
pub mod founding;
pub mod identity;
pub mod map;
