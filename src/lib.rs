//! boltz-operator: API keys of Boltz as Kubernetes objects, every live key accounted for.
//!
//! Functional core, imperative shell:
//!
//! ```text
//! watch events ─┐
//! timers ───────┼─▶ controller ─▶ observe ─▶ plan (pure, sync, takes `now`) ─▶ execute ─▶ requeue at
//! inventory ────┘                 (all reads)  one next step, or a wake-up      (all writes)
//! ```
//!
//! Read [`plan`] first: it decides everything. The protocol that it keeps is written in `docs/protocol.md`, the
//! architecture in `docs/architecture.md`.

pub mod account;
pub mod admin_key;
pub mod api;
pub mod backoff;
pub mod boltz;
pub mod clock;
pub mod config;
pub mod controller;
pub mod crd;
pub mod inventory;
pub mod lease;
pub mod ledger;
pub mod marker;
pub mod metrics;
pub mod plan;
pub mod record;
pub mod secrets;
pub mod server;
pub mod telemetry;
