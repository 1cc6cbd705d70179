//! The real executor and controller in one process and in virtual time, between an API server in memory and the
//! emulator of Boltz: what the matrix of crashes does with one fault in minutes, this does with many in milliseconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod defences;
mod lifecycle;
mod pairs;
mod process;
mod random;
mod seam;
mod threads;
mod watch_stream;
mod world;
