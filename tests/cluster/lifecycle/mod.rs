//! The operator's whole job against a real API server, with the emulator as judge.
//!
//! All tests share one control plane; each has its own namespace, emulator and operator process.

mod admission;
mod backup;
mod boltz_list;
mod boltz_trouble;
mod canary;
mod clock;
mod clone;
mod cluster_trouble;
mod delete;
mod examples;
mod issue;
mod leader;
mod orphans;
mod rotate;
mod secret_shape;
mod two_writers;
mod watches;
