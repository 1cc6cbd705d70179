//! How long the shell waits after failures in a row: doubling from a second to a minute, spread by chance.

use crate::plan::backoff::Backoff;
use rand::RngExt;
use std::time::Duration;

/// The wait after the nth failure in a row, not less than the server asked for.
pub fn delay(failures: u32, retry_after: Option<Duration>) -> Duration {
    Backoff::from_secs(1, 60).jittered(failures, rand::rng().random(), retry_after)
}
