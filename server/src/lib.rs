//! `kvd`, Trefoil's server. `ARCHITECTURE.md` has the map; the modules, in the order to read them:

pub mod config;
pub mod error;

pub mod disk;
pub mod stderr;
pub mod writer;

pub mod replica_record;
pub mod stores;

pub mod cluster;
pub mod peer;

pub mod raft;
pub mod rounds;

pub mod replication;

pub mod remote;
pub mod router;
pub mod verify;

pub mod health;

pub mod api;
pub mod bulk;
pub mod give_back;

pub mod forming;
pub mod membership;

pub mod dev;
pub mod node;

#[cfg(test)]
mod power_cut;
