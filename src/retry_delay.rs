//! Waits after consecutive failures of calls that no plan decides.

use crate::plan::backoff::Backoff;
use rand::RngExt;
use std::time::Duration;

/// Wait after the nth consecutive failure: doubles from 1 s to 1 min, shortened by up to 20% at random, and at least
/// `Retry-After`.
pub fn delay(failures: u32, retry_after: Option<Duration>) -> Duration {
    Backoff::from_secs(1, 60).jittered(failures, rand::rng().random(), retry_after)
}
