//! The adapter to the Raft library. Nothing outside this folder names it.

pub mod group;
pub mod log;
pub mod network;
pub mod state;
pub mod types;

#[cfg(test)]
mod suite;
