//! Trefoil's chaos harness: real processes, faults, recorded histories, checkers.
//!
//! A run ([`run`]) starts a cluster ([`cluster`]) on a [`backend`], has processes ask what a [`workload`] chooses while a
//! [`nemesis`] puts faults in force, heals, asks for the last time, and has the [`history`] judged by [`checker`]s. The
//! server is a black box: nothing of it is linked here. Generators, histories and checkers are pure, and shared with the
//! simulation.
//!
//! Invariants:
//!
//! * All choices of a run come from its seed. When they meet the cluster does not: that is the operating system's.
//! * No call is repeated: the client library's retries are off, but for the last reads.
//! * A run that proves too little is `unknown`, never `true`.

pub mod backend;
pub mod checker;
pub mod cleanup;
pub mod cluster;
pub mod generator;
pub mod history;
pub mod nemesis;
pub mod outcome;
pub mod run;
pub mod store;
pub mod workload;
