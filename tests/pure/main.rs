//! The pure core, `plan`, in tables, in virtual time and in the traces that broke earlier wordings of the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod formats;
mod fuzzed;
mod lifetimes;
mod model;
mod plan;
mod random_schedules;
mod reference;
mod traces;
