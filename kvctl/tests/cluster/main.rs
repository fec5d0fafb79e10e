//! Cluster tests: real `kvd` processes, real sockets, a real disk, killed and damaged in earnest.
//!
//! One module per line of the foundation's "must show" list. Each test has a short form, which `make test` runs, and
//! a full one (`SHOW=full`); each prints its figures and asserts its bounds. The program under test is `KVD_BIN`, or
//! the `kvd` beside this binary. `SEED=n` repeats the random choices of a run.
//!
//! Left out: what can be shown in one thread on simulated time, which the server's own tests do, and the bench.

mod accept_loss;
mod addresses;
mod asked_nodes;
mod bad_start;
mod checkout;
mod clean_stop;
mod cluster;
mod cluster_1;
mod cluster_10;
mod cluster_11;
mod cluster_2;
mod cluster_3;
mod cluster_4;
mod cluster_5;
mod cluster_6;
mod cluster_7;
mod cluster_9;
mod configuration;
mod disk_space;
mod errors_table;
mod export_full;
mod files;
mod forwards;
mod frames;
mod hpack;
mod kvctl_transcripts;
mod load;
mod log_record;
mod many_requests;
mod peer_port;
mod process;
mod raw;
mod refusal;
mod scenario;
mod services;
mod six_nodes;
mod streams;
mod transcript;
mod unfinished_requests;
mod unread_answers;
mod wait;
mod waiting_line;
mod without_quorum;
