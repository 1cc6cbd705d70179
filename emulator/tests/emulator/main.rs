//! The emulator, as its clients see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod client;
mod control;
mod faults;
mod list;
mod program;
mod unknowns;
