//! The two clocks that decisions use.

use jiff::Timestamp;
use std::time::Duration;

/// A moment on this process's monotonic clock: the time since the process started. Unlike the wall clock it never
/// steps, and it says nothing about other processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The moment that much later.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// The moment that much earlier, or the process's start.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// How long after the other moment this one is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The current time, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// What users and Boltz mean by a time. It can step.
    pub wall: Timestamp,
    /// Monotonic clock of the process.
    pub monotonic: Monotonic,
}

impl Now {
    /// The moment on the monotonic clock at which the wall clock will show that time; now, when it has passed.
    pub fn monotonic_at(self, wall: Timestamp) -> Monotonic {
        self.monotonic.plus(elapsed(self.wall, wall))
    }
}

/// The time from one wall-clock moment to a later one; zero when it is not later.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The wall-clock time that much later, or the last one that can be written.
pub fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The wall-clock time that much earlier, or the first one that can be written.
pub fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}
