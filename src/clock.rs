//! The process's clocks, read by the shell and handed to the pure core as [`Now`].

use crate::plan::{Monotonic, Now};
use jiff::Timestamp;
use tokio::time::Instant;

/// Reads wall clock and monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic side starts at zero.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Now {
        Now { wall: Timestamp::now(), monotonic: Monotonic(self.start.elapsed()) }
    }

    /// The runtime's instant for a monotonic moment.
    pub fn instant(&self, at: Monotonic) -> Instant {
        self.start + at.0
    }
}
