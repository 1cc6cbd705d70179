//! The real executor and controller in one process and in virtual time, between an API server in memory and the
//! emulator of Boltz: what the matrix of crashes does with one fault in minutes, this does with many in milliseconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod defences;
mod deletion_writes;
mod deliveries;
mod differential;
mod fair_shares;
mod fault_free;
mod fault_injection;
mod fault_pairs;
mod process;
mod promptness;
mod random_faults;
mod standing_faults;
mod threads;
mod two_namespaces;
mod watch_stream;
mod world;
