//! Who is in the cluster: identity, founding, the map.

pub mod founding;
pub mod identity;
pub mod map;
