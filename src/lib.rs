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

pub mod api;
pub mod backoff;
pub mod boltz;
pub mod cli;
pub mod clock;
pub mod controller;
pub mod duration;
pub mod kubernetes;
pub mod observability;
pub mod plan;
pub mod protocol;
pub mod runtime;
