//! What the operator shows of itself: metrics, log, probes.

pub mod metrics;
pub mod server;
pub mod telemetry;
