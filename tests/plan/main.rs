//! The pure core, `plan`, in tables, in virtual time and in the traces that broke earlier wordings of the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod deletion;
mod issuance;
mod lifetimes;
mod model;
mod particulars;
mod random;
mod revocation;
mod schedule;
mod status;
mod traces;
mod world;
