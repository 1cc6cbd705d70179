//! boltz-operator manages API keys of Boltz as Kubernetes objects and accounts for every active key.
//!
//! A pure decision core, and a controller that does all I/O:
//!
//! ```text
//! watch events ─┐
//! timers ───────┼─▶ controller ─▶ observe ─▶ plan (pure, sync, takes `now`) ─▶ execute ─▶ requeue at
//! inventory ────┘                 (all reads)  next step, or a wake-up          (all writes)
//! ```
//!
//! Read [`plan`] first: it decides everything. `docs/protocol.md` describes the protocol, `docs/architecture.md` the
//! architecture.

pub mod api;
mod at_rest;
pub mod boltz;
pub mod cli;
pub mod clock;
pub mod controller;
pub mod duration;
pub mod explain;
mod flags_account;
pub mod kubernetes;
mod listen;
pub mod observability;
pub mod plan;
pub mod protocol;
pub mod retry_delay;
pub mod runtime;
mod scrub;
