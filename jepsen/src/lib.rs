//! Trefoil's chaos harness: real processes, faults, recorded histories, checkers.
//!
//! A run ([`run`]) starts a cluster ([`cluster`]) on a [`backend`], has processes ask what a [`workload`] chooses while a
//! [`nemesis`] puts faults in force, heals, asks for the last time, and has the [`history`] judged by [`checker`]s. The
//! server is a black box: nothing of it is linked here. What is asked goes through a [`client`], so that the [`target`] may
//! be etcd. Generators, histories and checkers are pure, and shared with the simulation, as is what asks and records
//! ([`asking`]), what must have happened ([`coverage`]), and a client that has history compacted ([`compaction`]).
//! [`tamper`] shows that the checkers see, [`selftest`] that planted bugs are found.
//!
//! A run leaves its files ([`store`]), among them its history for Jepsen's tools ([`edn`]) and a [`report`]; [`serve`]
//! shows them, [`mod@check`] judges a history again. A [`matrix`] is many runs, each a line of the [`ledger`]. What a run
//! makes of this machine goes with it, also when it is killed ([`cleanup`]) or an [`interrupt`] comes.
//!
//! Invariants:
//!
//! * All choices of a run come from its seed. When they meet the cluster does not: that is the operating system's.
//! * No call is repeated, but for the last reads.
//! * A run that proves too little is `unknown`, never `true`.

pub mod asking;
pub mod backend;
pub mod check;
pub mod checker;
pub mod cleanup;
pub mod client;
pub mod cluster;
pub mod command;
pub mod compaction;
pub mod coverage;
pub mod edn;
pub mod generator;
pub mod history;
pub mod interrupt;
pub mod ledger;
pub mod matrix;
pub mod nemesis;
pub mod outcome;
pub mod report;
pub mod run;
pub mod selftest;
pub mod serve;
pub mod store;
pub mod tamper;
pub mod target;
pub mod wall;
pub mod workload;
