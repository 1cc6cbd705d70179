//! Metrics, log, probes.

pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod watches;
