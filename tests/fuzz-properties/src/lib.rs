//! What has to hold for every input from outside, as functions that panic if it does not: the targets of `fuzz/` call them
//! with inputs that nobody thought of, and `tests/pure` with those that are committed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod account;
pub mod boltz_json;
pub mod headers;
pub mod ledger_and_record;
pub mod marker;
pub mod organization;
pub mod plan;
pub mod retry_after;
