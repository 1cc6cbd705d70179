//! The process's clocks, read by the shell and handed to the pure core as [`Now`].

use crate::plan::{Monotonic, Now};
use jiff::Timestamp;
use tokio::time::Instant;

/// Reads wall clock and monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The wall side's start, where it follows the runtime's time.
    wall: Option<Timestamp>,
}

impl Clock {
    /// A clock whose monotonic side starts at zero.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: None }
    }

    /// A clock whose wall side starts there and goes on with the runtime's time, which a simulation makes pass.
    pub fn simulated(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall: Some(wall) }
    }

    /// The present.
    pub fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let wall = self.wall.map_or_else(Timestamp::now, |start| crate::plan::later(start, elapsed));
        Now { wall, monotonic: Monotonic(elapsed) }
    }

    /// The runtime's instant for a monotonic moment.
    pub fn instant(&self, at: Monotonic) -> Instant {
        self.start + at.0
    }
}
