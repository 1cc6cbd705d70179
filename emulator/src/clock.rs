//! What time it is for the emulated organization.

use jiff::Timestamp;
use tokio::time::Instant;

/// The source of the time.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    Machine,
    /// A start that goes on with the runtime's time, which may be virtual.
    Runtime {
        /// The time at the start.
        start: Timestamp,
        /// The runtime's start.
        since: Instant,
    },
}

impl Clock {
    /// It is that time now; the rest is the runtime's.
    pub fn starting_at(start: Timestamp) -> Self {
        Self::Runtime { start, since: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Machine => Timestamp::now(),
            Self::Runtime { start, since } => start.checked_add(since.elapsed()).unwrap_or(Timestamp::MAX),
        }
    }
}
