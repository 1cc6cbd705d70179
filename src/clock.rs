//! The clocks of the process. The plan gets their time as [`Now`].

use crate::plan::{Monotonic, Now};
use jiff::Timestamp;
use tokio::time::Instant;

/// Wall clock and monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Start of the wall clock, if it follows the runtime's virtual time.
    wall: Option<Timestamp>,
}

impl Clock {
    /// The real clocks. The monotonic clock starts at zero.
    pub fn start() -> Self {
        Self { start: Instant::now(), wall: None }
    }

    /// A wall clock that starts at this time and follows the runtime's virtual time.
    pub fn simulated(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall: Some(wall) }
    }

    /// Wall and monotonic time of one moment.
    pub fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let wall = self.wall.map_or_else(Timestamp::now, |start| crate::plan::later(start, elapsed));
        Now { wall, monotonic: Monotonic(elapsed) }
    }

    /// Converts to the runtime's clock.
    pub(crate) fn instant(&self, at: Monotonic) -> Instant {
        self.start + at.0
    }
}
