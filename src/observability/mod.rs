//! Metrics, log, probes.

pub mod activity;
pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod watchdog;
pub mod watches;
